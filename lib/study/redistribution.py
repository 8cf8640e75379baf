"""Where the gain comes from: what was accessible before, what was repaired, what was damaged."""

import numpy as np
import pandas as pd
from scipy.special import betaln

from lib.metrics import bootstrap, pair, pass_at_k, pass_curve, wilson

# share of right pre-RL samples: low < share <= high, and zero is exactly none
STRATA = {"zero": (0.0, 0.0), "low": (0.0, 0.25), "middle": (0.25, 0.75), "high": (0.75, 1.0)}


def stratify(share, strata: dict = STRATA) -> pd.Categorical:
    """The ordered stratum of each share: (0, 0) holds exactly 0, (low, high) holds low < share <=
    high.

    A share that no stratum or more than one holds raises ValueError.
    """
    share = np.asarray(share, float)
    inside = np.array(
        [
            (share == 0) if high == 0 else (share > low) & (share <= high)
            for low, high in strata.values()
        ]
    )
    if (inside.sum(0) != 1).any():
        bad = share[inside.sum(0) != 1][0]
        raise ValueError(
            f"strata {strata} hold the share {bad} {int(inside.sum(0).max())} times; allowed: once"
        )
    return pd.Categorical.from_codes(inside.argmax(0), list(strata), ordered=True)


def accessibility(grades: pd.DataFrame, strata: dict = STRATA) -> pd.DataFrame:
    """How often each question is answered right: frame of question_id, correct, n, share, stratum.

    Judge failures shrink a question's n; a question without any graded sample is left out. Paper:
    accessibility.
    """
    graded = grades[grades["correct"].notna()]
    counts = graded["correct"].astype(bool).groupby(graded["question_id"]).agg(["sum", "size"])
    frame = counts.set_axis(["correct", "n"], axis=1).reset_index()
    frame["share"] = frame["correct"] / frame["n"]
    return frame.assign(stratum=stratify(frame["share"], strata))


def strata_shares(before: pd.DataFrame, **others: pd.DataFrame) -> pd.DataFrame:
    """Share of questions in each stratum: frame of when, stratum, value, low, high, count, n
    (Wilson).

    before and others: accessibility frames; the keyword becomes `when`.
    """
    rows = []
    for when, frame in {"before": before, **others}.items():
        for stratum, count in frame["stratum"].value_counts(sort=False).items():
            low, high = wilson(count, len(frame))
            rows.append((when, stratum, count / len(frame), low, high, count, len(frame)))
    return pd.DataFrame(rows, columns=["when", "stratum", "value", "low", "high", "count", "n"])


def _by_stratum(frame: pd.DataFrame, strata: pd.DataFrame):
    """("all", frame), then (stratum, its rows of frame) in order; empty strata are skipped."""
    frame = frame.merge(strata[["question_id", "stratum"]], on="question_id")
    yield "all", frame
    yield from ((name, rows) for name, rows in frame.groupby("stratum", observed=True))


def repair_damage(before: pd.DataFrame, after: pd.DataFrame, strata: pd.DataFrame) -> pd.DataFrame:
    """Repair (share of wrong answers that became right) and damage (of right ones that became
    wrong).

    before, after: grades with one answer a question; strata: an accessibility frame. Frame of
    direction, stratum ("all" and each), value, low, high (Wilson), count, n (questions that could
    flip).
    """
    rows = []
    for stratum, both in _by_stratum(pair(before, after), strata):
        for direction, start in (("repair", False), ("damage", True)):
            could = both[both["before"] == start]
            count = int((could["after"] != start).sum())
            low, high = wilson(count, len(could))
            value = count / len(could) if len(could) else np.nan
            rows.append((direction, stratum, value, low, high, count, len(could)))
    return pd.DataFrame(
        rows, columns=["direction", "stratum", "value", "low", "high", "count", "n"]
    )


def flip_control(
    before: pd.DataFrame, control: pd.DataFrame, strata: pd.DataFrame, n_boot=2000, seed=0
):
    """Repair and damage without training: one fresh sample of the same policy stands for the
    trained answer.

    before: grades with one answer a question; control: grades of samples that `strata` has not
    seen. Frame as of repair_damage (no count); the interval is a bootstrap over questions.
    """
    share = (
        control[control["correct"].notna()]
        .astype({"correct": float})
        .groupby("question_id")["correct"]
        .mean()
    )
    start = before.dropna(subset="correct").set_index("question_id")["correct"].astype(bool)
    both = pd.concat(
        [start.rename("before"), share.rename("share")], axis=1, join="inner"
    ).reset_index()
    rows = []
    for stratum, part in _by_stratum(both, strata):
        for direction, value in (
            ("repair", part.loc[~part["before"], "share"]),
            ("damage", 1 - part.loc[part["before"], "share"]),
        ):
            low, high = bootstrap(value, n_boot=n_boot, seed=seed)
            rows.append((direction, stratum, value.mean(), low, high, len(value)))
    return pd.DataFrame(rows, columns=["direction", "stratum", "value", "low", "high", "n"])


