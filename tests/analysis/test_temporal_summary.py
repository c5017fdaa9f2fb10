"""The summary of an ablation against tables small enough to work out by hand.

In the small tables every answer is 0.7 for one class and the rest shared evenly, so that a list of predicted
classes is the whole table.
"""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from vidformers.analysis.ablation_table import AblationTable, PerturbedScores
from vidformers.analysis.temporal_summary import compare_ablations, summarize_ablation


def scores_of(predicted: list[int] | np.ndarray, num_classes: int, confidence: float = 0.7) -> np.ndarray:
    scores = np.full((len(predicted), num_classes), (1 - confidence) / (num_classes - 1), dtype=np.float32)
    scores[np.arange(len(predicted)), predicted] = confidence
    return scores


def perturbed(name: str, draws: list, num_classes: int, displacement: object = 0.5) -> PerturbedScores:
    scores = np.stack([scores_of(predicted, num_classes) for predicted in draws], axis=1)
    return PerturbedScores(name, scores, np.broadcast_to(np.float64(displacement), scores.shape[:2]))


def table_of(
    labels: list[int] | np.ndarray, clean: list[int] | np.ndarray, *ones: PerturbedScores, **kwargs: object
) -> AblationTable:
    num_classes = ones[0].scores.shape[2]
    fields = {
        "video_ids": [f"v{i}" for i in range(len(labels))],
        "labels": np.array(labels),
        "clean": scores_of(clean, num_classes),
        "perturbed": list(ones),
        "class_names": [f"class {k}" for k in range(num_classes)],
        "class_groups": None,
        "class_partners": None,
        "failed": [],
    }
    return AblationTable(**{**fields, **kwargs})  # type: ignore[arg-type]


def summary_of(table: AblationTable, **kwargs: object) -> dict:
    arguments = {"seed": 0, "num_resamples": 300, "seconds_per_frame": 0.25, "num_frames": 8, **kwargs}
    return summarize_ablation(table, **arguments)  # type: ignore[arg-type]


def rows_of(table: AblationTable, **kwargs: object) -> dict[str, dict]:
    return {row["name"]: row for row in summary_of(table, **kwargs)["perturbations"]}


LABELS = [0, 0, 0, 0, 1, 1, 2, 2]
CLEAN = [0, 0, 0, 1, 1, 1, 2, 2]  # 7 of 8 right
REVERSED = [1, 1, 0, 0, 0, 1, 2, 2]  # lost 3, gained 1; three flips to the partner, one back from it


@pytest.fixture(scope="module")
def eight() -> AblationTable:
    return table_of(
        LABELS,
        CLEAN,
        perturbed("identity", [CLEAN], 4, 0.0),
        perturbed("reverse", [REVERSED], 4, 1.0),
        perturbed("hflip", [CLEAN], 4, math.nan),
        class_groups=["direction", "direction", "appearance", "appearance"],
        class_partners=[1, 0, 2, -1],
        failed=[("bad.mp4", "unreadable", ""), ("cut.mp4", "damaged", "it is scored all the same")],
    )


def test_the_schema_is_complete_and_json(eight):
    summary = summary_of(eight)
    assert list(summary) == [
        "num_videos", "num_failed", "num_damaged", "num_frames", "seconds_per_frame", "seed",
        "num_resamples", "num_classes", "chance", "clean", "static_floor", "perturbations", "range_curves",
        "occlusion_curve",
    ]  # fmt: skip
    assert list(summary["clean"]) == ["top1", "top1_interval", "confidence", "margin", "ece", "brier"]
    row = summary["perturbations"][1]
    assert list(row) == [
        "name", "num_draws", "displacement", "share_unchanged", "top1", "top1_interval", "delta",
        "delta_interval", "p_value", "p_value_test", "p_value_holm", "discordant", "order_score_chance",
        "order_score_static", "flip_rate", "swap_rate", "confidence_shift", "margin_shift",
        "jensen_shannon", "ece", "brier", "smallest_detectable_difference", "groups", "per_class",
    ]  # fmt: skip
    assert list(row["groups"][0]) == [
        "group", "num_videos", "chance", "top1", "top1_interval", "clean_top1", "delta", "delta_interval",
        "p_value_holm", "swap_rate", "smallest_detectable_difference",
    ]  # fmt: skip
    assert list(row["per_class"][0]) == [
        "label", "name", "num_videos", "clean_top1", "top1", "delta", "delta_interval", "p_value_bh",
        "swap_rate",
    ]  # fmt: skip
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_the_clean_run_by_hand(eight):
    summary = summary_of(eight)
    assert (summary["num_videos"], summary["num_failed"], summary["num_classes"]) == (8, 1, 4)
    assert summary["num_damaged"] == 1
    assert summary["chance"] == 50.0  # four of eight are of class 0, which beats guessing among four
    clean = summary["clean"]
    wilson = stats.binomtest(7, 8).proportion_ci(method="wilson")
    assert clean["top1"] == 87.5
    assert clean["top1_interval"] == pytest.approx([100 * wilson.low, 100 * wilson.high], abs=1e-4)
    assert clean["confidence"] == 0.7
    assert clean["margin"] == pytest.approx((7 * 0.6 - 0.6) / 8)
    assert clean["ece"] == pytest.approx(0.175)  # all in one bin: 0.875 right, 0.7 sure
    assert clean["brier"] == pytest.approx((7 * (0.09 + 0.03) + (0.81 + 0.49 + 0.02)) / 8)


