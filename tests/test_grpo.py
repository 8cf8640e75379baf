"""GRPO: the schedule and advantages by hand, gradients against plain TRL, TRL's traps, resuming to
the bit.
"""

import json
from copy import deepcopy
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from trl import GRPOTrainer

from lib.config import load_profile
from lib.engine.models import make_policy
from lib.engine.sampling import answer_logprobs
from lib.engine.trie import share_prefixes
from lib.judge.grading import make_reward
from lib.prompts import direct, render
from lib.training import grpo
from lib.training.apart import advantages, read_log, read_rollouts, schedule, training_steps
from lib.training.evaluation import Evaluation
from lib.training.watch import Watch
from tests.tiny import WORDS, tiny_policy, word_tokenizer

N = 4
QUESTIONS = pd.DataFrame(
    {
        "question_id": [f"q{i}" for i in range(6)],
        "question": [
            "where is Rome",
            "where is Lima",
            "where is Bern",
            "is Rome short",
            "is Lima a user",
            "where",
        ],
        "answers": [
            ["Italy"],
            ["Peru"],
            ["Switzerland"],
            ["is Italy"],
            ["Peru", "Chile"],
            ["Spain"],
        ],
    }
)


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer("Italy Peru Switzerland Chile Spain " + WORDS)


@pytest.fixture
def policy(tokenizer, tmp_path):
    """A tiny policy that also lies in a folder, where TRL looks for the reference."""
    made = tiny_policy(tokenizer, spread=0.2)
    made.model.save_pretrained(tmp_path / "model")
    made.model.config._name_or_path = str(tmp_path / "model")
    return made


def small(profile, **changes):
    """The profile at the size of the tiny policy."""
    settings = dict(
        questions_per_step=4,
        num_generations=N,
        micro_batch=8,
        learning_rate=0.01,
        steps=4,
        evaluate_every=2,
        save_every=2,
    )
    sampling = profile.sampling.model_copy(update={"max_new_tokens": 3})
    return with_grpo(profile.model_copy(update={"sampling": sampling}), **settings | changes)


@pytest.fixture
def profile():
    return small(load_profile("laptop"))


def with_grpo(profile, **settings):
    return profile.model_copy(update={"grpo": profile.grpo.model_copy(update=settings)})


def test_every_pass_asks_every_question_once():
    ids = [f"q{i}" for i in range(10)]
    order = schedule(ids, 7, 4, seed=0)
    assert len(order) == 28 and order == schedule(ids, 7, 4, seed=0) != schedule(ids, 7, 4, seed=1)
    assert sorted(order[:10]) == sorted(order[10:20]) == ids and order[:10] != order[10:20]
    assert schedule(["a"], 1, 3, seed=0) == ["a"] * 3


def test_advantages_by_hand_and_as_trl_has_them():
    # 1 of 4: mean 1/4, standard deviation sqrt((3/4)^2 + 3 (1/4)^2) / 3) = 1/2
    assert advantages([1, 0, 0, 0]) == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-3)
    assert advantages([0, 0]) == advantages([1, 1]) == [0, 0]


def test_steps_come_from_epochs(profile):
    assert training_steps(profile, 100) == 4
    assert (
        training_steps(with_grpo(profile, steps=None, epochs=8.0, questions_per_step=128), 10_000)
        == 625
    )
    assert training_steps(with_grpo(profile, steps=None, epochs=1.0), 3) == 1


class Fixed:
    """Completions that do not depend on the trainer: random words of one to three tokens, as a
    policy gives them.
    """

    def _generate_single_turn(
        self, prompt_ids, images, multimodal_fields, num_generations=1, **kwargs
    ):
        draw = np.random.default_rng(self.state.global_step)
        end = self.processing_class.eos_token_id
        words = draw.integers(3, len(self.processing_class), (len(prompt_ids), 3))
        lengths = draw.integers(1, 4, len(prompt_ids))
        return [
            [*map(int, w[: k - 1]), end] if k < 3 else list(map(int, w))
            for w, k in zip(words, lengths, strict=True)
        ], None


class Plain(Fixed, GRPOTrainer):
    def _prepare_inputs(
        self, generation_batch
    ):  # TRL's own, without its shuffle, so that micro-batches are the same
        every = self.args.steps_per_generation * self.num_iterations
        if self._step % every == 0 or self._buffered_inputs is None:
            scored = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = grpo.split_tensor_dict(scored, self.args.steps_per_generation)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]


class Ours(Fixed, grpo.SharedPrefixGRPO):
    pass


class Gradients(Watch):
    """The gradient of every step."""

    def __init__(self, folder):
        super().__init__("gradients", folder)
        self.seen = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.seen.append([p.grad.clone() for p in model.parameters()])


