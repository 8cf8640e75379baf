"""Samples beside samples: flips, support gained and lost, paired pass@k, the rank of what rose."""

import numpy as np
import pandas as pd

from lib.judge.grading import short_answers
from lib.metrics import (
    bootstrap,
    holm,
    paired_interval,
    paired_permutation,
    pass_at_k,
    powers_of_two,
    ranked_votes,
    sample_counts,
    wilson,
)
from lib.study.redistribution import thin_questions


def _shares(**grades: pd.DataFrame) -> pd.DataFrame:
    """Each question's share of right samples, a column for each grade frame, without thin ones."""
    counts = _counts(**grades)
    return pd.DataFrame({who: one["correct"] / one["n"] for who, one in counts.items()})


def _counts(**grades: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Each frame's counts of right samples, for the same questions: those that are thin in none."""
    counts = {who: sample_counts(frame) for who, frame in grades.items()}
    shared = sorted(set.intersection(*(set(one.index) for one in counts.values())))
    thin = thin_questions(**grades)
    kept = [key for key in shared if key not in thin]
    return {who: one.loc[kept] for who, one in counts.items()}


def pass_difference(
    before: pd.DataFrame, n_boot: int = 2000, seed: int = 0, **others: pd.DataFrame
) -> pd.DataFrame:
    """pass@k of each other set of samples less that of `before`, paired by question.

    Frame of who (the keyword), k, value, low, high, n, p, holm. All are over the same questions. p
    flips the signs of the questions' differences; Holm's correction is over the others at one k.
    """
    counts = _counts(before=before, **others)
    most = min(int(one["n"].min()) for one in counts.values())

    rows = []
    for k in powers_of_two(most):
        reach = {who: pass_at_k(one["n"], one["correct"], k) for who, one in counts.items()}
        for who in others:
            change = reach[who] - reach["before"]
            low, high = paired_interval(change, n_boot, seed)
            p = paired_permutation(reach["before"], reach[who], seed)
            rows.append((who, k, change.mean(), low, high, len(change), p))
    frame = pd.DataFrame(rows, columns=["who", "k", "value", "low", "high", "n", "p"])
    return frame.assign(holm=frame.groupby("k")["p"].transform(holm))


def sample_flips(
    before: pd.DataFrame, n_boot: int = 2000, seed: int = 0, **others: pd.DataFrame
) -> pd.DataFrame:
    """How often a wrong sample before is a right one after (repair), and the other way (damage).

    One sample before and one after, drawn independently, so that a control drawn from the policy
    before is judged by the same measure. Frame of who, direction, value, low, high, n: the mean
    over questions, weighted by how often the sample before is wrong (or right); bootstrap over
    questions.
    """
    rows = []
    for who, frame in others.items():
        table = _shares(before=before, after=frame).to_numpy()  # (questions, 2)
        old, new = table.T
        for direction, start, end in (("repair", 1 - old, new), ("damage", old, 1 - new)):
            pairs = np.column_stack([start * end, start])  # (questions, 2)
            low, high = bootstrap(pairs, _ratio_of_sums, n_boot, seed)
            rows.append((who, direction, _ratio_of_sums(pairs), low, high, len(pairs)))
    return pd.DataFrame(rows, columns=["who", "direction", "value", "low", "high", "n"])


def _ratio_of_sums(pairs: np.ndarray) -> float:
    """Sum of the first column over the sum of the second."""
    top, bottom = pairs.sum(0)
    return float(top / bottom) if bottom else np.nan


def support_change(before: pd.DataFrame, **others: pd.DataFrame) -> pd.DataFrame:
    """Questions that gained or lost their right answer: frame of who, change, value, low, high, n.

    Support is at least one right sample. gained: of the questions without, the share that has it
    after; lost: of those with, the share that has it no longer. Intervals are Wilson's.
    """
    rows = []
    for who, frame in others.items():
        held = _shares(before=before, after=frame) > 0
        for change, start in (("gained", False), ("lost", True)):
            part = held[held["before"] == start]
            hits, n = int((part["after"] != start).sum()), len(part)
            rows.append((who, change, hits / n if n else np.nan, *wilson(hits, n), n))
    return pd.DataFrame(rows, columns=["who", "change", "value", "low", "high", "n"])


RANKS = ("1", "2 to 4", "5 and more", "unseen")


def promoted_rank(
    questions: pd.DataFrame, samples_before: pd.DataFrame, **others: pd.DataFrame
) -> pd.DataFrame:
    """Where the answer that a policy gives most often stood among the samples before.

    others: name -> sample frame. Frame of who, rank (RANKS), value, low, high (Wilson), n
    (questions).
    """

    def ranked(samples: pd.DataFrame) -> pd.DataFrame:
        votes = ranked_votes(samples.assign(vote=short_answers(samples, questions)))
        return votes.loc[votes["vote"] != "", ["question_id", "vote", "rank"]]

    earlier = ranked(samples_before)
    rows = []
    for who, samples in others.items():
        top = ranked(samples).query("rank == 1").drop(columns="rank")
        rank = top.merge(earlier, on=["question_id", "vote"], how="left")["rank"]
        named = np.select([rank == 1, rank <= 4, rank > 4], RANKS[:3], RANKS[3])
        for name in RANKS:
            hits, n = int((named == name).sum()), len(named)
            rows.append((who, name, hits / n if n else np.nan, *wilson(hits, n), n))
    return pd.DataFrame(rows, columns=["who", "rank", "value", "low", "high", "n"])


def by_stratum(grades: dict[str, pd.DataFrame], access: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each policy on the questions of each stratum: who, stratum, value, low, high, n.

    grades: one answer for each question, by policy; access: an accessibility frame of the base
    policy. Intervals are Wilson's.
    """
    rows = []
    for who, frame in grades.items():
        both = access.merge(
            frame.dropna(subset="correct")[["question_id", "correct"]],
            on="question_id",
            suffixes=("_samples", ""),
        )
        for stratum, part in both.groupby("stratum", observed=True):
            hits, n = int(part["correct"].astype(bool).sum()), len(part)
            rows.append((who, stratum, hits / n, *wilson(hits, n), n))
    return pd.DataFrame(rows, columns=["who", "stratum", "value", "low", "high", "n"])
