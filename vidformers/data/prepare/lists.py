"""From the records of a dataset's loader to lists in our format, counting what is missing."""

from __future__ import annotations

import argparse
import csv
import inspect
import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vidformers.data.datasets.annotations import missing_videos
from vidformers.data.datasets.kinetics import read_list
from vidformers.data.prepare.inputs import script_parser
from vidformers.data.records import Record, VideoList
from vidformers.files import write_text_atomically, written_whole

SPLITS = ("train", "val", "test")

# The loaders speak of the settings of a run.
_OPTIONS = {
    "set DATA.PATH_TO_DATA_DIR to": "ROOT must be",
    "DATA.PATH_TO_DATA_DIR": "ROOT",
    "DATA.PATH_PREFIX": "--videos",
    "DATA.SPLIT_NUMBER": "--split",
    "DATA.PATH_LABEL_SEPARATOR": "--separator",
    "set another OUTPUT_DIR": "give another folder OUT",
}


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what every script that writes lists takes."""
    parser.add_argument("root", help="folder with the official annotations, and the videos")
    parser.add_argument("out", type=Path, help="folder for the lists")
    parser.add_argument("--videos", default="", metavar="DIR", help="folder of the videos (found below ROOT)")
    add_writing_arguments(parser)


def add_writing_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --relative-to, --separator, --keep-missing, --dry-run."""
    parser.add_argument("--relative-to", metavar="DIR", help="write paths from there on (whole paths)")
    parser.add_argument("--separator", default=" ", help="between path and label (a space)")
    parser.add_argument("--keep-missing", action="store_true", help="list videos that are not there, too")
    parser.add_argument("--dry-run", action="store_true", help="count, and write nothing")


def list_dataset(
    load: Callable[..., VideoList], doc: str | None, arguments: Sequence[str] | None, *, settings: str = ""
) -> int:
    """What the script of a published dataset does: lists of what its loader gives; returns the exit code.

    doc: the script's docstring. A loader that takes `split_number` gives the script --split.
    `settings`: see `write_lists`.
    """
    parser = script_parser(doc)
    add_list_arguments(parser)
    takes_split = "split_number" in inspect.signature(load).parameters
    if takes_split:
        parser.add_argument("--split", type=int, choices=(1, 2, 3), default=1, help="official split (1)")
    chosen = parser.parse_args(arguments)
    number = {"split_number": chosen.split} if takes_split else {}
    splits = load_splits(
        lambda split: load(chosen.root, split, path_prefix=chosen.videos, backend="pyav", **number)
    )
    return write_lists(splits, chosen.out, options=chosen, settings=settings)


def load_splits(load: Callable[[str], VideoList], names: Sequence[str] = SPLITS) -> dict[str, VideoList]:
    """{split: its videos}; errors name the script's arguments instead of a run's settings."""
    try:
        return {split: load(split) for split in names}
    except (ValueError, FileNotFoundError) as error:
        text = str(error)
        for key, option in _OPTIONS.items():
            text = text.replace(key, option)
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(text) from error


