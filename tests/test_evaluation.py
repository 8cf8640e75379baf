"""Evaluation in the course of a training: collapse and KL."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from lib.config import load_profile
from lib.engine.sampling import answer_logprobs
from lib.prompts import direct, render
from lib.training.evaluation import Evaluation
from tests.tiny import ANSWERS, QUESTIONS, tiny_policy, tiny_profile, word_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer(ANSWERS)


@pytest.fixture
def watch(tmp_path):
    return Evaluation(tmp_path, tiny_profile(load_profile("laptop")), QUESTIONS, ())


def test_a_collapse_stops_the_training(watch):
    rows = [{"step": i, "accuracy": accuracy} for i, accuracy in enumerate([0.2, 0.5, 0.2])]
    watch.log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert watch.decide(3, 0.24) == (False, True)
    assert watch.decide(3, 0.25) == (False, False)
    assert watch.decide(3, 0.6) == (True, False)

    watch.log.write_text(json.dumps({"step": 0, "accuracy": 0.5}) + "\n")
    assert watch.decide(1, 0.1) == (True, False)  # one bad evaluation is no collapse


def test_weights_of_a_course_that_was_left_are_not_the_best(watch):
    """Killed after the best of step 4, resumed from the checkpoint of step 3."""
    best, state = watch.folder / "best", SimpleNamespace(is_world_process_zero=True, global_step=3)

    def found(step):
        shutil.rmtree(best, ignore_errors=True)
        best.mkdir()
        (best / "facts.json").write_text(json.dumps({"step": step}))

    found(2)
    watch.on_save(None, state, None)
    found(4)
    watch.go_back(4)
    assert json.loads((best / "facts.json").read_text())["step"] == 4
    watch.go_back(3)
    assert json.loads((best / "facts.json").read_text())["step"] == 2
    shutil.rmtree(watch.folder / "work")
    watch.go_back(1)
    assert not best.exists()


def test_a_kill_while_the_best_weights_are_replaced_leaves_those_of_the_checkpoint(watch):
    best, state = watch.folder / "best", SimpleNamespace(is_world_process_zero=True, global_step=3)
    best.mkdir()
    (best / "facts.json").write_text(json.dumps({"step": 2}))
    watch.on_save(None, state, None)
    shutil.rmtree(best)
    watch.go_back(1)  # its checkpoint is gone too
    assert not best.exists()
    watch.go_back(3)
    assert json.loads((best / "facts.json").read_text())["step"] == 2


def test_the_clock_goes_on_after_a_restart(watch):
    watch.started -= 100
    watch.on_save(None, SimpleNamespace(is_world_process_zero=True, global_step=3), None)
    again = Evaluation(watch.folder, watch.profile, QUESTIONS, ())
    assert 100 <= again.seconds() < 160


def test_kl_is_of_the_drawn_answer(watch, tokenizer):
    policy = tiny_policy(tokenizer, spread=0.2)
    accelerator = SimpleNamespace(unwrap_model=lambda model: model, is_main_process=True)
    watch.trainer = SimpleNamespace(
        model=policy.model, accelerator=accelerator, processing_class=tokenizer
    )
    watch.reference = lambda: policy
    assert watch.measure()["kl"] == pytest.approx(0, abs=1e-5)

    other = tiny_policy(tokenizer, spread=0.2, seed=1)
    watch.reference = lambda: other
    row = watch.measure()
    assert row["kl"] > 0
    assert row["n"] == 6


@torch.no_grad()
def test_an_answer_s_log_probability_is_the_sum_over_its_tokens(tokenizer):
    policy = tiny_policy(tokenizer, spread=0.2, seed=1)
    prompt, answer = render(tokenizer, direct("where is Rome")), [5, 6]
    logits = policy.model(input_ids=torch.tensor([prompt + answer])).logits[0, -3:-1]
    logprobs = logits.log_softmax(-1)  # (2, vocabulary)
    expected = float(logprobs[0, 5] + logprobs[1, 6])
    assert answer_logprobs(policy, [(prompt, answer)]) == pytest.approx([expected], abs=1e-5)
