"""The statistics against scipy, statsmodels and sums by hand; their coverage and size by simulation.

Simulated: a random classifier on videos of unequal difficulty, so that the clean and the perturbed accuracy
are the same and an interval of the difference should contain 0 in 95 of 100 data sets.
"""

import sys
from math import sqrt

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon
from statsmodels.stats.contingency_tables import mcnemar

from vidformers.analysis.statistics import (
    accuracy_interval,
    benjamini_hochberg,
    bootstrap_means,
    brier_score,
    calibration_error,
    chance_level,
    half_effect_length,
    holm,
    import_analysis,
    jensen_shannon_bits,
    mcnemar_exact,
    order_score,
    percentile_interval,
    sign_flip_test,
    smallest_detectable_difference,
    true_class_margin,
)

SEEDS = 200


def compatible_with(share: float, successes: int, trials: int) -> bool:
    """Whether a count is within its 99 % binomial error."""
    return stats.binomtest(successes, trials, share).pvalue > 0.01


def random_classifier(seed: int, *, num_videos: int, num_draws: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) clean hits and (n, D) hits of each draw; a video's chance of being right is its own."""
    rng = np.random.default_rng(seed)
    difficulty = rng.beta(1, 3, num_videos)[:, None]
    hits = (rng.random((num_videos, 1 + num_draws)) < difficulty).astype(np.int64)
    return hits[:, 0], hits[:, 1:]


def covers_zero(clean: np.ndarray, right: np.ndarray, num_draws: int, seed: int) -> bool:
    columns = np.stack([clean, right], axis=1)
    means = bootstrap_means(columns, num_resamples=500, generator=np.random.default_rng(seed))
    low, high = percentile_interval(means[:, 1] / num_draws - means[:, 0])
    return bool(low <= 0 <= high)


# Bootstrap


def test_each_resample_draws_as_many_videos_as_there_are_across_chunks():
    n = 2**18 - 1  # 4 resamples a chunk
    means = bootstrap_means(np.ones((n, 1), int), num_resamples=6, generator=np.random.default_rng(0))
    assert means.shape == (6, 1) and (means == 1).all()
    column = np.random.default_rng(1).integers(0, 6, (500, 1))
    means = bootstrap_means(column, num_resamples=5000, generator=np.random.default_rng(0))
    assert means.mean() == pytest.approx(column.mean(), abs=0.01)
    assert means.std() == pytest.approx(column.std() / sqrt(500), rel=0.04)
    assert len(np.unique(means)) > 100
    each = bootstrap_means(np.eye(3, dtype=int), num_resamples=5000, generator=np.random.default_rng(0))
    assert each.mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.02)  # the last video too


def test_the_columns_are_paired_and_their_order_changes_no_bit():
    columns = np.random.default_rng(0).integers(0, 8, (301, 7))
    columns[:, 3] = columns[:, 0]
    means = bootstrap_means(columns, num_resamples=200, generator=np.random.default_rng(5))
    assert (means[:, 3] == means[:, 0]).all()
    turned = bootstrap_means(columns[:, ::-1], num_resamples=200, generator=np.random.default_rng(5))
    np.testing.assert_array_equal(turned[:, ::-1], means)
    alone = bootstrap_means(columns[:, 2:3], num_resamples=200, generator=np.random.default_rng(5))
    np.testing.assert_array_equal(alone[:, 0], means[:, 2])


