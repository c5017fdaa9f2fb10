"""Lets torchcodec use the FFmpeg libraries inside PyAV's wheel, where the machine has none of its own:

    export LD_LIBRARY_PATH=$(python -m vidformers.data.readers.ffmpeg_links)

PyAV's libraries carry a hash in their names, and torchcodec asks for the plain ones. A folder of links under
the plain names is enough; it must be in the library path when Python starts, because the loader reads that
path only once. Linux only.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

__all__ = ["link_libraries"]


def link_libraries(folder: Path) -> list[str]:
    """Makes the links in ``folder`` (created, links renewed) and returns their names.

    Raises ValueError where PyAV's wheel brings no FFmpeg libraries, as a build from source does not.
    """
    spec = importlib.util.find_spec("av")
    if spec is None or spec.origin is None:
        raise ValueError("PyAV is not installed, so it has no FFmpeg libraries to lend; `pip install av`")
    libraries = Path(spec.origin).parent.parent / "av.libs"
    # libavcodec-5e6b81c2.so.62.28.102 is asked for as libavcodec.so.62
    pattern = re.compile(r"(lib(?:av|sw)\w+)-[0-9a-f]+(\.so\.\d+)[.\d]*")
    found = [
        (m[1] + m[2], path) for path in sorted(libraries.glob("lib*")) if (m := pattern.fullmatch(path.name))
    ]
    if not found:
        raise ValueError(
            f"got no FFmpeg libraries in {libraries}; wanted those of PyAV's Linux wheel. Install FFmpeg "
            "with the system's package manager instead"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in found:
        # Renewed by renaming, so that a process which starts now finds the old link or the new one.
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(path)
        os.replace(temporary, folder / name)
    return [name for name, _ in found]


def main() -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else cache / "vidformers" / "ffmpeg"
    try:
        link_libraries(folder)
    except ValueError as error:
        sys.exit(str(error))
    print(folder)


if __name__ == "__main__":
    main()
