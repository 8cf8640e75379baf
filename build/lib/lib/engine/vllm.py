"""vLLM in place of the engine for sampling: in this process, or any server of the OpenAI protocol.

Both take unique prompts with n, and give what lib.engine.decoding.decode gives. Sampling needs no
gradient and vLLM's kernels are made for GPUs; the engine of this project stays the default, since
it needs no other environment. A server may be one of many copies (data parallel, Ray): only its
address matters.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import openai
from transformers import AutoTokenizer, GenerationConfig

from lib.engine.decoding import finish_reason
from lib.judge.address import is_loopback
from lib.template import fit_tokenizer

PROMPTS_TOGETHER = 64  # handed to vLLM at once: answers come, and are kept, after each batch


@dataclass(frozen=True)
class ServedPolicy:
    """A policy that vLLM runs: the name it is served under, its tokenizer, and its end-of-turn ids.

    engine: a vllm.LLM of this process, or an openai.OpenAI client.
    """

    name: str
    engine: Any
    tokenizer: Any
    stops: frozenset[int]

    def completions(
        self, prompts, keys, n, seed, first, max_new_tokens, rows=None, temperature=1.0, report=None
    ) -> Iterator[dict]:
        """What Policy.completions of lib.engine.models gives; `rows` is vLLM's own business.

        The same call gives the same answers where vLLM itself repeats them
        (VLLM_ENABLE_V1_MULTIPROCESSING=0 or VLLM_BATCH_INVARIANT=1).
        """
        seeds = [crc32(f"{seed} {key} {first}".encode()) >> 1 for key in keys]
        run = self._remote if isinstance(self.engine, openai.OpenAI) else self._local
        heat = 0.0 if n is None else temperature
        for index, answers in run(prompts, seeds, n, max_new_tokens, heat):
            ids = [list(tokens) for tokens, _ in answers]
            if report:
                report(len(ids))
            yield {
                "index": index,
                "ids": ids,
                "logprob": np.array([logprob for _, logprob in answers]),
                "finish": [finish_reason(tokens, self.stops) for tokens in ids],
            }

    def _local(self, prompts, seeds, n, max_new_tokens, heat):
        """(index, answers) of each prompt, an answer being (token ids, logprob)."""
        from vllm import SamplingParams

        for start in range(0, len(prompts), PROMPTS_TOGETHER):
            part = range(start, min(start + PROMPTS_TOGETHER, len(prompts)))
            settings = [
                SamplingParams(
                    n=n or 1,
                    temperature=heat,
                    top_p=1.0,
                    top_k=0,
                    seed=seeds[i],
                    max_tokens=max_new_tokens,
                    stop_token_ids=sorted(self.stops),
                    logprobs=0,
                    detokenize=False,
                )
                for i in part
            ]
            inputs = [{"prompt_token_ids": prompts[i]} for i in part]
            requests = self.engine.generate(inputs, settings, use_tqdm=False)
            for i, request in zip(part, requests, strict=True):
                yield i, [(one.token_ids, one.cumulative_logprob) for one in request.outputs]

    def _remote(self, prompts, seeds, n, max_new_tokens, heat):
        """The same from the server, in the order in which its replies come."""

        def ask(i):
            reply = self.engine.completions.create(
                model=self.name,
                prompt=prompts[i],
                n=n or 1,
                temperature=heat,
                top_p=1.0,
                max_tokens=max_new_tokens,
                seed=seeds[i],
                logprobs=0,
                extra_body={
                    "stop_token_ids": sorted(self.stops),
                    "return_token_ids": True,
                    "top_k": 0,
                },
            )
            choices = sorted(reply.choices, key=lambda c: c.index)
            return i, [(c.token_ids, float(sum(c.logprobs.token_logprobs))) for c in choices]

        with ThreadPoolExecutor(PROMPTS_TOGETHER) as pool:
            for future in as_completed([pool.submit(ask, i) for i in range(len(prompts))]):
                yield future.result()


def open_vllm(
    name: str, revision=None, dtype="bfloat16", base_url=None, max_length: int = 1024, **options
) -> ServedPolicy:
    """The model folder or hub id `name` run by vLLM in this process, or found at `base_url`.

    Raises ModuleNotFoundError without vllm, ConnectionError when nobody answers at `base_url`, and
    LookupError when the server has other models.
    """
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    config = GenerationConfig.from_pretrained(name, revision=revision)
    if base_url:
        engine = connect(name, base_url)
    else:
        engine = start_engine(name, revision, dtype, max_length, options)
    stops, _ = fit_tokenizer(tokenizer, config)
    return ServedPolicy(name, engine, tokenizer, stops)


def connect(name: str, base_url: str) -> openai.OpenAI:
    """A client of the server at `base_url`, which serves `name`."""
    key = os.environ.get("OPENAI_API_KEY", "none")
    http = openai.DefaultHttpxClient(trust_env=not is_loopback(base_url))
    client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=5, http_client=http)
    try:
        known = [model.id for model in client.models.list()]
    except openai.APIConnectionError as error:
        raise ConnectionError(
            f"no server answers at {base_url}; start one: vllm serve {name}"
        ) from error

    if name not in known:
        raise LookupError(
            f"{base_url} serves {', '.join(known)}, not {name}; start one: vllm serve {name}"
        )
    return client


def start_engine(name: str, revision, dtype: str, max_length: int, options: dict):
    """vLLM's engine in this process; options: further arguments of vllm.LLM."""
    try:
        from vllm import LLM
        from vllm.platforms import current_platform
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "sampling.backend `vllm` needs the package vllm: see requirements/README.md"
        ) from None

    # on a CPU its seeded generators cannot go back when a prompt is read in several parts
    if current_platform.is_cpu():
        options = {"enable_chunked_prefill": False} | options

    return LLM(
        str(Path(name)) if Path(name).exists() else name,
        revision=revision,
        dtype=dtype,
        max_model_len=max_length,
        enable_prefix_caching=True,
        **options,
    )
