"""What the baselines learn from: rows chosen from questions and pre-RL samples, then token ids."""

import pandas as pd
from datasets import Dataset

from lib.prompts import direct, render
from lib.template import turn_end


def sft_rows(questions: pd.DataFrame) -> pd.DataFrame:
    """One row per training question: question_id, question, completion (its display answer)."""
    train = questions[questions["split"] == "train"]
    rows = {
        "question_id": train["question_id"],
        "question": train["question"],
        "completion": [answers[0] for answers in train["answers"]],
    }
    return pd.DataFrame(rows).reset_index(drop=True)


def rft_rows(questions, samples, grades, per_question: int, seed: int) -> pd.DataFrame:
    """At most `per_question` distinct correct samples of each training question.

    Columns question_id, question, completion. Samples cut at the length limit are left out: an
    end-of-text token after them would teach to break off.
    """
    rows = distinct_samples(questions, samples, grades, seed)
    right = rows[rows["correct"]].groupby("question_id").head(per_question)
    return right[["question_id", "question", "completion"]].reset_index(drop=True)


def dpo_pairs(questions, samples, grades, per_question: int, seed: int) -> pd.DataFrame:
    """At most `per_question` pairs of a correct and an incorrect sample of each training question.

    Columns question_id, question, chosen, rejected. The i-th distinct correct sample is paired with
    the i-th distinct incorrect one, so each sample is used once at most.
    """
    rows = distinct_samples(questions, samples, grades, seed)
    rows["rank"] = rows.groupby(["question_id", "correct"]).cumcount()
    rows = rows[rows["rank"] < per_question]

    key = ["question_id", "question", "rank"]
    right = rows.loc[rows["correct"], [*key, "completion"]]
    wrong = rows.loc[~rows["correct"], [*key, "completion"]]
    pairs = right.rename(columns={"completion": "chosen"}).merge(
        wrong.rename(columns={"completion": "rejected"}), on=key
    )
    return pairs.drop(columns="rank").reset_index(drop=True)


def distinct_samples(questions, samples, grades, seed: int) -> pd.DataFrame:
    """Each training question's finished, judged, distinct samples, in the questions' order.

    The samples of one question are shuffled before repeats are dropped, so a frequent text comes
    first more often, as in a fresh draw.
    """
    train = questions.loc[questions["split"] == "train", ["question_id", "question"]]
    train = train.reset_index(names="order")
    verdicts = grades.loc[grades["correct"].notna(), ["question_id", "sample", "correct"]]
    texts = samples[["question_id", "sample", "text", "finish"]]
    rows = train.merge(texts, on="question_id").merge(verdicts, on=["question_id", "sample"])

    rows = rows.assign(completion=rows["text"].str.strip(), correct=rows["correct"].astype(bool))
    rows = rows[(rows["finish"] == "stop") & (rows["completion"] != "")]

    # sorted first, so that the order of the tables does not change the draw
    rows = rows.sort_values(["question_id", "sample"]).sample(frac=1, random_state=seed)
    rows = rows.drop_duplicates(["question_id", "completion"])
    return rows.sort_values("order", kind="stable").reset_index(drop=True)


def encode(tokenizer, question: str, completion: str, prompt=direct) -> tuple[list[int], list[int]]:
    """Token ids of the prompt, and of the completion with the token that ends a turn last.

    prompt: what makes the messages of a question. Ids, not messages, go to TRL: a chat template may
    close a turn with more than that token (a newline here), which would then be trained although
    the policy never has to say it. Markers inside a completion are text.
    """
    ids = tokenizer(completion, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return render(tokenizer, prompt(question)), [*ids, turn_end(tokenizer)]


def completion_dataset(rows: pd.DataFrame, tokenizer, prompt=direct) -> Dataset:
    """input_ids and labels of each row; labels are -100 on the prompt and end with the turn's end.

    The padding token may be the same token, so labels are made here, before any padding.
    """
    examples = []
    for question, completion in zip(rows["question"], rows["completion"], strict=True):
        ids, answer = encode(tokenizer, question, completion, prompt)
        examples.append({"input_ids": ids + answer, "labels": [-100] * len(ids) + answer})
    assert all(example["labels"][-1] == turn_end(tokenizer) for example in examples)
    return Dataset.from_list(examples)


def pair_dataset(pairs: pd.DataFrame, tokenizer) -> Dataset:
    """prompt_ids, chosen_ids, rejected_ids of each pair; both answers end with the end of text."""
    examples = []
    columns = (pairs[name] for name in ("question", "chosen", "rejected"))
    for question, chosen, rejected in zip(*columns, strict=True):
        prompt, right = encode(tokenizer, question, chosen)
        _, wrong = encode(tokenizer, question, rejected)
        examples.append({"prompt_ids": prompt, "chosen_ids": right, "rejected_ids": wrong})
    return Dataset.from_list(examples)


def token_counts(dataset: Dataset) -> tuple[int, int]:
    """Tokens of one epoch, prompts counted for every sequence, and how many of them are trained."""
    if "labels" in dataset.column_names:
        trained = sum(sum(label != -100 for label in labels) for labels in dataset["labels"])
        return sum(map(len, dataset["input_ids"])), trained

    trained = sum(map(len, dataset["chosen_ids"])) + sum(map(len, dataset["rejected_ids"]))
    return trained + 2 * sum(map(len, dataset["prompt_ids"])), trained
