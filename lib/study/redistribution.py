"""Where the gain comes from: what was accessible before, what was repaired, what was damaged."""

import numpy as np
import pandas as pd
from scipy.special import betaln

from lib.metrics import (
    pair,
    paired_interval,
    paired_permutation,
    pass_at_k,
    pass_curve,
    powers_of_two,
    sample_counts,
    share_interval,
    wilson,
)

# share of right pre-RL samples: low < share <= high, and zero is exactly none
STRATA = {"zero": (0.0, 0.0), "low": (0.0, 0.25), "middle": (0.25, 0.75), "high": (0.75, 1.0)}


def stratify(share, strata: dict = STRATA) -> pd.Categorical:
    """The ordered stratum of each share: the one with low < share <= high.

    (0, 0) holds exactly 0. A share that no stratum or more than one holds raises ValueError.
    """
    share = np.asarray(share, float)
    inside = np.array(
        [
            (share == 0) if high == 0 else (share > low) & (share <= high)
            for low, high in strata.values()
        ]
    )  # (strata, shares)

    times = inside.sum(0)
    if (times != 1).any():
        bad = share[times != 1][0]
        raise ValueError(
            f"strata {strata} hold the share {bad} {int(times.max())} times; allowed: once"
        )
    return pd.Categorical.from_codes(inside.argmax(0), list(strata), ordered=True)


def accessibility(grades: pd.DataFrame, strata: dict = STRATA) -> pd.DataFrame:
    """How often each question is answered right: frame of question_id, correct, n, share, stratum.

    Judge failures shrink a question's n; one with too few graded samples (lib.metrics.THIN) is left
    out. The paper calls the share accessibility.
    """
    counts = sample_counts(grades)
    frame = counts.loc[~counts["thin"], ["correct", "n"]].reset_index()
    frame["share"] = frame["correct"] / frame["n"]
    return frame.assign(stratum=stratify(frame["share"], strata))


def strata_shares(before: pd.DataFrame, **others: pd.DataFrame) -> pd.DataFrame:
    """Share of questions in each stratum: frame of when, stratum, value, low, high, count, n.

    before and others: accessibility frames; the keyword becomes `when`. Intervals are Wilson's.
    """
    rows = []
    for when, frame in {"before": before, **others}.items():
        for stratum, count in frame["stratum"].value_counts(sort=False).items():
            low, high = wilson(count, len(frame))
            rows.append((when, stratum, count / len(frame), low, high, count, len(frame)))
    return pd.DataFrame(rows, columns=["when", "stratum", "value", "low", "high", "count", "n"])


def _by_stratum(frame: pd.DataFrame, strata: pd.DataFrame):
    """("all", frame), then (stratum, its rows of frame) in order; empty strata are skipped.

    A question that was not sampled has no stratum, and is in "all" only.
    """
    yield "all", frame
    frame = frame.merge(strata[["question_id", "stratum"]], on="question_id")
    yield from ((name, rows) for name, rows in frame.groupby("stratum", observed=True))


def repair_damage(before: pd.DataFrame, after: pd.DataFrame, strata: pd.DataFrame) -> pd.DataFrame:
    """Repair (share of wrong answers that became right) and damage (share of right ones lost).

    before, after: grades with one answer per question; strata: an accessibility frame. Frame of
    direction, stratum ("all" and each), value, low, high (Wilson), count, n (questions that could
    flip).
    """
    rows = []
    for stratum, both in _by_stratum(pair(before, after), strata):
        for direction, start in (("repair", False), ("damage", True)):
            part = both[both["before"] == start]
            n = len(part)
            count = int((part["after"] != start).sum())
            low, high = wilson(count, n)
            rows.append((direction, stratum, count / n if n else np.nan, low, high, count, n))
    columns = ["direction", "stratum", "value", "low", "high", "count", "n"]
    return pd.DataFrame(rows, columns=columns)


def expected_again(correct, n, m):
    """What `m` new samples of the same policy show: (mean share right, P(any right)).

    Under a uniform prior, `correct` of `n` give the posterior Beta(correct + 1, n - correct + 1).
    At 0 of 128 the mean is 1/130, and 40 new draws hit with 24 %.
    """
    a = np.asarray(correct) + 1.0
    b = np.asarray(n) - np.asarray(correct) + 1.0
    return a / (a + b), 1 - np.exp(betaln(a, b + m) - betaln(a, b))


