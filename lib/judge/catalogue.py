"""The candidates of each question: what else could have been the answer, where that is known."""

import pandas as pd

from lib.judge.rivals import Candidates
from lib.questions.atlas import WORDINGS, closed_answers, country_names
from lib.text import normalise

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
        named = questions[questions["relation"].map(lambda relation: isinstance(relation, str))]
        for relation, rows in named.groupby("relation"):
            answers = _closed_answers(relation, rows)
            if answers is not None:
                self.by_relation[relation] = Candidates(answers)
                self.relation |= dict.fromkeys(rows["question"], relation)
        every = [names for one in self.by_relation.values() for names in one.answers]
        elsewhere = Candidates([list(names) for names in dict.fromkeys(map(tuple, every))])
        if "us_city_state" in self.by_relation:
            country = {normalise(name) for name in country_names("US")}
            states = self.by_relation["us_city_state"].owner
            elsewhere.wider = dict.fromkeys(states, country)
        for candidates in self.by_relation.values():
            candidates.elsewhere = elsewhere

    def __call__(self, question: str) -> Candidates | None:
        return self.by_relation.get(self.relation.get(question))


def _closed_answers(relation: str, rows: pd.DataFrame) -> list[list[str]] | None:
    """Every answer of the relation with its names, None where they are no closed set."""
    if relation in WORDINGS:
        return closed_answers(relation)
    first = rows["answers"].str[0]
    if len(rows) < REPEATED * first.nunique() or first.str.fullmatch(r"[\d\W]+").mean() > 0.5:
        return None
    return rows["answers"].map(list).tolist()
