"""The engine against its peers, interleaved in one run: seconds, ratios, exactness, and the
machine's limit.

Every row times ours and the peer on the same questions in turn, several times after a first that is
not counted, and reports medians and the range of the ratio; `same_products` is the ratio to the
peer with this project's linear layers (lib.engine.linear) put in, so that what the engine does and
what the kernels do can be told apart. The limit is the time that the counted matrix products would
take at the rate measured just before.
"""

import argparse
import copy
import gc
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from datasets import Dataset, disable_progress_bars
from transformers import AutoConfig, AutoModelForCausalLM, PrinterCallback, TrainerCallback
from trl import GRPOTrainer

from lib.config import ROOT, load_profile
from lib.engine.decoding import decode, uniform_draws
from lib.engine.linear import FASTER, product, use_fast_products
from lib.engine.models import load_policy, locate, make_policy
from lib.engine.sampling import answer_logprobs
from lib.engine.trie import Trie, share_prefixes
from lib.figures.style import legend_above, panels, save, whiskers
from lib.prompts import direct, render
from lib.questions.splits import load_questions
from lib.runs import manifest
from lib.tables import write_text
from lib.training import grpo

GROUPS, N = 16, 5  # of a training step
LENGTH = 16
ROWS = (
    "rollout",
    "samples_generate",
    "samples_vllm",
    "scoring",
    "update",
    "step",
    "memory",
    "growth",
)
VLLM = ROOT / ".venv-vllm" / "bin" / "python"


class Given:
    """Completions that were drawn before, so that only the update is timed."""

    completions: list[list[int]]

    def _generate_single_turn(
        self, prompt_ids, images, multimodal_fields, num_generations=1, **kwargs
    ):
        return self.completions, None


class OursGiven(Given, grpo.SharedPrefixGRPO):
    pass


class StockGiven(Given, GRPOTrainer):
    pass


class Clock(TrainerCallback):
    """Seconds of every step, from its first forward to after the optimizer."""

    def __init__(self):
        self.seconds = []

    def on_step_begin(self, *args, **kwargs):
        self.began = time.perf_counter()

    def on_step_end(self, *args, **kwargs):
        self.seconds.append(time.perf_counter() - self.began)


