"""The ablation in words: the lines to quote, the printed table and its verdicts."""

from typing import Any

import pytest

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
        "appearance: unchanged within its interval: all 3 perturbations",
        "direction: at chance: shuffle; to the partner class: reverse; unchanged within its interval: hflip",
        "order: at chance: shuffle; to the partner class: reverse; unchanged within its interval: hflip",
        "speed: at chance: shuffle, reverse; unchanged within its interval: hflip",
        "all: falls: shuffle, reverse; unchanged within its interval: hflip",
        "Could not be read and count nowhere: 1.",
    ]


def test_without_groups_there_is_one_column_for_all() -> None:
    lines = ablation_text(make_summary(groups=(), names=("shuffle", "identity"))).splitlines()
    assert lines[1].split() == ["all"]
    assert "shuffle   41.5 [37.3-45.7]" in lines
    assert [line for line in lines if ": " in line][1:-1] == [
        "all: falls: shuffle; unchanged within its interval: identity"
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
    assert "all: no intervals, no verdict" in text
    markdown = summary_markdown(summary)
    assert "None" not in markdown and "nan" not in markdown


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"delta": -1.0, "delta_interval": [-3.0, 0.0]}, "unchanged within its interval"),
        ({"delta": 0.0, "delta_interval": [0.0, 0.0]}, "unchanged within its interval"),
        ({"delta": 5.0, "delta_interval": [1.0, 9.0]}, "rises"),
        ({"top1": 27.0, "top1_interval": [22.0, 32.0]}, "at chance"),
        ({"top1": 3.0, "top1_interval": [0.0, 8.0], "swap_rate": 90.0}, "to the partner class"),
        ({"top1": 3.0, "top1_interval": [0.0, 8.0], "swap_rate": 20.0}, "below chance"),
        ({"swap_rate": 90.0}, "falls"),  # 60 % right and 90 % swapped: not the same videos
        ({"delta_interval": None}, ""),
        ({"delta_interval": [None, None]}, ""),
    ],
)
def test_verdict_follows_from_the_intervals(changes: dict[str, Any], wanted: str) -> None:
    row = {"top1": 60.0, "top1_interval": [50.0, 70.0], "delta": -40.0, "delta_interval": [-50.0, -30.0],
           "swap_rate": None}  # fmt: skip
    assert verdict({**row, **changes}, 25.0) == wanted
    assert verdict(row, 25.0) == "falls"
    # Two classes: who guesses gives the partner half of the videos. That is chance, and no exchange.
    guess = {"top1": 40.0, "top1_interval": [26.0, 55.0], "delta": -60.0, "delta_interval": [-75.0, -45.0]}
    assert verdict({**guess, "swap_rate": 60.0}, 50.0) == "at chance"


def _with_shuffle(**changes: Any) -> dict[str, Any]:
    summary = make_summary(names=("shuffle",))
    summary["perturbations"][0].update(changes)
    return summary


@pytest.mark.parametrize(
    ("summary", "wanted"),
    [
        (_with_shuffle(), "as good as on one frozen frame"),
        (_with_shuffle(top1=17.0, top1_interval=[14.0, 21.0]), "at chance: all of it"),
        (_with_shuffle(top1=70.0, top1_interval=[65.0, 75.0]), "a part does not"),
        (_with_shuffle(delta=-1.0, delta_interval=[-3.0, 1.0], flip_rate=1.0), "(a fall of 3.1 points"),
        (_with_shuffle(delta=-1.0, delta_interval=[-3.0, 1.0], flip_rate=15.0), "15.0 % of the answers"),
        (_with_shuffle(delta=4.0, delta_interval=[1.0, 7.0]), "the accuracy rises"),
        (make_summary(names=("freeze[middle]",)), "nothing is said about order"),
    ],
)
def test_meaning_says_no_more_than_the_intervals(summary: dict[str, Any], wanted: str) -> None:
    assert wanted in meaning(summary)


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
