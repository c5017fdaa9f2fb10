"""report.html of a whole run: each step's section, from its files alone."""

import sys
from pathlib import Path

import numpy as np
import pytest
import simplejson

from tests.engine.test_run import make_cfg  # noqa: F401
from tests.report.summaries import make_summary
from tests.report.test_html import HOSTILE, Page, check_safe_and_alone
from vidformers.engine import run_report as engine_report
from vidformers.engine.predictions import Predictions, summarize
from vidformers.report import run_report, testing
from vidformers.report.strips import load_clips, save_clips
from vidformers.report.training import read_log, training_panels


def train_line(epoch: int, step: int, loss: float | None, **others: object) -> str:
    row = {"event": "train", "epoch": epoch, "step": step, "loss": loss, "lr": 1e-3, "waiting_for_data": 0.25}
    return simplejson.dumps({**row, "videos_per_second": 8.0, **others})


def val_line(epoch: int, top1: float, **others: object) -> str:
    row = {"event": "val", "epoch": epoch, "train_loss": 1.0, "top1": top1, "top5": 100.0, "loss": 0.5}
    return simplejson.dumps({**row, "num_videos": 10, "num_failed": 0, **others})


def write_log(folder: Path, *lines: str) -> Path:
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "log.jsonl"


def write_test(folder: Path, names: list[str], labels: list[int], answers: list[int | None]) -> None:
    """The files of a test in which video i, of class labels[i], is taken for answers[i]; None: unreadable."""
    scores = np.full((len(labels), 1, len(names)), 0.01, dtype=np.float32)
    for row, answer in zip(scores[:, 0], answers, strict=True):
        row[:] = np.nan if answer is None else row
        if answer is not None:
            row[answer] = 0.9
    predictions = Predictions(
        video_ids=[str(i) for i in range(len(labels))],
        labels=np.array(labels),
        view_scores=scores,
        failed=np.array([answer is None for answer in answers]),
        num_temporal_views=1,
        num_spatial_crops=1,
    )
    predictions.save(folder / "predictions.npz")
    results = {**summarize(predictions, names), "videos": "a list", "checkpoint": None, "num_frames": 8}
    (folder / "test_results.json").write_text(simplejson.dumps(results, ignore_nan=True))


def page_of(folder: Path) -> Page:
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    check_safe_and_alone(page)
    page.text = page.text.replace("\N{NO-BREAK SPACE}", " ")
    return page


def sections(page: Page) -> list[str]:
    return [str(attributes["id"]) for tag, attributes in page.elements if tag == "section"]


def test_each_step_adds_its_section_and_keeps_the_others(tmp_path: Path) -> None:
    assert run_report.write_run_report(tmp_path, title="t") is None and not list(tmp_path.iterdir())
    write_log(tmp_path, train_line(1, 2, 1.5), train_line(1, 4, 1.0), val_line(1, 62.5))
    run_report.write_run_report(tmp_path, title="t")
    assert sections(page_of(tmp_path)) == ["training"]
    write_test(tmp_path, ["cat", "dog"], [0, 0, 1, 1], [0, 1, 1, 1])
    run_report.write_run_report(tmp_path, title="t")
    assert sections(page_of(tmp_path)) == ["training", "test"]
    (tmp_path / "temporal_ablation.json").write_text(simplejson.dumps(make_summary()))
    clean = np.random.default_rng(0).integers(0, 255, (8, 12, 16, 3), dtype=np.uint8)
    save_clips(tmp_path / run_report.ABLATION_CLIPS, {"clean": clean, "reverse": clean[::-1]})
    run_report.write_run_report(tmp_path, title="t")
    page = page_of(tmp_path)
    assert sections(page) == ["training", "test", "temporal-dependence"]
    for wanted in (
        "Best validation top-1: 62.50 % after epoch 1",
        "Top-1 75.00 %",
        "What the model was shown",
    ):
        assert wanted in page.text
    labels = [attributes.get("aria-label") for tag, attributes in page.elements if tag == "svg"]
    assert {"Loss", "Validation top-1", "Learning rate", "Waiting for data"} <= set(labels)


def test_the_log_of_an_interrupted_run_counts_each_step_once(tmp_path: Path) -> None:
    path = write_log(
        tmp_path,
        train_line(1, 2, 3.0), train_line(1, 4, 2.0), val_line(1, 10.0), train_line(2, 2, 9.0),
        '{"event": "resume", "epoch": 2}', train_line(2, 2, 1.0), train_line(2, 3, None), '{"event": "tra',
    )  # fmt: skip
    log = read_log(path)
    assert [(row["at"], row["interval_loss"]) for row in log.steps] == [
        (0.5, 3.0), (1.0, 1.0), (1.5, 1.0), (1.75, None),  # (4 * 2.0 - 2 * 3.0) / 2 is 1
    ]  # fmt: skip
    assert [row["top1"] for row in log.epochs] == [10.0]


def test_what_the_curves_show(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    averaged = val_line(1, 50.0, ema_top1=60.0, ema_loss=0.4)
    log = read_log(write_log(tmp_path, train_line(1, 1, 2.0), train_line(1, 2, 1.5), averaged))
    drawn = {}
    for panel in training_panels(log):
        figure = Figure()
        panel.draw(figure)
        drawn[panel.title] = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[0].lines}
    assert drawn == {
        "Loss": {"training": [2.0, 1.0], "validation": [0.5], "validation, averaged weights": [0.4]},
        "Validation top-1": {"weights": [50.0], "averaged weights": [60.0]},
        "Learning rate": {"learning rate": [1e-3, 1e-3]},
        "Waiting for data": {"waiting": [25.0, 25.0]},
    }


