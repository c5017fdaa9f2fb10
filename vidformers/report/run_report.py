"""report.html of a run, made anew from the files that its steps have left in its folder."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejson
from markupsafe import Markup

from vidformers.report.folder import folder_section
from vidformers.report.html import Section, ablation_section, environment, rendered, write_report
from vidformers.report.reconstruction import RECONSTRUCTION
from vidformers.report.strips import load_clips
from vidformers.report.training import TrainingLog, read_log, training_panels

ABLATION_CLIPS = "temporal_ablation_clips.npz"
_MAX_MATRIX = 40  # classes; a larger matrix is not legible


def write_run_report(output: Path, *, title: str) -> Path | None:
    """Write `report.html` in the folder of a run, with a section for each step that has left its files:
    the folder of videos (folder_summary.json), training (log.jsonl), test (test_results.json,
    predictions.npz), ablation (temporal_ablation.json).

    Returns its path, or None where there is nothing to report. Raises ImportError without the extra
    `analysis`.
    """
    sections = []
    if (output / "folder_summary.json").is_file():
        found = simplejson.loads((output / "folder_summary.json").read_text(encoding="utf-8"))
        sections.append(folder_section(found))
    if (output / "log.jsonl").is_file() and (log := read_log(output / "log.jsonl")).steps:
        picture = output / RECONSTRUCTION
        sections.append(training_section(log, picture if picture.is_file() else None))
    if (output / "test_results.json").is_file():
        results = simplejson.loads((output / "test_results.json").read_text(encoding="utf-8"))
        predictions = output / "predictions.npz"
        sections.append(
            test_section(results, read_confusions(predictions) if predictions.is_file() else None)
        )
    if (output / "temporal_ablation.json").is_file():
        summary = simplejson.loads((output / "temporal_ablation.json").read_text(encoding="utf-8"))
        clips = output / ABLATION_CLIPS
        sections.append(ablation_section(summary, load_clips(clips) if clips.is_file() else {}))
    if not sections:
        return None
    write_report(output / "report.html", title=title, sections=sections)
    return output / "report.html"


def training_section(log: TrainingLog, reconstruction: Path | None = None) -> Section:
    """Curves of a training run, a table of its validations, and the picture that a pre-training has drawn."""
    last = log.steps[-1]
    lines = [f"{last['epoch']} epochs, training loss {_number(last['loss'], 3)} in the last."]
    score = "map" if any("map" in row for row in log.epochs) else "top1"
    name = {"map": "mAP", "top1": "top-1"}[score]
    scored = [row for row in log.epochs if row.get(score) is not None]
    if scored:
        best = max(scored, key=lambda row: row[score])
        lines.append(
            f"Best validation {name}: {best[score]:.2f} % after epoch {best['epoch']}; in the end "
            f"{scored[-1][score]:.2f} %, one view each of {scored[-1]['num_videos']} videos."
        )
    if rebuilt := [row for row in log.epochs if row.get("mean_patch_loss") is not None]:
        best = min(rebuilt, key=lambda row: row["loss"])
        lines.append(
            f"Best validation loss of what was hidden: {best['loss']:.4f} after epoch {best['epoch']}, one "
            f"view each of {best['num_videos']} videos; each patch's own mean, without any detail, would "
            f"have {best['mean_patch_loss']:.4f}."
        )
    waits = [row["waiting_for_data"] for row in log.steps if row.get("waiting_for_data") is not None]
    speeds = [row["videos_per_second"] for row in log.steps if row.get("videos_per_second") is not None]
    if waits and speeds:
        lines.append(
            f"{np.median(speeds):.1f} videos a second, {100 * np.median(waits):.0f} % of the time spent "
            "waiting for them (medians)."
        )
    html = (
        environment()
        .get_template("training.html")
        .render(
            lines=lines,
            figures=rendered(training_panels(log)),
            epochs=log.epochs,
            accuracies=any("top1" in row for row in log.epochs),
            averaged=any("ema_top1" in row for row in log.epochs),
            precision=score == "map",
            reconstruction=reconstruction and base64.b64encode(reconstruction.read_bytes()).decode(),
        )
    )
    return Section("training", "Training", Markup(html))


def read_confusions(path: Path) -> np.ndarray | None:
    """(K, K) numbers of videos by class (row) and answer (column) of a predictions.npz; the unreadable are
    left out. None where videos have sets of labels."""
    with np.load(path) as saved:
        labels, scores, readable = saved["labels"], saved["scores"], ~saved["failed"]
    if labels.ndim == 2:
        return None
    counts = np.zeros((scores.shape[1],) * 2, dtype=np.int64)
    np.add.at(counts, (labels[readable], scores[readable].argmax(axis=1)), 1)
    return counts


def test_section(results: Mapping[str, Any], confusions: np.ndarray | None) -> Section:
    """What test_results.json says, by number of views and by class, and who is taken for whom."""
    names = {row["label"]: row["name"] for row in results["per_class"]}
    classes = [
        {**row, "taken_for": _taken_for(confusions, row["label"], names)} for row in results["per_class"]
    ]
    low, high = results["top1_confidence_95"]
    lines = [
        f"Top-1 {_number(results['top1'])} % (95 % interval {_number(low, 1)} to {_number(high, 1)}), top-5 "
        f"{_number(results['top5'])} %, over {results['num_videos']} videos of {results['videos']}.",
        f"{results['num_temporal_views']} temporal views x {results['num_spatial_crops']} spatial crops of "
        f"{results['num_frames']} frames, weights of {results['checkpoint'] or 'random initialisation'}.",
    ]
    if "map" in results:
        lines.insert(0, f"Mean average precision {_number(results['map'])} %.")
    if results["num_failed"]:
        lines.append(
            f"{results['num_failed']} videos could not be read and count as wrong; over the others top-1 is "
            f"{_number(results['top1_readable'])} %."
        )
    html = (
        environment()
        .get_template("test.html")
        .render(
            lines=lines,
            views=results["accuracy_by_num_views"],
            classes=classes,
            precision="map" in results,
            confused=confusions is not None,
            matrix=None if confusions is None else _matrix(confusions, names),
        )
    )
    return Section("test", "Test", Markup(html))


def _taken_for(confusions: np.ndarray | None, label: int, names: Mapping[int, str]) -> dict[str, Any]:
    """The class that videos of `label` are wrongly taken for most often, and how many are."""
    if confusions is None:
        return {"name": "", "count": 0}
    row = confusions[label].copy()
    row[label] = 0
    answer = int(row.argmax())
    count = int(row[answer])
    return {"name": names.get(answer, str(answer)) if count else "", "count": count}


def _matrix(confusions: np.ndarray, names: Mapping[int, str]) -> dict[str, Any] | None:
    """Rows and columns of the classes that occur, as label or as answer; None if they are too many."""
    occurring: Sequence[int] = np.flatnonzero(confusions.any(axis=0) | confusions.any(axis=1)).tolist()
    if not 0 < len(occurring) <= _MAX_MATRIX:
        return None
    rows = []
    for label in occurring:
        total = max(1, int(confusions[label].sum()))
        cells = [
            {
                "count": int(confusions[label, answer]),
                "share": round(100 * int(confusions[label, answer]) / total),
                "right": label == answer,
            }
            for answer in occurring
        ]
        rows.append({"name": names.get(label, str(label)), "cells": cells})
    return {"columns": [names.get(label, str(label)) for label in occurring], "rows": rows}


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
