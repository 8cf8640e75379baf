"""Sharpening without training or labels: the base policy's own samples, read in other ways.

Best of n keeps the likeliest sample, power sampling draws from p^alpha / Z, a majority counts
votes. All of them move probability onto what the policy already finds likely, as RL is said to do.
p^alpha is the optimum of KL-regularised RL whose reward is log p (arXiv 2605.04542); sampling from
it: 2510.14901.
"""

import numpy as np
import pandas as pd

from lib.engine.models import Policy
from lib.engine.sampling import score
from lib.metrics import bootstrap, ranked_votes, share_interval
from lib.prompts import proposed, true_or_false

ALPHAS = (1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0)


def best_of_n(samples: pd.DataFrame, n: int | None = None) -> pd.DataFrame:
    """Each question's likeliest sample among its first `n` (all): rows of `samples`.

    The log-probability is of the whole answer, in nats; a tie goes to the sample that came first.
    """
    rows = samples.sort_values(["question_id", "sample"], kind="stable")
    if n is not None:
        rows = rows[rows.groupby("question_id").cumcount() < n]
    likeliest = rows.groupby("question_id")["logprob"].idxmax()
    return rows.loc[likeliest].reset_index(drop=True)


def most_voted(votes: pd.DataFrame, n: int) -> pd.DataFrame:
    """Each question's n most voted answers, as of `ranked_votes`; an empty vote is left out."""
    ranked = ranked_votes(votes)
    return ranked[(ranked["vote"] != "") & (ranked["rank"] <= n)].reset_index(drop=True)


def believed(policy: Policy, answers: pd.DataFrame) -> pd.DataFrame:
    """The answers with p_true: how probable the policy itself finds it that each is true.

    answers: question_id, question, text. P(True) over P(True) + P(False), as whole replies to
    lib.prompts.true_or_false (Kadavath et al. 2022, arXiv 2207.05221).
    """
    cases = answers.reset_index(drop=True)
    pairs = zip(cases["question"], cases["text"], strict=True)
    asked = pd.DataFrame({"question": [proposed(*pair) for pair in pairs]})
    asked = asked.assign(question_id=asked.index, answers=[["True", "False"]] * len(asked))
    replies = score(policy, asked, batch=64, prompt=true_or_false)
    table = replies.pivot(index="question_id", columns="answer", values="logprob")
    return cases.assign(p_true=1 / (1 + np.exp(table["False"] - table["True"])))


def judged_samples(samples: pd.DataFrame, grades: pd.DataFrame) -> pd.DataFrame:
    """Samples with their verdicts: question_id, sample, logprob, correct (0.0 or 1.0).

    A sample whose verdict failed is left out, as in every other measure.
    """
    keys = ["question_id", "sample"]
    both = samples[[*keys, "logprob"]].merge(grades[[*keys, "correct"]], on=keys, validate="1:1")
    both = both.dropna(subset="correct")
    return both.assign(correct=both["correct"].astype(float))


