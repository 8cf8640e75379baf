"""What the questions look like before any model sees them, and what guessing earns."""

import numpy as np
import pandas as pd

from lib.metrics import wilson
from lib.text import normalise


def relations(questions: pd.DataFrame) -> pd.Series:
    """Each question's relation: `none` where it has none, `all` where no question has one.

    `all` names all relations together; one that is itself called so is `relation all`.
    """
    named = questions["relation"].replace("all", "relation all")
    return named.where(named.notna(), "none" if named.notna().any() else "all")


def relation_counts(questions: pd.DataFrame) -> pd.DataFrame:
    """Questions by relation and split (relation, split, questions), the largest relation first."""
    counts = questions.groupby([relations(questions), "split"]).size()
    counts = counts.rename("questions").reset_index()
    total = counts.groupby("relation")["questions"].transform("sum")
    order = ["total", "relation", "split"]
    counts = counts.assign(total=total).sort_values(order, ascending=[False, True, True])
    return counts.drop(columns="total").reset_index(drop=True)


def answer_counts(questions: pd.DataFrame) -> pd.DataFrame:
    """How often each answer is the right one, the most frequent first.

    Frame answer, questions, share, rank.
    """
    names = questions["answers"].str[0]
    counts = names.groupby(names.map(normalise)).agg(answer="first", questions="size")
    counts = counts.sort_values(["questions", "answer"], ascending=[False, True], ignore_index=True)
    share = counts["questions"] / len(questions)
    return counts.assign(share=share, rank=np.arange(1, len(counts) + 1))


def majority_floor(questions: pd.DataFrame) -> pd.DataFrame:
    """What always giving the relation's most frequent training answer earns on the test questions.

    Frame relation, answer, value (share right, any of the gold answers), low, high (Wilson), hits,
    n. A relation without training or test questions is left out. The last row, `all`, pools the
    relations.
    """
    rows, names = [], relations(questions)
    for relation in names.value_counts().index:
        these = questions[names == relation]
        train, test = (these[these["split"] == split] for split in ("train", "test"))
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
    """A wrong answer for each question: another question's first answer, drawn at random.

    It shares no word with any of the question's gold answers; None where every answer does.
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

    # of each relation, the share of its questions up to a popularity
    popular = questions.dropna(subset=["popularity"])
    keys = relations(questions)[popular.index]
    popular = pd.DataFrame({"key": keys, "x": popular["popularity"]})
    popular = popular.sort_values(["key", "x"])
    popular["value"] = popular.groupby("key")["x"].rank(pct=True, method="max")

    columns = {"answer": "key", "rank": "x", "questions": "value"}
    answers = answer_counts(questions).rename(columns=columns).drop(columns="share")
    floor = floor.rename(columns={"relation": "key"}).drop(columns="hits")

    parts = {"relations": counts, "popularity": popular, "answers": answers, "floor": floor}
    tidy = pd.concat([part.assign(panel=name) for name, part in parts.items()], ignore_index=True)
    columns = ["panel", "key", "split", "x", "value", "low", "high", "n", "answer"]
    return tidy.reindex(columns=columns)


def plotted_pairs(verdicts: pd.DataFrame, quality: pd.DataFrame) -> pd.DataFrame:
    """The tidy frame behind the picture of the pairs: panel, key, x, value, low, high, n.

    Panel `similarity` has one row per pair (x), panel `truth` one per measured share.
    """
    key = verdicts["is_contained"].map({True: "contained", False: "not contained"})
    pairs = pd.DataFrame({"panel": "similarity", "key": key, "x": verdicts["similarity"]})
    measured = quality[quality["n"] > 0].rename(columns={"what": "key"}).assign(panel="truth")
    tidy = pd.concat([pairs, measured], ignore_index=True)
    return tidy.reindex(columns=["panel", "key", "x", "value", "low", "high", "n"])


def shots(asked: pd.DataFrame, train: pd.DataFrame, n: int, seed: int = 0) -> dict[str, list]:
    """For each question of `asked` n (question, answer) pairs for a few-shot prompt.

    They are training questions of other relations, so that none shows what is answered here, and
    the same for all questions of a relation. Questions without a relation get any.
    """
    examples = {}
    for relation, rows in asked.groupby(asked["relation"].fillna("")):
        others = train[train["relation"].fillna("") != relation] if relation else train
        drawn = (others if len(others) else train).sample(
            min(n, len(others) or len(train)), random_state=seed
        )
        pairs = [
            (q, answers[0]) for q, answers in zip(drawn["question"], drawn["answers"], strict=True)
        ]
        examples |= dict.fromkeys(rows["question"], pairs)
    return examples
