"""Faults of training and tokenizers, on a tiny model: NaN and infinity, traps, pickles."""

import contextlib
import copy
import os
import pickle
import tempfile
import warnings
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import load_file

from faults.staging import row
from lib.config import load_profile
from lib.engine.decoding import decode
from lib.engine.models import load_policy, locate, make_policy
from lib.engine.sampling import answer_logprobs
from lib.prompts import direct, render
from lib.training import grpo
from lib.training.evaluation import Evaluation
from lib.training.trainer import SharedPrefixGRPO
from tests.tiny import QUESTIONS, TEMPLATE, tiny_policy, tiny_profile, word_tokenizer

ASKED = QUESTIONS.head(3)


def tiny():
    """A random policy of two layers over whole words, in float32."""
    tokenizer = word_tokenizer("Italy Peru Switzerland")
    return tiny_policy(tokenizer, spread=0.2, max_position_embeddings=64)


def trained(folder: Path, policy=None, judge=None):
    """The model after three steps of a tiny GRPO into `folder`; `judge` replaces the profile's."""
    profile, policy = load_profile("laptop"), policy or tiny()
    sizes = dict(questions_per_step=2, steps=3, evaluate_every=9, save_every=1)
    profile = tiny_profile(profile, skip_zero_variance=False, **sizes)
    # a reward by position, so that every group has a signal
    judge = judge or (
        lambda questions, answers, texts: [float(i % 4 == 0) for i in range(len(texts))]
    )
    judge.whole_only = False  # a random policy seldom ends an answer in three words
    with patch.object(grpo, "make_reward", lambda *given: judge), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        grpo.train_grpo(profile, ASKED, ASKED.head(0), folder, 0, 3, (), policy)
    return policy.model


def poisoned_training():
    """NaN and infinity in reward, log-probability and gradient: the run stops before an update."""
    base = [float(i % 4 == 0) for i in range(8)]

    def rewards(value):
        return lambda questions, answers, texts: [value, *base[1:]]

    def poison(value):
        real = SharedPrefixGRPO._get_per_token_logps_and_entropies

        def scored(self, *args, **kwargs):
            logps, *rest = real(self, *args, **kwargs)
            return (logps * value, *rest)

        return patch.object(SharedPrefixGRPO, "_get_per_token_logps_and_entropies", scored)

    rows = {}
    for name in (
        "reward NaN",
        "reward inf",
        "log-probability NaN",
        "log-probability inf",
        "gradient NaN",
        "gradient inf",
    ):
        what, _, kind = name.partition(" ")
        value, policy, stop = float(kind), tiny(), ""
        before = copy.deepcopy(policy.model.state_dict())
        if what == "gradient":
            next(iter(policy.model.model.layers)).mlp.up_proj.weight.register_hook(
                lambda g, value=value: g * value
            )
        with (
            tempfile.TemporaryDirectory() as folder,
            poison(value if what.startswith("log") else 1.0),
        ):
            try:
                trained(
                    Path(folder) / "run", policy, judge=rewards(value) if what == "reward" else None
                )
            except (FloatingPointError, ValueError) as error:
                stop = str(error)
        after = policy.model.state_dict()
        finite = all(bool(w.isfinite().all()) for w in after.values())
        moved = any(not torch.equal(w, before[k].to(w)) for k, w in after.items())
        note = stop or f"training went on, weights {'moved' if moved else 'stood still'}"
        rows[f"{what} {kind}"] = row(1, bool(stop) and not moved, lost=not finite, note=note[:100])
    return rows


