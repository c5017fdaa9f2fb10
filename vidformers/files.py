"""Writing files that a reader may open at any moment."""

import json
import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Another path to write in the block, whose file then takes the place of `path`: a reader (or a crash, or
    a full disk) sees the old file or the new one, never half of it, and nothing else stays behind.

    Raises OSError that names `path`.
    """
    # Of its own name: several processes of a run may write the same file at the same time.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # None: of a write, as where a disk is full
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """Write `text` as `written_whole` says."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_text(value: Any) -> str:
    """JSON with letters as they are, or, where a name is no text (a file's may be any bytes), as escapes."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def locked(number: int, folder: Path) -> bool:
    """Takes the operating system's lock on an open file of `folder`, which goes with the process, however
    that ends. False if another process has it. True, with a warning, where files cannot be locked."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        # Not flock: its lock is shared with the workers that a run forks, and outlives it with them.
        fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        warnings.warn(
            f"{folder} cannot be locked ({error}): see that no other run writes there", stacklevel=3
        )
    return True