def resampling_control(
    strata: pd.DataFrame, n_boot: int = 2000, seed: int = 0, **grades
) -> pd.DataFrame:
    """Regression to the mean: what other samples show in the strata that the first samples defined.

    strata: an accessibility frame of the first samples; grades: grade frames of other samples, of
    which the control (the same policy again) comes first, then `after` (the trained one). Frame of
    who, measure (accuracy: mean share right; hit: any right), stratum, value, low, high, n. The
    rows of `expected` are the uniform prior's, at the control's sample number, without an interval.
    """
    shares = {who: accessibility(frame).drop(columns="stratum") for who, frame in grades.items()}
    rows = []
    for who, frame in shares.items():
        for stratum, part in _by_stratum(frame, strata):
            n = len(part)
            low, high = share_interval(part["share"], n_boot, seed)
            rows.append((who, "accuracy", stratum, part["share"].mean(), low, high, n))
            hits = int((part["correct"] > 0).sum())
            rows.append((who, "hit", stratum, hits / n, *wilson(hits, n), n))

    samples = next(iter(shares.values()))["n"].max()
    mean, hit = expected_again(strata["correct"], strata["n"], samples)
    expected = strata[["question_id"]].assign(accuracy=mean, hit=hit)
    for stratum, part in _by_stratum(expected, strata):
        for measure in ("accuracy", "hit"):
            value = part[measure].mean()
            rows.append(("expected", measure, stratum, value, np.nan, np.nan, len(part)))
    columns = ["who", "measure", "stratum", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def gain_over_resampling(strata, control, after, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """What training adds beyond resampling: share right after minus share right in the control.

    strata: an accessibility frame of the first samples; control, after: grades of other samples.
    The shares are compared question by question. Frame of stratum ("all" and each), value, low,
    high, n, p (by flipping signs). In a stratum of a few questions, of which most stay at 0, the
    interval holds the truth in some 88 of 100 cases (tests/coverage.py): read p beside it.
    """
    resampled = accessibility(control).set_index("question_id")["share"]
    trained = accessibility(after).set_index("question_id")["share"]
    change = (trained - resampled).dropna().rename("change").reset_index()

    rows = []
    for stratum, part in _by_stratum(change, strata):
        low, high = paired_interval(part["change"], n_boot, seed)
        p = paired_permutation(np.zeros(len(part)), part["change"], seed)
        rows.append((stratum, part["change"].mean(), low, high, len(part), p))
    return pd.DataFrame(rows, columns=["stratum", "value", "low", "high", "n", "p"])


def thin_questions(**grades: pd.DataFrame) -> set[str]:
    """The questions of which too few samples were judged in any of the grade frames."""
    counts = [sample_counts(frame) for frame in grades.values()]
    return set().union(*(one.index[one["thin"]] for one in counts))


def pass_curves(n_boot: int = 2000, seed: int = 0, **grades: pd.DataFrame) -> pd.DataFrame:
    """Unbiased pass@k of several sets of samples: frame of k, value, low, high, n, when.

    grades: grade frames; the keyword becomes `when`. All curves and all k are over the same
    questions, those that are thin in none of the frames.
    """
    thin = thin_questions(**grades)
    kept = {when: frame[~frame["question_id"].isin(thin)] for when, frame in grades.items()}
    ks = powers_of_two(min(sample_counts(frame)["n"].min() for frame in kept.values()))
    curves = [
        pass_curve(frame, ks, n_boot=n_boot, seed=seed).assign(when=when)
        for when, frame in kept.items()
    ]
    return pd.concat(curves, ignore_index=True)


def always_curves(n_boot: int = 2000, seed: int = 0, **grades: pd.DataFrame) -> pd.DataFrame:
    """Unbiased pass^k: the chance that all of k samples are right; columns as of `pass_curves`.

    All are right where none is wrong: 1 less pass@k of the wrong ones. Yao et al. 2024 (arXiv
    2406.12045).
    """
    wrong = {
        when: frame.assign(correct=~frame["correct"].astype("boolean"))
        for when, frame in grades.items()
    }
    curves = pass_curves(n_boot, seed, **wrong)
    ends = {"value": 1 - curves["value"], "low": 1 - curves["high"], "high": 1 - curves["low"]}
    return curves.assign(**ends)


def equivalent_k(
    before: pd.DataFrame, after: pd.DataFrame, n_boot: int = 1000, seed: int = 0
) -> dict:
    """The least k whose pass@k before reaches the accuracy of one greedy answer after.

    before: grades of samples; after: grades with one answer per question. Dict of value, low, high,
    n, from a joint bootstrap over questions; inf where no k reaches it up to `most`, the least
    number of judged samples of a question. Questions with too few judged samples are left out.
    """
    answers = after.dropna(subset="correct")[["question_id", "correct"]]
    counts = accessibility(before).merge(answers, on="question_id", suffixes=("", "_after"))
    ks = np.arange(1, counts["n"].min() + 1)
    n, correct = (counts[name].to_numpy()[:, None] for name in ("n", "correct"))
    reach = pass_at_k(n, correct, ks)  # (questions, ks)
    table = np.column_stack([counts["correct_after"].astype(float), reach])

    def smallest(rows):
        means = rows.mean(0)
        enough = means[1:] >= means[0] - 1e-12
        return float(ks[enough.argmax()]) if enough.any() else np.inf

    size = len(table)
    draws = np.random.default_rng(seed).integers(0, size, (n_boot, size))
    values = [smallest(table[draw]) for draw in draws]
    low, high = np.quantile(values, (0.025, 0.975), method="nearest")
    found = {"value": smallest(table), "low": float(low), "high": float(high), "n": size}
    return found | {"most": int(ks[-1])}
