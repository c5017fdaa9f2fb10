"""One run at a time writes into an OUTPUT_DIR."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidformers.engine.distributed import is_main_process
from vidformers.files import locked

LOCK_NAME = ".lock"


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Make the folder, and keep other runs out of it while the block runs; on the main process.

    The lock is the operating system's on an open file: it goes with its process, however that ends, and a
    file that is left behind holds nobody up. Where there are no such locks (Windows, some network file
    systems) a warning says so.

    Raises ValueError where another run has it, OSError where it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"OUTPUT_DIR {folder} is a file; give a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not is_main_process():
            yield
            return
        file = open(folder / LOCK_NAME, "a+", encoding="utf-8")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise OSError(
            f"OUTPUT_DIR {folder} cannot be written ({error.strerror or error}); give a folder that can be, "
            "or mount its disk for writing"
        ) from error
    with file:
        if not locked(file.fileno(), folder):
            file.seek(0)
            owner = " ".join(file.read(200).split()) or "unknown"
            raise ValueError(
                f"OUTPUT_DIR {folder} is in use by another run ({owner}), whose files this one would "
                "overwrite; set another OUTPUT_DIR, or wait until that run has ended."
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
