"""Sampling in a process of its own: its peak memory, or as a load beside other work."""

import subprocess
import sys
from pathlib import Path

from lib.config import ROOT, load_profile
from lib.engine.decoding import decode, uniform_draws
from lib.engine.models import load_policy
from lib.prompts import direct, render
from lib.questions.splits import load_questions


def peak_of_sampling(count: int) -> None:
    """Sample `count` questions and print this process's peak memory in KiB.

    VmHWM begins anew with a program; getrusage's ru_maxrss would still hold the peak of the process
    that started it.
    """
    sample_some(*policy_and_prompts(count))
    status = Path("/proc/self/status").read_text()
    print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def memory_row() -> dict:
    """The row of the table: GB in place of seconds."""
    more, fewer = (_peak_gb(count) for count in (200, 20))
    row = {"name": "memory", "setting": "200 questions against 20, n=8; GB in place of seconds"}
    row |= {"peer": "peak with a tenth of the questions", "ours_s": more, "peer_s": fewer}
    row |= {"ratio": more / fewer, "low": None, "high": None}
    return row | {"repeats": 1, "exactness": None}


def _peak_gb(count: int) -> float:
    """Peak memory in GB of a process of its own that samples so many questions."""
    command = [sys.executable, "-m", "bench", "--sample", str(count)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) / 2**20


def sample_forever() -> None:
    """Sample until the process is ended; a line when it is at work."""
    policy, prompts = policy_and_prompts(200)
    sample_some(policy, prompts[:2])
    print("at work", flush=True)
    while True:
        sample_some(policy, prompts)


def policy_and_prompts(count: int) -> tuple:
    """The small model and the prompts of `count` questions."""
    profile = load_profile("laptop")
    policy, questions = load_policy(profile), load_questions(profile, 0)
    texts = questions["question"][:count]
    return policy, [render(policy.tokenizer, direct(text)) for text in texts]


def sample_some(policy, prompts: list[list[int]]) -> None:
    """Eight samples of each prompt."""
    for _ in decode(policy, prompts, lambda i: uniform_draws(0, str(i), 8, 16), 16, 64):
        pass
