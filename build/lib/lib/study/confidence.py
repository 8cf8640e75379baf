"""Does a policy know what it knows? The probability of its greedy answer against correctness.

The confidence is exp of the answer's log-probability: how often sampling would give these very
words. So a policy with one form of answer is more confident than one with many, whatever it knows.
"""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from lib.metrics import bootstrap, wilson

CONFIDENT = ("confidence", "correct")


def confident_answers(answers: pd.DataFrame, grades: pd.DataFrame) -> pd.DataFrame:
    """One greedy answer of each judged question: question_id, confidence, correct (0.0 or 1.0)."""
    verdicts = grades[["question_id", "correct"]].dropna()
    both = answers[["question_id", "logprob"]].merge(verdicts, on="question_id", validate="1:1")
    both = both.assign(confidence=np.exp(both["logprob"]), correct=both["correct"].astype(float))
    return both.drop(columns="logprob")


def auroc(confidence, correct) -> float:
    """P(a right answer has more confidence than a wrong one), a tie counting half.

    nan where all are right or all are wrong. The Mann-Whitney statistic, over right x wrong.
    """
    right = np.asarray(correct, bool)
    hits, misses = int(right.sum()), int((~right).sum())
    if not hits or not misses:
        return np.nan
    ranks = rankdata(confidence)
    return float((ranks[right].sum() - hits * (hits + 1) / 2) / (hits * misses))


def measures(rows: np.ndarray) -> np.ndarray:
    """(confidence, accuracy, overconfidence, Brier score, AUROC) of (questions, 2) rows.

    rows: confidence and correctness. Overconfidence is the mean confidence less the accuracy.
    """
    confidence, correct = rows[:, 0], rows[:, 1]
    brier = ((confidence - correct) ** 2).mean()
    over = (confidence - correct).mean()
    return np.array([confidence.mean(), correct.mean(), over, brier, auroc(*rows.T)])


FITS = ("confidence", "accuracy", "overconfidence", "brier", "auroc")


def _with_intervals(who: str, table: np.ndarray, statistic, **boot) -> pd.DataFrame:
    """A row for each of FITS: who, measure, value, low, high, n."""
    frame = pd.DataFrame({"who": who, "measure": FITS, "value": statistic(table)})
    low, high = bootstrap(table, statistic, **boot)
    return frame.assign(low=low, high=high, n=len(table))


def calibration(answered: dict[str, pd.DataFrame], **boot) -> pd.DataFrame:
    """How well each policy's confidence fits: frame of who, measure, value, low, high, n.

    answered: frames of `confident_answers`. measure: those of `measures`. boot: n_boot and seed.
    """
    frames = [
        _with_intervals(who, frame[list(CONFIDENT)].to_numpy(), measures, **boot)
        for who, frame in answered.items()
    ]
    return pd.concat(frames, ignore_index=True)


def calibration_change(answered: dict[str, pd.DataFrame], **boot) -> pd.DataFrame:
    """Each later policy less the first, on the questions of both: columns as of `calibration`."""

    def change(rows):
        return measures(rows[:, 2:]) - measures(rows[:, :2])

    (_, first), *others = answered.items()
    frames = []
    for who, frame in others:
        both = first.merge(frame, on="question_id", suffixes=("_first", ""))
        table = both[[f"{name}_first" for name in CONFIDENT] + list(CONFIDENT)].to_numpy()
        frames.append(_with_intervals(who, table, change, **boot))
    return pd.concat(frames, ignore_index=True)


def reliability(answered: dict[str, pd.DataFrame], bins: int = 5) -> pd.DataFrame:
    """Accuracy by confidence: frame of who, confidence (mean), value, low, high (Wilson), n.

    Each policy's answers in `bins` parts of equal size, the least confident first.
    """
    rows = []
    for who, frame in answered.items():
        ordered = frame.sort_values("confidence", kind="stable")
        for part in np.array_split(np.arange(len(ordered)), min(bins, len(ordered))):
            some = ordered.iloc[part]
            hits, n = int(some["correct"].sum()), len(some)
            rows.append((who, some["confidence"].mean(), hits / n, *wilson(hits, n), n))
    return pd.DataFrame(rows, columns=["who", "confidence", "value", "low", "high", "n"])
