"""A dataset is a list of records and, where known, the names of its classes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from vidformers.data.paths import path_manager

CLASS_NAME_FILES = ("classes.json", "classes.txt")
VIDEO_EXTENSIONS = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".ts", ".3gp", ".ogv"
)  # fmt: skip


@dataclass(frozen=True)
class Record:
    """One row of a dataset: the path to open, the class, and the name under which results are reported.

    Where a video can be of several classes at once, or of none, `labels` holds them all and `label` is
    NO_LABEL; `actions` then says when each of them happens, as far as it is known: (label, start, end) in
    seconds.
    """

    path: str
    label: int
    video_id: str
    labels: tuple[int, ...] | None = None
    actions: tuple[tuple[int, float, float], ...] = ()


# The single label of a video that has a set of them.
NO_LABEL = -1


def labels_between(record: Record, start: float, end: float) -> tuple[int, ...]:
    """The labels of the actions that happen between two times (seconds) of a video; all its labels if it is
    not known when they happen.

    >>> labels_between(Record("a", NO_LABEL, "a", (2, 5), ((2, 0.0, 4.0), (5, 3.5, 9.0))), 4.5, 6.0)
    (5,)
    """
    if not record.actions:
        return record.labels or ()
    return tuple(sorted({label for label, begin, stop in record.actions if begin <= end and stop >= start}))


def check_labels(records: Sequence[Record], num_classes: int, *, source: str = "the list") -> None:
    """Raise ValueError if a label does not fit a model of `num_classes` classes; `source` names the list.

    0 classes: their number is taken from the list later.
    """
    if not num_classes:
        return
    highest = [max((record.label, *(record.labels or ()))) for record in records]
    label = max(highest, default=-1)
    if label >= num_classes:
        worst = records[highest.index(label)]
        bad = sum(one >= num_classes for one in highest)
        raise ValueError(
            f"label {label} of '{worst.video_id}' in {source} does not fit "
            f"MODEL.NUM_CLASSES={num_classes} (labels are 0 to {num_classes - 1}; {bad} of {len(records)} "
            f"rows are too large). Set MODEL.NUM_CLASSES to at least {label + 1}, or count labels from 0."
        )


@dataclass(frozen=True)
class Classes:
    """What is known of the classes of a dataset, each a list in label order or None.

    groups: a heading a class, to report by, as `motion` has (appearance, direction, ...). partners: the label
    that a video of the class has when it is played backwards.
    """

    names: list[str]
    groups: list[str] | None = None
    partners: list[int] | None = None


@dataclass(frozen=True)
class VideoList:
    """The videos of one split: `records`, the classes where known, and where they came from.

    notes: sentences for people about choices that the list makes for them.
    """

    records: list[Record]
    classes: Classes | None
    source: str
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> list[str] | None:
        return self.classes.names if self.classes else None

    @property
    def is_multi_label(self) -> bool:
        """Whether a video has a set of labels rather than one."""
        return bool(self.records) and self.records[0].labels is not None


def class_order(directory: str, names: Sequence[str]) -> list[str]:
    """`names`, or the order that classes.json or classes.txt in `directory` gives them.

    The file may hold more names, for a model that knows more classes than the dataset has. Raises ValueError
    if it lacks one.
    """
    wanted = read_classes(directory)
    if wanted is None:
        return list(names)
    lacking = [name for name in names if name not in set(wanted.names)]
    if lacking:
        raise ValueError(
            f"the class file in '{directory}' lacks {len(lacking)} of the dataset's {len(names)} classes, "
            f"such as {lacking[0]!r}; it must name each of them, in the order of the labels, or not be there"
        )
    return wanted.names


def read_classes(directory: str) -> Classes | None:
    """The classes from classes.json or classes.txt beside the lists; None if there is neither.

    classes.json: a list of names, an object {name: label} (PySlowFast's), or {"classes": [{"label", "name"},
    ...]} whose entries may all have "group" (a text) and "reversed" (the name of a class) too. classes.txt:
    one name a line.
    """
    paths = path_manager()
    for file_name in CLASS_NAME_FILES:
        path = os.path.join(directory, file_name)
        if not paths.isfile(path):
            continue
        return _read_class_file(path)
    return None


def read_label_file(path: str) -> list[str]:
    """The class names of a file of their own, in label order: a text file with one a line, or JSON as
    `read_classes` takes it, or {label: name}. Raises FileNotFoundError or ValueError."""
    if not path_manager().isfile(path):
        raise FileNotFoundError(
            f"there is no file of class names '{path}'; wanted a text file with one name a line, or JSON: a "
            'list of names, {"name": label} or {"label": name}'
        )
    names = _read_class_file(path).names
    if not names:
        raise ValueError(f"{path} holds no class name; wanted one a line, in the order of the labels")
    # PySlowFast's file of the Kinetics classes has quotes within its quotes.
    return [name.strip().strip("\"'") for name in names]


def _read_class_file(path: str) -> Classes:
    with path_manager().open(path, "r", encoding="utf-8-sig") as file:
        text = file.read()
    if not path.endswith(".json"):
        return Classes([line.strip() for line in text.splitlines() if line.strip()])
    try:
        return _classes_from_json(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"{path} does not hold class names ({error}); it must be a JSON list of names in label "
            'order, or an object {"name": label, ...} with the labels 0, 1, 2, ...'
        ) from error


def _classes_from_json(content: object) -> Classes:
    names = _names_from_json(content)
    if not (isinstance(content, dict) and isinstance(content.get("classes"), list)):
        return Classes(names)
    entries = sorted(content["classes"], key=lambda entry: int(entry["label"]))
    groups = partners = None
    if all("group" in entry for entry in entries):
        groups = [str(entry["group"]) for entry in entries]
    if all("reversed" in entry for entry in entries):
        unknown = sorted({str(entry["reversed"]) for entry in entries} - set(names))
        if unknown:
            raise ValueError(f"'reversed' names {', '.join(unknown)}, which is no class")
        partners = [names.index(str(entry["reversed"])) for entry in entries]
    return Classes(names, groups, partners)


def _names_from_json(content: object) -> list[str]:
    if isinstance(content, dict) and isinstance(content.get("classes"), list):
        content = {entry["name"]: entry["label"] for entry in content["classes"]}
    if isinstance(content, dict):
        pairs = [(label, name) for name, label in content.items()]
        if all(str(name).isdigit() and isinstance(label, str) for label, name in pairs):
            pairs = list(content.items())  # {"0": name, ...}
        by_label = sorted((int(label), str(name)) for label, name in pairs)
        if [label for label, _ in by_label] != list(range(len(by_label))):
            raise ValueError("its labels are not 0, 1, 2, ... without gaps")
        return [name for _, name in by_label]
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return list(content)
    raise ValueError("it is neither a list of names nor an object")
