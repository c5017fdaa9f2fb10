"""Writing files that a reader may open at any moment."""

import os
from pathlib import Path


def write_text_atomically(path: Path, text: str) -> None:
    """Write `text` so that a reader (or a crash) sees the old file or the new one, never half of it."""
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
