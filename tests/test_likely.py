"""Enumerated answers against every answer of a tiny vocabulary, and bounds that hold at every
budget.
"""

import numpy as np
import pandas as pd
import pytest
import torch

from lib.engine import likely as enumeration
from lib.engine.likely import likely_answers, walk
from lib.engine.models import make_policy
from lib.study.bounds import bounds, bounds_beside_samples
from tests.tiny import tiny_model, word_tokenizer

LENGTH = 3


@pytest.fixture(scope="module")
def policy():
    tokenizer = word_tokenizer("")
    return make_policy(tiny_model(vocabulary=len(tokenizer), spread=0.4, hidden_size=16), tokenizer)


def every_answer(policy, prompt) -> dict[tuple, float]:
    """The probability of every answer, one row of `model` for each prefix."""
    found, vocabulary = {}, policy.model.config.vocab_size

    def follow(ids, p):
        if ids and (ids[-1] in policy.stops or len(ids) == LENGTH):
            found[ids] = p
            return
        with torch.inference_mode():
            nexts = (
                policy.model(input_ids=torch.tensor([prompt + list(ids)]))
                .logits[0, -1]
                .double()
                .softmax(-1)
            )
        for token in range(vocabulary):
            follow((*ids, token), p * float(nexts[token]))

    follow((), 1.0)
    return found


def test_a_walk_without_limits_finds_every_answer_with_its_probability(policy, monkeypatch):
    monkeypatch.setattr(enumeration, "FLOOR", 0.0)
    prompts = [[5, 6, 7], [5, 6, 8, 9]]
    done = {
        i: answers
        for i, answers, _ in walk(policy, prompts, LENGTH, nodes=10**6, mass=2.0, rows=16)
    }
    for i, prompt in enumerate(prompts):
        exact = every_answer(policy, prompt)
        assert sum(exact.values()) == pytest.approx(1) and len(done[i]) == len(exact)
        for ids, logprob, finish in done[i]:
            assert np.exp(logprob) == pytest.approx(exact[ids], rel=1e-3)
            assert finish == ("stop" if ids[-1] in policy.stops else "length")


def test_the_likeliest_come_first_and_the_budget_is_kept(policy):
    exact = every_answer(policy, [5, 6, 7])
    ((_, answers, expanded),) = walk(policy, [[5, 6, 7]], LENGTH, nodes=12, rows=1)
    assert expanded == 12
    best = max(exact, key=exact.get)
    assert best in {ids for ids, _, _ in answers}


def test_bounds_hold_and_close_as_the_budget_grows(policy):
    questions = pd.DataFrame(
        {
            "question_id": ["a", "b"],
            "question": ["where is Rome", "where is Lima"],
            "answers": [["Bern"], ["Lima"]],
        }
    )

    def judge(asked, golds, texts):  # right when the first word is gold; fails on "user"
        return [
            None if t.startswith("user") else float(t.split()[:1] == g)
            for g, t in zip(golds, texts, strict=True)
        ]

    widths, previous = [], None
    for nodes in (1, 10, 100, 10**5):
        found = bounds(
            likely_answers(policy, questions, LENGTH, nodes), questions, judge
        ).set_index("question_id")
        widths.append((found["upper"] - found["lower"]).sum())
        if previous is not None:
            assert (found["lower"] >= previous["lower"] - 1e-9).all() and (
                found["upper"] <= previous["upper"] + 1e-9
            ).all()
        previous = found
    assert widths == sorted(widths, reverse=True) and widths[-1] < 0.2 < widths[0]
    for row, gold in zip(questions.itertuples(), ("Bern", "Lima"), strict=True):
        prompt = enumeration.render(policy.tokenizer, enumeration.direct(row.question))
        truth = sum(
            p
            for ids, p in every_answer(policy, prompt).items()
            if policy.tokenizer.decode(ids, skip_special_tokens=True).split()[:1] == [gold]
        )
        assert (
            previous.loc[row.question_id, "lower"] - 1e-4
            <= truth
            <= previous.loc[row.question_id, "upper"] + 1e-4
        )
        assert truth > 0


def test_a_question_without_answers_has_no_bounds(policy, monkeypatch):
    questions = pd.DataFrame({"question_id": ["a"], "question": ["where"], "answers": [["Bern"]]})
    none = pd.DataFrame(columns=["question_id", "text", "logprob", "finish"])
    found = bounds(none, questions, lambda *rows: [])
    assert found[["lower", "upper", "found", "answers"]].to_numpy().tolist() == [[0, 1, 0, 0]]
    monkeypatch.setattr(enumeration, "FLOOR", 1.0)  # no answer is likely enough to be looked at
    assert likely_answers(policy, questions, LENGTH, 4).empty


def test_agreement_is_whether_interval_and_bounds_meet():
    limits = pd.DataFrame({"question_id": ["a", "b"], "lower": [0.2, 0.9], "upper": [0.3, 0.95]})
    access = pd.DataFrame(
        {"question_id": ["a", "b"], "correct": [16, 0], "n": [64, 64], "share": [0.25, 0.0]}
    )
    found = bounds_beside_samples(limits, access)
    assert found["agrees"].tolist() == [True, False]
    assert found["low"].iloc[0] < 0.25 < found["high"].iloc[0]
