"""Rewards without the truth, by hand: form, coins, masks, majorities, and the switches of GRPO."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lib.config import load_profile
from lib.judge.grading import make_reward
from lib.training.apart import read_rollouts
from lib.training.controls import CoinReward, FormReward, MaskedReward, majority_answers
from lib.training.grpo import stored_answers, train_grpo
from lib.training.rewards import Rewards
from tests.tiny import ANSWERS, GROUP, tiny_policy, tiny_profile, with_grpo, word_tokenizer
from tests.tiny import QUESTIONS as TINY

QUESTIONS = pd.DataFrame({
    "question_id": ["a", "b", "c"],
    "question": ["In which country is the city of Lyon?", "In which country is the city of Bonn?",
                 "Who wrote it?"],
    "answers": [["France"], ["Germany"], ["Somebody"]],
    "relation": ["city_country", "city_country", None],
})  # fmt: skip


def test_form_is_any_candidate_stated_as_a_right_answer_is():
    lyon, _, author = QUESTIONS["question"]
    texts = ["France", "Lyon is in Spain.", "Spain or Italy", "a city", "", "Lyon is not in Spain."]
    rewards = FormReward(QUESTIONS)([lyon] * len(texts), [["France"]] * len(texts), texts)
    assert rewards == [1, 1, 0, 0, 0, 0]
    free = ["anybody", "I do not know.", ""]
    assert FormReward(QUESTIONS)([author] * 3, [["x"]] * 3, free) == [1, 0, 0]


def test_a_cut_answer_earns_nothing_and_is_not_judged(tmp_path):
    seen = []

    def judge(questions, answers, predictions):
        seen.extend(predictions)
        return [1.0] * len(predictions)

    texts = ["France", "France is", "Spain", "Spain and"]
    columns = dict(
        prompts=[""] * 4,
        completions=[[{"content": text}] for text in texts],
        completion_ids=[[5, 2], [5, 6], [7, 2], [7, 8]],
        question_id=["a", "a", "b", "b"],
        question=["?"] * 4,
        answers=[["France"]] * 4,
        trainer_state=SimpleNamespace(global_step=0),
    )
    rewards = Rewards(judge, 2, tmp_path / "rollouts.jsonl", stops={2})
    assert rewards.correct(**columns) == [1.0, 0.0, 1.0, 0.0]
    assert seen == ["France", "Spain"]
    lines = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
    assert [(line["hits"], line["n"]) for line in lines] == [(1, 2), (1, 2)]

    judge.whole_only = False  # a coin is tossed for every answer
    assert rewards.correct(**columns) == [1.0] * 4


def test_a_coin_does_not_look_and_can_be_tossed_again():
    texts = [f"text {i}" for i in range(400)]
    first = CoinReward(0)(texts, texts, texts)
    assert first == CoinReward(0)(texts, texts, texts)
    assert first != CoinReward(1)(texts, texts, texts)
    assert 0.4 < np.mean(first) < 0.6


def test_masks_hide_hits_of_some_questions_or_as_many_others():
    asked = ["hidden", "hidden", "open", "open", "open"]
    truth = [1.0, 0.0, 1.0, 1.0, 0.0]

    def judge(questions, answers, predictions):
        return truth

    masked = MaskedReward(judge, {"hidden"}, others=False, seed=0)(asked, [], list("abcde"))
    assert masked == [None, 0.0, 1.0, 1.0, 0.0]
    random = MaskedReward(judge, {"hidden"}, others=True, seed=0)(asked, [], list("abcde"))
    assert random[:2] == [1.0, 0.0]
    assert sorted(map(str, random[2:4])) == ["1.0", "None"]


def test_the_majority_takes_the_place_of_the_truth():
    samples = pd.DataFrame({
        "question_id": ["a"] * 3 + ["b"] * 2, "sample": [0, 1, 2, 0, 1],
        "text": ["Spain", "Lyon is in Spain.", "France", "", " "],
    })  # fmt: skip
    labelled = majority_answers(samples, QUESTIONS)
    assert labelled["question_id"].tolist() == ["a"]  # of b nothing was named
    assert labelled["answers"].tolist() == [["spain"]]


@pytest.fixture
def policy():
    return tiny_policy(word_tokenizer(ANSWERS), spread=0.2)


def test_stored_answers_are_drawn_in_place_of_fresh_ones(policy, tmp_path):
    profile = with_grpo(tiny_profile(load_profile("laptop")), steps=2)
    rows = [
        (q, i, text, "stop")
        for q in TINY["question_id"]
        for i, text in enumerate(("Italy", "Peru"))
    ]
    samples = pd.DataFrame(rows, columns=["question_id", "sample", "text", "finish"])
    stored = stored_answers(samples, TINY, policy)
    assert len(stored) == len(TINY)
    ids = policy.tokenizer("Italy", add_special_tokens=False)["input_ids"]
    assert all(answers[0] == [*ids, policy.end] for answers in stored.values())

    seen = []

    def reward(questions, answers, predictions):
        seen.extend(predictions)
        return make_reward(profile.judge)(questions, answers, predictions)

    options = {"policy": policy, "reward": reward, "stored": samples, "negatives": False}
    folder = train_grpo(profile, TINY, TINY.head(0), tmp_path / "run", 0, 2, **options)
    assert set(seen) == {"Italy", "Peru"}
    # both stored answers of a question come up equally often in a group
    assert seen.count("Italy") == seen.count("Peru") == 2 * 4 * GROUP // 2
    assert (read_rollouts(folder)["n"] == GROUP).all()
