"""What a run writes while it works: `log.jsonl`, `failed_videos.csv`, and messages for people."""

import csv
import io
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import simplejson

from vidformers.engine.distributed import is_main_process
from vidformers.files import write_text_atomically


def say(message: str) -> None:
    """Print one message for people, above a running progress bar if there is one; once for all processes."""
    if not is_main_process():
        return
    from tqdm import tqdm

    tqdm.write(_encodable(message), file=sys.stdout)
    sys.stdout.flush()


def _encodable(text: str) -> str:
    """Names of files are bytes, and not all of them are text."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON; NaN and infinities become null, which every JSON reader accepts."""
    write_text_atomically(path, simplejson.dumps(value, indent=2, ignore_nan=True) + "\n")


class JsonlLog:
    """Appends one JSON object a line to `log.jsonl`; each has `event` and the wall-clock `time` (seconds)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **values: object) -> None:
        if not is_main_process():
            return
        line = simplejson.dumps({"event": event, "time": round(time.time(), 3), **values}, ignore_nan=True)
        rest = f"{line}\n".encode()
        with open(self.path, "ab", buffering=0) as file:
            start = file.tell()
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError as error:
                file.truncate(start)  # a disk that is full takes half a line
                raise OSError(error.errno, error.strerror, str(self.path)) from error


@dataclass(frozen=True)
class FailedVideo:
    """One video that could not be read, or is damaged: where it is, during what, why, and who says so."""

    split: str
    path: str
    reason: str  # a short fixed word, to count by; "damaged" for a video that could be read all the same
    detail: str  # the reader's full sentence
    backend: str = ""  # the reader (DATA.DECODING_BACKEND)


_COLUMNS = tuple(field.name for field in fields(FailedVideo))


class FailedVideos:
    """Collects unreadable and damaged videos, each once for a split, and keeps `failed_videos.csv` current.

    Rows of other splits, from an earlier part of the same run, are kept. backend: the reader of the new ones.
    """

    def __init__(self, path: Path, *, backend: str = "") -> None:
        self.path = path
        self.backend = backend
        self.rows: dict[tuple[str, str], FailedVideo] = {}
        if path.exists():
            with open(path, encoding="utf-8", newline="") as file:
                for values in csv.DictReader(file):
                    row = FailedVideo(**{name: values.get(name) or "" for name in _COLUMNS})
                    self.rows[row.split, row.path] = row

    def forget(self, split: str) -> None:
        """Drop the rows of `split`, which is about to be read again from the start."""
        kept = {key: row for key, row in self.rows.items() if row.split != split}
        if len(kept) < len(self.rows):
            self.rows = kept
            self._save()

    def add(self, split: str, failures: Iterable[Sequence[str]]) -> list[FailedVideo]:
        """Record `(path, reason, detail)` rows met in `split`; returns those that are new."""
        new = []
        for path, reason, detail in failures:
            if (split, path) not in self.rows:
                self.rows[split, path] = FailedVideo(split, path, reason, detail, self.backend)
                new.append(self.rows[split, path])
        if new:
            self._save()
        return new

    def of(self, split: str) -> list[FailedVideo]:
        return [row for row in self.rows.values() if row.split == split]

    def count(self, split: str) -> int:
        return len(self.of(split))

    def reasons(self, split: str) -> dict[str, int]:
        """How many videos of `split` failed, by reason."""
        counts: dict[str, int] = {}
        for row in self.rows.values():
            if row.split == split:
                counts[row.reason] = counts.get(row.reason, 0) + 1
        return counts

    def _save(self) -> None:
        if not is_main_process():
            return
        file = io.StringIO(newline="")
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows(astuple(row) for row in self.rows.values())
        write_text_atomically(self.path, _encodable(file.getvalue()))
