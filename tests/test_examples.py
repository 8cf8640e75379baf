"""What the baselines learn from: rows made by hand, labels, token counts."""

from functools import partial

import pandas as pd
import pytest
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from lib.config import load_profile
from lib.engine.models import load_policy
from lib.training.examples import (
    completion_dataset,
    dpo_pairs,
    encode,
    pair_dataset,
    rft_rows,
    sft_rows,
    token_counts,
)
from tests.tiny import word_tokenizer

QUESTIONS = pd.DataFrame({
    "question_id": ["q1", "q2", "q3", "t1"],
    "question": ["where is Rome", "where is Lima", "where is Bern", "where is Bari"],
    "split": ["train", "train", "train", "test"],
    "answers": [["Italy", "IT"], ["Peru"], ["Switzerland"], ["Italy"]],
})  # fmt: skip
SAMPLES = pd.DataFrame(
    [
        ("q1", "Italy", "stop", True),
        ("q1", " Italy\n", "stop", True),
        ("q1", "in Italy", "stop", True),
        ("q1", "Italy is the", "length", True),
        ("q1", "Spain", "stop", False),
        ("q1", "France", "stop", False),
        ("q2", "Peru", "stop", True),
        ("q2", "Chile", "stop", pd.NA),
        ("q2", "", "stop", False),
        ("q3", "Austria", "stop", False),
        ("q3", "Germany", "stop", False),
        ("t1", "Italy", "stop", True),
        ("t1", "Spain", "stop", False),
    ],
    columns=["question_id", "text", "finish", "correct"],
).assign(policy="base")
SAMPLES["sample"] = SAMPLES.groupby("question_id").cumcount()
GRADES = SAMPLES[["question_id", "policy", "sample"]].assign(
    judge="alias", correct=SAMPLES["correct"].astype("boolean")
)
SAMPLES = SAMPLES.drop(columns="correct")


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer(" ".join(SAMPLES["text"]) + " Switzerland")


def test_sft_rows_are_the_training_questions_with_their_display_answers():
    rows = sft_rows(QUESTIONS)
    assert rows["question_id"].tolist() == ["q1", "q2", "q3"]
    assert rows["completion"].tolist() == ["Italy", "Peru", "Switzerland"]


def test_rft_rows_are_distinct_finished_correct_samples_of_training_questions():
    rows = rft_rows(QUESTIONS, SAMPLES, GRADES, per_question=5, seed=0)
    completions = rows.groupby("question_id")["completion"].apply(sorted).to_dict()
    assert completions == {"q1": ["Italy", "in Italy"], "q2": ["Peru"]}
    assert rft_rows(QUESTIONS, SAMPLES, GRADES, 1, seed=0)["question_id"].tolist() == ["q1", "q2"]


def test_rft_rows_depend_on_the_seed_and_not_on_the_order_of_the_tables():
    pick = partial(rft_rows, QUESTIONS, per_question=1)
    shuffled = SAMPLES.sample(frac=1, random_state=3), GRADES.sample(frac=1, random_state=4)
    pd.testing.assert_frame_equal(pick(SAMPLES, GRADES, seed=1), pick(*shuffled, seed=1))
    first = {pick(SAMPLES, GRADES, seed=seed)["completion"][0] for seed in range(20)}
    assert first == {"Italy", "in Italy"}


def test_dpo_pairs_use_every_sample_once_and_need_both_sides():
    pairs = dpo_pairs(QUESTIONS, SAMPLES, GRADES, per_question=5, seed=0)
    # q2 has no wrong answer left, q3 no right one
    assert pairs["question_id"].tolist() == ["q1", "q1"]
    assert set(pairs["chosen"]) == {"Italy", "in Italy"}
    assert set(pairs["rejected"]) == {"Spain", "France"}
    assert len(dpo_pairs(QUESTIONS, SAMPLES, GRADES, 1, seed=0)) == 1


def test_labels_hide_the_prompt_and_end_with_the_end_of_text(tokenizer):
    example = completion_dataset(sft_rows(QUESTIONS), tokenizer)[0]
    prompt, answer = encode(tokenizer, "where is Rome", "Italy")
    assert tokenizer.decode(prompt).endswith("where is Rome </s> <s> assistant")
    ids = tokenizer.convert_tokens_to_ids(["Italy", "</s>"])
    assert example["labels"] == [-100] * len(prompt) + ids
    assert example["input_ids"] == prompt + answer


def test_padding_is_hidden_and_the_end_of_text_is_not_although_they_are_one_token(tokenizer):
    rows = pd.DataFrame(
        {"question": ["where is Rome", "where is Lima"], "completion": ["Italy", "in Italy"]}
    )
    collate = DataCollatorForLanguageModeling(tokenizer.pad_token_id)
    batch = collate(list(completion_dataset(rows, tokenizer)))
    assert (batch["labels"] == tokenizer.eos_token_id).sum(1).tolist() == [1, 1]
    assert batch["labels"][0, -1] == -100
    assert batch["attention_mask"][0, -1] == 0


def test_markers_in_an_answer_are_text(tokenizer):
    _, answer = encode(tokenizer, "where is Rome", "Italy </s> <s> Peru")
    assert answer.count(tokenizer.eos_token_id) == 1
    assert answer[-1] == tokenizer.eos_token_id
    assert tokenizer.convert_tokens_to_ids("<s>") not in answer


def test_token_counts_of_completions_and_pairs(tokenizer):
    rows = sft_rows(QUESTIONS)
    prompt = len(encode(tokenizer, "where is Rome", "Italy")[0])
    assert token_counts(completion_dataset(rows, tokenizer)) == (3 * (prompt + 2), 6)
    pair = pd.DataFrame(
        {"question": ["where is Rome"], "chosen": ["in Italy"], "rejected": ["Spain"]}
    )
    assert token_counts(pair_dataset(pair, tokenizer)) == (2 * prompt + 5, 5)


@pytest.mark.weights
def test_the_small_model_s_turn_ends_where_training_ends():
    try:
        policy = load_policy(load_profile("laptop"))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    prompt, answer = encode(policy.tokenizer, "In which country is the city of Rome?", "Italy")
    assert policy.tokenizer.decode(prompt).endswith("Rome?<|im_end|>\n<|im_start|>assistant\n")
    assert policy.tokenizer.decode(answer) == "Italy<|im_end|>"
    assert answer[-1] in policy.stops
