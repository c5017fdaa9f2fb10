"""Every number of temporal_ablation.json, from the ablation table.

Legend: N videos, P perturbations, D draws of one, K classes, R resamples. In arrays of 1 + P columns,
column 0 is the clean run and column 1 + p the p-th perturbation.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidformers.analysis.ablation_table import AblationTable, PerturbedScores
from vidformers.analysis.perturbations import parse_perturbation
from vidformers.analysis.statistics import (
    LEVEL,
    accuracy_interval,
    benjamini_hochberg,
    bootstrap_means,
    brier_score,
    calibration_error,
    chance_level,
    half_effect_length,
    holm,
    jensen_shannon_bits,
    mcnemar_exact,
    order_score,
    percentile_interval,
    sign_flip_test,
    smallest_detectable_difference,
    true_class_margin,
)
from vidformers.engine.predictions import topk_hits

# They show some frame twice, so that no clip stays as it was, while no pair of frames is out of order.
HOLDING_KINDS = ("freeze", "repeat", "drop", "crop", "occlude")


@dataclass(frozen=True)
class Hits:
    """Right answers of some of the videos, and their accuracies (percent) when the videos are drawn again."""

    counts: np.ndarray  # (n, 1 + P) draws in which the video was right, of
    num_draws: np.ndarray  # (1 + P,)
    samples: np.ndarray  # (R, 1 + P) accuracy of each resample

    def top1(self, column: int) -> float:
        return float(self.counts[:, column].mean() / self.num_draws[column] * 100)

    def top1_interval(self, column: int) -> list[float]:
        interval = accuracy_interval(self.counts[:, column], num_draws=int(self.num_draws[column]))
        return [100 * bound for bound in interval]

    def delta(self, column: int) -> float:
        return self.top1(column) - self.top1(0)

    def delta_interval(self, column: int) -> list[float]:
        return percentile_interval(self.samples[:, column] - self.samples[:, 0]).tolist()

    def differences(self, column: int) -> np.ndarray:
        """(n,) right draws minus D times the clean answer: whole numbers -D to D."""
        return self.counts[:, column] - self.num_draws[column] * self.counts[:, 0]

    def p_value(self, column: int) -> float:
        differences = self.differences(column)
        if self.num_draws[column] > 1:
            return sign_flip_test(differences)
        return mcnemar_exact(lost=int((differences < 0).sum()), gained=int((differences > 0).sum()))

    def smallest_detectable(self, column: int) -> float:
        """In points, where p is adjusted over all P perturbations."""
        discordance = float(np.mean((self.differences(column) / self.num_draws[column]) ** 2))
        return 100 * smallest_detectable_difference(
            num_videos=len(self.counts), discordance=discordance, num_tests=len(self.num_draws) - 1
        )

    def order_score(self, column: int, *, floor: float, floor_samples: np.ndarray | float) -> dict | None:
        """None when the clean accuracy is not clearly above the floor: no share of a gap that may be 0."""
        clean = self.samples[:, 0]
        if percentile_interval(clean - floor_samples)[0] <= 0:
            return None
        return {
            "value": float(order_score(self.top1(0), self.top1(column), floor)),
            "interval": percentile_interval(
                order_score(clean, self.samples[:, column], floor_samples)
            ).tolist(),
        }


def summarize_ablation(
    table: AblationTable,
    *,
    seed: int,
    num_resamples: int,
    seconds_per_frame: float | None,
    num_frames: int,
) -> dict:
    """The content of temporal_ablation.json: plain dicts, lists, numbers, and None for what is undefined.

    Percent for accuracies and rates (chance, flips, swaps, share_unchanged), points for deltas (perturbed
    minus clean); probabilities, displacement, ECE and Jensen-Shannon bits from 0 to 1, Brier scores from 0
    to 2. Continuous numbers are rounded to 4 decimals and p-values to 4 digits, so that the last bits of a
    forward pass do not show. The order of the perturbations changes no number; the same seed gives the same.

    top1_interval is Wilson's (statistics.accuracy_interval says why); all other intervals are the 95 %
    percentile intervals of a paired bootstrap over the videos, of the group or class where they speak of one.
    An interval of no width says that no video of these changed, not that none would:
    smallest_detectable_difference says what so many videos can show once p is adjusted. A group of classes
    has p-values of its own, adjusted over the perturbations as those of all videos are.

    `seconds_per_frame` is the time between two frames of a clip, None where unknown; `num_frames` is T.
    Raises ValueError for a table without videos, ImportError when the analysis extra is not installed.
    """
    num_videos, num_classes = table.clean.shape
    if num_videos == 0:
        raise ValueError(
            f"got an ablation table without a readable video ({len(table.failed)} failed); wanted at least "
            "one; try failed_videos.csv for the reasons"
        )
    labels = table.labels
    counts = right_draws(table)
    num_draws = np.array([1, *(one.scores.shape[1] for one in table.perturbed)])
    swaps, has_partner = _swapped_draws(table)

    def hits_of(rows: np.ndarray) -> Hits:
        generator = np.random.default_rng(seed)
        means = bootstrap_means(counts[rows], num_resamples=num_resamples, generator=generator)
        return Hits(counts[rows], num_draws, means / num_draws * 100)

    def swap_rate(rows: np.ndarray, column: int) -> float | None:
        among = rows[has_partner[rows]]
        return float(swaps[among, column].mean() / num_draws[column] * 100) if len(among) else None

    everyone = np.arange(num_videos)
    hits = hits_of(everyone)
    chance = 100 * chance_level(labels)
    clean_interval = hits.top1_interval(0)
    static = _static_floor_column(table, hits)
    p_values = [hits.p_value(column) for column in range(1, len(num_draws))]
    adjusted = holm(p_values)
    clean = _distributions(table.clean)

    perturbations: list[dict[str, Any]] = []
    for column, one in enumerate(table.perturbed, start=1):
        differences, draws = hits.differences(column), int(num_draws[column])
        lost, gained = int((differences < 0).sum()), int((differences > 0).sum())
        score_chance = score_static = None
        if clean_interval[0] > chance:
            score_chance = hits.order_score(column, floor=chance, floor_samples=chance)
        if static is not None:
            score_static = hits.order_score(
                column, floor=hits.top1(static), floor_samples=hits.samples[:, static]
            )
        changes = _changes_of_answer(one, clean, table)
        perturbations.append(
            {
                "name": one.name,
                "num_draws": draws,
                "displacement": _mean_displacement(one),
                "share_unchanged": _share_unchanged(one),
                "top1": hits.top1(column),
                "top1_interval": hits.top1_interval(column),
                "delta": hits.delta(column),
                "delta_interval": hits.delta_interval(column),
                "p_value": p_values[column - 1],
                "p_value_test": "mcnemar" if draws == 1 else "permutation",
                "p_value_holm": adjusted[column - 1],
                "discordant": {"lost": lost, "gained": gained} if draws == 1 else None,
                "order_score_chance": score_chance,
                "order_score_static": score_static,
                "flip_rate": changes["flip_rate"],
                "swap_rate": swap_rate(everyone, column),
                "confidence_shift": changes["confidence_shift"],
                "margin_shift": changes["margin_shift"],
                "jensen_shannon": changes["jensen_shannon"],
                "ece": changes["ece"],
                "brier": changes["brier"],
                "smallest_detectable_difference": hits.smallest_detectable(column),
                "groups": [],
                "per_class": [],
            }
        )

    # A group or a class is resampled once for all perturbations: in all the work of one more resampling.
    for group, rows in _rows_by_group(table):
        some = hits_of(rows)
        adjusted = holm([some.p_value(column) for column in range(1, len(num_draws))])
        for column, target in enumerate(perturbations, start=1):
            target["groups"].append(
                {
                    "group": group,
                    "num_videos": len(rows),
                    "chance": 100 * chance_level(labels[rows]),
                    "top1": some.top1(column),
                    "top1_interval": some.top1_interval(column),
                    "clean_top1": some.top1(0),
                    "delta": some.delta(column),
                    "delta_interval": some.delta_interval(column),
                    "p_value_holm": adjusted[column - 1],
                    "swap_rate": swap_rate(rows, column),
                    "smallest_detectable_difference": some.smallest_detectable(column),
                }
            )
    for label in np.unique(labels).tolist():
        rows = np.flatnonzero(labels == label)
        some = hits_of(rows)
        for column, target in enumerate(perturbations, start=1):
            target["per_class"].append(
                {
                    "label": label,
                    "name": table.class_names[label],
                    "num_videos": len(rows),
                    "clean_top1": some.top1(0),
                    "top1": some.top1(column),
                    "delta": some.delta(column),
                    "delta_interval": some.delta_interval(column),
                    "p_value_bh": some.p_value(column),  # adjusted below, once all classes are there
                    "swap_rate": swap_rate(rows, column),
                }
            )
    for target in perturbations:
        rates = benjamini_hochberg([row["p_value_bh"] for row in target["per_class"]])
        for row, rate in zip(target["per_class"], rates, strict=True):
            row["p_value_bh"] = rate

    confidence = clean.max(axis=1)
    num_damaged = sum(reason == "damaged" for _, reason, _ in table.failed)  # they are scored all the same
    summary = {
        "num_videos": num_videos,
        "num_failed": len(table.failed) - num_damaged,
        "num_damaged": num_damaged,
        "num_frames": num_frames,
        "seconds_per_frame": seconds_per_frame,
        "seed": seed,
        "num_resamples": num_resamples,
        "num_classes": num_classes,
        "chance": chance,
        "clean": {
            "top1": hits.top1(0),
            "top1_interval": clean_interval,
            "confidence": float(confidence.mean()),
            "margin": float(true_class_margin(clean, labels).mean()),
            "ece": calibration_error(confidence, counts[:, 0] > 0),
            "brier": brier_score(clean, labels),
        },
        "static_floor": {"perturbation": table.perturbed[static - 1].name, "top1": hits.top1(static)}
        if static is not None
        else None,
        "perturbations": perturbations,
        "range_curves": {
            # Blocks of one frame and one window as long as the clip are the plain shuffle.
            kind: _range_curve(perturbations, kind, shuffle_size, seconds_per_frame)
            for kind, shuffle_size in (("block_shuffle", 1), ("local_shuffle", num_frames))
        },
        "occlusion_curve": _occlusion_curve(perturbations, seconds_per_frame),
    }
    return tidy(summary)


def compare_ablations(
    table_a: AblationTable, table_b: AblationTable, *, seed: int, num_resamples: int
) -> dict:
    """Does a perturbation cost model A more than model B? Differences of differences on the shared videos.

    "difference" is A minus B: of the clean accuracies, and of the deltas (perturbed minus clean) of every
    perturbation that both have, in points, with the interval of a paired bootstrap over the shared videos.
    p-values: McNemar's for the clean runs, sign flips of each video's difference of differences for the
    perturbations, Holm over these. Rounded as in summarize_ablation; the order of videos and perturbations
    does not matter. Raises ValueError where fewer than 2 videos or no perturbation are shared, a video occurs
    twice in a table, or the tables disagree on a label.
    """
    rows_a, rows_b = _rows_by_video(table_a, "A"), _rows_by_video(table_b, "B")
    shared = sorted(rows_a.keys() & rows_b.keys())
    num_only_a, num_only_b = len(rows_a) - len(shared), len(rows_b) - len(shared)
    if len(shared) < 2:
        raise ValueError(
            f"got two ablations that share {len(shared)} videos ({num_only_a} are only in A, {num_only_b} "
            "only in B); wanted at least 2; try ablations of the same list, with the same paths"
        )
    of_a, of_b = [rows_a[video] for video in shared], [rows_b[video] for video in shared]
    differ = np.flatnonzero(table_a.labels[of_a] != table_b.labels[of_b])
    if len(differ):
        raise ValueError(
            f"got two ablations whose labels differ for {len(differ)} of {len(shared)} shared videos, first "
            f"{shared[differ[0]]}; wanted the same labels; try ablations of the same list"
        )
    names_a = {one.name: column for column, one in enumerate(table_a.perturbed, start=1)}
    names_b = {one.name: column for column, one in enumerate(table_b.perturbed, start=1)}
    names = [name for name in names_a if name in names_b]
    if not names:
        raise ValueError(
            f"got two ablations without a common perturbation ({', '.join(names_a) or 'none'}; "
            f"{', '.join(names_b) or 'none'}); wanted at least one; try the same ABLATION.PERTURBATIONS"
        )
    counts_a, counts_b = right_draws(table_a)[of_a], right_draws(table_b)[of_b]
    generator = np.random.default_rng(seed)
    # One resampling of both tables' columns: the same videos are drawn for both models.
    samples = bootstrap_means(
        np.hstack([counts_a, counts_b]), num_resamples=num_resamples, generator=generator
    )
    samples_a, samples_b = np.hsplit(samples, [counts_a.shape[1]])

    rows: list[dict[str, Any]] = []
    for name in names:
        a, b = names_a[name], names_b[name]
        draws_a, draws_b = table_a.perturbed[a - 1].scores.shape[1], table_b.perturbed[b - 1].scores.shape[1]
        change_a = counts_a[:, a] - draws_a * counts_a[:, 0]
        change_b = counts_b[:, b] - draws_b * counts_b[:, 0]
        change_samples = (
            samples_a[:, a] / draws_a - samples_a[:, 0] - samples_b[:, b] / draws_b + samples_b[:, 0]
        )
        delta_a, delta_b = 100 * float(change_a.mean()) / draws_a, 100 * float(change_b.mean()) / draws_b
        rows.append(
            {
                "name": name,
                "delta_a": delta_a,
                "delta_b": delta_b,
                "difference": delta_a - delta_b,
                "difference_interval": (100 * percentile_interval(change_samples)).tolist(),
                "p_value": sign_flip_test(draws_b * change_a - draws_a * change_b),
            }
        )
    adjusted = holm([row["p_value"] for row in rows])
    only_a_right = int((counts_a[:, 0] > counts_b[:, 0]).sum())
    only_b_right = int((counts_a[:, 0] < counts_b[:, 0]).sum())
    comparison = {
        "num_shared": len(shared),
        "num_only_a": num_only_a,
        "num_only_b": num_only_b,
        "perturbations_only_a": [name for name in names_a if name not in names_b],
        "perturbations_only_b": [name for name in names_b if name not in names_a],
        "seed": seed,
        "num_resamples": num_resamples,
        "clean": {
            "top1_a": 100 * float(counts_a[:, 0].mean()),
            "top1_b": 100 * float(counts_b[:, 0].mean()),
            "difference": 100 * (only_a_right - only_b_right) / len(shared),
            "difference_interval": (100 * percentile_interval(samples_a[:, 0] - samples_b[:, 0])).tolist(),
            "p_value": mcnemar_exact(lost=only_a_right, gained=only_b_right),
        },
        "perturbations": [
            {**row, "p_value_holm": p_value} for row, p_value in zip(rows, adjusted, strict=True)
        ],
    }
    return tidy(comparison)


def right_draws(table: AblationTable) -> np.ndarray:
    """(N, 1 + P) in how many draws each video was right; a tie counts as wrong (predictions.topk_hits)."""
    columns = [topk_hits(table.clean, table.labels, 1).astype(np.int64)]
    for one in table.perturbed:
        draws = range(one.scores.shape[1])
        columns.append(np.sum([topk_hits(one.scores[:, draw], table.labels, 1) for draw in draws], axis=0))
    return np.stack(columns, axis=1)


def tidy(value: Any, key: str = "") -> Any:
    """Numbers as the file holds them: rounded, and None for NaN and infinity, which JSON has not."""
    if isinstance(value, dict):
        return {name: tidy(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [tidy(item, key) for item in value]
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return float(f"{value:.4g}") if key.startswith("p_value") else round(value, 4) + 0.0  # -0.0 + 0.0 is 0.0


def _rows_by_video(table: AblationTable, which: str) -> dict[str, int]:
    rows = {video: row for row, video in enumerate(table.video_ids)}
    if len(rows) < len(table.video_ids):
        twice = next(video for row, video in enumerate(table.video_ids) if rows[video] != row)
        raise ValueError(
            f"got ablation {which} with {twice} in it twice; wanted each video once, to pair the models; try "
            "a list without repeats"
        )
    return rows


def _swapped_draws(table: AblationTable) -> tuple[np.ndarray, np.ndarray]:
    """(N, 1 + P) draws in which each video was taken for its class's partner, (N,) whether it has one."""
    num_videos = len(table.labels)
    partners = np.full(num_videos, -1)
    if table.class_partners is not None:
        partners = np.asarray(table.class_partners)[table.labels]
    has_partner = (partners >= 0) & (partners != table.labels)
    swaps = np.zeros((num_videos, 1 + len(table.perturbed)), dtype=np.int64)
    for column, one in enumerate(table.perturbed, start=1):
        for draw in range(one.scores.shape[1]):
            swaps[has_partner, column] += topk_hits(one.scores[has_partner, draw], partners[has_partner], 1)
    return swaps, has_partner