class Bench:
    """The policy, real prompts, and the machine's matrix-product rate."""

    def __init__(self, repeats: int, shape: str | None = None, dtype: str = "float32"):
        self.repeats, self.profile = (
            repeats,
            load_profile("laptop").model_copy(update={"dtype": dtype}),
        )
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
        self.rows, self.folder = [], ROOT / os.environ.get("OUTPUTS", "outputs") / "bench"
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

    def compare(
        self, name: str, setting: str, peer_name: str, ours, peer, check=None, same=True
    ) -> dict:
        """Time `ours()` and `peer(model)` in turn; `check(ours, peer)` gives the exactness of their
        results.
        """
        peers = self.peers if same else {"peer": self.peers["peer"]}
        work = {"ours": ours} | {side: partial(peer, model) for side, model in peers.items()}
        times, results, self.rates = {side: [] for side in work}, {}, []
        for _ in range(
            self.repeats + 1
        ):  # the first warms memory and kernels up, and is not counted
            self.rates.append(matmul_rate(self.policy.device, self.policy.model.dtype))
            for side, run in work.items():
                results[side] = None
                gc.collect()
                began = time.perf_counter()
                results[side] = run()
                self.wait()
                seconds = getattr(results[side], "seconds", None)
                times[side].append(seconds or time.perf_counter() - began)
        self.rates, times = self.rates[1:], {side: found[1:] for side, found in times.items()}
        ratios = {
            side: [p / o for o, p in zip(times["ours"], times[side], strict=True)] for side in peers
        }
        self.ours = times["ours"]
        row = {
            "name": name,
            "setting": setting,
            "peer": peer_name,
            "ours_s": statistics.median(times["ours"]),
            "peer_s": statistics.median(times["peer"]),
            "ratio": statistics.median(ratios["peer"]),
            "low": min(ratios["peer"]),
            "high": max(ratios["peer"]),
            "same_products": statistics.median(ratios["same"]) if "same" in ratios else None,
            "repeats": self.repeats,
            "exactness": check(results["ours"], results["peer"]) if check else None,
        }
        self.add(row)
        return row

    def wait(self) -> None:
        """Let the device finish what it was given."""
        if self.policy.device.type == "cuda":
            torch.cuda.synchronize()

    def add(self, row: dict) -> None:
        self.rows.append(row)
        write_text(self.folder / "engine.json", json.dumps(self.rows, indent=1) + "\n")
        print(
            ", ".join(
                f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()
            ),
            flush=True,
        )

    def generate(self, prompts, n, model):
        """transformers' generate at temperature 1 on left-padded copies of the prompts."""
        tokenizer = self.policy.tokenizer
        width = max(map(len, prompts))
        ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        with torch.inference_mode():
            return model.generate(
                ids.to(self.policy.device),
                attention_mask=mask.to(self.policy.device),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=LENGTH,
                num_return_sequences=n,
            )

    def decode(self, prompts, n, rows=256):
        return list(
            decode(
                self.policy, prompts, lambda i: uniform_draws(0, str(i), n, LENGTH), LENGTH, rows
            )
        )

    def add_limit(
        self, name: str, setting: str, depths: list[int], scored: int, passes: int
    ) -> None:
        """The share of the measured rate in the row before: products of tokens at `depths`, and the
        head's of `scored`.

        The rate is taken just before each repeat, because other work on the machine slows both.
        """
        attended = sum(depths) + len(depths)  # each token attends to its ancestors and itself
        count = (
            passes * 2 * (len(depths) * self.body + attended * self.attention + scored * self.head)
        )
        shares = [count / rate / ours for rate, ours in zip(self.rates, self.ours, strict=True)]
        ours_s, limit_s = statistics.median(self.ours), count / statistics.median(self.rates)
        self.add(
            {
                "name": name,
                "setting": setting,
                "peer": "counted operations / measured rate",
                "ours_s": ours_s,
                "peer_s": limit_s,
                "ratio": statistics.median(shares),
                "low": min(shares),
                "high": max(shares),
                "repeats": self.repeats,
                "exactness": None,
            }
        )

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

    def samples_generate(self) -> None:
        prompts, n = self.prompts[:2], 128
        row = self.compare(
            "samples_generate",
            f"{len(prompts)} questions, n={n}, up to {LENGTH} tokens",
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
        scored = sum(
            map(len, distinct)
        )  # every distinct prefix, the empty one too, predicts one token
        self.add_limit("limit_samples", row["setting"], depths, scored, 1)

    def samples_vllm(self) -> None:
        prompts, n = self.prompts[:2], 128
        given = json.dumps({"prompts": prompts, "n": n, "length": LENGTH})
        with subprocess.Popen(
            [VLLM, "-m", "bench.vllm_peer"],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            process.stdin.write(given + "\n")

            def draw(model=None):  # vLLM holds its own
                process.stdin.write("draw\n")
                process.stdin.flush()
                line = next((line for line in process.stdout if line.startswith("SECONDS")), None)
                if line is None:
                    raise RuntimeError(
                        f"vLLM ended without samples; try {VLLM} -m bench.vllm_peer by hand"
                    )
                return SimpleNamespace(seconds=float(line.split()[1]))

            draw()  # loads and warms up
            self.compare(
                "samples_vllm",
                f"{len(prompts)} questions, n={n}, up to {LENGTH} tokens",
                "vLLM on CPU, prefix caching",
                partial(self.decode, prompts, n),
                draw,
                same=False,
            )
            process.stdin.close()

    def scoring(self) -> None:
        prompts = self.prompts[:16]
        drawn = self.decode(prompts, 40)
        pairs = [
            (prompts[d["index"]], list(ids))
            for d in drawn
            for ids in sorted({tuple(ids) for ids in d["ids"]})[:8]
        ]

        @torch.inference_mode()
        def plain(model):
            found = []
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
                    found.append(
                        float(
                            scores.gather(-1, torch.tensor(a, device=model.device)[:, None]).sum()
                        )
                    )
            return found

        self.compare(
            "scoring",
            f"{len(prompts)} questions, 8 answers each",
            "one row an answer, batches of 32",
            lambda: answer_logprobs(self.policy, pairs),
            plain,
            lambda a, b: f"log-probabilities within {np.abs(np.subtract(a, b)).max():.1e}",
        )

    def trainer(self, kind, steps: int, beta: float, skip: bool, completions=None, model=None):
        """Train `steps` steps from the first policy; the seconds of a step (median) and the first
        gradient norm.
        """
        settings = {
            "questions_per_step": GROUPS,
            "num_generations": N,
            "micro_batch": GROUPS * N,
            "beta": beta,
        }
        profile = self.profile.model_copy(
            update={"grpo": self.profile.grpo.model_copy(update=settings)}
        )
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
        if isinstance(trainer, grpo.SharedPrefixGRPO):
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
        drawn = {d["index"]: d["ids"] for d in self.decode(self.prompts[:GROUPS], N)}
        given = [list(ids) for i in range(GROUPS) for ids in drawn[i]]
        same = dict(steps=1, beta=0.001, skip=False, completions=given)
        setting = f"{GROUPS} questions, n={N}, beta 0.001"
        self.compare(
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
        self.add_limit("limit_update", setting, depths, scored, 4)

    def step(self) -> None:
        same = dict(steps=1, beta=0.0, skip=False)
        setting = f"{GROUPS} questions, n={N}, beta 0"
        self.compare(
            "step",
            setting,
            "stock TRL GRPOTrainer",
            partial(self.trainer, grpo.SharedPrefixGRPO, **same),
            lambda model: self.trainer(GRPOTrainer, model=model, **same),
        )

    def memory(self) -> None:
        """Peak memory of a process that samples 10 times the questions, over that of one that
        samples them once.
        """
        peaks = [
            int(
                subprocess.run(
                    [sys.executable, "-m", "bench.peers", "--sample", str(count)],
                    cwd=ROOT,
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout.split()[-1]
            )
            / 2**20
            for count in (20, 200)
        ]
        self.add(
            {
                "name": "memory",
                "setting": "200 questions against 20, n=8; GB in place of seconds",
                "peer": "peak with a tenth of the questions",
                "ours_s": peaks[1],
                "peer_s": peaks[0],
                "ratio": peaks[1] / peaks[0],
                "low": None,
                "high": None,
                "repeats": 1,
                "exactness": None,
            }
        )

    def growth(self) -> None:
        """Seconds of sampling as n, the prompt, the answer and the number of questions grow, one at
        a time.
        """
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
                self.add(
                    {
                        "name": f"growth_{what}",
                        "setting": f"{what}={value}",
                        "value": value,
                        "peer": None,
                        "ours_s": seconds,
                        "peer_s": None,
                        "ratio": None,
                        "low": None,
                        "high": None,
                        "repeats": 1,
                        "exactness": None,
                    }
                )


def draw(rows: pd.DataFrame, folder: Path) -> None:
    """Ratios with their range and the goals, and how the cost of sampling grows, as 'engine' in
    `folder`.
    """
    goals = {
        "update": 5,
        "step": 4,
        "rollout": 3,
        "samples_generate": 4,
        "samples_vllm": 4,
        "scoring": 5,
    }
    fig, axes = panels(2, height=2.7)
    shown = rows[rows["name"].isin(goals)].assign(value=lambda f: f["ratio"]).reset_index(drop=True)
    whiskers(axes[0], shown.index, shown, True, color="black", marker="o", label="peer as it ships")
    same = shown.reindex(columns=["same_products"])["same_products"].astype(float)
    axes[0].plot(
        same,
        shown.index,
        "o",
        color="black",
        markerfacecolor="white",
        label="with our linear layers",
        zorder=3,
    )
    axes[0].plot(
        [goals[name] for name in shown["name"]],
        shown.index,
        "|",
        color="0.5",
        markersize=12,
        label="goal",
    )
    axes[0].set_yticks(shown.index, shown["name"].str.replace("_", " "))
    axes[0].set_xlim(left=0)
    axes[0].set_xlabel("times as fast as the peer")
    legend_above(axes[0], 2)
    grown = rows[rows["name"].str.startswith("growth_")]
    for (name, part), marker in zip(grown.groupby("name", sort=False), "os^D", strict=False):
        label = f"{name[7:]} up to {part['value'].max():.0f}"
        axes[1].plot(
            part["value"] / part["value"].max(), part["ours_s"], marker=marker, label=label
        )
    axes[1].set_xlabel("share of the largest size")
    axes[1].set_ylabel("seconds")
    if len(grown):
        legend_above(axes[1], 2)
    save(fig, rows.drop(columns="exactness"), folder, "engine")


def stock(model):
    """A copy of the model as transformers makes it: its own attention and linear layers."""
    plain = AutoModelForCausalLM.from_config(
        copy.deepcopy(model.config), dtype=model.dtype, attn_implementation="sdpa"
    )
    plain.load_state_dict(model.state_dict())
    plain.generation_config = copy.deepcopy(model.generation_config)
    return plain.to(model.device).eval()


def random_model(shape: str, policy):
    """A model of random weights: a profile's model folder or hub id `shape`, or `7b`: the shape of
    Qwen2.5-7B.

    Speed needs no trained weights. Ends with the small model's end-of-text token, so that its
    prompts do.
    """
    if shape == "7b":
        config = AutoConfig.for_model(
            "qwen2",
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
            vocab_size=152064,
            tie_word_embeddings=False,
            rope_theta=1e6,
        )
    else:
        name, revision = locate(shape)
        config = AutoConfig.from_pretrained(name, revision=revision)
    with torch.device(policy.device):
        model = AutoModelForCausalLM.from_config(config, dtype=policy.model.dtype).eval()
    model.generation_config = copy.deepcopy(policy.model.generation_config)
    return model


def matmul_rate(device, dtype, seconds: float = 2.0) -> float:
    """Operations a second of the matrix products at this model's shapes: 256 tokens, 576 to 1536
    features.
    """
    a, b = (
        torch.randn(256, 576, device=device, dtype=dtype),
        torch.randn(1536, 576, device=device, dtype=dtype),
    )
    best, end = 0.0, time.perf_counter() + seconds
    multiply = (
        product
        if FASTER and device.type == "cpu" and dtype == torch.float32
        else torch.nn.functional.linear
    )
    while time.perf_counter() < end:
        began = time.perf_counter()
        for _ in range(20):
            multiply(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 20 * 2 * 256 * 576 * 1536 / (time.perf_counter() - began))
    return best


def peak_of_sampling(count: int) -> None:
    """Sample `count` questions and print this process's peak memory in KiB.

    VmHWM begins anew with a program; getrusage's ru_maxrss would still hold the peak of the process
    that started it.
    """
    profile = load_profile("laptop")
    policy, questions = load_policy(profile), load_questions(profile, 0)
    prompts = [render(policy.tokenizer, direct(q)) for q in questions["question"][:count]]
    for _ in decode(policy, prompts, lambda i: uniform_draws(0, str(i), 8, LENGTH), LENGTH, 64):
        pass
    status = Path("/proc/self/status").read_text()
    print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the engine against its peers.")
    parser.add_argument(
        "rows", nargs="*", default=ROWS, metavar="row", help=f"any of {', '.join(ROWS)}"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--random", metavar="SHAPE", help="a model of random weights: 7b, a hub id or a folder"
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--sample", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    unknown = sorted(set(args.rows) - set(ROWS))
    if unknown:
        parser.error(f"unknown row {unknown}; allowed: {', '.join(ROWS)}")
    if args.sample:
        return peak_of_sampling(args.sample)
    os.environ["TQDM_DISABLE"] = "1"
    disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning)
    bench = Bench(args.repeats, args.random, args.dtype)
    print(f"matrix products: {bench.rate / 1e9:.0f} GFLOP/s", flush=True)
    for name in args.rows:
        getattr(bench, name)()
    facts = manifest() | {"matmul_gflops": bench.rate / 1e9, "threads": torch.get_num_threads()}
    write_text(bench.folder / "machine.json", json.dumps(facts, indent=1) + "\n")
    rows = pd.DataFrame(bench.rows)
    draw(rows, bench.folder)
    table = rows[["name", "ours_s", "peer_s", "ratio", "low", "high", "same_products", "peer"]]
    print(table.to_string(index=False, float_format=lambda x: f"{x:.2f}"))
    print(bench.folder / "engine.json")


if __name__ == "__main__":
    main()
