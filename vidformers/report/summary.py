"""How the report reads a summary of the temporal ablation (the content of temporal_ablation.json).

Accuracies and rates are percent, differences points; a number that could not be computed is None.

One rule for the words, the console and the colours: a change counts where p < 0.05 after Holm over the
perturbations (`is_told`). Where none is told, `too_few` says whether the videos could have shown one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vidformers.analysis.statistics import LEVEL

Summary = Mapping[str, Any]

# Each shows every frame once, in another order: their effect is that of order, and of nothing else.
ORDER_KINDS = ("shuffle", "block_shuffle", "local_shuffle", "reverse", "swap_halves", "rotate", "interleave")
CONTROL_KINDS = ("identity", "hflip", "noise")
MOST_UNSEEN = 25.0  # points; `too_few` says of what


def kind(name: str) -> str:
    """block_shuffle[4]@tubelet -> block_shuffle."""
    return name.partition("[")[0].partition("@")[0]


def interval(value: Sequence[float | None] | None) -> tuple[float, float] | None:
    """(low, high), or None where either end is missing."""
    if value is None or value[0] is None or value[1] is None:
        return None
    return value[0], value[1]


def is_told(row: Mapping[str, Any]) -> bool:
    """Whether the change of a perturbation, of all videos or of a group, is told from none."""
    p = row.get("p_value_holm")  # the groups of older files have none
    return p is not None and p < LEVEL


def too_few(row: Mapping[str, Any], chance: float | None) -> bool:
    """Whether a fall that matters could have passed unseen: for rows that are not told from no change.

    Half of what the clean accuracy has above chance, since a model that loses it rests on order for the most
    part; and never more than a quarter of all answers, 25 points, which few models of real videos lose at all
    (MViT-B on Kinetics-400: 7). Where clean is not above chance, there is no half, and the 25 points count.
    """
    unseen = row.get("smallest_detectable_difference")
    if unseen is None:
        return False
    above = row["top1"] - row["delta"] - chance if chance is not None else 0.0
    return unseen > (min(MOST_UNSEEN, above / 2) if above > 0 else MOST_UNSEEN)


def is_at(row: Mapping[str, Any], level: float | None) -> bool:
    """Whether the perturbed accuracy is at this level (chance, a floor): its interval has it, and does not
    reach half the way up to the clean accuracy, as the wide intervals of few videos do."""
    ends = interval(row["top1_interval"])
    if ends is None or level is None:
        return False
    return ends[0] <= level <= ends[1] < (level + row["top1"] - row["delta"]) / 2


def shown_perturbations(summary: Summary) -> list[Mapping[str, Any]]:
    """All perturbations in their order, controls last; occluded positions only if no curve has them."""
    rows = [
        row
        for row in summary["perturbations"]
        if not (kind(row["name"]) == "occlude" and summary.get("occlusion_curve"))
    ]
    return sorted(rows, key=lambda row: kind(row["name"]) in CONTROL_KINDS)


def reference_perturbation(summary: Summary) -> Mapping[str, Any] | None:
    """The perturbation that stands for order: the full shuffle, else the order perturbation that moves most.

    None when no perturbation of the order was run.
    """
    rows = [
        row
        for row in summary["perturbations"]
        if kind(row["name"]) in ORDER_KINDS and row["delta"] is not None
    ]
    return max(
        rows,
        key=lambda row: (
            row["name"] == "shuffle",
            kind(row["name"]) == "shuffle",
            row["displacement"] or 0.0,
        ),
        default=None,
    )


def group_names(summary: Summary) -> list[str]:
    """Groups of classes in the summary's order; empty when the classes have none."""
    names: dict[str, None] = {}
    for row in summary["perturbations"]:
        names |= {group["group"]: None for group in row["groups"] or ()}
    return list(names)


def one_line(text: str, length: int) -> str:
    """`text` without line breaks, cut to `length` characters."""
    text = " ".join(str(text).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def signed(value: float | None) -> str:
    """+1.2, -3.4, 0.0; an en dash for what is missing."""
    if value is None:
        return "–"
    return f"{value:+.1f}" if round(value, 1) else "0.0"


def percent(value: float | None) -> str:
    """97.5, 100; an en dash for what is missing."""
    if value is None:
        return "–"
    return "100" if round(value, 1) == 100 else f"{value:.1f}"


def p_text(value: float | None) -> str:
    """p < 0.001, p = 0.042."""
    if value is None:
        return "p not computed"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