def test_the_paired_interval_agrees_with_scipys_bootstrap():
    clean, draws = random_classifier(0, num_videos=300, num_draws=1)
    columns = np.stack([clean, draws[:, 0]], axis=1)
    means = bootstrap_means(columns, num_resamples=5000, generator=np.random.default_rng(0))
    ours = percentile_interval(means[:, 1] - means[:, 0])
    theirs = stats.bootstrap(
        (draws[:, 0] - clean,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours == pytest.approx(theirs, abs=0.008)


@pytest.mark.parametrize("num_draws", [1, 5])
def test_the_interval_of_a_difference_covers_the_truth_in_95_of_100(num_draws):
    covered = 0
    for seed in range(SEEDS):
        clean, draws = random_classifier(seed, num_videos=200, num_draws=num_draws)
        covered += covers_zero(clean, draws.sum(axis=1), num_draws, seed)
    assert compatible_with(0.95, covered, SEEDS), covered


def test_with_the_draw_as_the_unit_the_interval_is_too_narrow():
    covered, seeds = 0, 60
    for seed in range(seeds):
        clean, draws = random_classifier(seed, num_videos=100, num_draws=5)
        covered += covers_zero(np.repeat(clean, 5), draws.reshape(-1), 1, seed)
    assert not compatible_with(0.95, covered, seeds) and covered < 0.85 * seeds, covered


def test_drawing_the_draws_again_counts_their_variance_twice():
    ratios = []
    for seed in range(20):
        clean, draws = random_classifier(seed, num_videos=200, num_draws=2)
        right, rng = draws.sum(axis=1), np.random.default_rng(seed)
        means = bootstrap_means(np.stack([clean, right], axis=1), num_resamples=500, generator=rng)
        videos = rng.integers(200, size=(500, 200))
        again = rng.binomial(2, right[videos] / 2) / 2 - clean[videos]
        ratios.append(again.mean(axis=1).std() / (means[:, 1] / 2 - means[:, 0]).std())
    # Var(clean - mean of draws) is 1.5 v for two draws of within-video variance v; drawing again adds v / 4.
    assert np.mean(ratios) == pytest.approx(sqrt(1.75 / 1.5), abs=0.03)


def test_the_interval_of_an_order_score_covers_the_truth():
    covered = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        columns = (rng.random((200, 3)) < [0.8, 0.5, 0.3]).astype(np.int64)
        means = bootstrap_means(columns, num_resamples=500, generator=rng)
        low, high = percentile_interval(order_score(means[:, 0], means[:, 1], means[:, 2]))
        covered += low <= (0.8 - 0.5) / (0.8 - 0.3) <= high
    assert compatible_with(0.95, covered, SEEDS), covered


# Accuracies


def test_the_interval_of_an_accuracy_is_wilsons():
    for right, total in [(8, 10), (0, 24), (24, 24), (137, 1000)]:
        hits = np.array([1] * right + [0] * (total - right))
        expected = stats.binomtest(right, total).proportion_ci(method="wilson")
        assert accuracy_interval(hits, num_draws=1) == pytest.approx(tuple(expected), abs=1e-9)


def test_several_draws_count_as_one_when_they_agree_and_as_all_when_they_are_independent():
    one = accuracy_interval(np.array([1] * 30 + [0] * 10), num_draws=1)
    assert accuracy_interval(np.array([5] * 30 + [0] * 10), num_draws=5) == pytest.approx(one)
    # Every video right in 3 of 4 draws: less varied than independence, and worth no more than it.
    many = stats.binomtest(120, 160).proportion_ci(method="wilson")
    assert accuracy_interval(np.array([3] * 40), num_draws=4) == pytest.approx(tuple(many))


@pytest.mark.parametrize("num_draws", [1, 5])
def test_in_a_small_group_wilson_covers_where_a_bootstrap_does_not(num_draws):
    wilson = bootstrap = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        hits = rng.binomial(num_draws, rng.beta(1.9, 0.1, 24) if num_draws > 1 else 0.95, 24)
        low, high = accuracy_interval(hits, num_draws=num_draws)
        wilson += low <= 0.95 <= high
        means = bootstrap_means(hits[:, None], num_resamples=300, generator=rng)[:, 0] / num_draws
        low, high = percentile_interval(means)
        bootstrap += low <= 0.95 <= high
    assert compatible_with(0.95, wilson, SEEDS), wilson
    assert bootstrap < 0.85 * SEEDS, bootstrap


# Tests


@pytest.mark.parametrize("lost, gained", [(10, 2), (5, 0), (3, 3), (40, 61), (0, 0)])
def test_mcnemar_is_statsmodels_exact_one(lost, gained):
    expected = mcnemar([[50, lost], [gained, 20]], exact=True).pvalue if lost + gained else 1.0
    assert mcnemar_exact(lost=lost, gained=gained) == pytest.approx(expected)


def test_mcnemar_by_hand():
    # 2 * (1 + 12 + 66) / 2^12
    assert mcnemar_exact(lost=10, gained=2) == pytest.approx(158 / 4096)


@pytest.mark.parametrize("lost, gained", [(10, 2), (5, 0), (3, 3), (300, 240), (5000, 4800)])
def test_sign_flips_of_single_draws_are_mcnemars_test(lost, gained):
    differences = np.array([-1] * lost + [1] * gained + [0] * 9)
    assert sign_flip_test(differences) == pytest.approx(mcnemar_exact(lost=lost, gained=gained), rel=1e-8)
    assert sign_flip_test(5 * differences) == sign_flip_test(differences)


def test_sign_flips_are_scipys_permutation_test():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        clean, draws = rng.integers(0, 2, 11), rng.integers(0, 6, 11)
        expected = stats.permutation_test(
            (draws, 5 * clean), lambda a, b: (a - b).sum(), permutation_type="samples", n_resamples=np.inf
        )
        assert sign_flip_test(draws - 5 * clean) == pytest.approx(expected.pvalue)


def test_sign_flips_of_many_videos_and_of_none_that_changed():
    differences = np.random.default_rng(0).integers(-10, 11, 3000)
    normal = 2 * stats.norm.sf(abs(differences.sum()) / sqrt((differences**2).sum()))
    assert sign_flip_test(differences) == pytest.approx(normal, rel=0.01)
    assert sign_flip_test(np.zeros(50, int)) == 1.0
    assert sign_flip_test(np.ones(2000, int)) == 1e-10


def test_the_tests_reject_a_true_null_hypothesis_in_at_most_5_of_100():
    runs, single, several, draw_as_unit = 600, 0, 0, 0
    for seed in range(runs):
        clean, draws = random_classifier(seed, num_videos=100, num_draws=5)
        changes = draws - clean[:, None]
        lost, gained = int((changes[:, 0] < 0).sum()), int((changes[:, 0] > 0).sum())
        single += mcnemar_exact(lost=lost, gained=gained) <= 0.05
        several += sign_flip_test(changes.sum(axis=1)) <= 0.05
        draw_as_unit += sign_flip_test(changes.reshape(-1)) <= 0.05
    upper = stats.binom.ppf(0.99, runs, 0.05)
    assert single <= upper and several <= upper, (single, several)
    assert compatible_with(0.05, several, runs), several  # and no more careful than it says
    assert draw_as_unit > 3 * upper, draw_as_unit


def test_holm_and_benjamini_hochberg_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert benjamini_hochberg([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert holm([]) == [] and benjamini_hochberg([]) == []


def test_smallest_detectable_difference():
    assert smallest_detectable_difference(num_videos=1000, discordance=0.1) == pytest.approx(0.0280, abs=5e-5)
    # No video changed: an exact test still needs six, all one way.
    assert smallest_detectable_difference(num_videos=200, discordance=0.0) == 0.03
    assert mcnemar_exact(lost=6, gained=0) < 0.05 < mcnemar_exact(lost=5, gained=0)
    assert smallest_detectable_difference(num_videos=3, discordance=0.5) == 1.0
    # Over a family of eleven: nine, for Holm's first step.
    assert smallest_detectable_difference(num_videos=200, discordance=0.0, num_tests=11) == 0.045
    p_values = [mcnemar_exact(lost=lost, gained=0) for lost in (9, 8)]
    assert holm([p_values[0], *[1.0] * 10])[0] < 0.05 < holm([p_values[1], *[1.0] * 10])[0]
    wider = smallest_detectable_difference(num_videos=1000, discordance=0.1, num_tests=11)
    assert wider == pytest.approx(0.01 * (stats.norm.isf(0.025 / 11) + stats.norm.isf(0.2)), rel=1e-6)


def test_the_smallest_detectable_difference_is_found_in_80_of_100():
    rng, runs = np.random.default_rng(0), 400
    lost, gained, _ = rng.multinomial(1000, [0.064, 0.036, 0.9], size=runs).T  # 10 % discordant, 2.8 points
    by_formula = int((np.abs(lost - gained) / np.sqrt(lost + gained) > stats.norm.ppf(0.975)).sum())
    assert compatible_with(0.80, by_formula, runs), by_formula
    exact = sum(mcnemar_exact(lost=int(a), gained=int(b)) <= 0.05 for a, b in zip(lost, gained, strict=True))
    assert 0.70 * runs < exact <= by_formula  # the exact test is a little more careful


# Descriptions


def test_chance_is_the_share_of_the_most_frequent_class():
    assert chance_level(np.array([0, 1, 2, 2])) == 0.5
    assert chance_level(np.array([0, 1, 2, 3])) == 0.25


def test_calibration_error_by_hand():
    confidence, correct = np.array([0.9, 0.9, 0.62, 0.62]), np.array([True, False, True, True])
    assert calibration_error(confidence, correct) == pytest.approx((0.4 + 0.38) / 2)
    assert calibration_error(np.array([1.0, 1e-9]), np.array([True, False])) == pytest.approx(0, abs=1e-8)
    # (low, high]: 0.2 closes the third bin and 0.21 is in the next; one bin would cancel them.
    assert calibration_error(np.array([0.2, 0.21]), np.array([1, 0])) == pytest.approx((0.8 + 0.21) / 2)


def test_the_last_bit_of_an_even_answer_does_not_choose_its_bin():
    right = np.array([1, 0, 0])
    even = np.full(3, 1 / 3)
    noise = even + np.array([1e-9, -1e-9, 0])
    assert calibration_error(noise, right) == pytest.approx(calibration_error(even, right), abs=1e-8)


def test_brier_score_and_margin_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]])
    labels = np.array([0, 2])
    assert brier_score(probabilities, labels) == pytest.approx((0.14 + 0.25 + 0.09 + 0.64) / 2)
    assert true_class_margin(probabilities, labels).tolist() == pytest.approx([0.5, -0.3])
    assert probabilities[0, 0] == 0.7  # the argument is left alone


def test_jensen_shannon_is_the_square_of_scipys_distance():
    p, q = np.random.default_rng(0).dirichlet(np.ones(5), (2, 30))
    np.testing.assert_allclose(jensen_shannon_bits(p, q), jensenshannon(p, q, axis=1, base=2) ** 2)
    assert jensen_shannon_bits(p, p).tolist() == [0] * 30
    assert jensen_shannon_bits(np.array([[1.0, 0]]), np.array([[0.0, 1]])).tolist() == [1]


def test_order_score():
    assert order_score(90, 60, 30) == pytest.approx(0.5)
    assert order_score(90, 90, 30) == 0 and order_score(90, 30, 30) == 1
    assert order_score(20, 10, 30) > 1e6  # no gap: beyond every other resample


def test_half_effect_length():
    assert half_effect_length([2, 4, 8], [1.0, 0.75, 0.25]) == pytest.approx(2**2.5)
    assert half_effect_length([8, 2, 4], [0.25, 1.0, 0.75]) == pytest.approx(2**2.5)
    assert half_effect_length([2, 4, 8], [0.2, 0.4, 0.8]) == pytest.approx(4)  # windows: the score grows
    assert half_effect_length([2, 4, 8], [1.0, 0.9, 0.8]) is None
    assert half_effect_length([2, 4], [0.0, 0.0]) is None
    assert half_effect_length([2, 4], [-0.1, -0.4]) is None
    assert half_effect_length([4], [1.0]) is None
    # Of two crossings, the one beside the largest score.
    assert half_effect_length([1, 2, 4, 8], [0.6, 0.0, 0.0, 1.0]) == pytest.approx(2**2.5)


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels.stats.multitest", None)
    with pytest.raises(ImportError, match=r"need statsmodels .*pip install 'vidformers\[analysis\]'"):
        holm([0.5])
    monkeypatch.setitem(sys.modules, "scipy.fft", None)
    with pytest.raises(ImportError, match=r"need scipy .*pip install 'vidformers\[analysis\]'"):
        sign_flip_test(np.array([1, 0]))
    assert import_analysis("scipy.stats") is stats
