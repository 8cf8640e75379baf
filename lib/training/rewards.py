"""The judge as TRL's reward function, and the record of every group that it has seen."""

import json
from pathlib import Path

import numpy as np

from lib.judge.cache import locked


class Rewards:
    """Rewards of answers by one judge; every group becomes one line of a file.

    judge: (questions, gold answers, predictions) -> 1.0, 0.0 or None each; None where it failed.
    n: answers of a group. texts: write the texts and rewards too, not only the number of hits.
    stops: token ids that end an answer. An answer that the limit cut earns 0.0 and is not judged:
    where a part of an answer can earn 1.0, a policy learns to talk on. A judge whose `whole_only`
    is False sees cut answers too; one with `cut` gives them that reward.
    """

    def __init__(self, judge, n: int, path: Path, texts: bool = False, stops=()):
        self.judge = judge
        self.n = n
        self.path = path
        self.texts = texts
        self.stops = frozenset(stops)
        self.begins = hasattr(judge, "begin")  # such as lib.judge.model.ModelJudge

    def correct(
        self,
        prompts,
        completions,
        completion_ids,
        question_id,
        question,
        answers,
        trainer_state,
        **kwargs,
    ):
        """1.0 for a right answer, 0.0 for a wrong one, None (which TRL masks) without a verdict."""
        step = trainer_state.global_step + 1
        texts = [completion[0]["content"] for completion in completions]
        judged = [i for i, ids in enumerate(completion_ids) if self.is_judged(ids)]
        cases = ([column[i] for i in judged] for column in (question, answers, texts))
        rewards = [getattr(self.judge, "cut", 0.0)] * len(texts)
        for i, reward in zip(judged, self.judge(*cases), strict=True):
            rewards[i] = reward

        verdicts = [reward for reward in rewards if reward is not None]
        if not np.isfinite(verdicts).all():  # 8) TRL would mask NaN and train on infinity
            raise FloatingPointError(f"grpo: step {step} has a reward that is not finite")

        self.record(step, question_id, texts, rewards)
        return rewards

    def begin(self, question: str, answers: list[str], texts: list[str], ids: list) -> None:
        """A group is finished while others are still decoded: the judge begins with it."""
        seen = [text for text, one in zip(texts, ids, strict=True) if self.is_judged(one)]
        self.judge.begin([question] * len(seen), [answers] * len(seen), seen)

    def is_judged(self, ids: list[int]) -> bool:
        """Whether the judge sees an answer: one that ended by itself, or any by its wish."""
        return bool(self.stops & {*ids[-1:]}) or not getattr(self.judge, "whole_only", True)

    def record(self, step: int, question_ids: list, texts: list[str], rewards: list) -> None:
        """Append one line per group: step, question_id, hits, n (with a verdict), live."""
        lines = []
        for start in range(0, len(rewards), self.n):
            group = slice(start, start + self.n)
            judged = [reward for reward in rewards[group] if reward is not None]
            row = {
                "step": step,
                "question_id": question_ids[start],
                "hits": judged.count(1.0),
                "n": len(judged),
                "live": len(set(judged)) > 1,  # -1 and 0 differ too
            }
            if self.texts:
                row |= {"texts": texts[group], "rewards": rewards[group]}
            lines.append(json.dumps(row) + "\n")
        # processes of other hosts add to the file too, and each has an idea of where it ends
        with open(self.path, "a") as file, locked(file):
            file.write("".join(lines))
            file.flush()
