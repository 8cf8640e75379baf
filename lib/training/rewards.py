"""What a rollout earns, in the form that TRL asks for."""

import json
from pathlib import Path

import numpy as np


class Correctness:
    """TRL's reward function: 1.0 for a correct answer, 0.0 for a wrong one, None where the judge
    failed.

    Each group's hits are appended to `rollouts`, with texts and rewards when `keep_texts`.
    """

    __name__ = "correct"  # TRL logs a reward by its name

    def __init__(self, judge, rollouts: Path, group: int, keep_texts: bool):
        self.judge, self.rollouts = judge, rollouts
        self.group, self.keep_texts = group, keep_texts

    def __call__(self, prompts, completions, question_id, question, answers, trainer_state, **_):
        texts = [completion[0]["content"] for completion in completions]
        rewards = self.judge(question, answers, texts)
        step = trainer_state.global_step + 1

        # TRL would mask NaN and train on infinity
        if not np.isfinite([reward for reward in rewards if reward is not None]).all():
            raise FloatingPointError(f"grpo: step {step} has a reward that is not finite")

        with open(self.rollouts, "a") as file:
            for i in range(0, len(rewards), self.group):
                part = slice(i, i + self.group)
                hits = sum(reward == 1.0 for reward in rewards[part])
                row = {"step": step, "question_id": question_id[i], "hits": hits, "n": self.group}
                if self.keep_texts:
                    row |= {"texts": texts[part], "rewards": rewards[part]}
                file.write(json.dumps(row) + "\n")
        return rewards