def _distributions(scores: np.ndarray) -> np.ndarray:
    """(N, K) that sum to 1: the maximum over views of several distributions does not."""
    exact = scores.astype(np.float64)
    return exact / exact.sum(axis=1, keepdims=True)


def _changes_of_answer(one: PerturbedScores, clean: np.ndarray, table: AblationTable) -> dict[str, float]:
    """What changes beside the accuracy: means over videos and draws; one draw at a time in float64."""
    labels, clean_confidence = table.labels, clean.max(axis=1)
    clean_margin, clean_answer = true_class_margin(clean, labels), table.clean.argmax(axis=1)
    flips, margins, divergences, briers, confidences, right = [], [], [], [], [], []
    for draw in range(one.scores.shape[1]):
        perturbed = _distributions(one.scores[:, draw])
        flips.append(np.mean(one.scores[:, draw].argmax(axis=1) != clean_answer) * 100)
        margins.append(np.mean(true_class_margin(perturbed, labels) - clean_margin))
        divergences.append(np.mean(jensen_shannon_bits(clean, perturbed)))
        briers.append(brier_score(perturbed, labels))
        confidences.append(perturbed.max(axis=1))
        right.append(topk_hits(one.scores[:, draw], labels, 1))
    return {
        "flip_rate": float(np.mean(flips)),
        "confidence_shift": float(np.mean(confidences) - clean_confidence.mean()),
        "margin_shift": float(np.mean(margins)),
        "jensen_shannon": float(np.mean(divergences)),
        "ece": calibration_error(np.concatenate(confidences), np.concatenate(right)),
        "brier": float(np.mean(briers)),
    }


