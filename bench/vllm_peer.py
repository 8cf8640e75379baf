"""vLLM's side of the bench in its own environment: loads once, draws for each line of input.

Reads one JSON line, {prompts, n, length}; for each further line draws the samples and prints the
seconds taken.
"""

import json
import os
import sys
import time

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB

from lib.engine.models import wheel_weights  # noqa: E402  vLLM reads its environment when it is imported
from lib.engine.vllm import open_vllm  # noqa: E402


def main() -> None:
    given = json.loads(sys.stdin.readline())
    policy = open_vllm(str(wheel_weights()), dtype="float32", max_length=256)
    names = [str(i) for i in range(len(given["prompts"]))]
    for seed, _ in enumerate(sys.stdin):
        began = time.perf_counter()
        outputs = list(
            policy.completions(given["prompts"], names, given["n"], seed, 0, given["length"])
        )
        assert all(len(one["ids"]) == given["n"] for one in outputs)
        print(f"SECONDS {time.perf_counter() - began}", flush=True)


if __name__ == "__main__":
    main()
