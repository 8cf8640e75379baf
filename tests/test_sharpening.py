"""Sharpening by hand: weights, the slope at one, votes."""

import numpy as np
import pandas as pd
import pytest

from lib.engine.sampling import answer_logprobs
from lib.prompts import proposed, render, true_or_false
from lib.study.sharpening import (
    believed,
    best_of_n,
    confidence_covariance,
    enumerated_power_curve,
    judged_samples,
    majority_curve,
    most_voted,
    power_curve,
)
from tests.tiny import ANSWERS, tiny_policy, word_tokenizer

SAMPLES = pd.DataFrame({
    "question_id": ["a", "a", "a", "b", "b", "b"],
    "sample": [0, 1, 2, 0, 1, 2],
    "text": ["x", "y", "z", "x", "y", "z"],
    "logprob": np.log([0.2, 0.4, 0.4, 0.5, 0.25, 0.25]),
})  # fmt: skip
GRADES = SAMPLES[["question_id", "sample"]].assign(
    correct=pd.array([True, False, False, True, False, None], "boolean")
)


def test_best_of_n_is_the_likeliest_and_at_a_tie_the_first():
    assert best_of_n(SAMPLES)["text"].tolist() == ["y", "x"]
    assert best_of_n(SAMPLES, 1)["text"].tolist() == ["x", "x"]


def test_a_failed_verdict_is_left_out():
    judged = judged_samples(SAMPLES, GRADES)
    assert len(judged) == 5
    assert judged["correct"].tolist() == [1.0, 0.0, 0.0, 1.0, 0.0]


def test_the_power_curve_by_hand():
    curve = power_curve(judged_samples(SAMPLES, GRADES), alphas=(1.0, 2.0, 200.0)).set_index(
        "alpha"
    )
    # alpha = 1: the means 1/3 and 1/2; alpha = 2: weights 2:4:4 and 2:1; then only the likeliest
    assert curve["value"].tolist() == pytest.approx([5 / 12, (0.2 + 2 / 3) / 2, 0.5])
    assert curve.loc[1.0, "effective"] == pytest.approx(2.5)
    assert curve["n"].tolist() == [2, 2, 2]


def test_the_enumerated_curve_by_hand():
    answers = SAMPLES.merge(GRADES, on=["question_id", "sample"])
    curve = enumerated_power_curve(answers, alphas=(1.0, 2.0)).set_index("alpha")
    assert curve.loc[1.0, "value"] == pytest.approx((0.2 + 0.5 / 0.75) / 2)
    assert curve.loc[2.0, "value"] == pytest.approx((0.04 / 0.36 + 0.25 / 0.3125) / 2)


def test_reweighted_samples_agree_with_the_distribution_they_come_from():
    rng = np.random.default_rng(0)
    p, right = np.array([0.5, 0.3, 0.2]), np.array([0.0, 1.0, 1.0])
    rows = []
    for question in range(400):
        drawn = rng.choice(3, size=200, p=p)
        rows.append(
            pd.DataFrame(
                {"question_id": question, "logprob": np.log(p[drawn]), "correct": right[drawn]}
            )
        )
    curve = power_curve(pd.concat(rows), alphas=(2.0, 3.0), n_boot=500).set_index("alpha")
    for alpha in (2.0, 3.0):
        truth = (p**alpha * right).sum() / (p**alpha).sum()
        assert curve.loc[alpha, "value"] == pytest.approx(truth, abs=0.01)


def test_the_covariance_is_the_slope_at_one():
    judged = judged_samples(SAMPLES, GRADES)
    step = 1e-5
    values = power_curve(judged, alphas=(1 - step, 1 + step))["value"]
    slope = np.diff(values).item() / (2 * step)
    # np.cov divides by n - 1, the slope by n: 3 and 2 samples
    parts = [
        np.cov(part["correct"], part["logprob"], ddof=0)[0, 1]
        for _, part in judged.groupby("question_id")
    ]
    assert slope == pytest.approx(np.mean(parts), abs=1e-6)
    assert confidence_covariance(judged)["value"] == pytest.approx(
        np.mean([parts[0] * 3 / 2, parts[1] * 2]), abs=1e-9
    )


VOTES = pd.DataFrame({
    "question_id": ["a"] * 5,
    "vote": ["peru", "peru", "chile", "", ""],
    "correct": [1.0, 1.0, 0.0, 0.0, 0.0],
})  # fmt: skip


def test_all_votes_elect_the_most_frequent_answer_that_was_spoken():
    curve = majority_curve(VOTES, [5])
    assert curve["value"].tolist() == [1.0]


def test_one_vote_is_one_sample():
    curve = majority_curve(VOTES, [1], draws=4000)
    assert curve["value"].item() == pytest.approx(0.4, abs=0.03)


def test_a_question_with_too_few_votes_is_left_out():
    more = pd.concat([VOTES, VOTES.head(2).assign(question_id="b")])
    assert majority_curve(more, [2, 5])["n"].tolist() == [2, 1]


def test_the_most_voted_answers_come_first():
    votes = pd.DataFrame({
        "question_id": ["a"] * 6, "sample": range(6), "text": list("uvwxyz"),
        "vote": ["peru", "chile", "chile", "", "spain", "chile"],
    })  # fmt: skip
    best = most_voted(votes, 2)
    assert best[["vote", "votes", "text"]].values.tolist() == [["chile", 3, "v"], ["peru", 1, "u"]]


def test_belief_is_the_share_of_true_in_true_and_false():
    policy = tiny_policy(word_tokenizer(f"{ANSWERS} True False Question : Proposed answer"))
    asked = pd.DataFrame({"question_id": ["a", "a"], "question": "where is Rome",
                          "text": ["Italy", "Peru"]})  # fmt: skip
    both = believed(policy, asked)
    assert both["p_true"].between(0, 1).all()
    prompt = render(policy.tokenizer, true_or_false(proposed("where is Rome", "Italy")))
    ends = [policy.tokenizer(w, add_special_tokens=False)["input_ids"] for w in ("True", "False")]
    true, false = answer_logprobs(policy, [(prompt, ids + [policy.end]) for ids in ends])
    assert both["p_true"][0] == pytest.approx(1 / (1 + np.exp(false - true)), abs=1e-5)
