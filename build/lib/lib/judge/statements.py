"""Answers around a gold answer, right and wrong by construction: what a rule judge makes of them.

The templates are ours, and so is the rule: they show that the rule does what it says, not how often
a policy's answers are of these kinds. Labelled answers of real models (data/) show that.
"""

import numpy as np
import pandas as pd

from lib.judge.catalogue import Catalogue
from lib.judge.rules import judge_answer
from lib.metrics import wilson
from lib.text import holds, normalise

RIGHT = {
    "bare": ("{gold}", "{gold}.", "{alias}"),
    "in a sentence": ("It is {gold}.", "The answer is {gold}.", "I believe it is {alias}."),
    "wrapped": ("**{gold}**", "Answer: {gold}", "{gold} (final answer)"),
    "with a remark": ("{gold}, of course.", "Yes, {gold}.", "{gold}, not {other}."),
}
WRONG = {
    "another answer": ("{other}", "It is {other}."),
    "a list": (
        "{other}, {gold}, {third}",
        "{gold} / {other}",
        "{other} and {gold}",
        "{other}; {gold}; {third}",
        "{other}\n{gold}",
        "{gold} | {other}",
        "1. {other} 2. {gold}",
        "{other} + {gold}",
        "{gold} {other} {third}",
    ),
    "hedged": (
        "{gold} or {other}",
        "Either {gold} or {other}.",
        "Perhaps {gold}, perhaps {other}.",
        "It could be {gold}, or {other}.",
        "50% {gold}, 50% {other}",
    ),
    "denied": (
        "It is not {gold}.",
        "{other}, not {gold}.",
        "It was never {gold}.",
        "{gold} is wrong.",
        "Anything but {gold}.",
    ),
    "taken back": (
        "{gold}. Actually, {other}.",
        "{gold}? No, {other}.",
        "First guess {gold}, final {other}",
        "I thought {gold}, but it is {other}.",
    ),
    "only mentioned": (
        "{other}, near {gold}",
        "something like {gold}",
        "{gold} is the answer to another question.",
        "between {other} and {gold}",
    ),
    "asked": ("Is it {gold}?", "{gold}? Or {other}?"),
    "a longer name": ("West {gold}", "{gold} County", "Greater {gold}"),
}


def make_statements(questions: pd.DataFrame, n: int, seed: int = 0) -> pd.DataFrame:
    """Statements about `n` questions with a relation: one of each category, its template drawn.

    questions: a question frame. Frame of question, answers, relation, category, correct,
    prediction. Questions whose relation has fewer than three answers are left out.
    """
    rng = np.random.default_rng([seed, 11])
    known = questions[questions["relation"].notna()]
    names = {r: part["answers"].str[0].unique() for r, part in known.groupby("relation")}
    rows = []
    for question in known.iloc[rng.permutation(len(known))].itertuples():
        golds = list(question.answers)
        others = [name for name in names[question.relation] if _shares_nothing(name, golds)]
        if len(others) < 2:
            continue
        other, third = rng.choice(others, 2, replace=False)
        words = {"gold": golds[0], "alias": golds[rng.integers(len(golds))]}
        words |= {"other": other, "third": third}
        for correct, templates in ((True, RIGHT), (False, WRONG)):
            for category, texts in templates.items():
                text = texts[rng.integers(len(texts))].format(**words)
                about = (question.question, golds, question.relation)
                rows.append((*about, category, correct, text))
        if len(rows) >= n * (len(RIGHT) + len(WRONG)):
            break
    columns = ["question", "answers", "relation", "category", "correct", "prediction"]
    return pd.DataFrame(rows, columns=columns)


def _shares_nothing(name: str, golds: list[str]) -> bool:
    """Whether a name neither holds nor stands in a gold answer, nor shares a word with one."""
    words = {word for gold in golds for word in normalise(gold).split()}
    free = not words & set(normalise(name).split())
    return free and not any(holds(name, gold) or holds(gold, name) for gold in golds)


def judge_statements(statements: pd.DataFrame, questions: pd.DataFrame) -> pd.DataFrame:
    """What the `alias` rule accepts: category, correct, candidates, value, low, high, hits, n.

    Candidates are `known` (the relation's answers are given to the rule) or `unknown`. value is the
    share accepted, with Wilson intervals; a row `all` pools the categories of right, and of wrong,
    statements.
    """
    catalogue, rows = Catalogue(questions), []
    for candidates in ("known", "unknown"):
        accepted = [
            judge_answer(p, a, "alias", q, catalogue(q) if candidates == "known" else None)
            for q, a, p in zip(
                statements["question"],
                statements["answers"],
                statements["prediction"],
                strict=True,
            )
        ]
        both = statements.assign(accepted=accepted)
        parts = list(both.groupby(["correct", "category"], sort=False)["accepted"])
        parts += [((c, "all"), part) for c, part in both.groupby("correct")["accepted"]]
        for (correct, category), part in parts:
            hits, n = int(part.sum()), len(part)
            low, high = wilson(hits, n)
            rows.append((category, correct, candidates, hits / n, low, high, hits, n))
    columns = ["category", "correct", "candidates", "value", "low", "high", "hits", "n"]
    return pd.DataFrame(rows, columns=columns)