def gradients(
    kind, policy, profile, folder, skip=False, steps=2, rewards=None, difficulty_weight=0.0
):
    """Every step's gradients, and the loss that was logged."""
    profile = with_grpo(profile, skip_zero_variance=False) if kind is Plain else profile
    model, watch = deepcopy(policy.model), Gradients(folder)
    rows = [{"prompt": direct(q)} for q in QUESTIONS["question"][:4]] * steps

    def reward(prompts, completions, **kwargs):
        if rewards:
            return rewards
        # one group all wrong, one all right, two mixed
        return [float(i // N == 1 or (i // N > 1 and i % N == 0)) for i in range(len(prompts))]

    arguments = grpo.arguments(profile, steps, folder, seed=0)
    arguments.max_grad_norm = 1e9
    trainer = kind(
        model=model,
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=policy.tokenizer,
        callbacks=[watch],
    )
    if kind is Ours:
        trainer.skip_zero_variance, trainer.difficulty_weight = skip, difficulty_weight
        share_prefixes(trainer.model)
        if trainer.ref_model is not None:
            share_prefixes(trainer.ref_model)
    trainer.train()
    return watch.seen, [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize("beta, skip", [(0.0, False), (0.0, True), (0.3, False)])
def test_gradients_are_those_of_plain_trl(policy, profile, tmp_path, loss_type, beta, skip):
    profile = with_grpo(profile, loss_type=loss_type, beta=beta)
    plain, plain_loss = gradients(Plain, policy, profile, tmp_path)
    ours, our_loss = gradients(Ours, policy, profile, tmp_path, skip)
    assert len(plain) == len(ours) == 2
    for a, b in zip(ours[0], plain[0], strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() and b.norm() > 0
    for a, b in zip(
        ours[1], plain[1], strict=True
    ):  # after an update by Adam, which blows small differences up
        assert (a - b).norm() <= 1e-2 * b.norm()
    assert our_loss[0] == pytest.approx(plain_loss[0], abs=1e-5)


@pytest.mark.parametrize("scale_rewards", ["group", "batch", "none"])
def test_reward_scaling_and_masked_rewards_are_trls(policy, profile, tmp_path, scale_rewards):
    profile = with_grpo(profile, scale_rewards=scale_rewards)
    rewards = [1.0, 0.0, None, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, None]
    plain, _ = gradients(Plain, policy, profile, tmp_path, steps=1, rewards=rewards)
    ours, _ = gradients(Ours, policy, profile, tmp_path, steps=1, rewards=rewards)
    assert all((a - b).norm() <= 1e-4 * b.norm() for a, b in zip(ours[0], plain[0], strict=True))


def test_the_difficulty_weight_scales_a_group_by_its_failures(policy, profile, tmp_path):
    plain, _ = gradients(Ours, policy, profile, tmp_path, steps=1)
    weighted, _ = gradients(Ours, policy, profile, tmp_path, steps=1, difficulty_weight=2.0)
    # both groups with signal have one right answer of four: (1 - 1/4) ** 2
    assert all(
        (a - 0.5625 * b).norm() <= 1e-4 * b.norm()
        for a, b in zip(weighted[0], plain[0], strict=True)
    )


def test_trls_defaults_that_would_change_the_algorithm_are_closed(profile, tmp_path):
    found = grpo.arguments(profile, 7, tmp_path, seed=5)
    expected = {
        "lr_scheduler_type": "constant",
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "beta": 0.0,
        "epsilon": 0.2,
        "use_bias_correction_kl": False,
        "num_iterations": 1,
        "loss_type": "grpo",
        "scale_rewards": "group",
        "bf16": False,
        "gradient_checkpointing": False,
        "shuffle_dataset": False,
        "max_steps": 7,
        "seed": 5,
        "num_generations": N,
        "max_completion_length": 3,
    }
    assert {name: getattr(found, name) for name in expected} == expected
    assert found.per_device_train_batch_size * found.gradient_accumulation_steps == 4 * N
    assert found.report_to in ("none", []) and not found.logging_nan_inf_filter


def test_batches_that_do_not_divide_are_refused(profile, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(
        ValueError, match="16 completions do not divide into micro_batch = 8 on each of 4 processes"
    ):
        grpo.arguments(profile, 1, tmp_path, 0)


@pytest.fixture
def train(policy, profile, tokenizer):
    """Train a fresh copy of the tiny policy into a folder."""

    def run(folder, validation=QUESTIONS, seed=0, **settings):
        fresh = make_policy(deepcopy(policy.model), tokenizer)
        return grpo.train_grpo(
            with_grpo(profile, **settings), QUESTIONS, validation, folder, seed, 4, (2,), fresh
        )

    return run


def test_training_raises_reward_and_leaves_its_files(policy, profile, tokenizer, tmp_path):
    many = with_grpo(profile, steps=30, evaluate_every=10, save_every=50)
    folder = grpo.train_grpo(many, QUESTIONS, QUESTIONS, tmp_path / "run", 0, 30, (2,), policy)
    log, rollouts, budget = (
        read_log(folder),
        read_rollouts(folder),
        json.loads((folder / "budget.json").read_text()),
    )
    assert log["step"].tolist() == list(range(31)) and log["accuracy"].notna().sum() == 4
    assert log["reward"].tail(5).mean() > log["reward"].head(6).mean() + 0.2
    assert log["kl"].iloc[0] == pytest.approx(0, abs=1e-5) and log["kl"].iloc[-1] > 0.1
    assert len(rollouts) == 30 * 4 and (rollouts["n"] == N).all()
    mean = rollouts.groupby("step")[["hits", "n"]].sum().eval("hits / n").to_numpy()
    assert log["reward"].to_numpy()[1:] == pytest.approx(mean, abs=1e-6)
    live = rollouts["hits"].between(1, N - 1).groupby(rollouts["step"]).mean().to_numpy()
    assert log["signal_share"].to_numpy()[1:] == pytest.approx(live, abs=1e-6)
    assert budget["steps"] == 30 and budget["examples"] == 480 and budget["questions"] == 6
    best = json.loads((folder / "best" / "facts.json").read_text())
    assert (
        best["accuracy"] == log["accuracy"][1:].max()
        and (folder / "step2").exists()
        and (folder / "last").exists()
    )
    assert not (folder / "work").exists()


def test_an_interrupted_training_ends_with_the_same_weights_to_the_bit(
    train, tmp_path, monkeypatch
):
    whole = train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Evaluation, "on_pre_optimizer_step", interrupt_at(3))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "broken")
    assert not (tmp_path / "broken" / "budget.json").exists()
    resumed = train(tmp_path / "broken")
    for name in ("last", "best", "step2"):
        weights = [
            (folder / name / "model.safetensors").read_bytes() for folder in (whole, resumed)
        ]
        assert weights[0] == weights[1], name
    logs = [read_log(folder).drop(columns="seconds") for folder in (whole, resumed)]
    pd.testing.assert_frame_equal(*logs)
    pd.testing.assert_frame_equal(read_rollouts(whole), read_rollouts(resumed))


def interrupt_at(step):
    def stop(self, args, state, control, **kwargs):
        if state.global_step + 1 == step:
            raise KeyboardInterrupt

    return stop


def test_the_seed_decides(train, tmp_path):
    rewards = [
        read_rollouts(train(tmp_path / f"{i}", QUESTIONS.head(0), seed))
        for i, seed in enumerate((0, 0, 1))
    ]
    pd.testing.assert_frame_equal(rewards[0], rewards[1])
    assert not rewards[0].equals(rewards[2])
    assert not (
        tmp_path / "0" / "best"
    ).exists()  # without validation there is nothing to choose by


def test_a_judge_that_fails_for_one_answer_masks_it(train, tmp_path, monkeypatch):
    real = make_reward

    def sometimes(settings):
        judge = real(settings)
        return lambda *rows: [None if i == 1 else r for i, r in enumerate(judge(*rows))]

    monkeypatch.setattr(grpo, "make_reward", sometimes)
    folder = train(tmp_path / "run", QUESTIONS.head(0))
    assert read_log(folder)["loss"].notna().all() and (folder / "last").exists()


def test_a_collapse_stops_the_training(policy, profile, tmp_path):
    watch = Evaluation(tmp_path, profile, QUESTIONS, ())
    log = tmp_path / "log.jsonl"
    log.write_text(
        "".join(
            json.dumps({"step": i, "accuracy": a}) + "\n" for i, a in enumerate([0.2, 0.5, 0.2])
        )
    )
    assert watch.collapsed(3, 0.24) and not watch.collapsed(3, 0.25) and not watch.collapsed(3, 0.4)
    log.write_text(json.dumps({"step": 0, "accuracy": 0.5}) + "\n")
    assert not watch.collapsed(1, 0.1)  # one bad evaluation is no collapse


def test_kl_is_of_the_drawn_answer(policy, profile, tmp_path, tokenizer):
    other = tiny_policy(tokenizer, spread=0.2, seed=1)
    watch = Evaluation(tmp_path, profile, QUESTIONS, ())
    watch.trainer = SimpleNamespace(whole_model=lambda: policy.model, processing_class=tokenizer)
    watch.reference = policy
    assert watch.measure()["kl"] == pytest.approx(0, abs=1e-5)
    watch.reference = other
    found = watch.measure()
    assert found["kl"] > 0 and found["n"] == 6
    pair = (render(tokenizer, direct("where is Rome")), [5, 6])
    logits = (
        other.model(input_ids=torch.tensor([pair[0] + pair[1]])).logits[0, -3:-1].log_softmax(-1)
    )
    assert answer_logprobs(other, [pair]) == pytest.approx(
        [float(logits[0, 5] + logits[1, 6])], abs=1e-5
    )


def test_another_prompt_than_ours_is_refused(policy, profile, tokenizer):
    row = {"prompt": direct("where is Rome"), "answers": ["Italy"], "question_id": "q0"}

    class Trainer:
        eos_token_ids = [tokenizer.eos_token_id]
        prompt = render(tokenizer, row["prompt"])

        def _tokenize_prompts(self, prompts):
            return [self.prompt], None

    check = partial(grpo.check_prompt, policy=policy, row=row)
    check(Trainer())
    Trainer.prompt = [1, *Trainer.prompt]
    with pytest.raises(ValueError, match="another prompt"):
        check(Trainer())
    Trainer.prompt, Trainer.eos_token_ids = Trainer.prompt[1:], [0]
    with pytest.raises(ValueError, match="'</s>' ends no answer"):
        check(Trainer())
