"""Enumerated answers against every answer of a tiny vocabulary."""

import numpy as np
import pandas as pd
import pytest
import torch

from lib.engine import likely
from lib.engine.likely import likely_answers, walk
from tests.tiny import tiny_policy, word_tokenizer

LENGTH = 3


@pytest.fixture(scope="module")
def policy():
    return tiny_policy(word_tokenizer(""), spread=0.4, hidden_size=16)


def every_answer(policy, prompt, length) -> dict[tuple, float]:
    """The probability of every answer of at most `length` tokens, by plain forwards."""
    answers = {}

    def follow(ids, p):
        if ids and (ids[-1] in policy.stops or len(ids) == length):
            answers[ids] = p
            return
        with torch.inference_mode():
            logits = policy.model(input_ids=torch.tensor([prompt + list(ids)])).logits[0, -1]
        for token, more in enumerate(logits.double().softmax(-1).tolist()):
            follow((*ids, token), p * more)

    follow((), 1.0)
    return answers


def test_a_walk_without_limits_finds_every_answer_with_its_probability(policy, monkeypatch):
    monkeypatch.setattr(likely, "FLOOR", 0.0)
    prompts = [[5, 6, 7], [5, 6, 8, 9]]
    walks = walk(policy, prompts, LENGTH, nodes=10**6, mass=2.0, rows=16)
    answers = {i: answers for i, answers, _ in walks}

    for i, prompt in enumerate(prompts):
        exact = every_answer(policy, prompt, LENGTH)
        assert sum(exact.values()) == pytest.approx(1)
        assert len(answers[i]) == len(exact)
        for ids, logprob, finish in answers[i]:
            assert np.exp(logprob) == pytest.approx(exact[ids], rel=1e-3)
            assert finish == ("stop" if ids[-1] in policy.stops else "length")


def test_the_likeliest_come_first_and_the_budget_is_kept(policy):
    exact = every_answer(policy, [5, 6, 7], LENGTH)
    ((_, answers, expanded),) = walk(policy, [[5, 6, 7]], LENGTH, nodes=12, rows=1)
    assert expanded == 12
    assert max(exact, key=exact.get) in {ids for ids, _, _ in answers}


def test_no_answer_is_likely_enough_to_be_looked_at(policy, monkeypatch):
    questions = pd.DataFrame({"question_id": ["a"], "question": ["where"], "answers": [["Bern"]]})
    monkeypatch.setattr(likely, "FLOOR", 1.0)
    assert likely_answers(policy, questions, LENGTH, 4).empty
