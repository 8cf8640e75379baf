"""Removal: the training questions that contain a held-out question's fact go, the others stay."""

import pandas as pd

from lib.dedup.candidates import PAIR, candidates, embed
from lib.dedup.contained import judge, open_ask


def dedup(
    questions: pd.DataFrame, profile, embed=embed, ask=None, pairs: pd.DataFrame | None = None
):
    """The questions without contained ones, the removed rows with twin and reason, the verdicts.

    Validation and test questions are compared with the training questions, of which the contained
    ones go: so the test set stays comparable between runs. ask: for the judge `llm`, see
    `judge_llm`; pairs: candidates, if known.
    """
    train = questions[questions["split"] == "train"]
    held_out = questions[questions["split"] != "train"]
    if (
        profile.dedup.judge == "llm" and ask is None
    ):  # a missing key is said before minutes of embedding
        ask = open_ask(profile)
    if pairs is None:
        pairs = candidates(
            train, held_out, profile.dedup.neighbours, profile.dedup.similarity, embed
        )
    verdicts = judge(pairs, questions, profile, ask)
    twins = verdicts[verdicts["is_contained"]].merge(_one_side(train, "train"), on="train_id")
    removed = twins.merge(_one_side(held_out, "test"), on="test_id").sort_values(
        PAIR[::-1], ignore_index=True
    )
    kept = questions[~questions["question_id"].isin(removed["train_id"])].reset_index(drop=True)
    return kept, removed, verdicts


def _one_side(questions: pd.DataFrame, side: str) -> pd.DataFrame:
    shown = questions[["question_id", "question", "answers", "split"]].assign(
        answer=questions["answers"].str[0]
    )
    shown = (
        shown.drop(columns="answers")
        .add_prefix(f"{side}_")
        .rename(columns={f"{side}_question_id": f"{side}_id"})
    )
    return shown.drop(columns="train_split", errors="ignore")
