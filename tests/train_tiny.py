"""Train a tiny policy for three steps: run by test_processes under accelerate, as one process and
as several.

Arguments: folder, and settings of the grpo section as JSON. The file `processes` tells how many
there were.
"""

import json
import sys
from pathlib import Path

from accelerate import PartialState

from lib.config import load_profile
from lib.training import grpo
from tests import test_grpo


def main() -> None:
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    tokenizer = test_grpo.word_tokenizer("Italy Peru Switzerland Chile Spain " + test_grpo.WORDS)
    policy = test_grpo.tiny_policy(tokenizer, spread=0.2)
    profile = test_grpo.small(load_profile("laptop"), **settings)
    grpo.train_grpo(profile, test_grpo.QUESTIONS, test_grpo.QUESTIONS, folder, 0, 3, (2,), policy)
    (folder / "processes").write_text(str(PartialState().num_processes))
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main()
