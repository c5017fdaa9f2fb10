"""What a folder of class folders holds, before it is trained on: said, and kept for the report."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode

from vidformers.data.datasets.folder import passed_over
from vidformers.data.prepare.measure import COLUMNS, measure
from vidformers.data.prepare.report import Report, Row, process_files
from vidformers.data.records import VIDEO_EXTENSIONS, VideoList
from vidformers.engine.build import num_workers
from vidformers.engine.distributed import is_main_process
from vidformers.engine.logs import say, write_json

SUMMARY = "folder_summary.json"
# A class with this many times the training videos of another is worth a word.
UNEVEN = 3.0
_SECONDS = 300.0  # for one file, after which it counts as unreadable
_MOST_LINES = 20


def report_folder(cfg: CfgNode, train: VideoList, held_out: VideoList) -> None:
    """Open all videos of a training run on the dataset "folder", print what was found, and write it to
    `folder_summary.json` (`folder_videos.csv` has a row a video). Nothing is decoded. On the main process.
    """
    if cfg.TRAIN.DATASET != "folder" or not is_main_process():
        return
    output = Path(cfg.OUTPUT_DIR)
    paths = list(dict.fromkeys(record.path for videos in (train, held_out) for record in videos.records))
    say(f"Opening the {len(paths)} videos of {cfg.DATA.PATH_TO_DATA_DIR} ...")
    rows = process_files(
        paths,
        measure,
        report=Report(output / "folder_videos.csv", COLUMNS),
        settings="",
        num_workers=max(1, min(4, num_workers(cfg))),
        time_limit=cfg.DATA.READ_TIMEOUT or _SECONDS,
    )
    clip_seconds = cfg.DATA.NUM_FRAMES * cfg.DATA.SAMPLING_RATE / cfg.DATA.TARGET_FPS
    if cfg.DATA.TEMPORAL_SAMPLING == "segment":
        clip_seconds = 0.0  # a clip is as long as its video
    summary = summarize_folder(
        cfg.DATA.PATH_TO_DATA_DIR, train, held_out, dict(zip(paths, rows, strict=True)), clip_seconds
    )
    if others := passed_over([*train.records, *held_out.records]):
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(5))
        summary["notes"].append(
            f"Passed over in the class folders: {kinds}. Folders in them are not looked into, and videos are "
            f"told by their extension: {' '.join(VIDEO_EXTENSIONS)}."
        )
    write_json(output / SUMMARY, summary)
    say(folder_text(summary))


def summarize_folder(
    root: str, train: VideoList, held_out: VideoList, rows: Mapping[str, Row], clip_seconds: float
) -> dict[str, Any]:
    """The content of `folder_summary.json`: a row a class, durations (seconds), what cannot be read, and
    `notes`, sentences on what may need doing. rows: those of `measure` by path."""
    names = train.class_names or []
    classes: list[dict[str, Any]] = [
        {"name": name, "train": 0, "held_out": 0, "unreadable": 0, "seconds": 0.0} for name in names
    ]
    unreadable, seconds = [], []
    for part, videos in (("train", train), ("held_out", held_out)):
        for record in videos.records:
            row, entry = rows[record.path], classes[record.label]
            entry[part] += 1
            if row["status"] == "ok":
                seconds.append(float(row["seconds"]))
                entry["seconds"] = round(entry["seconds"] + seconds[-1], 3)
            else:
                entry["unreadable"] += 1
                unreadable.append({"path": record.path, "reason": row["reason"], "detail": row["detail"]})
    readable = [row for row in rows.values() if row["status"] == "ok"]
    summary: dict[str, Any] = {
        "root": root,
        "num_train": len(train.records),
        "num_held_out": len(held_out.records),
        "clip_seconds": clip_seconds,
        "seconds": {
            "total": float(np.sum(seconds)),
            **{name: float(np.quantile(seconds, at)) for name, at in _POINTS.items() if seconds},
        },
        "sizes": sorted({f"{row['width']}x{row['height']}" for row in readable}),
        "frame_rates": sorted({round(float(row["fps"]), 2) for row in readable}),
        "num_short": int((np.array(seconds) < clip_seconds).sum()),
        "classes": classes,
        "unreadable": unreadable,
    }
    return summary | {"notes": _notes(summary)}


_POINTS = {"least": 0.0, "median": 0.5, "most": 1.0}


def _notes(summary: Mapping[str, Any]) -> list[str]:
    notes = []
    classes: Sequence[Mapping[str, Any]] = summary["classes"]
    trained = sorted((row["train"], row["name"]) for row in classes if row["train"])
    empty = [row["name"] for row in classes if not row["train"]]
    if empty:
        notes.append(f"No training video: {_some(empty)}. The model can never learn them.")
    if untested := [row["name"] for row in classes if row["train"] and not row["held_out"]]:
        notes.append(f"Never tested, for want of a held-out video: {_some(untested)}.")
    (least, rare), (most, common) = trained[0], trained[-1]
    if most >= UNEVEN * least:
        notes.append(
            f"Uneven classes: {most} training videos of {common}, {least} of {rare}. Top-1 then favours the "
            "large ones: look at mean_class_top1 (test_results.json) and the table of classes too. What "
            "helps: more videos of the small classes, fewer of the large ones, and AUG.ENABLE True."
        )
    if short := summary["num_short"]:
        notes.append(
            f"Shorter than a clip ({summary['clip_seconds']:.2f} s), so that the last frame is repeated: "
            f"{short} videos. A smaller DATA.SAMPLING_RATE makes clips shorter."
        )
    if bad := summary["unreadable"]:
        first = bad[0]
        notes.append(
            f"Unreadable: {len(bad)} videos, such as {first['path']} ({first['reason']}); folder_videos.csv "
            "has all of them with the reason."
        )
    return notes


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _range(least: float, most: float, form: str) -> str:
    """Such as "1.2 to 3.4", or "all 1.2" where both are written alike."""
    ends = f"{least:{form}}", f"{most:{form}}"
    return f"all {ends[0]}" if ends[0] == ends[1] else " to ".join(ends)


def folder_text(summary: Mapping[str, Any]) -> str:
    """The summary for a terminal: a line a class (the largest and the smallest, where they are many)."""
    classes = summary["classes"]
    seconds = summary["seconds"]
    total = summary["num_train"] + summary["num_held_out"]
    width = min(40, max(10, *(len(row["name"]) for row in classes)))
    lines = [
        f"{os.path.normpath(summary['root'])}: {len(classes)} classes, {total} videos "
        f"({summary['num_train']} to train, {summary['num_held_out']} held out), "
        f"{seconds['total'] / 60:.1f} minutes",
        f"  {'class':{width}} {'train':>7} {'held out':>9} {'unreadable':>11} {'minutes':>8}",
    ]
    rows = sorted(classes, key=lambda row: -row["train"])
    half = _MOST_LINES // 2
    shown = rows if len(rows) <= _MOST_LINES else [*rows[:half], None, *rows[-half:]]
    for row in shown:
        if row is None:
            lines.append(f"  ... and {len(rows) - _MOST_LINES} classes between these")
            continue
        lines.append(
            f"  {row['name'][:width]:{width}} {row['train']:7d} {row['held_out']:9d} {row['unreadable']:11d} "
            f"{row['seconds'] / 60:8.1f}"
        )
    if "median" in seconds:
        sizes, rates = summary["sizes"], summary["frame_rates"]
        lines.append(
            f"  {_range(seconds['least'], seconds['most'], '.1f')} s long (median {seconds['median']:.1f}); "
            f"{'1 size' if len(sizes) == 1 else f'{len(sizes)} sizes'} ({', '.join(sizes[:3])}"
            f"{', ...' if len(sizes) > 3 else ''}); "
            f"{_range(rates[0], rates[-1], 'g')} frames a second"
        )
    return "\n".join([*lines, *(f"  {note}" for note in summary["notes"])])
