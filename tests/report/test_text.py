"""The ablation in words: the lines to quote, the printed table and its verdicts."""

from typing import Any

import pytest

from tests.analysis.test_temporal_summary import perturbed, summary_of, table_of
from tests.report.summaries import make_comparison, make_summary, without_numbers
from vidformers.report.text import WIDTH, ablation_text, meaning, summary_markdown, verdict


def test_table_by_group() -> None:
    text = ablation_text(make_summary(names=("shuffle", "reverse", "hflip")))
    assert text.splitlines()[1:] == [
        "         appearance       direction         order             speed             all",
        "videos   60               60                60                60                240",
        "chance   25.0             25.0              25.0              25.0              16.7",
        "clean    97.5             97.5              97.5              97.5              97.5 [95.0-99.2]",
        "shuffle  97.5 [91.5-100]  25.0 [19.0-31.0]  25.0 [19.0-31.0]  25.0 [19.0-31.0]  41.5 [37.3-45.7]",
        "reverse  97.5 [91.5-100]  0.0 [0.0-0.0]     0.0 [0.0-0.0]     25.0 [19.0-31.0]  37.5 [33.3-41.7]",
        "hflip    97.5 [91.5-100]  97.5 [91.5-100]   97.5 [91.5-100]   97.5 [91.5-100]   96.5 [92.3-100]",
        "",
        "appearance: no change shown: all 3 perturbations",
        "direction: at chance: shuffle; to the partner class: reverse; no change shown: hflip",
        "order: at chance: shuffle; to the partner class: reverse; no change shown: hflip",
        "speed: at chance: shuffle, reverse; no change shown: hflip",
        "all: falls: shuffle, reverse; no change shown: hflip",
        "In each column a change counts where p < 0.05, after Holm over the perturbations.",
        "Could not be read and count nowhere: 1.",
    ]


def test_without_groups_there_is_one_column_for_all() -> None:
    lines = ablation_text(make_summary(groups=(), names=("shuffle", "identity"))).splitlines()
    assert lines[1].split() == ["all"]
    assert "shuffle   41.5 [37.3-45.7]" in lines
    assert [line for line in lines if ": " in line][1:-1] == [
        "all: falls: shuffle; no change shown: identity"
    ]


def test_a_table_too_wide_continues_below_and_no_line_is_too_long() -> None:
    groups = [f"group\n{i} with a very long name" for i in range(9)]
    text = ablation_text(make_summary(groups=groups))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert sum(line.startswith("shuffle ") for line in text.splitlines()) == 3
    assert sum(line.startswith("group") and "at chance" in line for line in text.splitlines()) == 9


def test_missing_numbers_are_dashes_and_give_no_verdict() -> None:
    summary = without_numbers(make_summary(names=("shuffle",)))
    text = ablation_text(summary)
    assert "None" not in text and "nan" not in text
    assert "shuffle  –           –          –      –      –" in text.splitlines()
    assert "all: no p-values, no verdict" in text
    markdown = summary_markdown(summary)
    assert "None" not in markdown and "nan" not in markdown


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"top1": 99.0, "delta": -1.0, "p_value_holm": 1.0}, "no change shown"),
        ({"p_value_holm": 0.05}, "no change shown"),  # whatever the interval
        ({"p_value_holm": 0.05, "smallest_detectable_difference": 25.1}, "too few videos to tell"),
        ({"p_value_holm": 0.04, "smallest_detectable_difference": 90.0}, "falls"),
        # Clean is 45 and chance 25: half of what is above is 10.
        ({"top1": 44.0, "delta": -1.0, "p_value_holm": 1.0}, "no change shown"),
        (
            {"top1": 44.0, "delta": -1.0, "p_value_holm": 1.0, "smallest_detectable_difference": 10.1},
            "too few videos to tell",
        ),
        ({"top1": 65.0, "delta": 5.0}, "rises"),
        ({"top1": 27.0, "top1_interval": [22.0, 32.0]}, "at chance"),
        ({"top1": 40.0, "top1_interval": [20.0, 63.0]}, "falls"),  # wide: of few videos, and not at 25
        ({"top1": 3.0, "top1_interval": [0.0, 8.0], "swap_rate": 90.0}, "to the partner class"),
        ({"top1": 3.0, "top1_interval": [0.0, 8.0], "swap_rate": 20.0}, "below chance"),
        ({"swap_rate": 90.0}, "falls"),  # 60 % right and 90 % swapped: not the same videos
        ({"delta": None}, ""),
        ({"p_value_holm": None}, ""),
    ],
)
def test_verdict_follows_from_the_adjusted_p_value(changes: dict[str, Any], wanted: str) -> None:
    row = {"top1": 60.0, "top1_interval": [50.0, 70.0], "delta": -40.0, "p_value_holm": 2e-4,
           "swap_rate": None, "smallest_detectable_difference": 10.0}  # fmt: skip
    assert verdict({**row, **changes}, 25.0) == wanted
    assert verdict(row, 25.0) == "falls"
    # Two classes: who guesses gives the partner half of the videos. That is chance, and no exchange.
    guess = {"top1": 40.0, "top1_interval": [26.0, 55.0], "delta": -60.0}
    assert verdict({**row, **guess, "swap_rate": 60.0}, 50.0) == "at chance"


