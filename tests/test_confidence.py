"""Confidence against correctness, by hand and against scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from lib.study.confidence import (
    FITS,
    auroc,
    calibration,
    calibration_change,
    confident_answers,
    reliability,
)


def answered(confidence, correct):
    ids = [f"q{i}" for i in range(len(confidence))]
    answers = pd.DataFrame({"question_id": ids, "logprob": np.log(confidence)})
    grades = pd.DataFrame({"question_id": ids, "correct": pd.array(correct, "boolean")})
    return confident_answers(answers, grades)


def test_auroc_by_hand():
    assert auroc([0.9, 0.1], [1, 0]) == 1
    assert auroc([0.1, 0.9], [1, 0]) == 0
    assert auroc([0.5, 0.5, 0.5], [1, 0, 0]) == 0.5
    assert auroc([0.9, 0.4, 0.6], [1, 1, 0]) == 0.5  # one of two pairs
    assert np.isnan(auroc([0.9, 0.4], [1, 1]))


def test_measures_are_scikit_learn_s():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.01, 1, 200).round(1).clip(0.1)  # with ties
    correct = rng.random(200) < confidence
    frame = calibration({"base": answered(confidence, correct)}, n_boot=50)
    found = frame.set_index("measure")["value"]
    assert found["auroc"] == pytest.approx(roc_auc_score(correct, confidence))
    assert found["brier"] == pytest.approx(brier_score_loss(correct, confidence))
    assert found["overconfidence"] == pytest.approx(confidence.mean() - correct.mean())
    assert (frame["low"] <= frame["value"]).all() and (frame["value"] <= frame["high"]).all()
    assert list(frame["measure"]) == list(FITS)


def test_answers_without_a_verdict_are_left_out():
    frame = answered([0.5, 0.6, 0.7], [True, None, False])
    assert frame["question_id"].tolist() == ["q0", "q2"]
    assert frame["confidence"].tolist() == pytest.approx([0.5, 0.7])


def test_change_is_paired():
    before = answered([0.2, 0.3] * 20, [True, False] * 20)
    after = answered([0.6, 0.7] * 20, [True, True] * 20)
    frame = calibration_change({"base": before, "grpo": after}, n_boot=50)
    change = frame.set_index("measure")
    assert change.loc["confidence", "value"] == pytest.approx(0.4)  # of each, so of every draw
    assert change.loc["accuracy", "value"] == pytest.approx(0.5)
    assert change.loc["overconfidence", "value"] == pytest.approx(0.4 - 0.5)
    assert np.isnan(change.loc["auroc", "value"])  # all right after
    assert set(frame["who"]) == {"grpo"}


def test_reliability_orders_equal_parts():
    frame = reliability({"base": answered([0.9, 0.1, 0.2, 0.8], [1, 0, 0, 1])}, bins=2)
    assert frame["n"].tolist() == [2, 2]
    assert frame["value"].tolist() == [0, 1]
    assert frame["confidence"].tolist() == pytest.approx([0.15, 0.85])
    assert len(reliability({"base": answered([0.9], [1])}, bins=5)) == 1
