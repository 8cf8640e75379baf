"""The trainer: advantages and gradients are those of plain TRL, given the same answers."""

from copy import deepcopy

import numpy as np
import pytest
from datasets import Dataset
from trl import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from lib.config import load_profile
from lib.engine.trie import share_prefixes
from lib.prompts import direct
from lib.training.apart import advantages
from lib.training.grpo import arguments
from lib.training.trainer import SharedPrefixGRPO
from lib.training.watch import Watch
from tests.tiny import (
    ANSWERS,
    GROUP,
    QUESTIONS,
    tiny_policy,
    tiny_profile,
    with_grpo,
    word_tokenizer,
)


@pytest.fixture
def policy(tmp_path):
    """A tiny policy that also lies in a folder, where TRL looks for the reference."""
    policy = tiny_policy(word_tokenizer(ANSWERS), spread=0.2)
    policy.model.save_pretrained(tmp_path / "model")
    policy.model.config._name_or_path = str(tmp_path / "model")
    return policy


@pytest.fixture
def profile():
    return tiny_profile(load_profile("laptop"))


class Fixed:
    """Random words of one to three tokens as completions, which do not depend on the trainer."""

    def _generate_single_turn(
        self, prompt_ids, images, multimodal_fields, num_generations=1, **kwargs
    ):
        draw = np.random.default_rng(self.state.global_step)
        end = self.processing_class.eos_token_id
        words = draw.integers(3, len(self.processing_class), (len(prompt_ids), 3)).tolist()
        lengths = draw.integers(1, 4, len(prompt_ids))
        # as a policy gives them: three words, or fewer and the end token
        answers = [
            [*row[: length - 1], end] if length < 3 else row
            for row, length in zip(words, lengths, strict=True)
        ]
        return answers, None


class Plain(Fixed, GRPOTrainer):
    """TRL's trainer without its shuffle, so that micro-batches are the same as ours."""

    def _prepare_inputs(self, generation_batch):
        every = self.args.steps_per_generation * self.num_iterations
        if self._step % every == 0 or self._buffered_inputs is None:
            scored = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(scored, self.args.steps_per_generation)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]


class Ours(Fixed, SharedPrefixGRPO):
    pass


class Gradients(Watch):
    """The gradient of every step."""

    def __init__(self, folder):
        super().__init__("gradients", folder)
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append([p.grad.clone() for p in model.parameters()])


def mixed_rewards(prompts, **kwargs):
    """One group all wrong, one all right, and one right answer in each other group."""
    n = GROUP
    return [float(i // n == 1 or (i // n > 1 and i % n == 0)) for i in range(len(prompts))]


def make(kind, policy, profile, folder, steps=2, reward=mixed_rewards, callbacks=()):
    """A trainer of one kind on a copy of the policy, over the first four questions."""
    rows = [{"prompt": direct(q)} for q in QUESTIONS["question"][:4]] * steps
    config = arguments(profile, steps, folder, seed=0)
    config.max_grad_norm = 1e9
    return kind(
        model=deepcopy(policy.model),
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=policy.tokenizer,
        callbacks=list(callbacks),
    )


def gradients(kind, policy, profile, folder, skip=False, difficulty_weight=0.0, **others):
    """Every step's gradients, and the losses that were logged."""
    watch = Gradients(folder)
    if kind is Plain:
        profile = with_grpo(profile, skip_zero_variance=False)
    trainer = make(kind, policy, profile, folder, callbacks=[watch], **others)
    if kind is Ours:
        trainer.skip_zero_variance = skip
        trainer.difficulty_weight = difficulty_weight
        for model in filter(None, (trainer.model, trainer.ref_model)):
            share_prefixes(model)

    trainer.train()
    return watch.steps, [row["loss"] for row in trainer.state.log_history if "loss" in row]


def assert_close(ours, theirs, tolerance):
    """Each tensor within a share of the other's norm."""
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= tolerance * b.norm()


@pytest.mark.parametrize("scale_rewards", ["group", "batch"])
def test_advantages_are_trls_for_random_rewards(policy, profile, tmp_path, scale_rewards):
    rng = np.random.default_rng(0)
    binary = rng.integers(0, 2, (8, GROUP)).astype(float)
    rewards = np.concatenate([binary, rng.normal(size=(6, GROUP)), [[0.0] * GROUP, [1.0] * GROUP]])

    profile = with_grpo(profile, questions_per_step=len(rewards), scale_rewards=scale_rewards)
    given = rewards.flatten().tolist()
    trainer = make(Plain, policy, profile, tmp_path, reward=lambda prompts, **kwargs: given)
    trainer.model.train()
    questions = QUESTIONS["question"].repeat(3)[: len(rewards)].repeat(GROUP)
    scored = trainer._generate_and_score_completions([{"prompt": direct(q)} for q in questions])

    theirs = scored["advantages"].view(-1, GROUP).tolist()
    ours = [advantages(group) for group in rewards]
    same = np.allclose(ours, theirs, atol=1e-5)
    assert same == (scale_rewards == "group")  # another scale is told apart


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize("beta, skip", [(0.0, False), (0.0, True), (0.3, False)])
def test_gradients_are_those_of_plain_trl(policy, profile, tmp_path, loss_type, beta, skip):
    profile = with_grpo(profile, loss_type=loss_type, beta=beta)
    plain, plain_loss = gradients(Plain, policy, profile, tmp_path)
    ours, our_loss = gradients(Ours, policy, profile, tmp_path, skip=skip)
    assert len(plain) == 2
    assert len(ours) == 2
    assert all(gradient.norm() > 0 for gradient in plain[0])
    assert_close(ours[0], plain[0], 1e-4)
    assert_close(ours[1], plain[1], 1e-2)  # after Adam, which makes small differences large
    assert our_loss[0] == pytest.approx(plain_loss[0], abs=1e-5)


@pytest.mark.parametrize("scale_rewards", ["group", "batch", "none"])
def test_reward_scaling_and_masked_rewards_are_trls(policy, profile, tmp_path, scale_rewards):
    profile = with_grpo(profile, scale_rewards=scale_rewards)
    rewards = [1.0, 0.0, None, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, None]
    common = dict(steps=1, reward=lambda prompts, **kwargs: rewards)
    plain, _ = gradients(Plain, policy, profile, tmp_path, **common)
    ours, _ = gradients(Ours, policy, profile, tmp_path, **common)
    assert_close(ours[0], plain[0], 1e-4)


def test_the_difficulty_weight_scales_a_group_by_its_failures(policy, profile, tmp_path):
    plain, _ = gradients(Ours, policy, profile, tmp_path, steps=1)
    weighted, _ = gradients(Ours, policy, profile, tmp_path, steps=1, difficulty_weight=2.0)
    # both groups with signal have one right answer of four: (1 - 1/4) ** 2
    assert_close(weighted[0], [0.5625 * gradient for gradient in plain[0]], 1e-4)