def _with_shuffle(**changes: Any) -> dict[str, Any]:
    summary = make_summary(names=("shuffle",))
    summary["perturbations"][0].update(changes)
    return summary


def _unchanged(**changes: Any) -> dict[str, Any]:
    same = {"top1": 96.5, "delta": -1.0, "delta_interval": [-3.0, 1.0], "p_value_holm": 1.0}
    return _with_shuffle(**{**same, **changes})


@pytest.mark.parametrize(
    ("summary", "wanted"),
    [
        (_with_shuffle(), "as good as on one frozen frame"),
        (_with_shuffle(top1=17.0, top1_interval=[14.0, 21.0]), "at chance: all of it"),
        (_with_shuffle(top1=70.0, top1_interval=[65.0, 75.0]), "a part does not"),
        (_unchanged(flip_rate=1.0), "(a fall of 3.1 points would have been seen): no sign"),
        (_unchanged(flip_rate=15.0), "15.0 % of the answers"),
        (_unchanged(delta_interval=[-3.0, -0.1], p_value_holm=0.07), "is not told from none (p = 0.070;"),
        (_unchanged(delta_interval=[-3.0, -0.1], p_value_holm=0.07), "stays open"),
        (_with_shuffle(delta=4.0, delta_interval=[1.0, 7.0]), "the accuracy rises"),
        (_with_shuffle(top1_interval=[10.0, 75.0]), "do not tell whether it leaves more than chance"),
        (make_summary(names=("freeze[middle]",)), "nothing is said about order"),
    ],
)
def test_meaning_says_no_more_than_the_intervals(summary: dict[str, Any], wanted: str) -> None:
    assert wanted in meaning(summary)


def _ablated(labels: list[int], **answers: list[int]) -> dict[str, Any]:
    """The summary of videos all of which are right when clean. answers: of each perturbation."""
    ones = [perturbed(name, [predicted], 3) for name, predicted in answers.items()]
    return {**summary_of(table_of(labels, labels, *ones)), "model": "m"}


def test_three_videos_are_too_few_to_tell() -> None:
    labels = [0, 1, 2]
    summary = _ablated(labels, shuffle=labels, reverse=labels, hflip=[0, 0, 0])
    text, markdown = " ".join(ablation_text(summary).split()), summary_markdown(summary)
    few = "too few videos to tell (3 videos; a fall of less than 100 points would not have been seen)"
    assert f"all: {few}: all 3 perturbations" in text
    assert f"- Meaning: {few}.\n" in markdown
    assert "- Order score of `shuffle`: too few videos to tell.\n" in markdown
    for word in ("rests on", "no sign", "no change shown", "would have been seen:"):
        assert word not in text and word not in markdown


