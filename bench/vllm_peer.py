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

from vllm import LLM, SamplingParams  # noqa: E402  it reads its environment when it is imported

from lib.engine.models import wheel_weights  # noqa: E402


def main() -> None:
    given = json.loads(sys.stdin.readline())
    options = {"enable_prefix_caching": True, "enable_chunked_prefill": False}
    engine = LLM(str(wheel_weights()), dtype="float32", max_model_len=256, **options)
    inputs = [{"prompt_token_ids": prompt} for prompt in given["prompts"]]
    drawn = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "logprobs": 0, "detokenize": False}
    for seed, _ in enumerate(sys.stdin):
        how = SamplingParams(n=given["n"], max_tokens=given["length"], seed=seed, **drawn)
        began = time.perf_counter()
        outputs = engine.generate(inputs, how, use_tqdm=False)
        assert all(len(one.outputs) == given["n"] for one in outputs)
        print(f"SECONDS {time.perf_counter() - began}", flush=True)


if __name__ == "__main__":
    main()
