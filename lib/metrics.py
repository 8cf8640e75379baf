"""What is measured and how sure it is: accuracy, pass@k, votes, gains, intervals and tests."""

import warnings

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import gammaln
from scipy.stats import binomtest, norm, t

LEVEL = 0.95
POWER = 0.8  # the chance to see the smallest gain that is called visible


def wilson(k, n, level: float = LEVEL):
    """The Wilson score interval (low, high) of `k` hits in `n`.

    Arrays give arrays; n = 0 gives nan.
    """
    k, n = np.asarray(k, float), np.asarray(n, float)
    z = norm.ppf(0.5 + level / 2)

    with np.errstate(divide="ignore", invalid="ignore"):
        p = k / n
        width = 1 + z**2 / n
        centre = (p + z**2 / (2 * n)) / width
        half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / width

    # at 0 and n the bound is exact; rounding would leave 1e-17
    low = np.where(k == 0, np.where(n > 0, 0.0, np.nan), centre - half)
    high = np.where(k == n, np.where(n > 0, 1.0, np.nan), centre + half)
    return (float(low), float(high)) if low.ndim == 0 else (low, high)


def bootstrap(values, statistic=np.mean, n_boot: int = 2000, seed: int = 0, level: float = LEVEL):
    """The percentile bootstrap interval (low, high) of `statistic` over questions.

    values: (questions, ...) array, resampled whole rows at a time. `statistic` may return an array:
    then low and high are arrays (pointwise bands). Resamples where the statistic is undefined (nan)
    are left out. Fewer than two questions say nothing about their spread, and neither do questions
    that are all alike: nan.
    """
    values = np.asarray(values)
    if len(values) < 2:
        return np.nan, np.nan

    rng = np.random.default_rng(seed)
    draws = [statistic(values[rng.integers(0, len(values), len(values))]) for _ in range(n_boot)]

    tail = (1 - level) / 2
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # nan in all: nan
        low, high = np.nanquantile(np.asarray(draws, float), (tail, 1 - tail), axis=0)
    low, high = np.where(low == high, np.nan, (low, high))
    return (float(low), float(high)) if np.ndim(low) == 0 else (low, high)


def accuracy(grades: pd.DataFrame, n_boot: int = 2000, seed: int = 0) -> dict:
    """Share of right answers: value, low, high, n (questions graded), failed (judge failures).

    Failures (NA) are left out and counted. One answer per question: Wilson. Several: the mean over
    questions of each question's share, bootstrapped over questions, because samples of one question
    are not independent.
    """
    graded = grades[grades["correct"].notna()]
    share = graded["correct"].astype(float).groupby(graded["question_id"]).mean().to_numpy()
    value = float(share.mean()) if len(share) else np.nan

    if len(share) == len(graded):
        low, high = wilson(share.sum(), len(share))
    else:
        low, high = share_interval(share, n_boot, seed)

    failed = len(grades) - len(graded)
    return {"value": value, "low": low, "high": high, "n": len(share), "failed": failed}


