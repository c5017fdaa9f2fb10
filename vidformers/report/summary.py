"""How the report reads a summary of the temporal ablation (the content of temporal_ablation.json).

Accuracies and rates are percent, differences points; a number that could not be computed is None.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Summary = Mapping[str, Any]

# Each shows every frame once, in another order: their effect is that of order, and of nothing else.
ORDER_KINDS = ("shuffle", "block_shuffle", "local_shuffle", "reverse", "swap_halves", "rotate", "interleave")
CONTROL_KINDS = ("identity", "hflip", "noise")


def kind(name: str) -> str:
    """block_shuffle[4]@tubelet -> block_shuffle."""
    return name.partition("[")[0].partition("@")[0]


def interval(value: Sequence[float | None] | None) -> tuple[float, float] | None:
    """(low, high), or None where either end is missing."""
    if value is None or value[0] is None or value[1] is None:
        return None
    return value[0], value[1]


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
