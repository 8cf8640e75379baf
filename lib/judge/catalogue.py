"""The candidates of each question: what else could have been the answer, where that is known."""

from functools import lru_cache

import pandas as pd

from lib.judge.rivals import Candidates
from lib.questions.atlas import WORDINGS, closed_answers

REPEATED = 2  # questions per answer of a relation, from which on its answers are a closed kind


class Catalogue:
    """The candidates by question, from a question frame; questions that it does not know have none.

    The answers of an atlas relation are countries, states or continents, all of them. Of another
    relation they are the frame's own answers, where the same ones come again and again: a relation
    with as many answers as questions has no closed set of them.
    """

    def __init__(self, questions: pd.DataFrame):
        self.relation: dict[str, str] = {}
        self.by_relation: dict[str, Candidates] = {}
        if "relation" not in questions:
            return
        for relation, rows in questions.dropna(subset="relation").groupby("relation"):
            candidates = _candidates(relation, rows)
            if candidates is not None:
                self.by_relation[relation] = candidates
                self.relation |= dict.fromkeys(rows["question"], relation)

    def __call__(self, question: str) -> Candidates | None:
        return self.by_relation.get(self.relation.get(question))


def _candidates(relation: str, rows: pd.DataFrame) -> Candidates | None:
    if relation in WORDINGS:
        return _atlas_candidates(relation)
    first = rows["answers"].str[0]
    if len(rows) < REPEATED * first.nunique() or first.str.fullmatch(r"[\d\W]+").mean() > 0.5:
        return None
    return Candidates(rows["answers"].map(list).tolist())


@lru_cache(maxsize=32)
def _atlas_candidates(relation: str) -> Candidates | None:
    answers = closed_answers(relation)
    return None if answers is None else Candidates(answers)