def _mean_displacement(one: PerturbedScores) -> float | None:
    known = one.displacement[~np.isnan(one.displacement)]
    return float(known.mean()) if known.size else None


def _share_unchanged(one: PerturbedScores) -> float | None:
    """Percent of the draws that were the identity by accident, or by design; None where no map was moved."""
    if parse_perturbation(one.name).kind in HOLDING_KINDS:
        return 0.0
    known = one.displacement[~np.isnan(one.displacement)]
    return float((known == 0).mean() * 100) if known.size else None


def _static_floor_column(table: AblationTable, hits: Hits) -> int | None:
    """Column of freeze[middle], or else of the most accurate freeze at a fixed frame."""
    frozen = []
    for column, one in enumerate(table.perturbed, start=1):
        perturbation = parse_perturbation(one.name)
        if perturbation.kind == "freeze" and not (perturbation.is_oracle or perturbation.by_tubelet):
            frozen.append((one.name == "freeze[middle]", hits.top1(column), one.name, column))
    return max(frozen)[-1] if frozen else None  # the name decides between equals, not the order


def _rows_by_group(table: AblationTable) -> list[tuple[str, np.ndarray]]:
    if table.class_groups is None:
        return []
    groups = np.array(table.class_groups)[table.labels]
    return [(str(group), np.flatnonzero(groups == group)) for group in np.unique(groups)]


