"""What the loaders of published datasets share: finding and reading annotation files, and finding videos.

Downloads differ from one copy of a dataset to the next: annotations lie beside the videos or in a folder of
their own, videos were converted to another format, some are gone. Nothing is dropped for that: a video that
is not found keeps the path where it should be, so that it is counted and named as a missing file.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from vidformers.data.paths import near_it, path_manager
from vidformers.data.records import VIDEO_EXTENSIONS, Record
from vidformers.data.tar_parts import whole_file


def find_file(root: str, names: Sequence[str], folders: Sequence[str] = ()) -> str:
    """The first file of `names` in `root` or its subfolders `folders`; FileNotFoundError if there is none."""
    for folder in ("", *folders):
        for name in names:
            path = os.path.join(root, folder, name)
            if path_manager().isfile(path):
                return path
    places = ", ".join([f"'{root}'", *(f"'{os.path.join(root, folder)}'" for folder in folders)])
    raise FileNotFoundError(
        f"there is no {' or '.join(names)} in {places}; set DATA.PATH_TO_DATA_DIR to the folder that holds "
        f"the dataset's annotation files{near_it(os.path.join(root, names[0]))}"
    )


def read_text(path: str) -> str:
    """A text file, whatever its line ends and with or without a byte order mark; ValueError if not UTF-8."""
    try:
        with path_manager().open(path, "r", encoding="utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is not a text file in UTF-8 ({error})") from error


def read_lines(path: str) -> list[tuple[int, str]]:
    """(line number from 1, line without white space around it) of every line that is not empty."""
    # Not splitlines(): it also splits at characters such as U+2028, which names of videos do hold.
    lines = ((number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), start=1))
    return [(number, line) for number, line in lines if line]


def read_json(path: str) -> Any:
    """The content of a JSON file; ValueError with the place of the error."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is not a JSON file: {error}") from error


def read_table(path: str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, {column: text}) of the rows of a CSV file whose header has at least `columns`.

    Raises ValueError for another header and for rows with other numbers of fields.
    """
    # newline="" so that line ends inside quotes arrive as they are.
    with path_manager().open(path, "r", encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = [name.strip() for name in next(rows, [])]
        if not set(columns) <= set(header):
            raise ValueError(
                f"'{path}' begins with {','.join(header)[:200]!r}; wanted a header with the columns "
                f"{','.join(columns)}"
            )
        for row in rows:
            if not any(field.strip() for field in row):
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"'{path}', line {rows.line_num} has {len(row)} fields where the header has "
                    f"{len(header)}: {','.join(row)[:200]!r}; a field with a comma must be in quotes"
                )
            yield rows.line_num, dict(zip(header, (field.strip() for field in row), strict=True))


def video_folder(root: str, path_prefix: str, candidates: Sequence[str]) -> str:
    """The folder of the videos: `path_prefix` if given, else the first of `candidates` that `root` has, else
    `root`. A relative `path_prefix` starts where the program does, as it does for lists."""
    if path_prefix:
        return path_prefix
    for candidate in candidates:
        if path_manager().isdir(os.path.join(root, candidate)):
            return os.path.join(root, candidate)
    return root


def locate_videos(folder: str, names: Iterable[str], *, backend: str) -> list[str]:
    """The path of each of `names` below `folder`, which may hold it in another video format.

    A name is a path with the official extension, "Archery/v_Archery_g01_c01.avi". Where that is not there,
    the same name with another extension of a video is taken; for backend "frames" it is the folder of that
    name without extension. A name that is not there at all gives the path where it should be.
    """
    if backend == "frames":
        return [os.path.join(folder, os.path.splitext(name)[0]) for name in names]
    listings: dict[str, dict[str, str]] = {}
    paths = []
    for name in names:
        subfolder, file_name = os.path.split(name)
        directory = os.path.join(folder, subfolder) if subfolder else folder
        if directory not in listings:
            listings[directory] = _by_stem(directory)
        stem = os.path.splitext(file_name)[0]
        found = listings[directory]
        paths.append(os.path.join(directory, found.get(file_name) or found.get(stem) or file_name))
    return paths


def _by_stem(directory: str) -> dict[str, str]:
    """The videos in a folder, each under its own name and under its name without extension."""
    found: dict[str, str] = {}
    for entry in sorted(list_folder(directory) or []):
        stem, extension = os.path.splitext(entry)
        if extension.lower() in VIDEO_EXTENSIONS:
            found[entry] = entry
            found.setdefault(stem, entry)
    return found


def list_folder(directory: str) -> list[str] | None:
    """Names in a folder, none if it is not there; None where folders cannot be listed (web servers)."""
    paths = path_manager()
    try:
        return list(paths.ls(directory or ".")) if paths.isdir(directory or ".") else []
    except (NotImplementedError, PermissionError):
        return None


def missing_videos(records: Iterable[Record]) -> list[Record]:
    """The records whose file (or shard) is not there, by listing each folder once.

    A folder that cannot be listed is taken to be complete: the reader will tell.
    """
    listings: dict[str, set[str] | None] = {}
    missing = []
    for record in records:
        directory, name = os.path.split(whole_file(record.path).rstrip("/"))
        if directory not in listings:
            entries = list_folder(directory)
            listings[directory] = None if entries is None else set(entries)
        listing = listings[directory]
        if listing is not None and name not in listing:
            missing.append(record)
    return missing
