"""Files made from others: they take the place of no original, and of no file that somebody else made."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from vidformers.data.prepare.report import Report
from vidformers.files import locked

# Of a video whose copy a run has begun, or was about to: a file of that name may be there, and is ours.
UNFINISHED = "not done"
_PART = re.compile(r"\.copy-[0-9a-f]{8}\.\w+\.part")


def part_path(path: str) -> str:
    """A name for `path` while it is being written, which no other process has."""
    suffix = os.path.splitext(path)[1]
    return os.path.join(os.path.dirname(path), f".copy-{secrets.token_hex(4)}{suffix}.part")


def remove_parts(paths: Collection[str]) -> None:
    """Deletes what `part_path` has named in the folders of `paths`, where nobody writes (see `sole_run`)."""
    for folder in sorted({os.path.dirname(path) for path in paths}):
        for part in Path(folder).glob(".copy-*.part"):
            if _PART.fullmatch(part.name):
                part.unlink(missing_ok=True)


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Makes the folder; ValueError if another process is in such a block with it."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / ".lock"
    with open(place, "a", encoding="utf-8") as file:
        # A file that was deleted since it was opened: that run has just ended, and a third may have begun.
        if not locked(file.fileno(), folder) or not os.fstat(file.fileno()).st_nlink:
            raise ValueError(
                f"another process is writing copies to '{folder}'; wait until it has ended, or give another "
                "folder"
            )
        try:
            yield
        finally:
            place.unlink(missing_ok=True)


def check_originals_stay(targets: Mapping[str, str]) -> None:
    """targets: {original: its copy}. ValueError if a copy would take the place of one of the originals."""
    # Not by their names: links and mounts give one file several.
    originals: dict[tuple[int, int], str] = {}
    for path in targets:
        with contextlib.suppress(OSError):
            found = os.stat(path)
            originals[found.st_dev, found.st_ino] = path
    for path, target in targets.items():
        with contextlib.suppress(OSError):
            found = os.stat(target)
            if original := originals.get((found.st_dev, found.st_ino)):
                raise ValueError(
                    f"the copy of '{path}' would take the place of '{target}', which is the original "
                    f"'{original}'; give a folder for the copies that holds no original"
                )


def forget_lost_copies(targets: Mapping[str, str], report: Report) -> None:
    """Rows of copies that are gone, or not as large as they were, hold no longer."""
    for path, row in report.rows.items():
        if row["status"] != "ok":
            continue
        target = targets.get(path, row["destination"])
        if os.path.isfile(target) and str(os.path.getsize(target)) == row["destination_bytes"]:
            row["destination"] = target  # the folder of the copies may have been moved
        else:
            row |= {"status": UNFINISHED, "settings": ""}


def begin_copies(paths: Sequence[str], targets: Mapping[str, str], report: Report) -> list[str]:
    """Notes in the report that `paths` are about to be copied to their `targets`; -> those that have a copy.

    The report has the columns destination and destination_bytes. Raises ValueError if there are files where
    the copies go that it does not know.
    """
    there = [path for path in paths if os.path.lexists(targets[path])]
    foreign = [targets[path] for path in there if not _has_copy(report.rows.get(path))]
    if foreign:
        raise ValueError(
            f"{len(foreign)} of the files that would be written are there, and '{report.path}' does not know "
            f"them: {', '.join(map(repr, foreign[:3]))}{', ...' if len(foreign) > 3 else ''}; so that they "
            "stay, move them away or give another folder; copies of an older run may be deleted"
        )
    for path in paths:
        row = {"path": path, "status": UNFINISHED, "destination": targets[path]}
        report.rows[path] = dict.fromkeys(report.columns, "") | row
    return there


def keep_copies(paths: Sequence[str], targets: Mapping[str, str], report: Report) -> None:
    """Notes where the earlier copies of `paths` are, as far as there are no new ones; they stay ours."""
    for path in paths:
        row, target = report.rows[path], targets[path]
        if row["status"] != "ok" and os.path.isfile(target):
            row |= {"destination": target, "destination_bytes": str(os.path.getsize(target))}
    report.save()


def _has_copy(row: Mapping[str, str] | None) -> bool:
    return row is not None and (row["status"] == UNFINISHED or bool(row["destination_bytes"]))
