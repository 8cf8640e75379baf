"""Bounds on P(correct) hold at every budget, and meet the interval of the sampled share or not."""

import pandas as pd
import pytest

from lib.engine.likely import likely_answers
from lib.prompts import direct, render
from lib.study.bounds import bounds, bounds_beside_samples
from tests.test_likely import LENGTH, every_answer
from tests.tiny import tiny_policy, word_tokenizer


@pytest.fixture(scope="module")
def policy():
    return tiny_policy(word_tokenizer(""), spread=0.4, hidden_size=16)


def first_word(questions, golds, texts):
    """A judge: right when the first word is the gold answer; it fails on "user"."""
    return [
        None if text.startswith("user") else float(text.split()[:1] == gold)
        for gold, text in zip(golds, texts, strict=True)
    ]


def test_bounds_hold_and_close_as_the_budget_grows(policy):
    questions = pd.DataFrame({
        "question_id": ["a", "b"],
        "question": ["where is Rome", "where is Lima"],
        "answers": [["Bern"], ["Lima"]],
    })  # fmt: skip

    widths, previous = [], None
    for nodes in (1, 10, 100, 10**5):
        answers = likely_answers(policy, questions, LENGTH, nodes)
        limits = bounds(answers, questions, first_word).set_index("question_id")
        widths.append((limits["upper"] - limits["lower"]).sum())
        if previous is not None:
            assert (limits["lower"] >= previous["lower"] - 1e-9).all()
            assert (limits["upper"] <= previous["upper"] + 1e-9).all()
        previous = limits
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.2
    assert widths[0] > 0.2

    for row, gold in zip(questions.itertuples(), ("Bern", "Lima"), strict=True):
        prompt = render(policy.tokenizer, direct(row.question))
        truth = sum(
            p
            for ids, p in every_answer(policy, prompt, LENGTH).items()
            if policy.tokenizer.decode(ids, skip_special_tokens=True).split()[:1] == [gold]
        )
        assert truth > 0
        assert limits.loc[row.question_id, "lower"] - 1e-4 <= truth
        assert limits.loc[row.question_id, "upper"] + 1e-4 >= truth


def test_a_question_without_answers_has_no_bounds():
    questions = pd.DataFrame({"question_id": ["a"], "question": ["where"], "answers": [["Bern"]]})
    none = pd.DataFrame(columns=["question_id", "text", "logprob", "finish"])
    limits = bounds(none, questions, lambda *rows: [])
    assert limits[["lower", "upper", "found", "answers"]].to_numpy().tolist() == [[0, 1, 0, 0]]


def test_agreement_is_whether_interval_and_bounds_meet():
    limits = pd.DataFrame({"question_id": ["a", "b"], "lower": [0.2, 0.9], "upper": [0.3, 0.95]})
    access = pd.DataFrame(
        {"question_id": ["a", "b"], "correct": [16, 0], "n": [64, 64], "share": [0.25, 0.0]}
    )
    table = bounds_beside_samples(limits, access)
    assert table["agrees"].tolist() == [True, False]
    assert table["low"].iloc[0] < 0.25
    assert table["high"].iloc[0] > 0.25
