"""Made-up summaries in the schema of temporal_ablation.json: plausible numbers, nothing computed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

PERTURBATIONS = (
    "shuffle", "shuffle@tubelet", "block_shuffle[2]", "block_shuffle[4]", "local_shuffle[2]",
    "local_shuffle[4]", "reverse", "freeze[middle]", "speed[2]", "identity", "hflip", "noise[shuffle]",
)  # fmt: skip
DISPLACEMENT = {"shuffle": 0.5, "shuffle@tubelet": 0.47, "block_shuffle[2]": 0.43, "block_shuffle[4]": 0.25,
                "local_shuffle[2]": 0.07, "local_shuffle[4]": 0.22, "reverse": 1.0, "freeze[middle]": 0.0,
                "identity": 0.0}  # fmt: skip
LOSS = {"shuffle": 56.0, "shuffle@tubelet": 52.0, "block_shuffle[2]": 41.0, "block_shuffle[4]": 18.0,
        "local_shuffle[2]": 9.0, "local_shuffle[4]": 33.0, "reverse": 60.0, "freeze[middle]": 58.0,
        "speed[2]": 6.0, "identity": 0.0, "hflip": 1.0, "noise[shuffle]": 2.0}  # fmt: skip
CLEAN = 97.5


def _around(value: float, half: float, low: float = 0.0, high: float = 100.0) -> list[float]:
    return [round(max(value - half, low), 4), round(min(value + half, high), 4)]


def _score(value: float, half: float) -> dict[str, Any]:
    return {"value": round(value, 4), "interval": _around(value, half, -10.0, 10.0)}


def _groups(name: str, names: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for group in names:
        moves = group != "appearance" and LOSS[name] > 5
        reversed_now = name == "reverse" and group in ("direction", "order")
        top1 = 0.0 if reversed_now else 25.0 if moves else CLEAN
        delta = top1 - CLEAN
        rows.append({
            "group": group, "num_videos": 60, "chance": 25.0, "top1": top1,
            "top1_interval": [0.0, 0.0] if reversed_now else _around(top1, 6.0),
            "clean_top1": CLEAN, "delta": delta,
            "delta_interval": _around(delta, 5.0, -100.0) if delta else [-1.5, 1.5],
            "p_value_holm": 2.4e-4 if delta else 1.0,
            "swap_rate": 96.7 if reversed_now else 12.0 if moves else 0.0,
            "smallest_detectable_difference": 15.0,
        })  # fmt: skip
    return rows


def make_summary(
    *,
    class_names: Sequence[str] = ("stripes", "checks", "right", "left", "down", "up"),
    groups: Sequence[str] = ("appearance", "direction", "order", "speed"),
    names: Sequence[str] = PERTURBATIONS,
) -> dict[str, Any]:
    """240 videos of a model that uses order; the classes lose between nothing and twice the mean loss."""
    random = np.random.default_rng(0)
    chance = 100 / len(class_names)
    perturbations = []
    for name in names:
        loss = LOSS[name]
        top1 = max(CLEAN - loss, 1.0)
        single = name in ("reverse", "freeze[middle]", "speed[2]", "identity", "hflip")
        is_control = name in ("identity", "hflip", "noise[shuffle]")
        per_class = []
        for label, class_name in enumerate(class_names):
            fall = round(float(np.clip(random.uniform(0, 2) * loss, 0, CLEAN)), 4)
            per_class.append({
                "label": label, "name": class_name, "num_videos": 40, "clean_top1": CLEAN,
                "top1": CLEAN - fall, "delta": -fall, "delta_interval": _around(-fall, 11.0, -100.0),
                "p_value_bh": 0.01 if fall > 15 else 0.4,
                "swap_rate": 96.0 if name == "reverse" and fall > 50 else 0.0 if groups else None,
            })  # fmt: skip
        perturbations.append({
            "name": name, "num_draws": 1 if single else 5, "displacement": DISPLACEMENT.get(name),
            "share_unchanged": 100.0 if name == "identity" else 4.2 if name == "block_shuffle[4]" else 0.0,
            "top1": top1, "top1_interval": _around(top1, 4.2), "delta": top1 - CLEAN,
            "delta_interval": [0.0, 0.0] if name == "identity" else _around(top1 - CLEAN, 4.6, -100.0),
            "p_value": 1.0 if is_control else 2e-5, "p_value_test": "mcnemar" if single else "permutation",
            "p_value_holm": 1.0 if is_control else 2.4e-4,
            "discordant": {"lost": round(loss * 2.4), "gained": 0} if single else None,
            "order_score_chance": _score(loss / (CLEAN - chance), 0.05),
            "order_score_static": _score(loss / 58, 0.07),
            "flip_rate": loss * 1.05, "swap_rate": (48.3 if name == "reverse" else 6.0) if groups else None,
            "confidence_shift": -loss / 200, "margin_shift": -loss / 100, "jensen_shannon": loss / 90,
            "ece": 3.0 + loss / 3, "brier": 0.05 + loss / 80, "smallest_detectable_difference": 3.1,
            "groups": _groups(name, groups), "per_class": per_class,
        })  # fmt: skip

    def curve(sizes: Sequence[int], scores: Sequence[float], half: float) -> dict[str, Any]:
        points = [
            {
                "size": size,
                "seconds": round(size * 0.1667, 4),
                "score": score,
                "score_interval": [score - 0.05, score + 0.05],
            }
            for size, score in zip(sizes, scores, strict=True)
        ]
        return {"points": points, "half_effect_frames": half, "half_effect_seconds": round(half * 0.1667, 4)}

    return {
        "model": "motion_mvit_tiny",
        "num_videos": 240, "num_failed": 1, "num_frames": 8, "seconds_per_frame": 0.1667, "seed": 0,
        "num_resamples": 10000, "num_classes": len(class_names), "chance": round(chance, 4),
        "clean": {"top1": CLEAN, "top1_interval": [95.0, 99.2], "confidence": 0.93, "margin": 0.88,
                  "ece": 3.0, "brier": 0.05},
        "static_floor": {"perturbation": "freeze[middle]", "top1": CLEAN - 58},
        "perturbations": perturbations,
        "range_curves": {"block_shuffle": curve([1, 2, 4], [0.69, 0.5, 0.22], 2.9),
                         "local_shuffle": curve([2, 4, 8], [0.11, 0.41, 0.69], 3.5)},
        "occlusion_curve": [{"position": t, "seconds": round(t * 0.1667, 4), "delta": -4.0 + abs(t - 4),
                             "delta_interval": [-6.0 + abs(t - 4), -2.0 + abs(t - 4)]} for t in range(8)],
    }  # fmt: skip


def make_comparison(names: Sequence[str] = ("shuffle", "reverse")) -> dict[str, Any]:
    """The "comparison" of a run with ABLATION.COMPARE: the other model is blind to order."""
    return {
        "num_shared": 230, "num_only_a": 10, "num_only_b": 4, "perturbations_only_a": [],
        "perturbations_only_b": [], "seed": 0, "num_resamples": 10000,
        "clean": {"top1_a": CLEAN, "top1_b": 42.0, "difference": 55.5, "difference_interval": [49.0, 62.0],
                  "p_value": 1e-9},
        "perturbations": [
            {"name": name, "delta_a": -LOSS[name], "delta_b": 0.0, "difference": -LOSS[name],
             "difference_interval": _around(-LOSS[name], 5.0, -100.0), "p_value": 1e-5, "p_value_holm": 2e-5}
            for name in names
        ],
    }  # fmt: skip


def without_numbers(summary: dict[str, Any]) -> dict[str, Any]:
    """The same summary with null wherever the schema allows one."""
    kept = ("name", "label", "num_videos", "num_draws", "group", "p_value_test", "size", "position")

    def blank(row: dict[str, Any]) -> dict[str, Any]:
        return {key: value if key in kept else [None, None] if key.endswith("interval") else None
                for key, value in row.items()}  # fmt: skip

    rows = []
    for row in summary["perturbations"]:
        rows.append({**blank(row), "groups": [blank(g) for g in row["groups"]],
                     "per_class": [blank(c) for c in row["per_class"]]})  # fmt: skip
    curves: dict[str, Any] = dict.fromkeys(summary["range_curves"])
    return {**summary, "clean": blank(summary["clean"]), "static_floor": None, "seconds_per_frame": None,
            "perturbations": rows, "range_curves": curves, "occlusion_curve": None}  # fmt: skip