def write_lists(
    splits: Mapping[str, VideoList], out: Path, *, options: argparse.Namespace, settings: str = ""
) -> int:
    """Writes train.csv, val.csv, test.csv (`path label` a row), classes.json and, if any, missing.csv.

    Of videos with sets of labels train.txt, val.txt and test.txt are written (`path label label`, the lists
    of dataset "mmaction2"). `options` are those of `add_writing_arguments`. Prints how many videos are there,
    missing, listed twice, without a label, or in training and testing both; returns 1 if any of these four
    is not 0, else 0. `settings` is added to the settings of a run that are printed.

    Raises FileNotFoundError if no video is there, ValueError if a list would not read back as it was written,
    or would replace something else.
    """
    relative_to, separator = options.relative_to, options.separator
    missing_of = {split: missing_videos(videos.records) for split, videos in splits.items()}
    lists: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    problems = 0
    class_names = next(iter(splits.values())).class_names
    assert class_names is not None
    print(f"{len(class_names)} classes")
    for split, videos in splits.items():
        gone = {record.path for record in missing_of[split]}
        listed = [record for record in videos.records if options.keep_missing or record.path not in gone]
        unlabelled = [record for record in listed if record.labels == ()]
        listed = [record for record in listed if record.labels != ()]
        twice = sum(count - 1 for count in Counter(record.path for record in listed).values())
        lists[f"{split}.{'txt' if videos.is_multi_label else 'csv'}"] = _rows(listed, relative_to)
        counts = {
            "missing": len(missing_of[split]),
            "listed twice": twice,
            "without a label": len(unlabelled),
        }
        said = "".join(f", {count} {what}" for what, count in counts.items() if count)
        print(f"{split}: {len(listed)} of {len(videos.records)} videos of {videos.source} listed{said}")
        problems += sum(counts.values())
    if all(len(missing_of[split]) == len(videos.records) for split, videos in splits.items()):
        first = missing_of["train"][0]
        raise FileNotFoundError(
            f"none of the videos is there, the first of them being '{first.path}'; give the folder of the "
            "videos with --videos"
        )
    problems += _say_overlap(splits)
    if splits["val"].records == splits["test"].records:
        print("test is val again: published accuracies are measured on it")
    if options.dry_run:
        print(f"nothing is written; {out} would get {', '.join(lists)} and classes.json")
        return 1 if problems else 0

    out.mkdir(parents=True, exist_ok=True)
    separator = "\t" if separator == "\\t" else separator  # as a shell passes it on
    for name in lists:
        _check_replaceable(out / name, separator)
    for name, rows in lists.items():
        # Even if it is empty: an older list would be taken for this one.
        _write_list(out / name, rows, separator)
    write_text_atomically(out / "classes.json", json.dumps(class_names, indent=0, ensure_ascii=False) + "\n")
    missing_rows = [(split, r.video_id, r.path) for split, missing in missing_of.items() for r in missing]
    if missing_rows:
        with open(out / "missing.csv", "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("split", "video", "path"), *missing_rows])
        print(f"the missing ones are named in {out / 'missing.csv'}")
    else:
        (out / "missing.csv").unlink(missing_ok=True)
    is_multi_label = splits["train"].is_multi_label
    prefix = f" DATA.PATH_PREFIX {shlex.quote(relative_to)}" if relative_to else ""
    label_separator = f" DATA.PATH_LABEL_SEPARATOR {shlex.quote(separator)}" if separator != " " else ""
    name = "mmaction2" if is_multi_label else "kinetics"
    folder = f"DATA.PATH_TO_DATA_DIR {shlex.quote(str(out))}{prefix}{label_separator}"
    print(
        f"add to a run: TRAIN.DATASET {name} TEST.DATASET {name} {folder} "
        f"MODEL.NUM_CLASSES {len(class_names)}{settings}"
    )
    return 1 if problems else 0


def _rows(records: Sequence[Record], relative_to: str | None) -> list[tuple[str, tuple[int, ...]]]:
    """(path as written, labels)"""
    rows = []
    for record in records:
        path = os.path.relpath(record.path, relative_to) if relative_to else os.path.abspath(record.path)
        rows.append((path, (record.label,) if record.labels is None else record.labels))
    return rows


def _write_list(path: Path, rows: Sequence[tuple[str, tuple[int, ...]]], separator: str) -> None:
    """Writes a list atomically. ValueError if it does not read back as it was written."""
    bad = next((name for name, _ in rows if not _is_line(name)), None)
    if bad is not None:
        raise ValueError(
            f"the path {bad!r} cannot stand in a list, which is UTF-8 text with one video a line; rename the "
            "file or its folder"
        )
    text = "".join(separator.join([name, *map(str, labels)]) + "\n" for name, labels in rows)
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")
        records = read_list(str(part), separator=separator) if path.suffix == ".csv" and rows else []
        pairs = zip(rows, records, strict=bool(records))
        bad = next((row[0] for row, r in pairs if row != (r.video_id, (r.label,))), None)
        if bad is not None:
            raise ValueError(
                f"the path {bad!r} cannot stand in a list with {separator!r} between path and label; try "
                "another --separator, such as ',', or rename the file"
            )


def _is_line(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return not {"\n", "\r"} & set(name)


def _check_replaceable(path: Path, separator: str) -> None:
    """ValueError if `path` is a file that is no list, such as an official annotation file."""
    if path.suffix != ".csv" or not path.exists() or not path.stat().st_size:
        return
    try:
        read_list(str(path), separator=separator)
    except (ValueError, FileNotFoundError):
        raise ValueError(
            f"'{path}' is there and is no list of ours; give another folder for the lists, so that it stays"
        ) from None


def _say_overlap(splits: Mapping[str, VideoList]) -> int:
    """Prints and returns how many videos are in training and in testing."""
    train = {record.video_id for record in splits["train"].records}
    shared = sorted({r.video_id for split in ("val", "test") for r in splits[split].records} & train)
    if shared:
        print(f"{len(shared)} videos are in training and in testing, such as {shared[0]}")
    return len(shared)
