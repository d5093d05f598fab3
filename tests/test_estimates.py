"""Intervals over seeds and problems: against closed forms, and how often they hold the truth."""

import math

import numpy as np
import pytest

from study.beta import Beta, fit
from study.estimates import T95, Estimate, Part, combine, direction, more_seeds, summarise, t95


def table(values) -> dict[int, dict]:
    """An array (seeds, problems) as `summarise` takes it."""
    return {seed: dict(enumerate(map(float, row))) for seed, row in enumerate(values)}


def draw(rng, S, P, of_seed, of_problem, rest):
    """x[s, p] with mean 0 and these standard deviations."""
    seeds = rng.normal(0, of_seed, (S, 1))
    problems = rng.normal(0, of_problem, (1, P))
    return seeds + problems + rng.normal(0, rest, (S, P))


def test_seeds_alone_give_students_t():
    """One value for each seed: mean, standard error and interval of the textbook."""
    values = [3.0, 5.0, 10.0]
    estimate = summarise({seed: {"": value} for seed, value in enumerate(values)})
    error = np.std(values, ddof=1) / math.sqrt(3)
    assert estimate.mean == 6.0 and estimate.error == pytest.approx(error)
    low, high = estimate.interval()
    assert (low, high) == (pytest.approx(6 - 4.303 * error), pytest.approx(6 + 4.303 * error))


def test_variance_of_seeds_and_problems_is_the_closed_form():
    """The mean of many estimates is var(seed)/S + var(problem)/P + var(rest)/(S P)."""
    rng = np.random.default_rng(0)
    S, P = 5, 40
    variances = []
    for _ in range(2000):
        variances.append(summarise(table(draw(rng, S, P, 2.0, 6.0, 9.0))).error ** 2)
    true = 2.0**2 / S + 6.0**2 / P + 9.0**2 / (S * P)
    assert np.mean(variances) == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("S", [3, 6, 12])
@pytest.mark.parametrize("parts", [(8, 15, 30), (8, 0, 30), (0, 15, 30), (3, 40, 20)])
def test_intervals_hold_the_truth_as_often_as_they_say(S, parts):
    """95 %, or more: of 1,000 simulated studies, at least 93 % hold 0 and the error is 0.7 %."""
    rng = np.random.default_rng(S)
    hits = 0
    for _ in range(1000):
        low, high = summarise(table(draw(rng, S, 60, *parts))).interval()
        hits += low < 0 < high
    assert 930 <= hits <= 990


def test_seeds_of_equal_means_are_not_certain():
    """Two seeds may agree in the mean by chance; what differs problem by problem shows how far
    that goes.
    """
    values = np.array([[1.0, 0, 0, 1, 0, 1], [0, 1, 1, 0, 0, 1]])
    estimate = summarise(table(values - 0.3))
    assert estimate.of_seeds == pytest.approx([0.2, 0.2])
    rest = ((values - values.mean(0)) ** 2).sum() / 5  # its mean square, (S - 1)(P - 1) = 5
    assert estimate.half_width() == pytest.approx(1.962 * math.sqrt(rest / 6 / 2), abs=1e-3)
    assert direction(estimate) == "undecided"


def test_many_seeds_agree_with_drawing_seeds_and_problems_anew():
    rng = np.random.default_rng(1)
    values = draw(rng, 40, 50, 5.0, 10.0, 3.0)
    means = []
    for _ in range(4000):
        seeds = rng.integers(40, size=40)
        problems = rng.integers(50, size=50)
        means.append(values[seeds][:, problems].mean())
    assert summarise(table(values)).error == pytest.approx(np.std(means), rel=0.08)


def test_other_problems_in_each_seed_are_part_of_the_seeds_spread():
    values = {0: {"a": 1.0, "b": 3.0}, 1: {"c": 4.0, "d": 6.0}}
    estimate = summarise(values)
    assert estimate.of_seeds == [2.0, 5.0] and len(estimate.parts) == 1


def test_a_sum_over_two_kinds_of_problems_is_taken_seed_by_seed():
    """What seeds share cancels in a difference of kinds; the choice of problems adds."""
    rng = np.random.default_rng(2)
    shift = rng.normal(0, 50, (6, 1))
    first = shift + rng.normal(0, 1, (6, 30))
    second = shift + rng.normal(0, 1, (6, 20))
    both = combine([table(first), table(-second)])
    assert both.mean == pytest.approx(first.mean() - second.mean())
    assert both.error < 1 < summarise(table(first)).error


def test_more_seeds_is_what_a_simulation_needs():
    """With so many seeds the interval leaves out 0 in half of the studies, one fewer does not."""
    estimate = Estimate(4.0, [0.0] * 6, [Part(36.0 / 6, 5)])  # one seed has a deviation of 6
    more = more_seeds(estimate)
    for n in (6 + more, 6 + more - 1):
        half_width = 6 / math.sqrt(n) * t95(n - 1)
        assert (half_width < 4.0) is (n == 6 + more)
    assert more_seeds(Estimate(0.0, [0.0] * 6, [Part(1.0, 5)])) is None
    assert more_seeds(Estimate(4.0, [4.0], [Part(1.0, 9)])) is None


def test_quantiles_of_students_t():
    for df, value in ((1, 12.706), (2, 4.303), (9, 2.262), (13, 2.160), (20, 2.086), (60, 2.000)):
        assert t95(df) == pytest.approx(value, abs=0.005)
    assert len(T95) == 13 and t95(14) < t95(13)


def test_words():
    three = [Part(1.0, 2)]
    assert direction(Estimate(5.0, [5.0] * 3, three)) == "higher"
    assert direction(Estimate(4.0, [4.0] * 3, three)) == "undecided"
    assert direction(Estimate(-5.0, [-5.0] * 3, three)) == "lower"


# ---------------------------------------------------------------------------------- Beta


@pytest.mark.parametrize("a, b", [(0.4, 2.28), (0.12, 0.1), (2.0, 5.0), (0.31, 0.15)])
def test_the_fit_finds_the_beta_that_made_the_values(a, b):
    beta = Beta(a, b)
    found = fit(beta.pass_at(1), beta.pass_at(32), 32)
    assert (found.a, found.b) == (pytest.approx(a, rel=1e-3), pytest.approx(b, rel=1e-3))
    assert found.pass_at(8) == pytest.approx(beta.pass_at(8), rel=1e-4)


def test_a_beta_against_its_samples():
    p = np.random.default_rng(0).beta(0.3, 0.7, 400_000)
    beta = Beta(0.3, 0.7)
    assert beta.pass_at(1) == pytest.approx(p.mean(), abs=2e-3)
    assert beta.pass_at(8) == pytest.approx((1 - (1 - p) ** 8).mean(), abs=2e-3)
    for border in (0.02, 0.5, 0.8):
        assert beta.share_below(border) == pytest.approx((p < border).mean(), abs=3e-3)


def test_where_no_beta_fits_there_is_none():
    assert fit(0.2, 0.1, 32) is None  # pass@32 below pass@1
    assert fit(0.1, 0.999, 32) is None  # more than if all problems were alike
    assert fit(0.0, 0.0, 32) is None
