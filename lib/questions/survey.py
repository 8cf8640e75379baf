"""What the questions look like before any model sees them: relations, popularity, answers, and what
guessing earns.
"""

import numpy as np
import pandas as pd

from lib.metrics import wilson
from lib.text import normalise


def relations(questions: pd.DataFrame) -> pd.Series:
    """Each question's relation, `all` where the dataset has none."""
    return questions["relation"].where(questions["relation"].notna(), "all")


def relation_counts(questions: pd.DataFrame) -> pd.DataFrame:
    """Questions by relation and split: frame relation, split, questions, the largest relation
    first.
    """
    counts = (
        questions.groupby([relations(questions), "split"]).size().rename("questions").reset_index()
    )
    total = counts.groupby("relation")["questions"].transform("sum")
    order = counts.assign(total=total).sort_values(
        ["total", "relation", "split"], ascending=[False, True, True]
    )
    return order.drop(columns="total").reset_index(drop=True)


def answer_counts(questions: pd.DataFrame) -> pd.DataFrame:
    """How often each answer is the right one: frame answer, questions, share, rank, the most
    frequent first.
    """
    names = questions["answers"].str[0]
    counts = names.groupby(names.map(normalise)).agg(answer="first", questions="size")
    counts = counts.sort_values(["questions", "answer"], ascending=[False, True], ignore_index=True)
    return counts.assign(
        share=counts["questions"] / len(questions), rank=np.arange(1, len(counts) + 1)
    )


def majority_floor(questions: pd.DataFrame) -> pd.DataFrame:
    """What always giving the relation's most frequent training answer earns on the test questions.

    Frame relation, answer, value (share right, any of the gold answers), low, high (Wilson), hits,
    n; a relation without training or test questions is left out; the last row, `all`, pools the
    relations.
    """
    rows, names = [], relations(questions)
    for relation in names.value_counts().index:
        these = questions[names == relation]
        train, test = these[these["split"] == "train"], these[these["split"] == "test"]
        if len(train) == 0 or len(test) == 0:
            continue
        guess = answer_counts(train)["answer"].iloc[0]
        hits = sum(normalise(guess) in map(normalise, answers) for answers in test["answers"])
        rows.append({"relation": relation, "answer": guess, "hits": hits, "n": len(test)})
    floor = pd.DataFrame(rows, columns=["relation", "answer", "hits", "n"])
    if list(floor["relation"]) != ["all"]:
        floor.loc[len(floor)] = ["all", "of each relation", floor["hits"].sum(), floor["n"].sum()]
    low, high = wilson(floor["hits"].to_numpy(float), floor["n"].to_numpy(float))
    return floor.assign(value=(floor["hits"] / floor["n"]).astype(float), low=low, high=high)


def wrong_answers(questions: pd.DataFrame, seed: int = 0) -> list[str | None]:
    """For each question the first answer of another one that is no gold answer of it, itself and
    none of its words.

    None where every other answer shares a word with a gold answer.
    """
    names = questions["answers"].str[0].tolist()
    order = np.random.default_rng([seed, 3]).permutation(len(names))
    words = [set(normalise(name).split()) for name in names]
    golds = [{w for a in answers for w in normalise(a).split()} for answers in questions["answers"]]
    return [
        next((names[j] for j in np.roll(order, -i) if not words[j] & gold), None)
        for i, gold in enumerate(golds)
    ]


def plotted(questions: pd.DataFrame, floor: pd.DataFrame) -> pd.DataFrame:
    """The tidy frame behind the picture of the data: panel, key, split, x, value, low, high, n."""
    counts = relation_counts(questions).rename(columns={"relation": "key", "questions": "value"})
    popular = questions.dropna(subset=["popularity"])
    popular = pd.DataFrame({"key": relations(popular), "x": popular["popularity"]}).sort_values(
        ["key", "x"]
    )
    popular["value"] = popular.groupby("key")["x"].rank(pct=True, method="max")
    answers = answer_counts(questions).rename(
        columns={"answer": "key", "rank": "x", "questions": "value"}
    )
    parts = {
        "relations": counts,
        "popularity": popular,
        "answers": answers.drop(columns="share"),
        "floor": floor.rename(columns={"relation": "key"}).drop(columns="hits"),
    }
    tidy = pd.concat([part.assign(panel=name) for name, part in parts.items()], ignore_index=True)
    return tidy.reindex(
        columns=["panel", "key", "split", "x", "value", "low", "high", "n", "answer"]
    )


def plotted_pairs(verdicts: pd.DataFrame, quality: pd.DataFrame) -> pd.DataFrame:
    """The tidy frame behind the picture of the pairs: panel (similarity, truth), key, x, value,
    low, high, n.
    """
    key = verdicts["is_contained"].map({True: "contained", False: "not contained"})
    pairs = pd.DataFrame({"panel": "similarity", "key": key, "x": verdicts["similarity"]})
    measured = quality[quality["n"] > 0].rename(columns={"what": "key"}).assign(panel="truth")
    tidy = pd.concat([pairs, measured], ignore_index=True)
    return tidy.reindex(columns=["panel", "key", "x", "value", "low", "high", "n"])