def tokenizer_traps():
    """Seven tokenizers: three are unusual and work, four are wrong and refused.

    They work without a pad token, with pad = end, and with two end tokens. They are refused without
    a template, with a double BOS, without an end token, and for a prompt that is too long.
    """
    policy, question = tiny(), direct("where is Rome")
    prompt = render(policy.tokenizer, question)
    plain = answer_logprobs(policy, [(prompt, [5, 2])])
    right, refused = {}, {}

    def fresh(**changes):
        other = copy.deepcopy(policy.tokenizer)
        for name, value in changes.items():
            setattr(other, name, value)
        return other

    # the padding of a shorter prompt beside a longer one must change nothing
    for name, changes in {"no pad token": {"pad_token": None}, "pad = end": {}}.items():
        other = make_policy(copy.deepcopy(policy.model), fresh(**changes))
        both = answer_logprobs(other, [(prompt, [5, 2]), (prompt + prompt, [5, 2])])
        right[name] = other.tokenizer.pad_token == "</s>" and abs(both[0] - plain[0]) < 1e-5
    model = copy.deepcopy(policy.model)
    model.generation_config.eos_token_id = [2, 9]
    right["two end tokens"] = make_policy(model, fresh()).stops == {2, 9}
    endless = copy.deepcopy(policy.model)
    endless.generation_config.eos_token_id = None
    attempts = {
        "no template": (lambda: render(fresh(chat_template=None), question), "no chat template"),
        "double BOS": (
            lambda: render(fresh(bos_token="<s>", chat_template=f"<s> {TEMPLATE}"), question),
            "begins with",
        ),
        "no end token": (
            lambda: make_policy(
                endless,
                fresh(
                    eos_token=None,
                    pad_token=None,
                    chat_template=TEMPLATE.replace("</s>", ""),
                ),
            ),
            "no end-of-text token",
        ),
        "prompt too long": (
            lambda: list(decode(policy, [prompt * 9], lambda i: None, 3)),
            "do not fit",
        ),
    }
    for name, (attempt, words) in attempts.items():
        try:
            attempt()
        except ValueError as error:
            refused[name] = words in str(error)
    done = [name for name, fine in (right | refused).items() if fine]
    return row(7, len(done), note=f"{sum(right.values())} right, {sum(refused.values())} refused")


class Bomb:
    """A pickle that makes a file when it is opened."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def malicious_pickles():
    """Pickles in place of weights and in a checkpoint are refused; the honest control does run."""
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        folder, fired = Path(name), Path(name) / "fired"
        policy = tiny()
        foreign = folder / "foreign"
        policy.model.save_pretrained(foreign)
        policy.tokenizer.save_pretrained(foreign)
        (foreign / "model.safetensors").unlink()
        (foreign / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(fired)))
        refused = 0
        for attempt in (
            lambda: locate(str(foreign)),
            lambda: load_policy(load_profile("laptop"), foreign),
        ):
            try:
                attempt()
            except (OSError, ValueError):
                refused += 1
        rows["pickle as weights"] = row(
            2, refused, lost=fired.exists(), note="refused: safetensors only"
        )
        work = folder / "run"
        stopped = patch.object(Evaluation, "on_pre_optimizer_step", _stop_at_3)
        with stopped, contextlib.suppress(KeyboardInterrupt):
            trained(work)
        checkpoints, line = sorted((work / "work").glob("checkpoint-*")), ""
        weights = load_file(checkpoints[-1] / "model.safetensors")
        for part in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            (checkpoints[-1] / part).write_bytes(pickle.dumps(Bomb(fired)))
        try:
            trained(work)
        except Exception as error:
            line = f"{type(error).__name__}: {error}"
        kept = load_file(checkpoints[-1] / "model.safetensors")
        same = all(torch.equal(weights[k], kept[k]) for k in weights)
        rows["pickle in a checkpoint"] = row(
            1, bool(line) and not fired.exists(), lost=not same, note=" ".join(line.split())[:80]
        )
        pickle.loads(pickle.dumps(Bomb(fired)))
        rows["pickle in a checkpoint"]["ok"] &= fired.exists()  # it would have run
    return rows


def _stop_at_3(self, args, state, control, **kwargs):
    if state.global_step + 1 == 3:
        raise KeyboardInterrupt


TRAINING_FAULTS = (poisoned_training, tokenizer_traps, malicious_pickles)
