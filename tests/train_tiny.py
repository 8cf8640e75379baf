"""Train a tiny policy for three steps: test_processes runs this as one process and as several.

Arguments: folder, settings of the section `grpo` as JSON, the kind of model. With `DPO` in the
environment it is DPO on made pairs. With `KILL` in the
environment each process ends itself in that step, with `FLAKY` the judge of each process has its
own opinion in evaluations. The file `processes` says how many processes there were.
"""

import json
import os
import signal
import sys
from pathlib import Path

import pandas as pd
from accelerate import PartialState

from lib.config import load_profile
from lib.judge.grading import make_reward
from lib.training import evaluation
from lib.training.baselines import fine_tune
from lib.training.grpo import train_grpo
from tests.tiny import ANSWERS, QUESTIONS, tiny_policy, tiny_profile, word_tokenizer

RIGHT = [6, 2, 5, 5]  # of six answers, at every evaluation of the first process


def opinion(*_):
    """A judge of its own for each process: RIGHT in the first, one right answer in the others.

    The others would stop at the third evaluation: 1 and 2 of 6 are below half of the best.
    """
    right = RIGHT.pop(0) if os.environ.get("RANK", "0") == "0" else 1
    return lambda questions, golds, texts: [float(i < right) for i in range(len(texts))]


def main() -> None:
    folder, settings, kind = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
    policy = tiny_policy(word_tokenizer(ANSWERS), spread=0.2, kind=kind)
    profile = tiny_profile(load_profile("laptop"), **settings)
    judge = make_reward(profile.judge, QUESTIONS)
    judge.whole_only = False  # a random policy seldom ends an answer in three words
    if os.environ.get("FLAKY"):
        evaluation.make_reward = opinion
    if step := int(os.environ.get("KILL", 0)):
        end_of = evaluation.Evaluation.on_pre_optimizer_step

        def die(self, args, state, control, **kwargs):
            if state.global_step + 1 == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return end_of(self, args, state, control, **kwargs)

        evaluation.Evaluation.on_pre_optimizer_step = die
    if os.environ.get("DPO"):
        ids, others = QUESTIONS["question_id"], QUESTIONS["answers"].str[0]
        pairs = pd.DataFrame({"question_id": ids, "question": QUESTIONS["question"]})
        pairs = pairs.assign(chosen=others, rejected=others.iloc[::-1].tolist())
        small = profile.dpo.model_copy(update={"micro_batch": 4, "questions_per_step": 8})
        profile = profile.model_copy(update={"dpo": small})
        fine_tune("dpo", profile, pairs, folder, 0, 3, policy)
    else:
        train_grpo(profile, QUESTIONS, QUESTIONS, folder, 0, 3, (2,), policy, judge)
    (folder / "processes").write_text(str(PartialState().num_processes))
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main()
