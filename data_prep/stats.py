"""Durations, frame rates, sizes and classes of a set of videos, as a table and a picture:

    python data_prep/stats.py /data/k400/lists/val.csv --out val_stats
    python data_prep/stats.py /data/mine --out mine_stats

Writes stats.csv (one row a video; a later run opens only what is new or changed), summary.txt and stats.png
to --out. Files are opened and their packets counted, but not decoded: that is what data_prep/verify.py does.
Classes are those of the list, or the folders that the videos are in.
Exit code: 0 all videos opened, 1 some did not, 2 wrong usage.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidformers.data.prepare.inputs import (
    add_input_arguments,
    add_worker_arguments,
    collect_videos,
    exit_with,
    script_parser,
)
from vidformers.data.prepare.measure import COLUMNS, measure
from vidformers.data.prepare.report import Report, Row, process_files
from vidformers.files import write_text_atomically
from vidformers.report.summary import one_line

MOST = 8  # rows of a table of frequencies
MOST_NAMED = 14  # classes whose names have room in the picture
BLUE, INK, MUTED = "#0072b3", "#22262c", "#6f7680"


def summary(rows: Sequence[Row], classes: Mapping[str, str]) -> str:
    """The tables, for people. rows: those of readable videos; classes: {path: class, "" for none}."""
    seconds = _numbers(rows, "seconds")
    megabytes = _numbers(rows, "bytes") / 1e6
    quantities = {
        "seconds": seconds,
        "frames": _numbers(rows, "frames"),
        "frames a second": _numbers(rows, "fps"),
        "shorter side": _short_sides(rows),
        "longer side": np.maximum(_numbers(rows, "width"), _numbers(rows, "height")),
        "megabytes": megabytes,
        "kilobits a second": 8e3 * megabytes / np.maximum(seconds, 1e-3),
    }
    lines = [f"{len(rows)} videos, {duration(seconds.sum())}, {size(megabytes.sum())}", ""]
    lines.append(f"{'':18}" + "".join(f"{name:>11}" for name in ("least", "5 %", "median", "95 %", "most")))
    for name, values in quantities.items():
        points = np.percentile(values, [0, 5, 50, 95, 100])
        lines.append(f"{name:18}" + "".join(f"{point:11.2f}" for point in points))
    # The span of the usual training clip, 16 frames at every 4th of 30 a second.
    short = int((seconds < 64 / 30).sum())
    lines += ["", f"{short} videos are shorter than a 16x4 clip at 30 frames a second (2.13 s)"]
    tables = {
        "size": [f"{row['width']}x{row['height']}" for row in rows],
        "frames a second": [f"{float(row['fps']):.2f}" for row in rows],
        "codec": [f"{row['codec']} {row['pixel_format']} in {row['container']}" for row in rows],
        "class": [name for row in rows if (name := classes[row["path"]])],
    }
    for title, values in tables.items():
        counts = Counter(values).most_common()
        if not counts:
            continue
        lines += ["", f"{title}: {len(counts)} kinds"]
        shown = counts if len(counts) <= MOST else counts[: MOST - 3]
        lines += [f"{count:10d}  {value}" for value, count in shown]
        if len(counts) > MOST:
            lines += [f"{'...':>10}", *(f"{count:10d}  {value}" for value, count in counts[-3:])]
    return "\n".join(lines) + "\n"


def duration(seconds: float) -> str:
    """6.5 seconds, 12.3 minutes, 4.1 hours: never a rounded nothing."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def size(megabytes: float) -> str:
    return f"{megabytes / 1e3:.1f} GB" if megabytes >= 1e3 else f"{megabytes:.1f} MB"