def test_a_single_draw_by_hand(eight):
    row = rows_of(eight)["reverse"]
    assert (row["num_draws"], row["displacement"], row["share_unchanged"]) == (1, 1.0, 0.0)
    assert row["top1"] == 62.5 and row["delta"] == -25.0
    assert row["delta_interval"][0] < -25 < row["delta_interval"][1]
    assert row["discordant"] == {"lost": 3, "gained": 1}
    assert row["p_value_test"] == "mcnemar" and row["p_value"] == pytest.approx(10 / 16)
    assert row["p_value_holm"] == 1.0
    assert row["flip_rate"] == 50.0
    assert row["swap_rate"] == 50.0  # 3 of the 6 videos whose class has a partner
    assert row["confidence_shift"] == 0.0
    assert row["margin_shift"] == pytest.approx(-2 * 1.2 / 8)
    swapped = jensenshannon([0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], base=2) ** 2
    assert row["jensen_shannon"] == pytest.approx(swapped / 2, abs=1e-4)
    assert row["ece"] == pytest.approx(0.075)
    assert row["brier"] == pytest.approx((5 * 0.12 + 3 * 1.32) / 8)
    assert row["smallest_detectable_difference"] == 87.5  # seven of eight: 2 / 2^7 < 5 % / 3 perturbations


def test_identity_is_exactly_nothing(eight):
    row = rows_of(eight)["identity"]
    for name in ("delta", "flip_rate", "confidence_shift", "margin_shift", "jensen_shannon", "displacement"):
        assert row[name] == 0.0, name
    assert row["delta_interval"] == [0.0, 0.0]
    assert row["p_value"] == row["p_value_holm"] == 1.0
    assert row["share_unchanged"] == 100.0


def test_what_is_not_an_index_map_has_no_displacement(eight):
    row = rows_of(eight)["hflip"]
    assert row["displacement"] is None and row["share_unchanged"] is None


def test_groups_and_classes_by_hand(eight):
    row = rows_of(eight)["reverse"]
    appearance, direction = row["groups"]
    assert (appearance["group"], direction["group"]) == ("appearance", "direction")
    assert (appearance["num_videos"], direction["num_videos"]) == (2, 6)
    assert (appearance["clean_top1"], appearance["top1"], appearance["delta"]) == (100, 100, 0)
    assert appearance["delta_interval"] == [0, 0] and appearance["swap_rate"] is None
    assert appearance["chance"] == 100.0  # one class of the group occurs
    assert direction["chance"] == pytest.approx(400 / 6, abs=1e-4)
    assert direction["delta"] == pytest.approx(-200 / 6, abs=1e-4) and direction["swap_rate"] == 50.0
    wilson = stats.binomtest(3, 6).proportion_ci(method="wilson")
    assert direction["top1_interval"] == pytest.approx([100 * wilson.low, 100 * wilson.high], abs=1e-4)

    assert [one["label"] for one in row["per_class"]] == [0, 1, 2]  # class 3 does not occur
    first, second, third = row["per_class"]
    assert (first["name"], first["num_videos"]) == ("class 0", 4)
    assert (first["clean_top1"], first["top1"], first["delta"], first["swap_rate"]) == (75, 50, -25, 50)
    assert (second["clean_top1"], second["top1"], second["swap_rate"]) == (100, 50, 50)
    assert third["swap_rate"] is None


