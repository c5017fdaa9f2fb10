"""Which files a script of data_prep/ works on, and how it ends."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence

from vidformers.data.datasets.kinetics import read_list
from vidformers.data.records import VIDEO_EXTENSIONS, read_classes

LIST_EXTENSIONS = (".csv", ".txt", ".tsv")


def script_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows the script's docstring, example and all, as it is written."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds inputs, --prefix and --separator, for `collect_videos`."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="folder of videos, list, or video file")
    parser.add_argument("--prefix", default="", metavar="DIR", help="put before relative paths of lists")
    parser.add_argument("--separator", default=" ", help="between path and label in lists (a space)")


def add_worker_arguments(parser: argparse.ArgumentParser, *, time_limit: float) -> None:
    """Adds --workers, --time-limit and --dry-run."""
    parser.add_argument("--workers", type=positive_int, default=os.cpu_count() or 1, help="processes (cores)")
    parser.add_argument(
        "--time-limit",
        type=positive_float,
        default=time_limit,
        metavar="S",
        help="seconds a file (%(default)g)",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and do nothing")


def positive_int(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def positive_float(text: str) -> float:
    if not (number := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def collect_videos(inputs: Sequence[str], *, prefix: str, separator: str) -> dict[str, str]:
    """The video files of folders (searched through), lists and single files; each once, in order.

    -> {path: class}. The class is that of a list, named by the classes file beside it, or the folder that the
    video lies in, or "" for videos that are not in a subfolder.

    Says on stderr which files of a folder were passed over. Raises FileNotFoundError or ValueError if an
    input is not there or holds no video.
    """
    found: dict[str, str] = {}
    for text in inputs:
        if os.path.isdir(text):
            parents = {path: os.path.relpath(os.path.dirname(path), text) for path in _folder_videos(text)}
            found |= {path: "" if parent == "." else parent for path, parent in parents.items()}
        elif text.lower().endswith(LIST_EXTENSIONS):
            records = read_list(text, path_prefix=prefix, separator=separator)
            classes = read_classes(os.path.dirname(text))
            names = dict(enumerate(classes.names)) if classes else {}
            found |= {r.path: names.get(r.label, f"class {r.label}") for r in records}
        elif os.path.lexists(text):
            found[text] = ""
        else:
            raise FileNotFoundError(f"there is no '{text}'; give a folder of videos, a list, or a video file")
    return found


def _folder_videos(root: str) -> list[str]:
    videos: list[str] = []
    passed_over: Counter[str] = Counter()
    # Of each folder that is yet to come, itself and those it was reached through: a link to one of them would
    # lead round in circles.
    ways = {root: frozenset([_identity(root)])}
    circles = []
    for folder, subfolders, files in os.walk(root, followlinks=True):
        # A folder named like a video is no place to look for videos: it is one that went wrong.
        odd = [name for name in subfolders if name.lower().endswith(VIDEO_EXTENSIONS)]
        subfolders[:] = sorted(name for name in subfolders if name not in odd and not name.startswith("."))
        way = ways.pop(folder)
        for name in list(subfolders):
            identity = _identity(path := os.path.join(folder, name))
            if identity in way:
                subfolders.remove(name)
                circles.append(path)
            ways[path] = way | {identity}
        for name in sorted([*files, *odd]):
            if name.startswith("."):
                continue
            if name.lower().endswith(VIDEO_EXTENSIONS):
                videos.append(os.path.join(folder, name))
            else:
                passed_over[os.path.splitext(name)[1].lower() or "no extension"] += 1
    if not videos:
        raise ValueError(
            f"there is no video below '{root}'; videos are known by their extension: "
            f"{' '.join(VIDEO_EXTENSIONS)}"
        )
    if circles:
        print(
            f"{root}: passed over {len(circles)} links to a folder that they lie in, such as '{circles[0]}'",
            file=sys.stderr,
        )
    if passed_over:
        kinds = ", ".join(f"{count} {kind}" for kind, count in passed_over.most_common(5))
        print(f"{root}: passed over {sum(passed_over.values())} other files ({kinds})", file=sys.stderr)
    return videos


def _identity(folder: str) -> tuple[int, int]:
    found = os.stat(folder)
    return found.st_dev, found.st_ino


def exit_with(main: Callable[[], int]) -> None:
    """Ends the process with the code that `main` returns, or with 2 and one line if the usage is wrong."""
    # Names of files are bytes, and not all of them are text: on stderr they are escaped anyway.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.exit(main())
    except (ValueError, OSError, ImportError) as error:
        print(f"{os.path.basename(sys.argv[0])}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{os.path.basename(sys.argv[0])}: stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)
