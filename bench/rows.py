"""The rows of the bench: each times the engine and a peer on the same questions."""

import copy
import json
import os
import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOTrainer

from bench.apart import drawing
from bench.memory import memory_row
from bench.neighbours import beside_rows
from bench.peers import Clock, OursGiven, StockGiven, random_model, stock
from bench.timing import Timing, compared_row, interleave, limit_row, matmul_rate
from lib.config import ROOT, load_profile
from lib.engine.decoding import decode, uniform_draws
from lib.engine.linear import FASTER, use_bf16_products, use_fast_products
from lib.engine.models import load_policy, make_policy, wheel_file
from lib.engine.sampling import answer_logprobs
from lib.engine.trie import Trie, share_prefixes
from lib.prompts import direct, render
from lib.questions.splits import load_questions
from lib.tables import write_text
from lib.training import grpo
from lib.training.trainer import SharedPrefixGRPO

GROUPS, N = 16, 5  # of a training step
LENGTH = 16
ANSWER = 48  # tokens of a greedy answer, as in the default run
ROWS = (
    "rollout",
    "greedy",
    "samples_generate",
    "samples_vllm",
    "samples_llama_cpp",
    "samples_openvino",
    "bf16",
    "scoring",
    "update",
    "step",
    "beside",
    "memory",
    "growth",
)
VLLM, PEERS = (ROOT / f".venv-{name}" / "bin" / "python" for name in ("vllm", "peers"))