def share_interval(shares, n_boot: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The bootstrap interval (low, high) of the mean of the questions' shares, each in 0 to 1.

    Where all are 0, or all 1, it is Wilson's: no width would say that no other question differs.
    """
    shares = np.asarray(shares, float)
    if len(shares) and shares.min() == shares.max() and shares[0] in (0.0, 1.0):
        return wilson(shares.sum(), len(shares))
    return bootstrap(shares, n_boot=n_boot, seed=seed)


def pair(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Two grade frames side by side: question_id, before, after (bool).

    Only questions graded in both are kept. Each frame holds one answer per question: a repeated
    question raises ValueError.
    """
    sides = [
        grades.set_index("question_id")["correct"].rename(name)
        for grades, name in ((before, "before"), (after, "after"))
    ]
    if any(side.index.has_duplicates for side in sides):
        raise ValueError("pair: a question is graded more than once; keep one answer a question")

    both = pd.concat(sides, axis=1, join="inner").dropna()
    return both.astype(bool).reset_index()


def gain(before: pd.DataFrame, after: pd.DataFrame, n_boot: int = 2000, seed: int = 0) -> dict:
    """Difference of accuracy on the same questions: value, low, high, n and p (exact McNemar)."""
    both = pair(before, after)
    change = both["after"].astype(float).to_numpy() - both["before"].astype(float).to_numpy()
    value = float(change.mean()) if len(change) else np.nan
    low, high = paired_interval(change, n_boot, seed)
    p = mcnemar(both["before"], both["after"])
    return {"value": value, "low": low, "high": high, "n": len(change), "p": p}


def beside(grades: list[pd.DataFrame]) -> pd.DataFrame:
    """The verdicts of several policies as columns, on the questions where all have one."""
    columns = [frame.set_index("question_id")["correct"] for frame in grades]
    return pd.concat(columns, axis=1, join="inner").dropna().astype(float)


def paired_interval(change, n_boot: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The bootstrap interval (low, high) of the mean of the questions' differences.

    Where no question changed it is Wilson's for none of n, to both sides: no width would say that
    other questions could not change either.
    """
    change = np.asarray(change, float)
    if len(change) and not change.any():
        high = wilson(0, len(change))[1]
        return -high, high
    return bootstrap(change, n_boot=n_boot, seed=seed)


def error_of_mean(values) -> tuple[float, float]:
    """The variance of the mean of independent values, and its degrees of freedom: for `student`."""
    values = np.asarray(values, float)
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else np.nan, len(values) - 1


def student(value: float, parts: list[tuple[float, float]]) -> dict:
    """Student's interval of a mean with several sources of error: low, high, p (of a mean of 0).

    parts: the variance that each source gives the mean, and its degrees of freedom. The variances
    add up, and have the degrees of freedom of Satterthwaite (1946, Biometrics Bulletin 2, 110). A
    bootstrap over three seeds holds the truth in 90 of 100 cases only (tests/coverage.py).
    """
    variance = sum(part for part, _ in parts)
    if not variance > 0:
        return dict.fromkeys(("low", "high", "p"), np.nan)
    freedom = variance**2 / sum(part**2 / df for part, df in parts)
    half = t.ppf(0.5 + LEVEL / 2, freedom) * np.sqrt(variance)
    p = 2 * t.sf(abs(value) / np.sqrt(variance), freedom)
    return {"low": float(value - half), "high": float(value + half), "p": float(p)}


def smallest_visible_gain(before: pd.DataFrame, after: pd.DataFrame, power: float = POWER) -> dict:
    """The smallest gain that this many questions would have shown: value, discordant, n.

    A two-sided McNemar test at 5 % sees a true gain of `value` with the chance `power`, when as
    many questions change sides (`discordant`, a share) as did here. Connor 1987 (Biometrics 43,
    207).
    """
    both = pair(before, after)
    n = len(both)
    discordant = float((both["before"] != both["after"]).mean()) if n else np.nan
    if not n or discordant == 0:
        return {"value": np.nan, "discordant": discordant, "n": n}

    alpha, beta = norm.ppf(0.5 + LEVEL / 2), norm.ppf(power)

    def chance_is_enough(change: float) -> bool:
        spread = np.sqrt(max(discordant - change**2, 0.0))
        return change * np.sqrt(n) >= alpha * np.sqrt(discordant) + beta * spread

    low, high = 0.0, discordant
    if not chance_is_enough(high):
        return {"value": np.nan, "discordant": discordant, "n": n}
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if chance_is_enough(middle) else (middle, high)
    return {"value": high, "discordant": discordant, "n": n}


def mcnemar(before, after) -> float:
    """Two-sided exact McNemar p-value of right and wrong answers; incomplete pairs are left out."""
    both = pd.DataFrame({"before": list(before), "after": list(after)}).dropna().astype(bool)
    up = int((~both.before & both.after).sum())
    down = int((both.before & ~both.after).sum())
    return 1.0 if up + down == 0 else float(binomtest(up, up + down, 0.5).pvalue)


def holm(ps) -> np.ndarray:
    """Holm's adjusted p-values, in the order given.

    They bound the chance of any false alarm among them. What was not tested, nan, is not counted
    and stays nan.
    """
    ps = np.asarray(ps, float)
    order = np.argsort(ps, kind="stable")[: np.count_nonzero(~np.isnan(ps))]  # nan is last
    scaled = ps[order] * np.arange(len(order), 0, -1)
    adjusted = np.full_like(ps, np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return adjusted


def paired_permutation(a, b, seed: int = 0, n_perm: int = 10_000) -> float:
    """Two-sided p-value of mean(b - a) = 0, by flipping the sign of each question's difference."""
    change = np.asarray(b, float) - np.asarray(a, float)
    change = change[change != 0]  # zeros never move the sum

    # 1000 permutations at a time bound the memory
    rng = np.random.default_rng(seed)
    sums = np.concatenate(
        [
            (rng.integers(0, 2, (rows, len(change))) * 2.0 - 1) @ change
            for rows in np.diff([*range(0, n_perm, 1000), n_perm])
        ]
    )

    # the observed order is one of the permutations: hence + 1, and p is never 0
    extreme = (np.abs(sums) >= abs(change.sum()) - 1e-9).sum()
    return float((1 + extreme) / (1 + n_perm))


def pass_at_k(n, c, k):
    """Unbiased pass@k of `c` right ones among `n` samples: 1 - C(n-c, k) / C(n, k).

    The probability that one of `k` samples drawn from the `n` is right. Arguments broadcast.
    Chen et al. 2021 (arXiv 2107.03374); in logarithms, so that C(256, 128) does not overflow.
    k > n or c > n raises ValueError.
    """
    n, c, k = np.broadcast_arrays(*(np.asarray(x, float) for x in (n, c, k)))
    if (k > n).any() or (c > n).any() or (k < 1).any() or (c < 0).any():
        raise ValueError("pass_at_k: needs 1 <= k <= n and 0 <= c <= n")

    certain = n - c < k  # fewer wrong samples than draws
    left = np.where(certain, k, n - c)
    miss = (gammaln(left + 1) - gammaln(left - k + 1)) - (gammaln(n + 1) - gammaln(n - k + 1))
    value = np.where(certain, 1.0, -np.expm1(miss) + 0.0)
    return float(value) if value.ndim == 0 else value


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4, ... up to n."""
    return [2**i for i in range(int(n).bit_length())]


def cut_share(samples: pd.DataFrame) -> dict:
    """The share of answers that the length limit cut: value, low, high (Wilson), n.

    samples: a sample frame with one answer per question.
    """
    hits, n = int(samples["finish"].eq("length").sum()), len(samples)
    low, high = wilson(hits, n)
    return {"value": hits / n, "low": low, "high": high, "n": n}


THIN = 0.75  # a question with a smaller share of its samples judged is too thin for a curve


def sample_counts(grades: pd.DataFrame) -> pd.DataFrame:
    """Each question's samples: n (judged), correct, thin (too few of them were judged)."""
    verdicts = grades.groupby("question_id")["correct"]
    counts = pd.DataFrame({"n": verdicts.count(), "correct": verdicts.sum().astype(int)})
    return counts.assign(thin=counts["n"] < THIN * verdicts.size().max())


def pass_curve(grades: pd.DataFrame, ks=None, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Mean pass@k over questions: frame of k, value, low, high, n (bands bootstrap questions).

    Every k is measured on the same questions: those with at least THIN of their samples judged.
    ks: by default the powers of two up to the least number judged.
    """
    counts = sample_counts(grades)
    counts = counts[~counts["thin"]]
    n, c = counts["n"].to_numpy(int), counts["correct"].to_numpy(int)

    rows = []
    for k in ks or powers_of_two(n.min()):
        value = pass_at_k(n, c, k)
        low, high = share_interval(value, n_boot, seed)
        rows.append({"k": k, "value": value.mean(), "low": low, "high": high, "n": len(value)})
    return pd.DataFrame(rows)


def ranked_votes(samples: pd.DataFrame) -> pd.DataFrame:
    """The first sample of each vote, the most frequent vote of a question first.

    Rows of `samples` plus votes, voters, rank (1, 2, … in a question). samples: a sample frame with
    a column `vote`, the key by which answers are counted. A tie goes to the vote whose first sample
    came first; an empty or missing vote stands behind all others.
    """
    rows = samples.sort_values(["question_id", "sample"], kind="stable").copy()
    rows["vote"] = rows["vote"].fillna("")
    rows["votes"] = rows.groupby(["question_id", "vote"])["sample"].transform("size")
    rows["voters"] = rows.groupby("question_id")["sample"].transform("size")

    rows["spoken"] = rows["vote"] != ""
    rows = rows.sort_values(
        ["question_id", "spoken", "votes", "sample"],
        ascending=[True, False, False, True],
        kind="stable",
    )
    rows = rows.drop_duplicates(["question_id", "vote"]).drop(columns="spoken")
    rows["rank"] = rows.groupby("question_id").cumcount() + 1
    return rows.reset_index(drop=True)


def majority_vote(samples: pd.DataFrame) -> pd.DataFrame:
    """The sample that stands for each question's most frequent vote: as of `ranked_votes`."""
    ranked = ranked_votes(samples)
    return ranked[ranked["rank"] == 1].drop(columns="rank").reset_index(drop=True)


def ratio(numerator, denominator, n_boot: int = 2000, seed: int = 0) -> dict:
    """Ratio of two means over the same questions, such as a share of a gain: value, low, high, n.

    Where over 2.5 % of the resamples have a denominator of zero or less, the ratio has no finite
    interval: low and high are nan.
    """
    pairs = np.column_stack([np.asarray(numerator, float), np.asarray(denominator, float)])
    top, bottom = pairs.mean(0)
    row = {"value": float(top / bottom) if bottom > 0 else np.nan}
    row |= {"low": np.nan, "high": np.nan, "n": len(pairs)}

    rng = np.random.default_rng(seed)
    draws = [pairs[rng.integers(0, len(pairs), len(pairs))].mean(0) for _ in range(n_boot)]
    means = np.array(draws)  # (n_boot, 2)

    tail = (1 - LEVEL) / 2
    positive = means[:, 1] > 0
    if positive.mean() < 1 - tail:
        return row

    low, high = np.quantile(means[positive, 0] / means[positive, 1], (tail, 1 - tail))
    return row | {"low": float(low), "high": float(high)}


def ratio_of_trainings(numerator, denominator, chance: tuple[float, float]) -> dict:
    """Ratio of two gains on the same questions, of a training each: value, low, high, n.

    chance: the variance of one training's gain, and its degrees of freedom. Those ratios at which
    numerator - ratio * denominator is not told from 0 by `student` (Fieller 1954, J. R. Stat. Soc.
    B 16, 175). Where the denominator is not told from 0, low and high are nan.
    """
    top, bottom = np.asarray(numerator, float), np.asarray(denominator, float)

    def beyond(at: float) -> float:
        rest, trainings = top - at * bottom, (chance[0] * (1 + at**2), chance[1])
        return student(rest.mean(), [error_of_mean(rest), trainings])["p"] - (1 - LEVEL)

    whole = bottom.mean()
    value = float(top.mean() / whole) if whole > 0 else np.nan
    row = {"value": value, "low": np.nan, "high": np.nan, "n": len(top)}
    if not student(whole, [error_of_mean(bottom), chance])["low"] > 0:
        return row
    for end, side in (("low", -1), ("high", 1)):
        far = 1.0
        while beyond(value + side * far) > 0:
            far *= 2
        row[end] = brentq(beyond, *sorted((value, value + side * far)))
    return row


def cohen_kappa(counts) -> float:
    """Cohen's kappa of two raters; nan where it is undefined.

    counts: rows of (both yes, only the first, only the second, both no), which are summed.
    """
    both, first, second, neither = np.asarray(counts, float).reshape(-1, 4).sum(0)
    n = both + first + second + neither
    if not n:
        return np.nan

    agreement = (both + neither) / n
    one, other = (both + first) / n, (both + second) / n  # each rater's share of yes
    chance = one * other + (1 - one) * (1 - other)
    return np.nan if chance == 1 else (agreement - chance) / (1 - chance)