def _frame_sized(perturbations: list[dict], kind: str) -> dict[int, dict]:
    """The perturbations of one kind that count in frames, by their only argument."""
    found = {}
    for row in perturbations:
        perturbation = parse_perturbation(row["name"])
        if perturbation.kind == kind and not perturbation.by_tubelet:
            found[int(perturbation.arguments[0])] = row
    return dict(sorted(found.items()))


def _range_curve(
    perturbations: list[dict], kind: str, shuffle_size: int, seconds_per_frame: float | None
) -> dict | None:
    """Order score above chance against block size or window; None where none ran or the score is."""
    rows = _frame_sized(perturbations, kind)
    if not rows or any(row["order_score_chance"] is None for row in rows.values()):
        return None
    for row in perturbations:
        if row["name"] == "shuffle":
            rows.setdefault(shuffle_size, row)
    sizes = sorted(rows)
    scores = [rows[size]["order_score_chance"] for size in sizes]
    values = [score["value"] for score in scores]
    # Half of a fall that is not told from none is not a length.
    clear = max(rows.values(), key=lambda row: row["order_score_chance"]["value"])["p_value_holm"] < LEVEL
    half = half_effect_length(sizes, values) if clear else None
    return {
        "points": [
            {
                "size": size,
                "seconds": _seconds(size, seconds_per_frame),
                "score": score["value"],
                "score_interval": score["interval"],
            }
            for size, score in zip(sizes, scores, strict=True)
        ],
        "half_effect_frames": half,
        "half_effect_seconds": _seconds(half, seconds_per_frame),
    }


def _occlusion_curve(perturbations: list[dict], seconds_per_frame: float | None) -> list[dict] | None:
    rows = _frame_sized(perturbations, "occlude")
    curve = [
        {
            "position": position,
            "seconds": _seconds(position, seconds_per_frame),
            "delta": row["delta"],
            "delta_interval": row["delta_interval"],
        }
        for position, row in rows.items()
    ]
    return curve or None


def _seconds(frames: float | None, seconds_per_frame: float | None) -> float | None:
    return None if frames is None or seconds_per_frame is None else frames * seconds_per_frame
