"""report.html of a run, made anew from the files that its steps have left in its folder."""

import base64
from pathlib import Path

import numpy as np
import simplejson
from markupsafe import Markup

from vidformers.report.folder import folder_section
from vidformers.report.html import Section, ablation_section, environment, rendered, write_report
from vidformers.report.reconstruction import RECONSTRUCTION
from vidformers.report.strips import load_clips
from vidformers.report.testing import read_scores, test_section
from vidformers.report.training import TrainingLog, read_log, training_panels

ABLATION_CLIPS = "temporal_ablation_clips.npz"
TEST_EXAMPLES = "test_examples.npz"


def write_run_report(output: Path, *, title: str) -> Path | None:
    """Write `report.html` in the folder of a run, with a section for each step that has left its files:
    the folder of videos (folder_summary.json), training (log.jsonl), test (test_results.json,
    predictions.npz, test_examples.npz), ablation (temporal_ablation.json).

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
        predictions, examples = output / "predictions.npz", output / TEST_EXAMPLES
        sections.append(
            test_section(
                results,
                read_scores(predictions) if predictions.is_file() else None,
                examples if examples.is_file() else None,
            )
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
            # 100 % all along: there are no more than five classes, or nothing to see.
            top5=any((row.get("top5") or 0) < 100 for row in log.epochs),
            averaged=any("ema_top1" in row for row in log.epochs),
            precision=score == "map",
            reconstruction=reconstruction and base64.b64encode(reconstruction.read_bytes()).decode(),
        )
    )
    return Section("training", "Training", Markup(html))


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