class Bench:
    """The policy, real prompts, and the machine's matrix-product rate."""

    def __init__(self, repeats: int, shape: str | None = None, dtype: str = "float32"):
        self.repeats = repeats
        self.profile = load_profile("laptop").model_copy(update={"dtype": dtype})
        self.policy = load_policy(self.profile)
        if shape:
            self.policy = make_policy(random_model(shape, self.policy), self.policy.tokenizer)
        self.peers = {"peer": stock(self.policy.model)}
        if FASTER and self.policy.device.type == "cpu":
            self.peers["same"] = stock(self.policy.model)
            use_fast_products(self.peers["same"])
        questions = load_questions(self.profile, 0)
        self.questions = questions[questions["split"] == "train"].reset_index(drop=True)
        self.prompts = [
            render(self.policy.tokenizer, direct(q)) for q in self.questions["question"]
        ]
        self.rows = []
        self.folder = ROOT / os.environ.get("OUTPUTS", "outputs") / "bench"

        config = self.policy.model.config
        embedding = config.vocab_size * config.hidden_size
        looked_up = embedding * (1 if config.tie_word_embeddings else 2)
        self.body = (
            sum(p.numel() for p in self.policy.model.parameters()) - looked_up
        )  # weights of matrix products
        self.head = embedding
        width = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        self.attention = (
            config.num_hidden_layers * config.num_attention_heads * width * 2
        )  # with keys, with values

        self.rate = matmul_rate(self.policy.device, self.policy.model.dtype)

    def compare(self, name, setting, peer_name, ours, peer, check=None, same=True) -> Timing:
        """Time `ours()` and `peer(model)` in turn and add the row.

        check(our result, the peer's result) gives their exactness; same: also with our products.
        """
        peers = self.peers if same else {"peer": self.peers["peer"]}
        work = {"ours": ours} | {side: partial(peer, model) for side, model in peers.items()}
        timing = interleave(work, self.repeats, self.policy.device, self.policy.model.dtype)

        exactness = check(timing.results["ours"], timing.results["peer"]) if check else None
        self.add(compared_row(name, setting, peer_name, timing, exactness))
        return timing

    def add(self, row: dict) -> None:
        self.rows.append(row)
        write_text(self.folder / "engine.json", json.dumps(self.rows, indent=1) + "\n")
        print(
            ", ".join(
                f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()
            ),
            flush=True,
        )

    def generate(self, prompts, n, model, do_sample=True, length=LENGTH):
        """transformers' generate, at temperature 1 or greedy, on left-padded prompts."""
        drawn = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} if do_sample else {}
        tokenizer = self.policy.tokenizer
        width = max(map(len, prompts))
        ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        with torch.inference_mode():
            return model.generate(
                ids.to(self.policy.device),
                attention_mask=mask.to(self.policy.device),
                do_sample=do_sample,
                max_new_tokens=length,
                **drawn,
                num_return_sequences=n,
            )

    def decode(self, prompts, n, policy=None):
        def draws(i):
            return uniform_draws(0, str(i), n, LENGTH)

        return list(decode(policy or self.policy, prompts, draws, LENGTH))

    def greedy_answers(self, count: int) -> list[dict]:
        """The greedy answers of the first `count` questions."""
        return list(decode(self.policy, self.prompts[:count], lambda i: None, ANSWER))

    def operations(self, depths, scored: int, passes: int) -> int:
        """Counted operations of `passes` over packed tokens at `depths`, with `scored` logits.

        Each token attends to its ancestors and itself.
        """
        attended = sum(depths) + len(depths)
        once = len(depths) * self.body + attended * self.attention + scored * self.head
        return passes * 2 * once

    def rollout(self) -> None:
        prompts = self.prompts[: 2 * GROUPS]
        copies = [p for p in prompts for _ in range(N)]
        setting = f"{len(prompts)} questions, n={N}, up to {LENGTH} tokens"
        self.compare(
            "rollout",
            setting,
            "generate on copies",
            partial(self.decode, prompts, N),
            partial(self.generate, copies, 1),
        )

    def greedy(self) -> None:
        prompts = self.prompts[:200]

        def generate(model):
            return [
                self.generate(prompts[start : start + 64], 1, model, do_sample=False, length=ANSWER)
                for start in range(0, len(prompts), 64)
            ]

        setting = f"{len(prompts)} questions, one answer of up to {ANSWER} tokens"
        ours = partial(self.greedy_answers, len(prompts))
        timing = self.compare("greedy", setting, "generate, batches of 64", ours, generate)
        answers = {done["index"]: done["ids"][0] for done in timing.results["ours"]}
        depths = Trie(prompts).depths.tolist()
        for index, ids in answers.items():
            depths += range(len(prompts[index]), len(prompts[index]) + len(ids) - 1)
        operations = self.operations(depths, sum(map(len, answers.values())), passes=1)
        self.add(limit_row("limit_greedy", setting, operations, timing))

    def beside(self) -> None:
        """The engine beside other work, over the engine alone."""
        samples = {d["index"]: d["ids"] for d in self.decode(self.prompts[:GROUPS], N)}
        given = [list(ids) for i in range(GROUPS) for ids in samples[i]]
        same = dict(steps=1, beta=0.0, skip=False, completions=given)
        work = {
            "100 greedy answers": partial(self.greedy_answers, 100),
            "an update": partial(self.trainer, OursGiven, **same),
        }
        for row in beside_rows(work, self.repeats):
            self.add(row)

    def samples_generate(self) -> None:
        prompts, n = self.prompts[:2], 128
        setting = f"{len(prompts)} questions, n={n}, up to {LENGTH} tokens"
        timing = self.compare(
            "samples_generate",
            setting,
            "generate(num_return_sequences=128)",
            partial(self.decode, prompts, n),
            lambda model: [self.generate([p], n, model) for p in prompts],
        )
        done = self.decode(prompts, n)
        distinct = [{tuple(ids[:k]) for ids in d["ids"] for k in range(len(ids))} for d in done]
        depths = Trie(prompts).depths.tolist()
        depths += [
            len(prompts[d["index"]]) + len(ids) - 1
            for d, one in zip(done, distinct, strict=True)
            for ids in one
            if ids
        ]
        # every distinct prefix, the empty one too, predicts one token
        scored = sum(map(len, distinct))
        operations = self.operations(depths, scored, passes=1)
        self.add(limit_row("limit_samples", setting, operations, timing))

    def samples_vllm(self) -> None:
        self.samples_by("vllm", "vLLM on CPU, prefix caching", VLLM, ["bench.vllm_peer"])

    def samples_llama_cpp(self) -> None:
        program = ["bench.gguf_peers", "llama_cpp", str(wheel_file())]
        self.samples_by("llama_cpp", "llama.cpp, Q4_1, a slot a sample", PEERS, program)

    def samples_openvino(self) -> None:
        for name, label in {"openvino": "8-bit products", "openvino_f32": "fp32 products"}.items():
            program = ["bench.gguf_peers", name, str(wheel_file())]
            self.samples_by(name, f"OpenVINO GenAI, Q4_1, {label}", PEERS, program)

    def samples_by(self, name: str, label: str, python: Path, program: list[str]) -> None:
        """128 samples of two questions each, here and by a peer in an environment of its own."""
        prompts, n = self.prompts[:2], 128
        setting = f"{len(prompts)} questions, n={n}, up to {LENGTH} tokens"
        ours = partial(self.decode, prompts, n)
        with drawing(python, program, {"prompts": prompts, "n": n, "length": LENGTH}) as draw:
            self.compare(f"samples_{name}", setting, label, ours, draw, same=False)

    def bf16(self) -> None:
        """Samples by bf16 products beside the same in fp32, and what the rounding costs."""
        prompts, n = self.prompts[:GROUPS], 40
        rounded = replace(self.policy, model=copy.deepcopy(self.policy.model))
        try:
            use_bf16_products(rounded.model)
        except ValueError as error:
            return print(f"bf16: {error}", flush=True)

        def off(ours, _) -> str:
            answers = [(d["index"], ids) for d in ours for ids in d["ids"]]
            pairs = [(prompts[i], list(ids)) for i, ids in answers]
            exact = np.array(answer_logprobs(self.policy, pairs))
            nats = np.abs(np.concatenate([d["logprob"] for d in ours]) - exact)
            nats /= [len(ids) for _, ids in answers]
            return f"a token's log-probability off by {nats.mean():.1e}, at most {nats.max():.1e}"

        setting = f"{len(prompts)} questions, n={n}, up to {LENGTH} tokens"
        ours, exact = partial(self.decode, prompts, n, rounded), lambda _: self.decode(prompts, n)
        self.compare("bf16", setting, "the same in fp32", ours, exact, off, same=False)

    def scoring(self) -> None:
        prompts = self.prompts[:16]
        samples = self.decode(prompts, 40)
        pairs = [
            (prompts[d["index"]], list(ids))
            for d in samples
            for ids in sorted({tuple(ids) for ids in d["ids"]})[:8]
        ]

        @torch.inference_mode()
        def plain(model):
            logprobs = []
            for start in range(0, len(pairs), 32):
                part = pairs[start : start + 32]
                width = max(len(p) + len(a) for p, a in part)
                ids = torch.tensor([p + a + [0] * (width - len(p) - len(a)) for p, a in part])
                mask = torch.tensor(
                    [[1] * (len(p) + len(a)) + [0] * (width - len(p) - len(a)) for p, a in part]
                )
                logits = model(
                    input_ids=ids.to(model.device), attention_mask=mask.to(model.device)
                ).logits.float()
                for (p, a), one in zip(part, logits, strict=True):
                    scores = one[len(p) - 1 : len(p) + len(a) - 1].log_softmax(-1)
                    logprobs.append(
                        float(
                            scores.gather(-1, torch.tensor(a, device=model.device)[:, None]).sum()
                        )
                    )
            return logprobs

        self.compare(
            "scoring",
            f"{len(prompts)} questions, 8 answers each",
            "one row an answer, batches of 32",
            lambda: answer_logprobs(self.policy, pairs),
            plain,
            lambda a, b: f"log-probabilities within {np.abs(np.subtract(a, b)).max():.1e}",
        )

    def trainer(self, kind, steps: int, beta: float, skip: bool, completions=None, model=None):
        """Train `steps` steps from the first policy: median seconds and first gradient norm."""
        settings = {
            "questions_per_step": GROUPS,
            "num_generations": N,
            "micro_batch": GROUPS * N,
            "beta": beta,
        }
        sampling = self.profile.sampling.model_copy(update={"rollout_tokens": LENGTH})
        grpo_settings = self.profile.grpo.model_copy(update=settings)
        profile = self.profile.model_copy(update={"grpo": grpo_settings, "sampling": sampling})
        arguments = grpo.arguments(profile, steps, Path("/nonexistent"), seed=0)
        arguments.save_strategy = "no"
        rows = [{"prompt": direct(q)} for q in self.questions["question"][:GROUPS]] * steps
        clock, model = Clock(), copy.deepcopy(model or self.policy.model).train()

        def reward(prompts, **kwargs):  # one right answer in every other group
            return [float(i % (2 * N) == 0) for i in range(len(prompts))]

        trainer = kind(
            model=model,
            reward_funcs=reward,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=copy.deepcopy(self.policy.tokenizer),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        if completions:
            trainer.completions = completions
        if isinstance(trainer, SharedPrefixGRPO):
            trainer.skip_zero_variance = skip
            for one in filter(None, (trainer.model, trainer.ref_model)):
                share_prefixes(one)
        trainer.train()
        clock.norm = [row["grad_norm"] for row in trainer.state.log_history if "grad_norm" in row][
            0
        ]
        clock.seconds = statistics.median(clock.seconds)
        return clock

    def update(self) -> None:
        samples = {d["index"]: d["ids"] for d in self.decode(self.prompts[:GROUPS], N)}
        given = [list(ids) for i in range(GROUPS) for ids in samples[i]]
        same = dict(steps=1, beta=0.001, skip=False, completions=given)
        setting = f"{GROUPS} questions, n={N}, beta 0.001"
        timing = self.compare(
            "update",
            setting,
            "stock TRL GRPOTrainer",
            lambda: self.trainer(OursGiven, **same),
            lambda model: self.trainer(StockGiven, model=model, **same),
            lambda a, b: f"gradient norm {a.norm:.6f} and {b.norm:.6f}",
        )
        depths = Trie([self.prompts[i // N] + given[i] for i in range(GROUPS * N)]).depths.tolist()
        scored = len(depths) - len(Trie(self.prompts[:GROUPS]).tokens)
        # forward 1 and backward 2, and one forward of the reference
        operations = self.operations(depths, scored, passes=4)
        self.add(limit_row("limit_update", setting, operations, timing))

    def step(self) -> None:
        same = dict(steps=1, beta=0.0, skip=False)
        setting = f"{GROUPS} questions, n={N}, beta 0"
        self.compare(
            "step",
            setting,
            "stock TRL GRPOTrainer",
            partial(self.trainer, SharedPrefixGRPO, **same),
            lambda model: self.trainer(GRPOTrainer, model=model, **same),
        )

    def memory(self) -> None:
        """Peak memory of a process that samples 200 questions, over that for 20 questions."""
        self.add(memory_row())

    def growth(self) -> None:
        """Seconds of sampling as n, prompt, answer and number of questions grow in turn."""
        base = {"questions": 8, "n": 8, "prompt": 0, "answer": LENGTH}
        extra = self.policy.tokenizer(" fact" * 400, add_special_tokens=False)["input_ids"]
        for what, values in {
            "n": (2, 8, 32, 128),
            "prompt": (0, 100, 200, 400),
            "answer": (2, 4, 8, 16),
            "questions": (2, 8, 32),
        }.items():
            for value in values:
                size = base | {what: value}
                prompts = [p + extra[: size["prompt"]] for p in self.prompts[: size["questions"]]]
                began = time.perf_counter()
                for _ in decode(
                    self.policy,
                    prompts,
                    lambda i, n=size["n"]: uniform_draws(0, str(i), n, LENGTH),
                    size["answer"],
                    256,
                ):
                    pass
                seconds = time.perf_counter() - began
                row = {"name": f"growth_{what}", "setting": f"{what}={value}", "value": value}
                self.add(row | {"ours_s": seconds, "repeats": 1})