def test_classes_are_adjusted_with_benjamini_and_hochberg():
    # Class 0 loses 8 of 8 (p = 2 / 2^8), class 1 loses 6 of 8 (2 / 2^6), class 2 none.
    labels = [0] * 8 + [1] * 8 + [2] * 8
    after = [1] * 8 + [0] * 6 + [1] * 2 + [2] * 8
    row = rows_of(table_of(labels, labels, perturbed("reverse", [after], 3)))["reverse"]
    raw = [2 / 2**8, 2 / 2**6, 1.0]
    expected = stats.false_discovery_control(raw)
    assert [one["p_value_bh"] for one in row["per_class"]] == pytest.approx(expected.tolist(), rel=1e-3)
    assert row["per_class"][0]["delta_interval"] == [-100, -100]
    low, high = row["per_class"][1]["delta_interval"]
    assert low == -100 and -62.5 <= high < -25


def test_a_group_is_adjusted_over_the_perturbations_and_has_its_own_power():
    # Of ten videos each: "a" loses eight under reverse and six under rotate, "b" none.
    labels = [0] * 10 + [1] * 10
    table = table_of(
        labels,
        labels,
        perturbed("reverse", [[1] * 8 + [0] * 2 + [1] * 10], 2),
        perturbed("rotate[2]", [[1] * 6 + [0] * 4 + [1] * 10], 2),
        class_groups=["a", "b"],
    )
    rows = rows_of(table)
    a = [rows[name]["groups"][0] for name in ("reverse", "rotate[2]")]
    assert [one["p_value_holm"] for one in a] == pytest.approx([2 * 2 / 2**8, 2 / 2**6], rel=1e-3)
    b = rows["reverse"]["groups"][1]
    assert (b["p_value_holm"], b["smallest_detectable_difference"]) == (1.0, 70.0)  # seven of ten


def test_several_draws_by_hand():
    labels, clean = [0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 0]
    draws = [[0, 1, 1, 0, 2, 0], [1, 1, 1, 0, 2, 2]]
    displacement = [[0.0, 0.5]] * 2 + [[0.25, 0.75]] * 4
    table = table_of(
        labels,
        clean,
        perturbed("shuffle", draws, 3, displacement),
        class_partners=[1, 0, -1],
        class_groups=["a"] * 3,
    )
    row = rows_of(table)["shuffle"]
    assert row["num_draws"] == 2 and row["p_value_test"] == "permutation" and row["discordant"] is None
    assert row["top1"] == pytest.approx(100 * 6 / 12) and row["delta"] == pytest.approx(
        50 - 500 / 6, abs=1e-4
    )
    assert row["displacement"] == pytest.approx((2 * 0.25 + 4 * 0.5) / 6, abs=1e-4)
    assert row["share_unchanged"] == pytest.approx(200 / 12, abs=1e-4)
    changes = np.array([-1, -2, 0, -2, 0, 1])
    exact = stats.permutation_test(
        (changes, 0 * changes), lambda a, b: (a - b).sum(), permutation_type="samples", n_resamples=np.inf
    )
    assert row["p_value"] == pytest.approx(exact.pvalue, rel=1e-3)
    assert row["flip_rate"] == pytest.approx(100 * 6 / 12)
    assert row["swap_rate"] == pytest.approx(100 * 5 / 8)
    assert row["groups"][0]["swap_rate"] == row["swap_rate"]
    assert row["ece"] == pytest.approx(0.2)
    assert row["smallest_detectable_difference"] == 100  # two draws of six videos are no twelve videos
    tenfold = table_of(labels * 10, clean * 10, perturbed("shuffle", [draw * 10 for draw in draws], 3))
    # Mean square of the changes per draw: (1 + 4 + 4 + 1) / 4 / 6.
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    wanted = pytest.approx(100 * z * math.sqrt(10 / 24 / 60), abs=1e-3)
    assert rows_of(tenfold)["shuffle"]["smallest_detectable_difference"] == wanted


