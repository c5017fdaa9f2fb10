"""The section about a test: pairs, order, calibration, figures."""

from pathlib import Path

import numpy as np
import pytest

from tests.report.test_run_report import page_of, write_test
from vidformers.analysis.statistics import calibration_error
from vidformers.report.run_report import TEST_EXAMPLES, write_run_report
from vidformers.report.testing import TestScores, confused_pairs, confusion_order, save_examples
from vidformers.report.testing_figures import calibration_bins, panels_of_test


def test_pairs_are_counted_both_ways() -> None:
    counts = np.array([[5, 1, 0, 0], [4, 6, 0, 0], [0, 2, 6, 2], [0, 0, 0, 0]])
    rows = confused_pairs(counts, {0: "a", 1: "b", 2: "c"})
    found = [(row["name"], row["other"], row["count"], row["back"], row["total"]) for row in rows]
    assert found == [("b", "a", 4, 1, 5), ("c", "b", 2, 0, 2), ("c", "3", 2, 0, 2)]
    assert [row["share"] for row in rows] == [40.0, 20.0, 20.0]


def test_confused_classes_are_neighbours() -> None:
    counts = np.diag([9] * 7)
    counts[3, 3] = 0  # does not occur
    for one, other in ((0, 6), (2, 5)):
        counts[one, other] = counts[other, one] = 4
    counts[6, 2] = 1
    order = confusion_order(counts)
    assert sorted(order) == [0, 1, 2, 4, 5, 6]
    places = {label: place for place, label in enumerate(order)}
    assert abs(places[0] - places[6]) == abs(places[2] - places[5]) == 1
    assert abs((places[0] + places[6]) - (places[2] + places[5])) == 4  # the pairs too
    assert confusion_order(np.diag([1, 0, 1])) == [0, 2]
    assert confusion_order(np.diag([9] * 9)) == list(range(9))  # nothing to bring together


def test_the_calibration_is_that_of_the_number() -> None:
    generator = np.random.default_rng(0)
    scores = generator.dirichlet([0.3] * 4, size=500)
    confidence, right = TestScores(generator.integers(0, 4, 500), scores).confidence()
    bins = calibration_bins(confidence, right)
    assert sum(count for *_, count in bins) == 500
    by_hand = sum(count * abs(sure - true) for sure, true, count in bins) / 500
    assert by_hand == pytest.approx(calibration_error(confidence, right))


def test_figures_show_what_they_say(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    results = {
        "per_class": [{"label": i, "name": f"class {i}", "top1": 10.0 * i} for i in range(3)],
        "accuracy_by_num_views": [
            {"num_temporal_views": n, "num_spatial_crops": 1, "top1": 50.0 + n, "top5": 90.0} for n in (1, 2)
        ],
    }
    scores = TestScores(np.array([0, 1, 2]), np.eye(3)[[0, 2, 2]] * 0.9)
    confusions = scores.confusions()
    drawn = {}
    for panel in panels_of_test(results, scores, confusions, confusion_order(confusions), max_matrix=2):
        figure = Figure()
        panel.draw(figure)
        drawn[panel.title] = figure.axes[0]
    assert list(drawn) == [
        "Accuracy by class",
        "Calibration",
        "Accuracy by number of views",
        "Who is taken for whom",
    ]
    views = drawn["Accuracy by number of views"]
    assert views.lines[0].get_ydata().tolist() == [51.0, 52.0]
    # Of three classes top-5 is all of them.
    assert len(views.lines) == 1 and views.get_ylabel() == "top-1 (%)"
    perfect = {"num_temporal_views": 1, "num_spatial_crops": 1, "top1": 100.0, "top5": 100.0}
    results["accuracy_by_num_views"] = [perfect, {**perfect, "num_temporal_views": 2}]
    results["num_classes"] = 6
    figure = Figure()
    panels_of_test(results, None, None, None, max_matrix=3)[-1].draw(figure)
    assert len(figure.axes[0].lines) == 2
    low, high = figure.axes[0].get_ylim()
    assert 0 <= low < high == 100  # no ticks above 100 %
    (dots,) = drawn["Calibration"].collections[1:]
    np.testing.assert_allclose(dots.get_offsets(), [[90, 100 * 2 / 3]])
    (dots,) = drawn["Who is taken for whom"].collections
    order = confusion_order(confusions)
    assert dots.get_offsets().tolist() == [[order.index(2), order.index(1)]]  # 1 is taken for 2
    few = panels_of_test(results, None, None, None, max_matrix=3)
    figure = Figure()
    few[0].draw(figure)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [20, 10, 0]  # the best first


def test_explained_examples_and_calibration_in_the_page(tmp_path: Path) -> None:
    write_test(tmp_path, ["cat", "dog"], [0, 1, 1], [0, 0, None])
    frames = np.random.default_rng(0).integers(0, 255, (1, 8, 16, 24, 3), dtype=np.uint8)
    save_examples(tmp_path / TEST_EXAMPLES, ["video 7: <b>dog</b>"], frames, frames)
    write_run_report(tmp_path, title="t")
    page = page_of(tmp_path)
    assert "video 7: <b>dog</b>" in page.text and "Explained examples" in page.text
    pictures = [a["style"] for tag, a in page.elements if a.get("class") == "picture"]
    assert len(pictures) == 1 and "url(data:image/jpeg" in str(pictures[0])
    # Both answers have 0.9, one is right.
    assert "calibration error 40.0 %: the mean confidence is 90.0 %, 40.0 points too sure" in page.text
