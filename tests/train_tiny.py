"""Train a tiny policy for three steps: test_processes runs this as one process and as several.

Arguments: folder, and settings of the section `grpo` as JSON. The file `processes` says how many
processes there were.
"""

import json
import sys
from pathlib import Path

from accelerate import PartialState

from lib.config import load_profile
from lib.judge.grading import make_reward
from lib.training.grpo import train_grpo
from tests.tiny import ANSWERS, QUESTIONS, tiny_policy, tiny_profile, word_tokenizer


def main() -> None:
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    policy = tiny_policy(word_tokenizer(ANSWERS), spread=0.2)
    profile = tiny_profile(load_profile("laptop"), **settings)
    judge = make_reward(profile.judge, QUESTIONS)
    judge.whole_only = False  # a random policy seldom ends an answer in three words
    train_grpo(profile, QUESTIONS, QUESTIONS, folder, 0, 3, (2,), policy, judge)
    (folder / "processes").write_text(str(PartialState().num_processes))
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main()