def draw(rows: Sequence[Row], classes: Mapping[str, str], path: Path) -> None:
    """The picture: four histograms on one page."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {  # "Any": newer matplotlib types every key, older none
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": MUTED,
        "text.color": INK,
        "axes.labelcolor": INK,
        "text.parse_math": False,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9, 6.4), layout="constrained")
        ((durations, rates), (sizes, per_class)) = figure.subplots(2, 2)
        durations.hist(_numbers(rows, "seconds"), bins=40, color=BLUE)
        durations.set_xlabel("seconds")
        durations.set_ylabel("videos")
        _bars(rates, Counter(f"{float(row['fps']):.2f}" for row in rows), "frames a second")
        _bars(sizes, Counter(f"{row['width']}x{row['height']}" for row in rows), "width x height")
        found = Counter(name for row in rows if (name := classes[row["path"]]))
        counts = sorted(found.values(), reverse=True)
        if len(counts) > MOST_NAMED:
            per_class.bar(
                range(1, len(counts) + 1), counts, width=1.0 if len(counts) > 60 else 0.8, color=BLUE
            )
            per_class.set_xlabel(f"the {len(counts)} classes, largest first")
            per_class.set_ylabel("videos")
            per_class.set_ylim(0)
            for axis in (per_class.xaxis, per_class.yaxis):
                axis.get_major_locator().set_params(integer=True)
        elif counts:
            _bars(per_class, found, "class", most=MOST_NAMED)
        else:
            per_class.set_axis_off()
            per_class.text(0.5, 0.5, "no classes are known", ha="center", color=MUTED)
        durations.yaxis.get_major_locator().set_params(integer=True)
        figure.suptitle(f"{len(rows)} videos, {duration(_numbers(rows, 'seconds').sum())}")
        figure.savefig(path, dpi=130)


def _bars(axes: Any, counts: Counter[str], label: str, *, most: int = 10) -> None:
    shown = counts.most_common(most)
    if len(counts) > most:
        rest = sum(counts.values()) - sum(count for _, count in shown)
        shown.append((f"{len(counts) - most} others", rest))
    places = range(len(shown), 0, -1)  # and not the names: two long ones may be cut to the same
    axes.barh(places, [count for _, count in shown], color=BLUE)
    axes.set_yticks(places, [one_line(name, 24) for name, _ in shown])
    axes.set_xlabel("videos")
    axes.set_ylabel(label)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _numbers(rows: Sequence[Row], column: str) -> np.ndarray:
    return np.array([float(row[column]) for row in rows])


def _short_sides(rows: Sequence[Row]) -> np.ndarray:
    return np.minimum(_numbers(rows, "width"), _numbers(rows, "height"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser(__doc__)
    add_input_arguments(parser)
    parser.add_argument("--out", type=Path, default=Path("stats"), help="folder to write (%(default)s)")
    add_worker_arguments(parser, time_limit=300)
    chosen = parser.parse_args(arguments)
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("the picture needs matplotlib; pip install 'vidformers[analysis]'")

    classes = collect_videos(chosen.inputs, prefix=chosen.prefix, separator=chosen.separator)
    # Names of folders are bytes, and not all of them are text.
    classes = {
        path: name.encode("utf-8", "backslashreplace").decode("utf-8") for path, name in classes.items()
    }
    report = Report(chosen.out / "stats.csv", COLUMNS)
    if chosen.dry_run:
        done = sum(report.is_done(path, "") for path in classes)
        left = len(classes) - done
        print(f"{len(classes)} videos: {done} are in {report.path} already, {left} would be opened")
        return 0
    rows = process_files(
        list(classes),
        measure,
        report=report,
        settings="",
        num_workers=chosen.workers,
        time_limit=chosen.time_limit,
    )
    readable = [row for row in rows if row["status"] == "ok"]
    if readable:
        text = summary(readable, classes)
        write_text_atomically(chosen.out / "summary.txt", text)
        draw(readable, classes, chosen.out / "stats.png")
        print(text)
    failed = [row for row in rows if row["status"] != "ok"]
    for row in failed[:20]:
        print(f"{row['path']}: {row['status']}, {row['reason']}: {row['detail']}")
    if failed:
        print(f"{len(failed)} of {len(rows)} videos did not open; they are in {report.path}")
    print(f"written to {chosen.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    exit_with(main)
