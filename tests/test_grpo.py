"""GRPO: what a training leaves, TRL's traps, resuming to the bit."""

import json
from copy import deepcopy
from functools import partial

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from lib.config import load_profile
from lib.engine.decoding import decode
from lib.engine.models import load_policy, make_policy
from lib.judge.grading import make_reward
from lib.prompts import direct, render
from lib.tables import DamagedFile
from lib.text import holds
from lib.training import grpo, trainer
from lib.training.apart import drop_weights, finished, read_log, read_rollouts
from lib.training.arguments import fitting
from tests.tiny import (
    ANSWERS,
    GROUP,
    QUESTIONS,
    tiny_policy,
    tiny_profile,
    with_grpo,
    word_tokenizer,
)


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer(ANSWERS)


@pytest.fixture
def policy(tokenizer):
    return tiny_policy(tokenizer, spread=0.2)


@pytest.fixture
def profile():
    return tiny_profile(load_profile("laptop"))


def test_the_profile_s_switches_reach_the_trainer(policy, profile, tmp_path):
    profile = with_grpo(profile, skip_zero_variance=True, difficulty_weight=2.0)
    config = grpo.arguments(profile, 1, tmp_path, seed=0)
    questions = grpo.ordered(QUESTIONS, 1, profile.grpo.questions_per_step, seed=0)
    watch = grpo.Evaluation(tmp_path, profile, QUESTIONS, ())
    trainer = grpo.make_trainer(profile, policy, questions, lambda **rows: [], config, watch)
    assert trainer.skip_zero_variance
    assert trainer.difficulty_weight == 2.0
    assert trainer.rollout_rows == profile.sampling.rows


@torch.no_grad()
def test_the_first_policy_is_there_again_after_the_training_has_changed_it(
    policy, profile, tokenizer, tmp_path
):
    policy.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    of_a_folder = load_policy(profile, tmp_path)
    for given in (policy, of_a_folder):
        before = {name: weight.clone() for name, weight in given.model.state_dict().items()}
        again = grpo.again(profile, given)
        for weight in given.model.parameters():
            weight.add_(1.0)
        found = again().model.state_dict()
        assert all(torch.equal(weight, before[name]) for name, weight in found.items())


def test_trls_defaults_that_would_change_the_algorithm_are_closed(profile, tmp_path):
    config = grpo.arguments(profile, 7, tmp_path, seed=5)
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
        "num_generations": GROUP,
        "max_completion_length": 3,
    }
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.per_device_train_batch_size * config.gradient_accumulation_steps == 4 * GROUP
    assert config.report_to in ("none", [])
    assert not config.logging_nan_inf_filter


def test_a_micro_batch_is_what_divides_a_step_within_the_limit(monkeypatch):
    cases = {(80, 320, 5): 80, (40, 40, 5): 40, (20, 30, 5): 15, (20, 35, 5): 5, (5, 32, 8): 8}
    assert {case: fitting(*case) for case in cases} == cases
    assert fitting(16, 24) == 12

    monkeypatch.setenv("WORLD_SIZE", "4")
    assert fitting(8, 16, 4) == 4  # of four groups each process has one
    assert fitting(16, 128) == 16
    monkeypatch.setenv("WORLD_SIZE", "16")
    assert fitting(16, 128) == 8
    with pytest.raises(ValueError, match="= 4 does not divide among 16 processes"):
        fitting(8, 16, 4)


@pytest.fixture
def train(policy, profile, tokenizer):
    """Train a fresh copy of the tiny policy into a folder."""

    def run(folder, validation=QUESTIONS, seed=0, **settings):
        fresh = make_policy(deepcopy(policy.model), tokenizer)
        changed = with_grpo(profile, **settings)
        return grpo.train_grpo(changed, QUESTIONS, validation, folder, seed, 4, (2,), fresh)

    return run


def holds_a_gold_answer(settings, questions=None):
    """A reward that random words can earn: the text holds a gold answer."""

    def reward(questions, golds, texts):
        pairs = zip(golds, texts, strict=True)
        return [float(any(holds(text, gold) for gold in names)) for names, text in pairs]

    reward.whole_only = False  # a random policy seldom ends an answer in three words
    return reward


def test_training_raises_reward_and_leaves_its_files(policy, profile, tmp_path, monkeypatch):
    for module in ("grpo", "evaluation"):
        monkeypatch.setattr(f"lib.training.{module}.make_reward", holds_a_gold_answer)
    many = with_grpo(profile, steps=30, evaluate_every=10, save_every=50)
    folder = grpo.train_grpo(many, QUESTIONS, QUESTIONS, tmp_path / "run", 0, 30, (2,), policy)

    log = read_log(folder)
    assert log["step"].tolist() == list(range(31))
    assert log["accuracy"].notna().sum() == 4
    assert log["reward"].tail(5).mean() > log["reward"].head(6).mean() + 0.2
    assert log["kl"].iloc[0] == pytest.approx(0, abs=1e-5)
    assert log["kl"].iloc[-1] > 0.1

    rollouts = read_rollouts(folder)
    assert len(rollouts) == 30 * 4
    assert (rollouts["n"] == GROUP).all()
    mean = rollouts.groupby("step")[["hits", "n"]].sum().eval("hits / n").to_numpy()
    assert log["reward"].to_numpy()[1:] == pytest.approx(mean, abs=1e-6)
    assert (rollouts["live"] == rollouts["hits"].between(1, GROUP - 1)).all()  # of 0 and 1
    live = rollouts["live"].groupby(rollouts["step"]).mean().to_numpy()
    assert log["signal_share"].to_numpy()[1:] == pytest.approx(live, abs=1e-6)

    budget = json.loads((folder / "budget.json").read_text())
    assert (budget["steps"], budget["examples"], budget["questions"]) == (30, 480, 6)
    best = json.loads((folder / "best" / "facts.json").read_text())
    assert best["accuracy"] == log["accuracy"][1:].max()
    assert (folder / "step2").exists()
    assert (folder / "last").exists()
    assert not (folder / "work").exists()