def test_draws_that_agree_are_worth_one_draw():
    labels = np.arange(100) % 4
    once, frozen = perturbed("shuffle", [balanced(60)], 4), perturbed("freeze[middle]", [balanced(40)], 4)
    thrice = perturbed("shuffle", [balanced(60)] * 3, 4)
    one = rows_of(table_of(labels, balanced(90), once, frozen))["shuffle"]
    three = rows_of(table_of(labels, balanced(90), thrice, frozen))["shuffle"]
    for name in (
        "top1",
        "top1_interval",
        "delta",
        "delta_interval",
        "order_score_chance",
        "order_score_static",
    ):
        assert three[name] == one[name], name
    assert one["p_value"] == pytest.approx(2 / 2**30, rel=1e-3)
    assert three["p_value"] == pytest.approx(2 / 2**30, rel=1e-2)


def test_a_tie_counts_against_the_label():
    table = table_of([0, 1], [0, 1], perturbed("reverse", [[0, 1]], 2))
    even = PerturbedScores("shuffle", np.full((2, 1, 2), 0.5, np.float32), np.full((2, 1), 0.5))
    table = dataclasses.replace(table, perturbed=[even], class_partners=[1, 0])
    row = rows_of(table)["shuffle"]
    assert row["top1"] == 0.0 and row["swap_rate"] == 0.0


def test_maxima_over_views_are_made_distributions_first():
    labels = np.arange(40) % 4
    table = table_of(labels, labels, perturbed("reverse", [labels[::-1]], 4))
    doubled = dataclasses.replace(
        table,
        clean=2 * table.clean,
        perturbed=[
            PerturbedScores("reverse", 2 * table.perturbed[0].scores, table.perturbed[0].displacement)
        ],
    )
    assert summary_of(doubled) == summary_of(table)


# Order scores


def balanced(right: int, total: int = 100) -> np.ndarray:
    """Predictions of `total` videos with labels i % 4, of which the first `right` are right."""
    labels = np.arange(total) % 4
    return np.where(np.arange(total) < right, labels, (labels + 1) % 4)


def test_order_scores_against_both_floors():
    labels = np.arange(100) % 4
    table = table_of(
        labels,
        balanced(90),
        perturbed("shuffle", [balanced(60)], 4),
        perturbed("freeze[middle]", [balanced(40)], 4, 0.0),
    )
    summary = summary_of(table)
    assert summary["chance"] == 25.0
    assert summary["static_floor"] == {"perturbation": "freeze[middle]", "top1": 40.0}
    shuffle, freeze = summary["perturbations"]
    assert shuffle["order_score_chance"]["value"] == pytest.approx(30 / 65, abs=1e-4)
    assert shuffle["order_score_static"]["value"] == pytest.approx(30 / 50, abs=1e-4)
    for score in (shuffle["order_score_chance"], shuffle["order_score_static"]):
        low, high = score["interval"]
        assert low < score["value"] < high and 0.1 < high - low < 0.5
    assert freeze["order_score_static"] == {"value": 1.0, "interval": [1.0, 1.0]}
    assert freeze["share_unchanged"] == 0.0  # no pair out of order, and yet no clip as it was


def test_there_is_no_order_score_without_a_clear_gap():
    labels = np.arange(100) % 4
    table = table_of(
        labels,
        balanced(32),  # Wilson: 23.7 to 41.7, which includes chance
        perturbed("shuffle", [balanced(20)], 4),
        perturbed("block_shuffle[2]", [balanced(20)], 4),
        perturbed("freeze[middle]", [balanced(31)], 4, 0.0),
    )
    summary = summary_of(table)
    assert summary["clean"]["top1_interval"][0] < 25
    for row in summary["perturbations"]:
        assert row["order_score_chance"] is None and row["order_score_static"] is None
    assert summary["range_curves"] == {"block_shuffle": None, "local_shuffle": None}


def test_three_right_answers_are_no_clear_gap():
    # A bootstrap of three right answers knows no other; Wilson's interval starts at 44 %, below the majority.
    row = rows_of(table_of([0, 1, 0], [0, 1, 0], perturbed("shuffle", [[1, 0, 1]], 2)))["shuffle"]
    assert row["delta"] == -100 and row["order_score_chance"] is None


