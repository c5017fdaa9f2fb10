"""The statistics of the ablation: pure functions on arrays, scipy and statsmodels where they have it.

The unit is the video. What a video contributes is the number of its draws that were right (0 or 1 for a
deterministic perturbation), so that all draws of a video come and go together; counts are whole numbers, so
that sums over resampled videos are exact and do not depend on the order of anything.

Legend: n videos, M columns (clean and each perturbation), D draws, R resamples, K classes.
"""

import importlib
from collections.abc import Sequence
from functools import cache
from math import ceil, gcd, log2, sqrt
from typing import Any

import numpy as np

LEVEL = 0.05  # a change is told from none where its adjusted p-value is below


def import_analysis(name: str) -> Any:
    """A module of the analysis extra, or an ImportError that says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"the statistics of the ablation need {name.partition('.')[0]} ({error}): "
            "pip install 'vidformers[analysis]'"
        ) from error


def bootstrap_means(columns: np.ndarray, *, num_resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Column means of (n, M) whole numbers over n videos drawn with replacement, num_resamples times: (R, M).

    One draw of the videos serves all columns, which pairs them. The draws of a perturbation are not drawn
    again: each video's were seeded by the video, so the variance between draws is already in the variance
    between videos, and drawing them again would count it twice (tests/analysis/test_statistics.py measures
    both).
    """
    n = len(columns)
    values = columns.astype(np.float64)
    means = np.empty((num_resamples, columns.shape[1]))
    at_once = max(1, 2**20 // n)  # 8 MB of indices, whatever n
    for start in range(0, num_resamples, at_once):
        count = min(at_once, num_resamples - start)
        # How often each video was drawn, (count, n): videos of the next resample are numbered n higher.
        drawn = generator.integers(n, size=(count, n)) + np.arange(count)[:, None] * n
        weights = np.bincount(drawn.reshape(-1), minlength=count * n).reshape(count, n)
        means[start : start + count] = weights.astype(np.float64) @ values
    return means / n


def percentile_interval(samples: np.ndarray) -> np.ndarray:
    """The 95 % percentile interval along the first axis: (R, ...) -> (2, ...)."""
    return np.quantile(samples, (0.025, 0.975), axis=0)


def accuracy_interval(hits: np.ndarray, *, num_draws: int) -> tuple[float, float]:
    """95 % interval of an accuracy, as shares, from (n,) counts of right draws: Wilson's score interval.

    With several draws a video counts as between 1/D and D independent answers: the variance between videos
    gives the effective number (Korn and Graubard 1998; with Wilson's interval: Dean and Pagano 2015). A
    percentile bootstrap would be Wald's interval in effect, of no width at 0 and 100 %, and covers 70 %
    instead of 95 % for 24 videos at 95 % accuracy; tests/analysis/test_statistics.py measures both.
    """
    statsmodels_proportion = import_analysis("statsmodels.stats.proportion")
    n = len(hits)
    share = hits.mean() / num_draws
    variance = np.var(hits / num_draws)
    effective = n if share in (0, 1) else n * min(share * (1 - share) / max(variance, 1e-12), num_draws)
    low, high = statsmodels_proportion.proportion_confint(share * effective, effective, method="wilson")
    return float(low), float(high)


@cache  # 2 ms each, and the classes of a perturbation repeat the same few pairs of counts
def mcnemar_exact(*, lost: int, gained: int) -> float:
    """Two-sided p-value of McNemar's exact test from the discordant pairs."""
    stats = import_analysis("scipy.stats")
    return float(stats.binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0


def sign_flip_test(differences: np.ndarray) -> float:
    """Two-sided p-value that (n,) whole-number differences, one a video, have mean 0: all 2^n signs, exactly.

    scipy.stats.permutation_test enumerates or samples the signs; whole numbers need neither. The sum of
    random signs times k_i has the characteristic function prod cos(k_i w), and one Fourier transform of it is
    the whole distribution. With differences of -1, 0 and 1 this is McNemar's exact test. The transform's
    rounding hides p-values below 1e-10, which are given as 1e-10.
    """
    fft = import_analysis("scipy.fft")
    sizes = np.abs(differences)
    common = gcd(*sizes.tolist())
    if common == 0:
        return 1.0
    observed, counts = abs(int(differences.sum())) // common, np.bincount(sizes // common)
    largest = int((counts * np.arange(len(counts))).sum())
    length = fft.next_fast_len(2 * largest + 1, real=True)
    angles = 2 * np.pi * np.arange(length // 2 + 1) / length
    characteristic = np.ones(len(angles))
    for size in np.flatnonzero(counts):
        characteristic *= np.cos(size * angles) ** int(counts[size])
    probabilities = fft.irfft(
        characteristic, n=length
    )  # of the sums 0, 1, ..., and of -1, -2, ... from the end
    p = 2 * probabilities[observed : largest + 1].sum() if observed else 1.0
    return float(np.clip(p, 1e-10, 1.0))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted over the family: the chance of a single false finding stays below the level."""
    multitest = import_analysis("statsmodels.stats.multitest")
    return multitest.multipletests(p_values, method="holm")[1].tolist() if len(p_values) else []


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that the expected share of false findings stays below the level."""
    stats = import_analysis("scipy.stats")
    return stats.false_discovery_control(p_values, method="bh").tolist() if len(p_values) else []


def smallest_detectable_difference(*, num_videos: int, discordance: float, num_tests: int = 1) -> float:
    """The true difference, as a share, that n videos show with 80 % power at a two-sided 5 % level.

    discordance: mean square of the per-video differences (a single draw: share of videos whose answer turned
    right or wrong). 1000 videos, 10 % discordant: 2.8 points. num_tests: size of the family over which p is
    adjusted after Holm, whose first step asks for 5 % / num_tests.

    Never below what an exact test can call significant at all, six discordant videos of one direction
    (2 / 2^6 < 5 %; nine for a family of 11): with no discordant video the formula would say that any
    difference had been seen. Videos and not draws, since the draws of one video may all fall together. 1.0
    where there are fewer videos than that.
    """
    stats = import_analysis("scipy.stats")
    level = LEVEL / num_tests
    z = stats.norm.ppf(1 - level / 2) + stats.norm.ppf(0.8)
    fewest = ceil(log2(2 / level))
    return min(1.0, max(z * sqrt(discordance / num_videos), fewest / num_videos))


def chance_level(labels: np.ndarray) -> float:
    """Accuracy of always naming the most frequent class, as a share: never below an even guess, 1/K."""
    return float(np.bincount(labels).max() / len(labels))


def calibration_error(confidence: np.ndarray, correct: np.ndarray, *, num_bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, section 3) over bins of equal width, (low, high]."""
    # Uniform answers of 3, 5 or 15 classes lie on an edge, where the last bit must not choose the bin.
    bins = np.clip(np.ceil(np.round(confidence * num_bins, 6)).astype(int) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(confidence))


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over videos of the squared distance of (n, K) probabilities to the true class: 0 to 2."""
    own = probabilities[np.arange(len(labels)), labels]
    return float(((probabilities**2).sum(axis=1) - own**2 + (1 - own) ** 2).mean())


def true_class_margin(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n,) probability of the true class minus the highest of the others; -1 to 1."""
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = 0
    return probabilities[rows, labels] - others.max(axis=1)


def jensen_shannon_bits(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(n,) Jensen-Shannon divergence of the rows of two (n, K) distributions, in bits: 0 to 1."""
    special = import_analysis("scipy.special")
    middle = (p + q) / 2
    # scipy.spatial's jensenshannon is the square root of this, and NaN where rounding makes it -1e-18.
    divergence = special.rel_entr(p, middle).sum(axis=1) + special.rel_entr(q, middle).sum(axis=1)
    return np.clip(divergence / (2 * np.log(2)), 0, 1)


def order_score(
    clean: np.ndarray | float, perturbed: np.ndarray | float, floor: np.ndarray | float
) -> np.ndarray:
    """The share of the accuracy above `floor` that the perturbation costs: 0 blind to order, 1 nothing but.

    For a resample whose clean accuracy does not exceed the floor it is huge, of the effect's sign.
    """
    return np.subtract(clean, perturbed) / np.maximum(np.subtract(clean, floor), 1e-9)


def half_effect_length(sizes: Sequence[int], scores: Sequence[float]) -> float | None:
    """The size at which the score crosses half of its largest value, log2-linear between the sizes measured.

    The crossing nearest to the largest score, on either side of it; None when there is none or no positive
    score. Sizes 2, 4, 8 with scores 1, 0.75, 0.25: 2^2.5 = 5.66.
    """
    half = max(scores) / 2
    order = np.argsort(sizes)
    x, y = [log2(sizes[i]) for i in order], [scores[i] - half for i in order]
    crossings = [
        x[i] + (x[i + 1] - x[i]) * y[i] / (y[i] - y[i + 1])
        for i in range(len(x) - 1)
        if (y[i] >= 0) != (y[i + 1] >= 0)
    ]
    if half <= 0 or not crossings:
        return None
    top = x[int(np.argmax(y))]
    return 2 ** min(crossings, key=lambda crossing: abs(crossing - top))
