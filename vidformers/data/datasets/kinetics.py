"""PySlowFast's lists: one video a row, `path<separator>label`, without a header."""

from __future__ import annotations

import os
from typing import NoReturn

from vidformers.data.datasets.annotations import read_lines
from vidformers.data.paths import near_it, path_manager
from vidformers.data.records import VIDEO_EXTENSIONS, Record, VideoList, read_classes

OFFICIAL_COLUMNS = ("label", "youtube_id", "time_start", "time_end")


def load_kinetics(root: str, split: str, *, path_prefix: str, separator: str) -> VideoList:
    """train.csv, val.csv and test.csv with one `path label` row a video"""
    path = os.path.join(root, f"{split}.csv")
    records = read_list(path, path_prefix=path_prefix, separator=separator)
    return VideoList(records, read_classes(root), path)


def read_list(list_path: str, *, path_prefix: str = "", separator: str = " ") -> list[Record]:
    """Records of a list file.

    A row is `path label` or `path anything label` (the middle field, a frame count in some lists, is not
    used). The fields are split from the right, so a path may hold the separator as long as a label follows
    it; quotes around it, as spreadsheets and pandas write them, are no part of it. Relative paths are joined
    to `path_prefix`; the path as written is the record's `video_id`. Empty lines are passed over.

    separator: " " (any run of spaces and tabs), ",", "\\t" or another character.
    Raises FileNotFoundError for a missing list, ValueError with file, line and content for a row that cannot
    be read.
    """
    list_path = os.fspath(list_path)
    separator = "\t" if separator == "\\t" else separator  # as a shell passes it on
    if not separator:
        raise ValueError("DATA.PATH_LABEL_SEPARATOR is empty; use ' ', ',' or a tab")
    if not path_manager().isfile(list_path):
        raise FileNotFoundError(
            f"there is no list '{list_path}'{near_it(list_path)}. It must hold one video a row, "
            f"`path{separator}label` with labels from 0 and no header, for instance "
            "`videos/abc.mp4 17`. For videos in one folder a class no list is needed: set "
            "TRAIN.DATASET folder TEST.DATASET folder."
        )
    records = []
    for number, line in read_lines(list_path):
        path, label = _parse_row(line, list_path, number, separator)
        records.append(Record(os.path.join(path_prefix, path), label, path))
    if not records:
        raise ValueError(
            f"the list '{list_path}' is empty; it must hold one video a row, `path{separator}label`"
        )
    return records


def _parse_row(line: str, list_path: str, number: int, separator: str) -> tuple[str, int]:
    """-> (path, label)."""
    # Splitting at white space from the right takes runs of it as one separator.
    path, *last = (part.strip() for part in line.strip().rsplit(None if separator == " " else separator, 1))
    if not last or not path:
        _complain(line, list_path, number, separator, "has no label")
    try:
        label = int(_strip_quotes(last[0]))
    except ValueError:
        what = (
            "looks like a header"
            if number == 1 and "label" in line.lower()
            else "does not end in a whole number"
        )
        _complain(line, list_path, number, separator, what)
    if label < 0:
        _complain(line, list_path, number, separator, "has a negative label")
    return _strip_quotes(_strip_middle_field(path, separator)), label


def _strip_middle_field(path: str, separator: str) -> str:
    """`video.mp4 300` -> `video.mp4` (fields: path, anything, label), but `take 2.mp4` stays as it is."""
    head, *last = (part.strip() for part in path.rsplit(None if separator == " " else separator, 1))
    if not last or not head:
        return path
    has_extension = [part.lower().endswith(VIDEO_EXTENSIONS) for part in (head, last[0])]
    return head if last[0].isdigit() or has_extension == [True, False] else path


def _strip_quotes(path: str) -> str:
    if len(path) > 2 and path[0] == path[-1] == '"':
        return path[1:-1].replace('""', '"')
    return path


def _complain(line: str, list_path: str, number: int, separator: str, what: str) -> NoReturn:
    shown = {" ": "a space", "\t": "a tab", ",": "a comma"}
    found = next(
        (s for s in (",", "\t", " ") if s != separator and line.strip().rpartition(s)[2].strip().isdigit()),
        None,
    )
    hint = f" (this row looks separated by {shown[found]})" if found else ""
    if all(column in line for column in OFFICIAL_COLUMNS):
        what = "is the header of Kinetics' official annotation file"
        hint = "; for such files set TRAIN.DATASET kinetics_cvdf TEST.DATASET kinetics_cvdf"
    raise ValueError(
        f"'{list_path}', line {number} {what}: {line.strip()[:200]!r}. Each row must be "
        f"`path{separator}label` with a whole number from 0 as label and no header; "
        f"DATA.PATH_LABEL_SEPARATOR is {shown.get(separator, repr(separator))}{hint}."
    )
