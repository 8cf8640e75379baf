"""vLLM in place of the engine for sampling: a server of one's own, or any of its protocol.

It takes unique prompts with n, and gives what lib.engine.decoding.decode gives. Sampling needs no
gradient and vLLM's kernels are made for GPUs; the engine of this project stays the default, since
it needs no other package. A server of one's own has a copy of the model on every visible card and
ends with its policy, so that the next policy, and a training, find the cards free.
"""

import os
import shutil
import socket
import sys
import tempfile
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zlib import crc32

import httpx2
import numpy as np
import openai
import torch
from transformers import AutoTokenizer, GenerationConfig

from lib.engine.decoding import finish_reason
from lib.judge.address import is_loopback
from lib.judge.serve import api_server
from lib.processes import release_memory, start_server, stop_server, wait_for_server
from lib.template import fit_tokenizer

PROMPTS_TOGETHER = 64  # requests on their way at once
MAX_TOKENS = 1024  # tokens of a prompt and its answer
MEMORY = 0.6  # of a card: the engine scores beside the server


@dataclass(frozen=True)
class ServedPolicy:
    """A policy that vLLM runs: the name it is served under, its tokenizer, and its end-of-turn ids.

    When nothing refers to the policy any more, a server of its own ends.
    """

    name: str
    client: openai.OpenAI
    tokenizer: Any
    stops: frozenset[int]

    def completions(
        self, prompts, keys, n, seed, first, max_new_tokens, rows=None, temperature=1.0, report=None
    ) -> Iterator[dict]:
        """What Policy.completions of lib.engine.models gives; `rows` is vLLM's own business.

        The same call gives the same answers where vLLM itself repeats them
        (VLLM_BATCH_INVARIANT=1).
        """
        seeds = [crc32(f"{seed} {key} {first}".encode()) >> 1 for key in keys]
        heat = 0.0 if n is None else temperature
        for index, answers in self._ask(prompts, seeds, n, max_new_tokens, heat):
            ids = [list(tokens) for tokens, _ in answers]
            if report:
                report(len(ids))
            yield {
                "index": index,
                "ids": ids,
                "logprob": np.array([logprob for _, logprob in answers]),
                "finish": [finish_reason(tokens, self.stops) for tokens in ids],
            }

    def _ask(self, prompts, seeds, n, max_new_tokens, heat):
        """(index, answers) of each prompt as replies come, an answer being (token ids, logprob)."""

        def ask(i):
            reply = self.client.completions.create(
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
                    # else those that the model's own generation config proposes
                    "min_p": 0.0,
                    "repetition_penalty": 1.0,
                },
            )
            choices = sorted(reply.choices, key=lambda c: c.index)
            return i, [(c.token_ids, float(sum(c.logprobs.token_logprobs))) for c in choices]

        with ThreadPoolExecutor(PROMPTS_TOGETHER) as pool:
            try:
                for future in as_completed([pool.submit(ask, i) for i in range(len(prompts))]):
                    yield future.result()
            except BaseException:  # the others would be asked first, by a server that has ended
                pool.shutdown(cancel_futures=True)
                raise


def open_vllm(
    name: str, revision=None, dtype="bfloat16", base_url=None, options=()
) -> ServedPolicy:
    """The model folder or hub id `name` under a vLLM server of its own, or found at `base_url`.

    options: further ones of vLLM's server. Raises ModuleNotFoundError without vllm, ServerError
    where its server does not come up, ConnectionError when nobody answers at `base_url`, and
    LookupError when the server has other models.
    """
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    config = GenerationConfig.from_pretrained(name, revision=revision)
    stops, _ = fit_tokenizer(tokenizer, config)
    if base_url:
        return ServedPolicy(name, connect(name, base_url), tokenizer, stops)

    release_memory()  # of policies before, on the cards too
    log = Path(tempfile.mkdtemp(prefix="vllm-")) / "server.log"
    command, address = server_command(name, revision, dtype)
    process = start_server([*command, *options], log)
    try:
        wait_for_server(process, lambda: _up(address), log, name)
        policy = ServedPolicy(name, connect(name, f"{address}/v1", own=True), tokenizer, stops)
    except BaseException:
        stop_server(process)
        raise
    weakref.finalize(policy, _end, process, log.parent)  # at the latest when this process ends
    return policy


def _end(process, folder: Path) -> None:
    """Stop the server; what it said is of use only where it did not come up."""
    stop_server(process)
    shutil.rmtree(folder, ignore_errors=True)


def server_command(name: str, revision, dtype: str) -> tuple[list[str], str]:
    """The command of a server on a free port of this machine, and its address."""
    if find_spec("vllm") is None:
        raise ModuleNotFoundError(
            "sampling.backend `vllm` needs the package vllm: see requirements/README.md"
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cards = torch.cuda.device_count()
    if cards:  # the rest is left for scoring beside it
        spread = ["--data-parallel-size", str(cards), "--gpu-memory-utilization", str(MEMORY)]
    else:  # on a CPU its seeded generators cannot go back when a prompt is read in several parts
        spread = ["--no-enable-chunked-prefill"]
    command = api_server(
        sys.executable, name, revision, port, MAX_TOKENS, [*spread, "--dtype", dtype]
    )
    return command, f"http://127.0.0.1:{port}"


def _up(address: str) -> bool:
    """Whether the server takes requests."""
    try:
        return httpx2.get(f"{address}/health", timeout=5, trust_env=False).is_success
    except httpx2.HTTPError:
        return False


def connect(name: str, base_url: str, own: bool = False) -> openai.OpenAI:
    """A client of the server at `base_url`, which serves `name`."""
    key = os.environ.get("OPENAI_API_KEY", "none")
    if own:  # it takes vLLM's own variable, and another server's key must not go to it
        key = os.environ.get("VLLM_API_KEY", "none")
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