def test_enough_videos_that_do_not_change_say_so() -> None:
    labels = [0, 1, 2] * 20
    summary = _ablated(labels, shuffle=labels, reverse=labels)
    assert "all: no change shown: all 2 perturbations" in ablation_text(summary)
    # 2 / 2^k < 0.05 / 2 from k = 7 on, of 60 videos.
    assert "(a fall of 11.7 points would have been seen): no sign that it rests" in summary_markdown(summary)


def test_what_few_videos_do_show_is_said() -> None:
    labels = [0, 1, 2] * 5
    summary = _ablated(labels, shuffle=[1, 2, 0] * 4 + [0, 1, 2], reverse=labels)
    text = " ".join(ablation_text(summary).split())
    assert "all: at chance: shuffle; too few videos to tell (15 videos; a fall of less than 46.7" in text
    assert "rests on the order of frames" in meaning(summary)


def test_a_static_floor_that_was_not_measured_is_not_called_too_near() -> None:
    labels = [0, 1, 2] * 20
    line = summary_markdown(_ablated(labels, shuffle=[1, 2, 0] * 20))
    assert "above the static floor not measured (add `freeze[middle]` to ABLATION.PERTURBATIONS)" in line
    assert "not clearly above that floor" not in line


def test_a_range_is_not_read_off_shuffles_that_show_nothing() -> None:
    summary = make_summary(names=("shuffle", "block_shuffle[2]"))
    for row in summary["perturbations"]:
        row["p_value_holm"] = 0.2
    assert "Range: no shuffle has an effect that is told from none." in summary_markdown(summary)


def test_meaning_of_a_model_at_chance() -> None:
    summary = make_summary()
    summary["clean"]["top1_interval"] = [15.0, 25.0]
    assert "not told from chance" in meaning(summary)


def test_summary_is_about_ten_lines_with_the_main_numbers() -> None:
    summary = make_summary()
    lines = summary_markdown(summary).splitlines()
    assert lines[0] == "# Temporal dependence of `motion_mvit_tiny`"
    assert 8 <= len(lines) - 2 <= 12
    assert "clean top-1 97.5 % (95 % interval 95.0 to 99.2) on 240 videos of 6 classes (1 more" in lines[2]
    assert "chance 16.7 %" in lines[2] and "static floor (`freeze[middle]`) 39.5 %" in lines[2]
    wanted = "- `shuffle`: -56.0 points (-60.6 to -51.4) to 41.5 %, p < 0.001; 58.8 % of the answers change."
    assert lines[3] == wanted
    text = "\n".join(lines)
    assert "above chance 0.69 (0.64 to 0.74), above the static floor 0.97" in text
    assert "blocks of 2.9 frames (0.48 s)" in text and "windows of 3.5 frames (0.58 s)" in text
    assert "`identity` 0.0 points (0.0 to 0.0)" in text
    assert "1 or 5 draws" in text and "seed 0" in text and "10000 bootstrap resamples" in text
    assert "Compared" not in text
    with_other = summary_markdown({**summary, "comparison": make_comparison()})
    assert "a difference of -56.0 (-61.0 to -51.0), p < 0.001" in with_other


def test_order_score_not_reported_when_clean_is_near_the_floor() -> None:
    summary = _with_shuffle(order_score_static=None)
    assert "above the static floor not reported (the clean accuracy" in summary_markdown(summary)


def test_a_range_that_was_not_measured_is_not_called_too_long() -> None:
    without = {**make_summary(), "range_curves": {"block_shuffle": None, "local_shuffle": None}}
    assert "Range: not measured" in summary_markdown(without)
    points = make_summary()["range_curves"]["block_shuffle"]["points"]
    flat = {"points": points, "half_effect_frames": None, "half_effect_seconds": None}
    assert "not reached" in summary_markdown({**without, "range_curves": {"block_shuffle": flat}})


def test_hostile_model_name_stays_code() -> None:
    markdown = summary_markdown({**make_summary(), "model": "a`<script>\n# x"})
    assert markdown.splitlines()[0] == "# Temporal dependence of `a'<script> # x`"
