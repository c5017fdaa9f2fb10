"""The predictions table's numbers against values worked out by hand."""

import numpy as np
import pytest

from vidformers.data.records import Record
from vidformers.engine.predictions import (
    Predictions,
    accuracy,
    average_precisions,
    confidence_interval_95,
    evenly_spaced_views,
    label_array,
    mean_average_precision,
    mean_loss,
    summarize,
    topk_hits,
)


def table(view_scores: list, labels: list[int], failed: list[bool], **kwargs: object) -> Predictions:
    arguments = {"num_temporal_views": 2, "num_spatial_crops": 1, **kwargs}
    return Predictions(
        video_ids=[f"v{i}" for i in range(len(labels))],
        labels=np.array(labels),
        view_scores=np.array(view_scores, dtype=np.float32),
        failed=np.array(failed),
        **arguments,  # type: ignore[arg-type]
    )


def test_topk_hits_counts_ranks_ties_and_failures():
    scores = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.4, 0.4, 0.2], [np.nan] * 3])
    labels = np.array([0, 2, 0, 0])
    assert topk_hits(scores, labels, 1).tolist() == [True, False, False, False]
    assert topk_hits(scores, labels, 2).tolist() == [True, True, True, False]
    # k beyond the number of classes is all of them, as top-5 of a 3-class problem.
    assert topk_hits(scores, labels, 5).tolist() == [True, True, True, False]


def test_ensemble_is_the_mean_or_the_maximum_over_views():
    scores = [[[0.9, 0.1], [0.2, 0.8]]]
    assert np.allclose(table(scores, [0], [False]).ensemble(), [[0.55, 0.45]])
    assert np.allclose(table(scores, [0], [False], ensemble_method="max").ensemble(), [[0.9, 0.8]])
    assert np.allclose(table(scores, [0], [False]).ensemble([1]), [[0.2, 0.8]])


def test_ensemble_groups_the_crops_of_a_temporal_view():
    # rows: (t0, crop 0), (t0, crop 1), (t1, crop 0), (t1, crop 1)
    scores = [[[1.0, 0.0], [0.8, 0.2], [0.0, 1.0], [0.2, 0.8]]]
    predictions = table(scores, [0], [False], num_spatial_crops=2)
    assert np.allclose(predictions.ensemble([0]), [[0.9, 0.1]])
    assert np.allclose(predictions.ensemble([1]), [[0.1, 0.9]])


def test_a_failed_video_is_wrong_over_the_list_and_left_out_of_the_readable():
    nan = [np.nan, np.nan]
    predictions = table(
        [[[0.9, 0.1]] * 2, [[0.2, 0.8]] * 2, [nan] * 2, [[0.7, 0.3]] * 2],
        [0, 1, 0, 1],
        [False, False, True, False],
    )
    results = summarize(predictions, ["left", "right"])
    assert results["num_videos"] == 4 and results["num_failed"] == 1 and results["num_views"] == 2
    assert results["top1"] == 50.0 and results["num_classes"] == 2
    assert results["top1_readable"] == pytest.approx(200 / 3)
    assert results["per_class"][0] == {"label": 0, "name": "left", "num_videos": 2, "top1": 50.0}  # type: ignore[index]


def test_accuracy_by_number_of_views_uses_views_spread_over_the_video():
    assert evenly_spaced_views(1, 5) == [2]
    assert evenly_spaced_views(3, 5) == [0, 2, 4]
    assert evenly_spaced_views(5, 5) == [0, 1, 2, 3, 4]
    # Only the second view is right, and only the mean of both is wrong.
    predictions = table([[[0.0, 1.0], [0.6, 0.4]]], [0], [False])
    rows = summarize(predictions, None)["accuracy_by_num_views"]
    assert [row["top1"] for row in rows] == [100.0, 0.0]  # type: ignore[attr-defined]


def test_wilson_interval_matches_a_published_example():
    # 8 of 10, 95 %: 49.0 to 94.3 (Wilson 1927's formula, Brown, Cai and DasGupta 2001).
    low, high = confidence_interval_95(np.array([True] * 8 + [False] * 2))
    assert low == pytest.approx(49.02, abs=0.01) and high == pytest.approx(94.33, abs=0.01)
    assert np.isnan(accuracy(np.array([], dtype=bool)))


def test_saved_predictions_need_no_pickle(tmp_path):
    predictions = table([[[0.9, 0.1], [0.3, 0.7]]], [0], [False])
    predictions.save(tmp_path / "predictions.npz")
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as saved:
        assert saved["video_ids"].tolist() == ["v0"]
        assert saved["view_scores"].shape == (1, 2, 2)
        assert np.allclose(saved["scores"], [[0.6, 0.4]])
        assert saved["failed"].tolist() == [False]


def test_average_precision_is_scikit_learns():
    """average_precision_score of scikit-learn 1.9.1 for these arrays, in which many scores are equal."""
    generator = np.random.default_rng(7)
    scores, labels = np.round(generator.random((12, 5)), 1), generator.random((12, 5)) < 0.3
    labels[:, 4] = False
    expected = [0.5277777777777778, 0.14285714285714285, 0.26666666666666666, 0.2272727272727273]
    assert np.allclose(average_precisions(scores, labels)[:4], expected)
    assert np.isnan(average_precisions(scores, labels)[4])
    assert mean_average_precision(scores, labels) == pytest.approx(100 * np.mean(expected))
    assert np.isnan(mean_average_precision(scores, np.zeros_like(labels)))


def test_average_precision_by_hand_and_with_an_unreadable_video():
    scores = np.array([[0.9], [0.8], [0.7], [0.6]])
    labels = np.array([[True], [False], [True], [False]])
    assert average_precisions(scores, labels)[0] == pytest.approx((1 + 2 / 3) / 2)
    scores[0] = np.nan  # now the last of four
    assert average_precisions(scores, labels)[0] == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_sets_of_labels():
    records = [Record("a", -1, "a", (0, 2)), Record("b", -1, "b", ()), Record("c", -1, "c", (1,))]
    labels = label_array(records, 3)
    assert labels.tolist() == [[True, False, True], [False] * 3, [False, True, False]]
    assert label_array([Record("a", 4, "a")], 9).tolist() == [4]
    scores = np.array([[0.1, 0.5, 0.9], [0.9, 0.1, 0.1], [0.6, 0.3, 0.6]])
    assert topk_hits(scores, labels, 1).tolist() == [True, False, False]
    assert topk_hits(scores, labels, 2).tolist() == [True, False, False]
    assert topk_hits(scores, labels, 3).tolist() == [True, False, True]
    predictions = table(scores[:, None].repeat(2, 1).tolist(), [0] * 3, [False] * 3)
    predictions.labels = labels
    logs = [0.1, 0.5, 0.9, 0.1, 0.9, 0.9, 0.4, 0.3, 0.4]  # of the right answer for each video and class
    assert mean_loss(predictions) == pytest.approx(-np.log(logs).mean(), rel=1e-6)
    results = summarize(predictions, ["x", "y", "z"])
    assert results["top1"] == pytest.approx(100 / 3)
    assert [(row["name"], row["num_videos"]) for row in results["per_class"]] == [
        ("x", 1),
        ("y", 1),
        ("z", 1),
    ]


def test_the_loss_is_that_of_the_readable_videos():
    predictions = table(
        [[[0.5, 0.5]] * 2, [[np.nan] * 2] * 2, [[0.2, 0.8]] * 2], [0, 0, 1], [False, True, False]
    )
    assert mean_loss(predictions) == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 2, rel=1e-6)