def test_the_static_floor_is_the_middle_frame_or_the_best_plain_freeze():
    labels = np.arange(100) % 4
    first, last = perturbed("freeze[first]", [balanced(50)], 4), perturbed("freeze[3]", [balanced(60)], 4)
    middle, oracle = (
        perturbed("freeze[middle]", [balanced(40)], 4),
        perturbed("freeze[best]", [balanced(80)], 4),
    )
    tubelet = perturbed("freeze[last]@tubelet", [balanced(70)], 4)

    def floor(*ones: PerturbedScores) -> object:
        return summary_of(table_of(labels, balanced(90), *ones))["static_floor"]

    assert floor(oracle, first, middle, last, tubelet) == {"perturbation": "freeze[middle]", "top1": 40.0}
    assert floor(oracle, first, last, tubelet) == {"perturbation": "freeze[3]", "top1": 60.0}
    assert floor(oracle, tubelet) is None


# Curves


def test_the_range_curve_has_the_shuffle_at_its_end_and_a_half_effect_length():
    labels = np.arange(100) % 4
    table = table_of(
        labels,
        balanced(100),
        perturbed("block_shuffle[4]", [balanced(100 - 15)], 4),
        perturbed("shuffle", [balanced(25)], 4),
        perturbed("block_shuffle[2]", [balanced(100 - 60)], 4),
        perturbed("block_shuffle[2]@tubelet", [balanced(99)], 4),
        perturbed("local_shuffle[2]", [balanced(100 - 15)], 4),
        perturbed("local_shuffle[4]", [balanced(100 - 30)], 4),
    )
    curves = summary_of(table)["range_curves"]
    block = curves["block_shuffle"]
    assert [point["size"] for point in block["points"]] == [1, 2, 4]
    assert [point["score"] for point in block["points"]] == pytest.approx([1.0, 0.8, 0.2])
    assert [point["seconds"] for point in block["points"]] == [0.25, 0.5, 1.0]
    assert block["points"][0]["score_interval"][0] < 1 < block["points"][0]["score_interval"][1]
    assert block["half_effect_frames"] == pytest.approx(2**1.5, abs=1e-4)
    assert block["half_effect_seconds"] == pytest.approx(2**1.5 / 4, abs=1e-4)
    local = curves["local_shuffle"]
    assert [point["size"] for point in local["points"]] == [2, 4, 8]  # the clip has 8 frames
    assert [point["score"] for point in local["points"]] == pytest.approx([0.2, 0.4, 1.0])
    assert local["half_effect_frames"] == pytest.approx(2 ** (2 + 1 / 6), abs=1e-4)


def test_half_of_an_effect_that_may_be_nothing_is_no_length():
    labels = np.arange(100) % 4
    table = table_of(
        labels,
        balanced(90),
        perturbed("block_shuffle[2]", [np.roll(balanced(88), 4)], 4),
        perturbed("block_shuffle[4]", [balanced(91)], 4),
    )
    curve = summary_of(table)["range_curves"]["block_shuffle"]
    first, second = curve["points"]
    assert first["score"] > 0 > second["score"] and first["score_interval"][0] < 0
    assert curve["half_effect_frames"] is None
    assert curve["half_effect_seconds"] is None


def test_half_of_an_effect_of_few_videos_is_no_length():
    labels = np.arange(20) % 4
    one, other = balanced(15, 20), balanced(18, 20)  # five of twenty lost: the interval excludes 0, p is 1/8
    ones = [perturbed("block_shuffle[2]", [one], 4), perturbed("block_shuffle[8]", [other], 4)]
    summary = summary_of(table_of(labels, labels, *ones))
    curve = summary["range_curves"]["block_shuffle"]
    assert curve["points"][0]["score_interval"][0] > 0
    assert summary["perturbations"][0]["p_value_holm"] > 0.05 and curve["half_effect_frames"] is None


