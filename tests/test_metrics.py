"""Metrics against brute force, scipy and statsmodels; intervals against simulated coverage."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from lib import metrics

few = settings(max_examples=40, deadline=None)  # a busy machine must not fail them


def grades(correct, questions=None, samples=None):
    """A grade frame from a list of True, False and None."""
    n = len(correct)
    return pd.DataFrame(
        {
            "question_id": questions or [f"q{i}" for i in range(n)],
            "policy": "base",
            "sample": samples or [0] * n,
            "judge": "alias",
            "correct": pd.array(correct, dtype="boolean"),
        }
    )


@few
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_statsmodels(kn):
    k, n = kn
    assert metrics.wilson(k, n) == pytest.approx(
        proportion_confint(k, n, method="wilson"), abs=1e-12
    )


def test_wilson_takes_arrays_and_no_questions():
    low, high = metrics.wilson([0, 5, 10], [10, 10, 10])
    assert low[0] == 0
    assert high[2] == 1
    assert low[1] < 0.5 < high[1]
    assert np.isnan(metrics.wilson(0, 0)).all()


def test_bootstrap_agrees_with_scipy():
    values = np.random.default_rng(0).exponential(size=80)
    ours = metrics.bootstrap(values, n_boot=4000, seed=1)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=2)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.03)
    assert ours == metrics.bootstrap(values, n_boot=4000, seed=1)
    assert ours != metrics.bootstrap(values, n_boot=4000, seed=2)


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    wilson, boot = [], []
    for seed in range(500):
        p = rng.beta(0.4, 0.9, 128)
        share = rng.binomial(32, p) / 32
        low, high = metrics.bootstrap(share, n_boot=250, seed=seed)
        boot.append(low <= 0.4 / 1.3 <= high)

        low, high = metrics.wilson(rng.binomial(256, 0.3), 256)
        wilson.append(low <= 0.3 <= high)

    assert 0.93 <= np.mean(boot) <= 0.97
    assert 0.93 <= np.mean(wilson) <= 0.97


def test_bootstrap_draws_whole_questions_and_gives_bands():
    rows = np.array([[0.0, 0.0], [1.0, 2.0]] * 20)
    low, high = metrics.bootstrap(rows, lambda r: r.mean(0), n_boot=300)
    assert low.shape == high.shape == (2,)
    assert low[1] == pytest.approx(2 * low[0])
    assert high[1] == pytest.approx(2 * high[0])


def test_one_question_has_no_bootstrap_interval():
    assert np.isnan(metrics.bootstrap([0.6])).all()
    assert np.isnan(metrics.bootstrap([])).all()


def test_accuracy_leaves_failures_out_and_counts_them():
    row = metrics.accuracy(grades([True, False, None, True]))
    assert (row["value"], row["n"], row["failed"]) == (pytest.approx(2 / 3), 3, 1)
    assert (row["low"], row["high"]) == pytest.approx(metrics.wilson(2, 3))
    assert np.isnan(metrics.accuracy(grades([None, None]))["value"])


def test_accuracy_of_several_samples_is_as_uncertain_as_its_questions():
    ids = [f"q{i}" for i in range(50) for _ in range(40)]
    row = metrics.accuracy(grades([i % 80 < 40 for i in range(2000)], ids, list(range(40)) * 50))
    naive = np.diff(metrics.wilson(1000, 2000))[0]
    assert row["value"] == 0.5
    assert row["n"] == 50
    assert row["high"] - row["low"] > 4 * naive


@few
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_equals_statsmodels(pairs):
    table = [[sum(p == (a, b) for p in pairs) for b in (True, False)] for a in (True, False)]
    changed = table[0][1] + table[1][0]
    expected = statsmodels_mcnemar(table, exact=True).pvalue if changed else 1.0
    before, after = zip(*pairs, strict=True)
    assert metrics.mcnemar(before, after) == pytest.approx(expected)


def test_gain_pairs_questions_and_ignores_failures():
    before = grades([False, False, True, None, True])
    after = grades([True, True, True, True, None]).sample(frac=1, random_state=0)
    row = metrics.gain(before, after)
    assert row["n"] == 3
    assert row["value"] == pytest.approx(2 / 3)
    assert row["p"] == pytest.approx(0.5)
    assert row["low"] <= row["value"] <= row["high"]

    same = metrics.gain(after, after)  # four of four stayed: that is not certainty
    assert same["high"] == -same["low"] == metrics.wilson(0, 4)[1]

    with pytest.raises(ValueError, match="more than once"):
        metrics.gain(pd.concat([before, before]), after)


@few
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_statsmodels(ps):
    assert metrics.holm(ps) == pytest.approx(multipletests(ps, method="holm")[1])


def test_permutation_is_exact_in_a_small_case_and_rarely_wrong_without_effect():
    assert metrics.paired_permutation([0] * 6, [1] * 6) == pytest.approx(2 / 64, abs=0.006)
    assert metrics.paired_permutation([1, 0], [1, 0]) == 1

    rng = np.random.default_rng(0)
    ps = [
        metrics.paired_permutation(rng.normal(size=30), rng.normal(size=30), i, 400)
        for i in range(300)
    ]
    assert np.mean(np.array(ps) <= 0.05) <= 0.08


@pytest.mark.parametrize("n", range(1, 9))
def test_pass_at_k_equals_every_subset(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations([i < c for i in range(n)], k))
        expected = np.mean([any(subset) for subset in subsets])
        assert metrics.pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_is_stable_vectorised_and_refuses_the_impossible():
    values = metrics.pass_at_k(4096, np.array([0, 1, 2048, 4096]), 2048)
    assert values[0] == 0
    assert values[1] == pytest.approx(0.5)
    assert (values[2:] == 1).all()
    assert metrics.pass_at_k(256, np.arange(257), 1) == pytest.approx(np.arange(257) / 256)
    for bad in ((4, 5, 1), (4, 1, 5), (4, 1, 0)):
        with pytest.raises(ValueError, match="pass_at_k"):
            metrics.pass_at_k(*bad)


def test_pass_at_k_is_unbiased():
    c = np.random.default_rng(0).binomial(16, 0.2, 40_000)
    assert metrics.pass_at_k(16, c, 8).mean() == pytest.approx(1 - 0.8**8, abs=0.005)


def test_pass_curve_rises_and_holds_its_bands():
    rng = np.random.default_rng(0)
    p = np.repeat(rng.beta(0.5, 1, 60), 16)
    ids = [f"q{i}" for i in range(60) for _ in range(16)]
    rows = grades(list(rng.random(960) < p), ids, list(range(16)) * 60)
    curve = metrics.pass_curve(rows, n_boot=200)
    assert curve["k"].tolist() == [1, 2, 4, 8, 16]
    assert curve["value"].is_monotonic_increasing
    assert (curve["low"] <= curve["value"]).all()
    assert (curve["value"] <= curve["high"]).all()


def test_majority_vote_counts_and_breaks_ties_by_the_first_sample():
    samples = pd.DataFrame(
        {
            "question_id": list("aaaa" + "bbb" + "ccc"),
            "sample": [3, 1, 2, 0, 0, 1, 2, 0, 1, 2],
            "text": list("wxyz123456"),
            "vote": ["p", "q", "q", "p", "", "", "r", None, "", None],
        }
    )
    best = metrics.majority_vote(samples.sample(frac=1, random_state=1)).set_index("question_id")
    assert best["vote"].to_dict() == {"a": "p", "b": "r", "c": ""}
    assert best["sample"].to_dict() == {"a": 0, "b": 2, "c": 0}
    assert best["votes"].to_dict() == {"a": 2, "b": 1, "c": 3}
    assert best.loc["a", "text"] == "z"


def test_ratio_of_the_gains_of_two_trainings():
    rng = np.random.default_rng(0)
    full = rng.random(300) < 0.5
    sides = (full & (rng.random(300) < 0.5), full)
    alone, row = metrics.ratio(*sides), metrics.ratio_of_trainings(*sides, (1e-9, 1e6))
    assert row["value"] == alone["value"]
    assert row["low"] == pytest.approx(alone["low"], abs=0.02)  # where trainings do not differ
    assert row["high"] == pytest.approx(alone["high"], abs=0.02)

    wide, value = metrics.ratio_of_trainings(*sides, (0.05**2, 4)), row["value"]
    assert wide["low"] < row["low"] - 0.1 and wide["high"] > row["high"] + 0.1
    for at in (wide["low"], wide["high"]):  # there the difference is told from 0 at 5 %
        rest = sides[0] - at * sides[1]
        parts = [metrics.error_of_mean(rest), (0.05**2 * (1 + at**2), 4)]
        assert metrics.student(rest.mean(), parts)["p"] == pytest.approx(0.05)
    assert wide["high"] - value > value - wide["low"] > 0  # the denominator errs too

    unsure = metrics.ratio_of_trainings(*sides, (0.3**2, 4))
    assert np.isnan([unsure["low"], unsure["high"]]).all() and unsure["value"] == value


def test_ratio_of_gains_and_a_denominator_that_may_be_zero():
    rng = np.random.default_rng(0)
    full = rng.random(300) < 0.5
    row = metrics.ratio(full & (rng.random(300) < 0.5), full)
    assert row["low"] < 0.5 < row["high"]
    assert row["value"] == pytest.approx(0.5, abs=0.1)

    unsure = metrics.ratio(rng.normal(1, 1, 50), rng.normal(0, 1, 50))
    assert np.isnan(unsure["low"])
    assert np.isnan(unsure["high"])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_that_are_all_alike_have_an_interval_with_a_width(share):
    assert metrics.share_interval([share] * 64) == metrics.wilson(64 * share, 64)
    samples = pd.DataFrame({"question_id": np.repeat(range(64), 4), "correct": bool(share)})
    row = metrics.accuracy(samples)
    assert row["high"] - row["low"] > 0.05
    curve = metrics.pass_curve(samples)
    assert (curve["high"] - curve["low"] > 0.05).all()
