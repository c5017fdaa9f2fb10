"""The temporal ablation in words: ten lines to quote (summary.md) and the table that a run prints."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from vidformers.report.summary import (
    CONTROL_KINDS,
    Summary,
    group_names,
    interval,
    is_at,
    is_told,
    kind,
    one_line,
    p_text,
    percent,
    reference_perturbation,
    shown_perturbations,
    signed,
    too_few,
)

WIDTH = 110  # columns of the printed table
UNCHANGED = "no change shown"
TOO_FEW = "too few videos to tell"
RULE = "a change counts where p < 0.05, after Holm over the perturbations"
_MAX_NAME = 26
_MAX_GROUP = 18
_MAX_DROPS = 3


def _code(name: str) -> str:
    """A name as Markdown code, within which nothing else is markup."""
    return "`" + one_line(name, 60).replace("`", "'") + "`"


def _between(value: Sequence[float | None] | None, digits: int = 1) -> str:
    ends = interval(value)
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}" if ends else "not computed"


def _change(row: Mapping[str, Any]) -> str:
    return f"{signed(row['delta'])} points ({_between(row['delta_interval'])})"


def _covers(value: Sequence[float | None] | None, number: float) -> bool:
    ends = interval(value)
    return ends is not None and ends[0] <= number <= ends[1]


def _too_few(rows: Sequence[Mapping[str, Any]], num_videos: int) -> str:
    unseen = min(row["smallest_detectable_difference"] for row in rows)
    videos = "1 video" if num_videos == 1 else f"{num_videos} videos"
    return f"{TOO_FEW} ({videos}; a fall of less than {percent(unseen)} points would not have been seen)"


def _model(summary: Summary) -> str:
    return str(summary.get("model", "model"))


def _clean_line(summary: Summary) -> str:
    clean, failed = summary["clean"], summary["num_failed"]
    line = (
        f"{_code(_model(summary))}: clean top-1 {percent(clean['top1'])} % (95 % interval "
        f"{_between(clean['top1_interval'])}) on {summary['num_videos']} videos of "
        f"{summary['num_classes']} classes"
    )
    if failed:
        line += f" ({failed} more could not be read and count nowhere)"
    line += f"; chance {percent(summary['chance'])} %"
    if floor := summary["static_floor"]:
        line += f", its own static floor ({_code(floor['perturbation'])}) {percent(floor['top1'])} %"
    return line + "."


def _drop_lines(summary: Summary) -> list[str]:
    """The perturbations that cost most, the one that stands for order first."""
    reference = reference_perturbation(summary)
    rows = [
        row
        for row in shown_perturbations(summary)
        if row["delta"] is not None
        and kind(row["name"]) not in CONTROL_KINDS
        and not (reference and kind(row["name"]) == kind(reference["name"]))
    ]
    # Of a family (block_shuffle[2], block_shuffle[4], ...) the one that costs most.
    worst = {kind(row["name"]): row for row in sorted(rows, key=lambda row: -row["delta"])}
    ranked = sorted(worst.values(), key=lambda row: row["delta"])
    rows = [row for i, row in enumerate(ranked) if i < _MAX_DROPS or row["name"] == "reverse"]
    lines = []
    for row in [*([reference] if reference else []), *rows]:
        p = row["p_value_holm"]
        line = f"{_code(row['name'])}: {_change(row)} to {percent(row['top1'])} %, {p_text(p)}"
        if row["flip_rate"] is not None:
            line += f"; {percent(row['flip_rate'])} % of the answers change"
        if row["swap_rate"] is not None and row["swap_rate"] > 25:
            line += f", {percent(row['swap_rate'])} % of videos with a time-reversed class are taken for it"
        lines.append(line + ".")
    return lines


def _score(name: str, score: Mapping[str, Any] | None, *, measured: bool) -> str:
    if not measured:
        return f"{name} not measured (add `freeze[middle]` to ABLATION.PERTURBATIONS)"
    if score is None or score["value"] is None:
        return f"{name} not reported (the clean accuracy is not clearly above that floor)"
    return f"{name} {score['value']:.2f} ({_between(score['interval'], 2)})"


def _order_score_line(summary: Summary) -> str:
    reference = reference_perturbation(summary)
    if reference is None:
        return "Order score: no perturbation of the order was run."
    if verdict(reference, summary["chance"]) == TOO_FEW:
        return f"Order score of {_code(reference['name'])}: {TOO_FEW}."
    chance = _score("above chance", reference["order_score_chance"], measured=True)
    static = _score(
        "above the static floor",
        reference["order_score_static"],
        measured=summary["static_floor"] is not None,
    )
    return (
        f"Order score of {_code(reference['name'])}, the share of the accuracy that it takes (0 blind to "
        f"order, 1 all): {chance}, {static}."
    )


def _range_line(summary: Summary) -> str:
    curves = summary["range_curves"] or {}
    if not any(curves.values()):
        return "Range: not measured; `block_shuffle` and `local_shuffle` of several sizes tell it."
    parts = []
    for name, what in (("block_shuffle", "blocks"), ("local_shuffle", "windows")):
        curve = curves.get(name)
        if curve and curve["half_effect_frames"] is not None:
            seconds = curve["half_effect_seconds"]
            time = f" ({seconds:.2g} s)" if seconds is not None else ""
            parts.append(f"{what} of {curve['half_effect_frames']:.2g} frames{time} (`{name}`)")
    shuffles = [row for row in summary["perturbations"] if kind(row["name"]).endswith("shuffle")]
    if not any(is_told(row) for row in shuffles):
        return "Range: no shuffle has an effect that is told from none."
    if not parts:
        return "Range: the half-effect length was not reached by the sizes that were run."
    return "Range: half of the full effect at " + " and at ".join(parts) + "."


def meaning(summary: Summary) -> str:
    """What follows from the p-values and intervals about the use of order, and no more than that."""
    row = reference_perturbation(summary)
    what = verdict(row, summary["chance"]) if row else ""
    if row is None or not what:
        return "no perturbation of the order has a p-value, so nothing is said about order."
    name, chance, p = _code(row["name"]), summary["chance"], p_text(row["p_value_holm"])
    if what == TOO_FEW:
        return _too_few([row], summary["num_videos"]) + "."
    clean = interval(summary["clean"]["top1_interval"])
    if clean and clean[0] <= chance:
        return (
            f"the clean accuracy is not told from chance on {summary['num_videos']} videos, so that nothing "
            "is said about what a perturbation takes."
        )
    if what in (UNCHANGED, "rises"):
        flips = row["flip_rate"] or 0.0
        aside = f", though {percent(flips)} % of the answers change" if flips >= 5 else ""
        if what == "rises":
            return f"under {name} the accuracy rises{aside}: no sign that it rests on the order of frames."
        unseen = row["smallest_detectable_difference"]
        power = f"a fall of {percent(unseen)} points would have been seen" if unseen is not None else p
        if not _covers(row["delta_interval"], 0):
            return (
                f"the change under {name} is not told from none ({p}; {power}){aside}: whether the accuracy "
                "rests on the order of frames stays open."
            )
        return (
            f"under {name} no change of the accuracy is shown ({power}){aside}: no sign that it rests on the "
            "order of frames."
        )
    caveat = (
        " A perturbed clip is also unlike those of the training, so this rather overstates than understates "
        "what order is worth."
    )
    if is_at(row, chance):
        return f"under {name} the accuracy is at chance: all of it rests on the order of frames.{caveat}"
    floor = summary["static_floor"]
    if floor and is_at(row, floor["top1"]):
        return (
            f"under {name} the model is as good as on one frozen frame, and better on clips in order: what "
            f"it gains from video it gains from order.{caveat}"
        )
    ends = interval(row["top1_interval"])
    if ends is None or ends[0] <= chance:
        return (
            f"a part of the accuracy at least rests on the order of frames: {name} takes it, and these "
            f"videos do not tell whether it leaves more than chance.{caveat}"
        )
    return (
        f"a part of the accuracy rests on the order of frames, and a part does not: {name} takes the first."
        f"{caveat}"
    )


def _comparison_lines(summary: Summary) -> list[str]:
    """One line about the other model of ABLATION.COMPARE, if there is one."""
    comparison, reference = summary.get("comparison"), reference_perturbation(summary)
    rows = comparison["perturbations"] if comparison else []
    row = next((row for row in rows if reference and row["name"] == reference["name"]), None)
    if comparison is None or row is None or row["difference"] is None:
        return []
    return [
        f"Compared with the other model on the {comparison['num_shared']} videos of both: "
        f"{_code(row['name'])} changes this one by {signed(row['delta_a'])} and that one by "
        f"{signed(row['delta_b'])} points, a difference of {signed(row['difference'])} "
        f"({_between(row['difference_interval'])}), {p_text(row['p_value_holm'])}."
    ]


def _controls_line(summary: Summary) -> str:
    rows = [row for row in summary["perturbations"] if kind(row["name"]) in CONTROL_KINDS]
    if not rows:
        return "Controls: none was run."
    changes = (f"{_code(row['name'])} {_change(row)}, {p_text(row['p_value_holm'])}" for row in rows)
    return "Controls: " + "; ".join(changes) + "."


def _method_line(summary: Summary) -> str:
    draws = sorted({row["num_draws"] for row in summary["perturbations"]})
    rows = [row["smallest_detectable_difference"] for row in summary["perturbations"]]
    detectable = [value for value in rows if value]
    line = (
        f"Method: {' or '.join(map(str, draws))} draws a perturbation, seed {summary['seed']}, 95 % "
        f"intervals from {summary['num_resamples']} bootstrap resamples of videos, paired with the clean "
        f"clips; exact McNemar test for one draw, permutation test for more; {RULE}"
    )
    if detectable:
        ends = dict.fromkeys((f"{min(detectable):.1f}", f"{max(detectable):.1f}"))
        line += f"; smallest detectable difference {' to '.join(ends)} points (80 % power)"
    return line + "."


def summary_lines(summary: Summary) -> list[str]:
    """About ten sentences, with names in backticks."""
    return [
        _clean_line(summary),
        *_drop_lines(summary),
        _order_score_line(summary),
        _range_line(summary),
        "Meaning: " + meaning(summary),
        *_comparison_lines(summary),
        _controls_line(summary),
        _method_line(summary),
    ]


def summary_markdown(summary: Summary) -> str:
    """summary.md: a heading and about ten lines that a person can quote."""
    title = f"# Temporal dependence of {_code(_model(summary))}\n\n"
    return title + "".join(f"- {line}\n" for line in summary_lines(summary))


def _cell(row: Mapping[str, Any] | None) -> str:
    """40.1 [35.0-44.9]"""
    if row is None or row["top1"] is None:
        return "–"
    ends = interval(row["top1_interval"])
    return percent(row["top1"]) + (f" [{percent(ends[0])}-{percent(ends[1])}]" if ends else "")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns; those that do not fit beside the first follow below in further blocks."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    blocks: list[list[int]] = [[]]
    for index in range(1, len(columns)):
        used = widths[0] + sum(2 + widths[i] for i in blocks[-1])
        if blocks[-1] and used + 2 + widths[index] > WIDTH:
            blocks.append([])
        blocks[-1].append(index)
    lines = []
    for number, block in enumerate(blocks):
        if number:
            lines.append("")
        for row in (header, *rows):
            lines.append("  ".join(row[i].ljust(widths[i]) for i in (0, *block)).rstrip())
    return lines


def _group_row(row: Mapping[str, Any], group: str) -> Mapping[str, Any] | None:
    return next((one for one in row["groups"] or () if one["group"] == group), None)


def verdict(row: Mapping[str, Any], chance: float | None) -> str:
    """What one perturbation says of one group of videos (or of all): a change where `is_told` finds one.

    row: its top1, top1_interval, delta, p_value_holm, smallest_detectable_difference and swap_rate. One of
    "no change shown", "too few videos to tell", "to the partner class", "at chance", "below chance", "falls",
    "rises", or "" where the change or its p-value is missing. (A group's chance is that of a guess among its
    own classes: who guesses among all falls below it.)
    """
    if row["delta"] is None or row.get("p_value_holm") is None:
        return ""
    if not is_told(row):
        return TOO_FEW if too_few(row, chance) else UNCHANGED
    if row["delta"] > 0:
        return "rises"
    top1 = interval(row["top1_interval"])
    if is_at(row, chance):
        return "at chance"  # in a group of two classes the partner then gets about half, too
    # Right and partner exclude each other: a sum above 100 means that only some of the videos have a partner.
    if (row["swap_rate"] or 0.0) > 50 and row["swap_rate"] + (row["top1"] or 0.0) <= 100:
        return "to the partner class"
    return "below chance" if top1 and chance is not None and top1[1] < chance else "falls"


def _verdict_line(summary: Summary, group: str | None) -> str:
    """What happens to one group, or (None) to all videos, under which perturbations."""
    found: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for row in shown_perturbations(summary):
        cell = row if group is None else _group_row(row, group)
        if cell and (what := verdict(cell, (summary if group is None else cell)["chance"])):
            found.setdefault(what, []).append((one_line(row["name"], _MAX_NAME), cell))
    order = ("at chance", "below chance", "to the partner class", "falls", "rises", UNCHANGED, TOO_FEW)
    parts = []
    for what in (what for what in order if what in found):
        names, cells = zip(*found[what], strict=True)
        if what == TOO_FEW:
            what = _too_few(cells, (summary if group is None else cells[0])["num_videos"])
        every = len(found) == 1 and len(names) > 1
        parts.append(f"{what}: " + (f"all {len(names)} perturbations" if every else ", ".join(names)))
    title = "all" if group is None else one_line(group, _MAX_GROUP)
    text = f"{title}: " + ("; ".join(parts) if parts else "no p-values, no verdict")
    return textwrap.fill(text, WIDTH, subsequent_indent="    ", break_on_hyphens=False)


def ablation_text(summary: Summary) -> str:
    """Accuracy in percent with intervals, a row for each perturbation and a column for each group of classes,
    and a verdict line for each group; no line longer than `WIDTH`.
    """
    groups, rows = group_names(summary), shown_perturbations(summary)
    titles = [one_line(group, _MAX_GROUP) for group in groups]
    cells = [[_cell(_group_row(row, group)) for group in groups] + [_cell(row)] for row in rows]
    first = [
        next((found for row in rows if (found := _group_row(row, group))), None) for group in groups
    ]  # what is said of a group's clean clips is the same in every row
    table = _table(
        ["", *titles, "all"],
        [
            ["videos", *(str(g["num_videos"]) if g else "–" for g in first), str(summary["num_videos"])],
            ["chance", *(percent(g["chance"]) if g else "–" for g in first), percent(summary["chance"])],
            ["clean", *(percent(g["clean_top1"]) if g else "–" for g in first), _cell(summary["clean"])],
            *([one_line(row["name"], _MAX_NAME), *line] for row, line in zip(rows, cells, strict=True)),
        ],
    )
    lines = [
        f"Temporal ablation: top-1 (%) of {summary['num_videos']} videos, with 95 % intervals over videos",
        *table,
        "",
        *(_verdict_line(summary, group) for group in groups),
        _verdict_line(summary, None),
        f"In each column {RULE}.",
    ]
    if summary["num_failed"]:
        lines.append(f"Could not be read and count nowhere: {summary['num_failed']}.")
    return "\n".join(lines)