def test_the_occlusion_curve_is_in_the_order_of_time():
    labels = np.arange(100) % 4
    ones = [perturbed(f"occlude[{t}]", [balanced(90 - t)], 4, 0.0) for t in (10, 2, 0)]
    table = table_of(labels, balanced(90), *ones, perturbed("occlude[1]@tubelet", [balanced(9)], 4, 0.0))
    curve = summary_of(table)["occlusion_curve"]
    assert [(one["position"], one["seconds"], one["delta"]) for one in curve] == [
        (0, 0, 0),
        (2, 0.5, -2),
        (10, 2.5, -10),
    ]
    assert curve[2]["delta_interval"][0] < -10 < curve[2]["delta_interval"][1]
    without = summary_of(table_of(labels, balanced(90), perturbed("reverse", [balanced(9)], 4)))
    assert without["occlusion_curve"] is None and without["static_floor"] is None
    unknown = summary_of(table, seconds_per_frame=None)
    assert unknown["occlusion_curve"][1]["seconds"] is None and unknown["seconds_per_frame"] is None


# The whole


def random_table(seed: int, num_videos: int = 60, **kwargs: object) -> AblationTable:
    rng = np.random.default_rng(seed)
    labels = np.arange(num_videos) % 4

    def answers(skill: float) -> np.ndarray:
        return np.where(rng.random(num_videos) < skill, labels, rng.integers(0, 4, num_videos))

    ones = [
        perturbed("reverse", [answers(0.1)], 4, 1.0),
        perturbed("shuffle", [answers(0.2) for _ in range(3)], 4),
        perturbed("block_shuffle[2]", [answers(0.5) for _ in range(3)], 4),
        perturbed("freeze[first]", [answers(0.3)], 4, 0.0),
        perturbed("freeze[last]", [answers(0.3)], 4, 0.0),
        perturbed("occlude[3]", [answers(0.7)], 4, 0.0),
    ]
    fields: dict = {
        "class_groups": ["order", "order", "speed", "speed"],
        "class_partners": [1, 0, 3, 2],
        **kwargs,
    }
    return table_of(labels, answers(0.8), *ones, **fields)


def test_the_order_of_the_perturbations_changes_no_number_and_the_seed_does():
    table = random_table(0)
    summary = summary_of(table)
    assert summary_of(table) == summary
    turned = summary_of(dataclasses.replace(table, perturbed=table.perturbed[::-1]))
    turned["perturbations"].reverse()
    assert turned == summary
    assert summary_of(table, seed=1) != summary
    fewer = summary_of(dataclasses.replace(table, perturbed=table.perturbed[:4]))["perturbations"][0]
    assert fewer["delta_interval"] == summary["perturbations"][0]["delta_interval"]


def test_the_last_bits_of_the_scores_do_not_show():
    table = random_table(0)
    noise = np.random.default_rng(1).uniform(-1e-7, 1e-7, table.clean.shape).astype(np.float32)
    noisy = dataclasses.replace(
        table,
        clean=table.clean + noise,
        perturbed=[
            PerturbedScores(one.name, one.scores + noise[:, None], one.displacement)
            for one in table.perturbed
        ],
    )
    assert summary_of(noisy) == summary_of(table)


def test_the_chance_of_a_group_is_a_guess_among_its_own_classes():
    summary = summary_of(random_table(0))
    assert summary["chance"] == 25.0
    assert {group["chance"] for group in summary["perturbations"][0]["groups"]} == {50.0}


def test_a_saved_table_gives_the_same_summary(tmp_path):
    random_table(0).save(tmp_path / "table.npz")
    assert summary_of(AblationTable.load(tmp_path / "table.npz")) == summary_of(random_table(0))


def test_a_table_without_videos_is_refused():
    empty = table_of([], [], PerturbedScores("reverse", np.zeros((0, 1, 4), np.float32), np.zeros((0, 1))))
    empty = dataclasses.replace(empty, failed=[("a.mp4", "unreadable", "")] * 3)
    with pytest.raises(ValueError, match=r"without a readable video \(3 failed\)"):
        summary_of(empty)


# Two models


def test_two_models_by_hand():
    labels = np.arange(40) % 4
    a = table_of(labels, balanced(40, 40), perturbed("reverse", [balanced(10, 40)], 4))
    b = table_of(labels, balanced(30, 40), perturbed("reverse", [balanced(26, 40)], 4))
    comparison = compare_ablations(a, b, seed=0, num_resamples=2000)
    clean = comparison["clean"]
    assert (clean["top1_a"], clean["top1_b"], clean["difference"]) == (100, 75, 25)
    assert clean["p_value"] == pytest.approx(2 / 2**10, rel=1e-3)
    (row,) = comparison["perturbations"]
    assert (row["delta_a"], row["delta_b"], row["difference"]) == (-75, -10, -65)
    # A loses 30 videos; B loses 4 of them too, so that 26 differ.
    changes = np.array([-1] * 26 + [0] * 14)
    theirs = stats.bootstrap((changes,), np.mean, method="percentile", rng=np.random.default_rng(0))
    assert row["difference_interval"] == pytest.approx(
        [100 * theirs.confidence_interval.low, 100 * theirs.confidence_interval.high], abs=3
    )
    assert row["p_value"] == pytest.approx(2 / 2**26, rel=1e-3)