def expected_again(correct, n, m):
    """What `m` new samples of the same policy show under a uniform prior: (mean share right, P(any
    right)).

    After `correct` of `n` the posterior is Beta(correct + 1, n - correct + 1): at 0 of 128 the mean
    is 1/130, and 40 new draws hit with 24 %.
    """
    a, b = np.asarray(correct) + 1.0, np.asarray(n) - np.asarray(correct) + 1.0
    return a / (a + b), 1 - np.exp(betaln(a, b + m) - betaln(a, b))


def resampling_control(
    strata: pd.DataFrame, n_boot: int = 2000, seed: int = 0, **grades
) -> pd.DataFrame:
    """Regression to the mean: what other samples show in the strata that the first samples defined.

    strata: an accessibility frame of the first samples; grades: grade frames of other samples
    (control: the same policy again; after: the trained one). Frame of who, measure (accuracy: mean
    share right; hit: any right), stratum, value, low, high, n. The rows of `expected` are the
    uniform prior's, at the control's sample number, and have no interval.
    """
    rows, columns = [], ["who", "measure", "stratum", "value", "low", "high", "n"]
    for who, frame in grades.items():
        for stratum, part in _by_stratum(accessibility(frame).drop(columns="stratum"), strata):
            low, high = bootstrap(part["share"], n_boot=n_boot, seed=seed)
            rows.append((who, "accuracy", stratum, part["share"].mean(), low, high, len(part)))
            hits = int((part["correct"] > 0).sum())
            rows.append(
                (who, "hit", stratum, hits / len(part), *wilson(hits, len(part)), len(part))
            )
    m = accessibility(next(iter(grades.values())))["n"].max()
    mean, hit = expected_again(strata["correct"], strata["n"], m)
    expected = strata[["question_id"]].assign(accuracy=mean, hit=hit)
    for stratum, part in _by_stratum(expected, strata):
        rows += [
            ("expected", k, stratum, part[k].mean(), np.nan, np.nan, len(part))
            for k in ("accuracy", "hit")
        ]
    return pd.DataFrame(rows, columns=columns)


def gain_over_resampling(strata, control, after, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """What training adds beyond resampling: mean share right after minus in the control, question
    by question.

    strata: an accessibility frame of the first samples; control, after: grades of other samples.
    Frame of stratum ("all" and each), value, low, high, n.
    """
    sides = [accessibility(g).set_index("question_id")["share"] for g in (control, after)]
    change = (sides[1] - sides[0]).dropna().rename("change").reset_index()
    rows = []
    for stratum, part in _by_stratum(change, strata):
        low, high = bootstrap(part["change"], n_boot=n_boot, seed=seed)
        rows.append((stratum, part["change"].mean(), low, high, len(part)))
    return pd.DataFrame(rows, columns=["stratum", "value", "low", "high", "n"])


def pass_curves(n_boot: int = 2000, seed: int = 0, **grades: pd.DataFrame) -> pd.DataFrame:
    """Unbiased pass@k of several sets of samples: frame of when (the keyword), k, value, low, high,
    n.
    """
    curves = [
        pass_curve(g, n_boot=n_boot, seed=seed).assign(when=when) for when, g in grades.items()
    ]
    return pd.concat(curves, ignore_index=True)


def equivalent_k(
    before: pd.DataFrame, after: pd.DataFrame, n_boot: int = 1000, seed: int = 0
) -> dict:
    """How many samples before are worth one greedy answer after: the least k with pass@k >= its
    accuracy.

    before: grades of samples; after: grades with one answer a question. Dict of value, low, high,
    n, from a joint bootstrap over questions; inf where no k up to the number of samples reaches it.
    """
    counts = accessibility(before).merge(
        after.dropna(subset="correct")[["question_id", "correct"]],
        on="question_id",
        suffixes=("", "_after"),
    )
    ks = np.arange(1, counts["n"].min() + 1)
    reach = pass_at_k(counts["n"].to_numpy()[:, None], counts["correct"].to_numpy()[:, None], ks)
    table = np.column_stack([counts["correct_after"].astype(float), reach])

    def smallest(rows):
        means = rows.mean(0)
        enough = means[1:] >= means[0] - 1e-12
        return ks[enough.argmax()] if enough.any() else np.inf

    draws = np.random.default_rng(seed).integers(0, len(table), (n_boot, len(table)))
    low, high = np.quantile([smallest(table[d]) for d in draws], (0.025, 0.975), method="nearest")
    return {
        "value": float(smallest(table)),
        "low": float(low),
        "high": float(high),
        "n": len(table),
    }