def power_curve(
    judged: pd.DataFrame, alphas=ALPHAS, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Accuracy of one answer drawn from p^alpha: alpha, value, low, high, n, effective.

    judged: from `judged_samples`, n independent samples of p for each question. A sample of p
    counts p^(alpha - 1) times (self-normalised importance sampling, exact as n grows); at alpha = 1
    this is the mean, and for large alpha the likeliest sample. effective: the mean effective number
    of samples, 1 / sum of squared weights, which says how far an alpha may be read. Intervals are
    bootstrapped over questions.
    """
    return _power_curve(judged, alphas, -1.0, n_boot, seed)


def enumerated_power_curve(
    answers: pd.DataFrame, alphas=ALPHAS, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """The same by the enumerated answers, without sampling noise: alpha, value, low, high, n.

    answers: question_id, logprob (nats, of the text), correct (0.0, 1.0 or NA), the likeliest
    answers of each question. p^alpha is normalised over them: for alpha > 1 what was not enumerated
    weighs little, at alpha = 1 it is left out.
    """
    curve = _power_curve(answers.dropna(subset="correct"), alphas, 0.0, n_boot, seed)
    return curve.drop(columns="effective")


def _power_curve(
    answers: pd.DataFrame, alphas, shift: float, n_boot: int, seed: int
) -> pd.DataFrame:
    """Mean correctness of each question's answers under weights p^(alpha + shift), by alpha."""
    by_question = [part for _, part in answers.groupby("question_id", sort=False)]
    rows = []
    for alpha in alphas:
        weights = [_weights(part["logprob"].to_numpy(), alpha + shift) for part in by_question]
        correct = [part["correct"].to_numpy(float) for part in by_question]
        shares = np.array([w @ c for w, c in zip(weights, correct, strict=True)])

        low, high = share_interval(shares, n_boot, seed)
        effective = float(np.mean([1 / (w @ w) for w in weights]))
        rows.append((alpha, shares.mean(), low, high, len(shares), effective))
    return pd.DataFrame(rows, columns=["alpha", "value", "low", "high", "n", "effective"])


def _weights(logprobs: np.ndarray, power: float) -> np.ndarray:
    """exp(power * logprobs), scaled to sum to 1."""
    scaled = power * (logprobs - logprobs.max())
    weights = np.exp(scaled)
    return weights / weights.sum()


def confidence_covariance(judged: pd.DataFrame, n_boot: int = 2000, seed: int = 0) -> dict:
    """Mean over questions of the covariance of correctness and log-probability.

    Dict of value, low, high, n.

    It is the slope of the power curve at alpha = 1: where it is positive, sharpening a little must
    help.
    """

    def covariance(part: pd.DataFrame) -> float:
        return float(np.cov(part["correct"], part["logprob"])[0, 1]) if len(part) > 1 else np.nan

    values = np.array([covariance(part) for _, part in judged.groupby("question_id", sort=False)])
    values = values[~np.isnan(values)]
    low, high = bootstrap(values, n_boot=n_boot, seed=seed)
    value = float(values.mean()) if len(values) else np.nan
    return {"value": value, "low": low, "high": high, "n": len(values)}


def majority_curve(
    votes: pd.DataFrame, ks, draws: int = 50, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Accuracy of majority voting with k votes, by k: frame of k, value, low, high, n.

    votes: question_id, vote (the key that answers are counted by; empty for none) and correct (0.0
    or 1.0) of each sample. For each k, `draws` random subsets of k samples of every question vote,
    and the share of subsets that win with a right answer is the question's value; a tie is broken
    by chance, and an empty vote wins only where there is no other. Intervals are bootstrapped over
    questions.
    """
    rng = np.random.default_rng(seed)
    questions = [
        (pd.factorize(part["vote"])[0], (part["vote"] != "").to_numpy(), part["correct"].to_numpy())
        for _, part in votes.groupby("question_id", sort=False)
    ]
    rows = []
    for k in ks:
        enough = [question for question in questions if len(question[0]) >= k]
        values = np.array([_vote_share(question, k, draws, rng) for question in enough])
        low, high = share_interval(values, n_boot, seed)
        rows.append((k, values.mean(), low, high, len(values)))
    return pd.DataFrame(rows, columns=["k", "value", "low", "high", "n"])


def _vote_share(question: tuple, k: int, draws: int, rng) -> float:
    """The share of `draws` random subsets of k votes that win with a right answer."""
    times = draws if k < len(question[0]) else 1  # all votes are one subset
    return float(np.mean([_winner(*question, k, rng) for _ in range(times)]))


def _winner(codes: np.ndarray, spoken: np.ndarray, correct: np.ndarray, k: int, rng) -> float:
    """Whether the most frequent vote of k random ones is right: the mean of its verdicts."""
    subset = rng.permutation(len(codes))[:k]
    if spoken[subset].any():
        subset = subset[spoken[subset]]
    counts = np.bincount(codes[subset], minlength=codes.max() + 1)
    best = rng.choice(np.flatnonzero(counts == counts.max()))
    return float(correct[subset[codes[subset] == best]].mean())