def test_the_shared_videos_are_paired_whatever_their_order_and_number_of_draws():
    a, b = random_table(0), random_table(1)
    b = dataclasses.replace(b, perturbed=[b.perturbed[2], b.perturbed[0], *b.perturbed[3:]])
    first = compare_ablations(a, b, seed=0, num_resamples=300)
    order = np.random.default_rng(0).permutation(60)
    moved = dataclasses.replace(
        b,
        video_ids=[b.video_ids[i] for i in order],
        labels=b.labels[order],
        clean=b.clean[order],
        perturbed=[
            PerturbedScores(one.name, one.scores[order], one.displacement[order]) for one in b.perturbed
        ],
    )
    assert compare_ablations(a, moved, seed=0, num_resamples=300) == first
    assert first["perturbations_only_a"] == ["shuffle"] and first["perturbations_only_b"] == []
    assert [row["name"] for row in first["perturbations"]] == [
        one.name for one in a.perturbed if one.name != "shuffle"
    ]
    back = compare_ablations(b, a, seed=0, num_resamples=300)
    by_name = {row["name"]: row for row in back["perturbations"]}
    for row in first["perturbations"]:
        assert by_name[row["name"]]["difference"] == -row["difference"]
        assert by_name[row["name"]]["p_value"] == row["p_value"]
    # The same model, one draw against three equal ones: no difference, exactly.
    once = dataclasses.replace(
        a,
        perturbed=[
            PerturbedScores("shuffle", a.perturbed[1].scores[:, :1], a.perturbed[1].displacement[:, :1])
        ],
    )
    thrice = dataclasses.replace(
        once,
        perturbed=[
            PerturbedScores(
                "shuffle", np.repeat(one.scores, 3, axis=1), np.repeat(one.displacement, 3, axis=1)
            )
            for one in once.perturbed
        ],
    )
    for one, other in ((once, thrice), (thrice, once)):
        (row,) = compare_ablations(one, other, seed=0, num_resamples=300)["perturbations"]
        assert (row["difference"], row["difference_interval"], row["p_value"]) == (0, [0, 0], 1)


def test_only_the_shared_videos_count():
    a, b = random_table(0), random_table(1)
    renamed = dataclasses.replace(b, video_ids=b.video_ids[:40] + [f"other {i}" for i in range(20)])
    comparison = compare_ablations(a, renamed, seed=0, num_resamples=100)
    assert (comparison["num_shared"], comparison["num_only_a"], comparison["num_only_b"]) == (40, 20, 20)
    assert comparison["clean"]["top1_a"] == pytest.approx(
        100 * float((a.clean[:40].argmax(axis=1) == a.labels[:40]).mean())
    )


def test_tables_that_cannot_be_compared_say_why():
    a, b = random_table(0), random_table(1)

    def compare(other: AblationTable) -> None:
        compare_ablations(a, other, seed=0, num_resamples=10)

    one_shared = dataclasses.replace(b, video_ids=["v0", *(f"w{i}" for i in range(59))])
    with pytest.raises(
        ValueError, match=r"share 1 videos \(59 are only in A, 59 only in B\); wanted at least 2"
    ):
        compare(one_shared)
    with pytest.raises(ValueError, match="labels differ for 60 of 60 shared videos, first v0"):
        compare(dataclasses.replace(b, labels=(b.labels + 1) % 4))
    with pytest.raises(ValueError, match="without a common perturbation"):
        compare(dataclasses.replace(b, perturbed=[perturbed("rotate[2]", [b.labels], 4)]))
    with pytest.raises(ValueError, match="ablation B with v3 in it twice"):
        compare(dataclasses.replace(b, video_ids=[*b.video_ids[:59], "v3"]))