def test_epochs_are_whole_numbers(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    rows = [line for epoch in (4, 5) for line in (train_line(epoch, 1, 2.0), val_line(epoch, 50.0))]
    for panel in training_panels(read_log(write_log(tmp_path, *rows))):
        figure = Figure(figsize=(panel.width, panel.height))
        panel.draw(figure)
        ticks = figure.axes[0].get_xticks().tolist()
        assert ticks and all(tick == round(tick) for tick in ticks), (panel.title, ticks)


def test_a_run_without_labels_or_validations_has_its_loss(tmp_path: Path) -> None:
    write_log(tmp_path, train_line(1, 1, 2.0))
    run_report.write_run_report(tmp_path, title="t")
    assert "Validation" not in page_of(tmp_path).text
    write_log(tmp_path, train_line(1, 1, 2.0), '{"event": "val", "epoch": 1, "loss": 0.25}')
    run_report.write_run_report(tmp_path, title="t")
    page = page_of(tmp_path)
    assert "0.250" in page.text and "Validation top-1" not in page.text and "Loss" in page.text


def test_who_is_taken_for_whom(tmp_path: Path) -> None:
    write_test(tmp_path, ["cat", "dog", "owl", "elk"], [0, 0, 0, 1, 2, 2], [0, 3, 3, 1, 0, None])
    scores = testing.read_scores(tmp_path / "predictions.npz")
    assert scores is not None
    counts = scores.confusions()
    assert counts.tolist() == [[1, 0, 0, 2], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    names = {0: "cat", 1: "dog", 2: "owl"}
    assert testing.taken_for(counts, 0, names) == {"name": "3", "count": 2}  # no test video has class 3
    assert testing.taken_for(counts, 1, names) == {"name": "", "count": 0}
    matrix = testing.matrix(counts, [0, 1, 2, 3], names)
    assert matrix is not None and matrix["columns"] == ["cat", "dog", "owl", "3"]
    assert [cell["share"] for cell in matrix["rows"][0]["cells"]] == [33, 0, 0, 67]
    run_report.write_run_report(tmp_path, title="t")
    assert "1 videos could not be read" in page_of(tmp_path).text


def test_a_matrix_of_many_classes_is_a_picture(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(41)]
    write_test(tmp_path, names, list(range(41)), [*range(1, 41), 0])
    run_report.write_run_report(tmp_path, title="t")
    page = page_of(tmp_path)
    assert "Confusion matrix" not in page.text
    assert "Who is taken for whom" in [attributes.get("aria-label") for tag, attributes in page.elements]
    # Itself, and for class 6; in two of the pairs that are named.
    assert page.text.count("class 7") == 4


def test_sets_of_labels_have_no_confusions_but_precisions(tmp_path: Path) -> None:
    labels = np.array([[1, 0], [1, 1]], dtype=bool)
    scores = np.array([[[0.9, 0.2]], [[0.8, 0.7]]], dtype=np.float32)
    failed = np.zeros(2, dtype=bool)
    predictions = Predictions(["a", "b"], labels, scores, failed, 1, 1)
    predictions.save(tmp_path / "predictions.npz")
    assert testing.read_scores(tmp_path / "predictions.npz") is None
    results = {**summarize(predictions, ["x", "y"]), "videos": "v", "checkpoint": "c", "num_frames": 8}
    (tmp_path / "test_results.json").write_text(simplejson.dumps(results, ignore_nan=True))
    run_report.write_run_report(tmp_path, title="t")
    text = page_of(tmp_path).text
    assert "Mean average precision 100.00 %" in text and "Confusion matrix" not in text


def test_hostile_class_names_are_text(tmp_path: Path) -> None:
    write_test(tmp_path, [HOSTILE, "b"], [0, 1], [1, 0])
    run_report.write_run_report(tmp_path, title=HOSTILE)
    assert page_of(tmp_path).text.count("alert(1)") >= 4


def test_clips_are_kept_with_each_frame_once(tmp_path: Path) -> None:
    clean = np.random.default_rng(0).integers(0, 255, (6, 10, 16, 3), dtype=np.uint8)
    clips = {
        "clean": clean,
        "block_shuffle[2]@tubelet": clean[[2, 3, 0, 1, 4, 5]],
        "hflip": clean[:, :, ::-1],
    }
    save_clips(tmp_path / "clips.npz", clips)
    loaded = load_clips(tmp_path / "clips.npz")
    assert list(loaded) == list(clips) and all(np.array_equal(loaded[name], clips[name]) for name in clips)
    with np.load(tmp_path / "clips.npz") as saved:
        assert len(saved["frames"]) == 12


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_without_its_libraries_one_line_says_that_there_is_no_report(make_cfg, capsys, monkeypatch, missing):  # noqa: F811
    cfg = make_cfg("run")
    write_log(Path(cfg.OUTPUT_DIR), train_line(1, 2, 1.5))
    for name in list(sys.modules):
        if name.startswith(("vidformers.report", missing)):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    engine_report.report(cfg)
    said = capsys.readouterr().out.strip()
    assert said.startswith("No ") and "pip install 'vidformers[analysis]'" in said and "\n" not in said
    assert not (Path(cfg.OUTPUT_DIR) / "report.html").exists()