def test_best_weights_that_are_the_last_lie_once_and_dropped_ones_are_told(train, tmp_path):
    folder = train(tmp_path / "run")
    one, two = (folder / name / "model.safetensors" for name in ("best", "last"))
    steps = [json.loads((path.parent / "facts.json").read_text())["step"] for path in (one, two)]
    assert one.samefile(two) == (steps[0] == steps[1])

    drop_weights([folder])
    assert finished(folder) and not one.exists() and not two.exists()
    assert len(read_log(folder)) == steps[1] + 1
    with pytest.raises(DamagedFile, match="they are not there.*remove .*run to train again"):
        load_policy(None, folder / "last")


def test_an_interrupted_training_ends_with_the_same_weights_to_the_bit(
    train, tmp_path, monkeypatch
):
    whole = train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(grpo.Evaluation, "on_pre_optimizer_step", interrupt_at(3))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "broken")
    assert not (tmp_path / "broken" / "budget.json").exists()

    resumed = train(tmp_path / "broken")
    for name in ("last", "best", "step2"):
        one, two = (folder / name / "model.safetensors" for folder in (whole, resumed))
        assert one.read_bytes() == two.read_bytes(), name
    logs = [read_log(folder).drop(columns="seconds") for folder in (whole, resumed)]
    pd.testing.assert_frame_equal(*logs)
    pd.testing.assert_frame_equal(read_rollouts(whole), read_rollouts(resumed))


def test_layers_that_run_again_give_the_same_weights(train, tmp_path):
    plain = train(tmp_path / "plain")
    again = train(tmp_path / "again", gradient_checkpointing=True)
    one, two = (load_file(folder / "last" / "model.safetensors") for folder in (plain, again))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=0, msg=name)


def test_a_tracker_is_told_of_the_training(train, profile, tmp_path):
    tracked = profile.model_copy(update={"report_to": "tensorboard"})
    config = grpo.arguments(tracked, 1, tmp_path / "atlas" / "seed0" / "04_grpo" / "work", 0)
    assert config.report_to == ["tensorboard"]
    assert config.run_name.endswith("atlas/seed0/04_grpo")
    assert config.log_completions
    plain = grpo.arguments(profile, 1, tmp_path, 0)
    assert plain.report_to == []
    assert not plain.log_completions


def interrupt_at(step):
    def stop(self, args, state, control, **kwargs):
        if state.global_step + 1 == step:
            raise KeyboardInterrupt

    return stop


def test_the_seed_decides(train, tmp_path):
    rollouts = [
        read_rollouts(train(tmp_path / f"{i}", QUESTIONS.head(0), seed))
        for i, seed in enumerate((0, 0, 1))
    ]
    pd.testing.assert_frame_equal(rollouts[0], rollouts[1])
    assert not rollouts[0].equals(rollouts[2])
    # without validation there is nothing to choose by
    assert not (tmp_path / "0" / "best").exists()


def test_a_judge_that_fails_for_one_answer_masks_it(train, tmp_path, monkeypatch):
    real = make_reward

    def sometimes(settings, questions=None):
        judge = real(settings)
        return lambda *rows: [None if i == 1 else r for i, r in enumerate(judge(*rows))]

    monkeypatch.setattr(grpo, "make_reward", sometimes)
    folder = train(tmp_path / "run", QUESTIONS.head(0))
    assert read_log(folder)["loss"].notna().all()
    assert (folder / "last").exists()


def test_groups_are_judged_while_others_are_decoded(train, tmp_path, monkeypatch):
    events = []

    class Noting:
        whole_only = False

        def begin(self, questions, answers, texts):
            events.append(list(zip(questions, answers, texts, strict=True)))

        def __call__(self, questions, answers, texts):
            events.append(("all", list(zip(questions, answers, texts, strict=True))))
            return [float(len(text) % 2) for text in texts]

    def told(*arguments, **options):
        yield from decode(*arguments, **options)
        events.append("decoded")

    monkeypatch.setattr(grpo, "make_reward", lambda *_: Noting())
    monkeypatch.setattr(trainer, "decode", told)
    train(tmp_path / "run", QUESTIONS.head(0))
    steps = [events[i : i + 6] for i in range(0, len(events), 6)]
    assert len(steps) == 4
    for *groups, decoded, (_, cases) in steps:
        assert decoded == "decoded" and len(groups) == 4
        assert sorted(sum(groups, [])) == sorted(cases)


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

    Trainer.prompt = Trainer.prompt[1:]
    Trainer.eos_token_ids = [0]
    with pytest.raises(ValueError, match="'</s>' ends no answer"):
        check(Trainer())
