"""Rewards beside the judge's: form, chance, the majority, masked hits, and one for abstaining.

Each is called as a judge is: (questions, gold answers, predictions) -> 1.0, 0.0 or None each.
"""

from zlib import crc32

import numpy as np
import pandas as pd

from lib.judge.catalogue import Catalogue
from lib.judge.grading import short_answers
from lib.judge.rivals import Candidates
from lib.judge.rules import abstains, judge_answer
from lib.metrics import majority_vote


class FormReward:
    """1.0 for a finished answer that states some candidate as a right answer is stated.

    Whether the candidate is right plays no part. Candidates are the answers that the question's
    relation can have; without a relation any answer that is not blank and does not abstain earns.
    """

    def __init__(self, questions: pd.DataFrame):
        known = Catalogue(questions)
        self.candidates: dict[str, Candidates | None] = {}
        for relation, rows in questions.groupby(questions["relation"].fillna(""), sort=False):
            own = Candidates([list(answers) for answers in rows["answers"]]) if relation else None
            for question in rows["question"]:
                self.candidates[question] = known(question) or own

    def __call__(self, questions, answers, predictions) -> list[float]:
        return [float(self.states(q, p)) for q, p in zip(questions, predictions, strict=True)]

    def states(self, question: str, text: str) -> bool:
        """Whether the text would be right for some candidate."""
        candidates = self.candidates[question]
        if candidates is None:
            return not abstains(text)
        named = candidates.owners({name for *_, name in candidates.mentions(text)})
        return any(
            judge_answer(text, list(candidates.answers[i]), "alias", question, candidates)
            for i in sorted(named)
        )


class TernaryReward:
    """1.0 for a right answer, 0.0 for one that abstains, -1.0 for a wrong one (arXiv 2509.25760).

    A binary reward pays for a guess whatever the odds; this one pays only where more than half of
    the guesses would be right.
    """

    cut = -1.0  # lib.training.rewards: an answer that the limit cut is a wrong one

    def __init__(self, judge):
        self.judge = judge

    def __call__(self, questions, answers, predictions) -> list[float | None]:
        verdicts = self.judge(questions, answers, predictions)
        return [
            0.0 if verdict == 0.0 and abstains(text) else -1.0 if verdict == 0.0 else verdict
            for verdict, text in zip(verdicts, predictions, strict=True)
        ]


class CoinReward:
    """1.0 or 0.0 by the toss of a coin, whatever the answer says."""

    whole_only = False  # lib.training.rewards: that an answer is cut plays no part either

    def __init__(self, seed: int):
        self.seed = seed

    def __call__(self, questions, answers, predictions) -> list[float]:
        rng = np.random.default_rng([self.seed, crc32("\n".join(predictions).encode())])
        return (rng.random(len(predictions)) < 0.5).astype(float).tolist()


class MaskedReward:
    """The judge's rewards, where some hits are masked: they count as no verdict.

    judge: the true reward; hidden: the questions (texts) whose hits are masked. With `others` as
    many random hits of the other questions are masked instead, counted in each call.
    """

    def __init__(self, judge, hidden: set[str], others: bool, seed: int):
        self.judge = judge
        self.hidden = hidden
        self.others = others
        self.seed = seed

    def __call__(self, questions, answers, predictions) -> list[float | None]:
        rewards = list(self.judge(questions, answers, predictions))
        hits = [i for i, reward in enumerate(rewards) if reward == 1.0]
        inside = [i for i in hits if questions[i] in self.hidden]
        masked = inside
        if self.others:
            outside = [i for i in hits if questions[i] not in self.hidden]
            rng = np.random.default_rng([self.seed, crc32("\n".join(predictions).encode())])
            masked = rng.permutation(outside)[: len(inside)].tolist()
        for i in masked:
            rewards[i] = None
        return rewards


def majority_answers(samples: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """The training questions with the majority of the policy's samples in place of the truth.

    samples: a sample frame of them. A question of which no sample names anything is left out.
    """
    spoken = samples[samples["question_id"].isin(train["question_id"])]
    votes = majority_vote(spoken.assign(vote=short_answers(spoken, train)))
    votes = votes.loc[votes["vote"] != "", ["question_id", "vote"]]
    labelled = train.drop(columns="answers").merge(votes, on="question_id")
    return labelled.assign(answers=labelled["vote"].map(lambda vote: [vote]))
