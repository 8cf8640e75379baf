"""Peak memory of sampling, in a process of its own."""

from pathlib import Path

from lib.config import load_profile
from lib.engine.decoding import decode, uniform_draws
from lib.engine.models import load_policy
from lib.prompts import direct, render
from lib.questions.splits import load_questions


def peak_of_sampling(count: int) -> None:
    """Sample `count` questions and print this process's peak memory in KiB.

    VmHWM begins anew with a program; getrusage's ru_maxrss would still hold the peak of the process
    that started it.
    """
    profile = load_profile("laptop")
    policy, questions = load_policy(profile), load_questions(profile, 0)
    prompts = [render(policy.tokenizer, direct(q)) for q in questions["question"][:count]]
    for _ in decode(policy, prompts, lambda i: uniform_draws(0, str(i), 8, 16), 16, 64):
        pass
    status = Path("/proc/self/status").read_text()
    print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
