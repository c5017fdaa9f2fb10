"""One CSV row a file, appended as files are done, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from vidformers.data.prepare.isolated import WorkerFailure, run_isolated
from vidformers.files import written_whole

Row = dict[str, str]

# Every report has these; a row holds for as long as its file has this size and time, and for these settings.
IDENTITY = ("bytes", "mtime_ns", "settings")
COMMON = ("path", "status", "reason", "detail")


class Report:
    """The CSV file `path` with the columns COMMON, `columns`, IDENTITY.

    `rows`: {path of the video: its newest row}. Raises ValueError if there is a file of another kind.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = [*COMMON, *columns, *IDENTITY]
        self.rows: dict[str, Row] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        if not self.path.is_file():
            raise ValueError(f"the report '{self.path}' is no file; give the name of a CSV file")
        with open(self.path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            text = file.read()
        # A run that was killed may have left half a row.
        rows = csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
        header = next(rows, [])
        if text.strip() and header != self.columns:
            raise ValueError(
                f"'{self.path}' exists and is not a report of this kind (it begins with "
                f"{','.join(header)[:100]!r}); give another name for the report, or delete the file"
            )
        for row in rows:
            if len(row) == len(self.columns):
                self.rows[row[0]] = dict(zip(self.columns, row, strict=True))

    def is_done(self, path: str, settings: str) -> bool:
        """Whether the row of a file still holds. What may come from a busy machine is looked at again."""
        row = self.rows.get(path)
        if row is None or row["reason"] in ("timeout", "crashed", "error"):
            return False
        return {key: row[key] for key in IDENTITY} == identity(path, settings)

    def save(self) -> None:
        """Writes all rows anew, atomically."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with (
            written_whole(self.path) as temporary,
            open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            csv.writer(file, lineterminator="\n").writerow(self.columns)
            for row in self.rows.values():
                self._write(file, row)

    def append(self, row: Row) -> None:
        self.rows[row["path"]] = row
        with open(self.path, "a", encoding="utf-8", errors="surrogateescape", newline="") as file:
            self._write(file, row)

    def _write(self, file: TextIO, row: Row) -> None:
        # Before Python 3.13 csv leaves a name without quotes whose carriage return then ends the row.
        splits = any("\r" in value for value in row.values())
        csv.DictWriter(
            file,
            self.columns,
            lineterminator="\n",
            quoting=csv.QUOTE_ALL if splits else csv.QUOTE_MINIMAL,
        ).writerow(row)


def identity(path: str, settings: str) -> Row:
    """Size and time of change of a file ("" if it has none), and the settings it was read with."""
    try:
        found = os.stat(path)
    except OSError:
        return {"bytes": "", "mtime_ns": "", "settings": settings}
    return {"bytes": str(found.st_size), "mtime_ns": str(found.st_mtime_ns), "settings": settings}


def process_files(
    paths: Sequence[str],
    function: Callable[[str], Row],
    *,
    report: Report,
    settings: str,
    num_workers: int,
    time_limit: float,
) -> list[Row]:
    """The rows of all `paths`, in their order; `function` makes those that the report does not have.

    A file that kills its process, or takes longer than `time_limit` seconds, gets a row that says so.
    Shows a progress bar.
    """
    from tqdm import tqdm

    to_do = [path for path in paths if not report.is_done(path, settings)]
    report.save()
    problems = sum(report.rows[path]["status"] != "ok" for path in set(paths) - set(to_do))
    # The state of a file before it is read: one that changes meanwhile is read again next time.
    before = {path: identity(path, settings) for path in to_do}
    results = run_isolated(function, to_do, num_workers=num_workers, time_limit=time_limit)
    # Closed here: who catches an error or Ctrl-C finds all workers stopped.
    with (
        contextlib.closing(results),
        tqdm(total=len(paths), initial=len(paths) - len(to_do), unit="file") as bar,
    ):
        for path, result in results:
            if isinstance(result, WorkerFailure):
                result = {"status": "failed", "reason": result.reason, "detail": result.detail}
            row = {key: result.get(key, "") for key in report.columns} | {"path": path} | before[path]
            report.append(row)
            problems += row["status"] != "ok"
            bar.set_postfix_str(f"{problems} problems", refresh=False)
            bar.update()
    report.rows = {path: report.rows[path] for path in paths} | report.rows  # in the order asked for
    report.save()
    return [report.rows[path] for path in paths]
