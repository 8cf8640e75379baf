"""The best constant answer and statements by construction, on small frames counted by hand."""

import pandas as pd

from lib.config import Judge
from lib.judge.constant import best_constant, share_right
from lib.judge.grading import make_reward
from lib.judge.statements import RIGHT, WRONG, judge_statements, make_statements

COUNTRIES = ["France", "France", "France", "Italy", "Italy", "Spain"]
FRAME = pd.DataFrame(
    {
        "question": [f"In which country is town {i}?" for i in range(12)],
        "answers": [[name] for name in COUNTRIES * 2],
        "relation": "city_country",
        "split": ["train"] * 6 + ["test"] * 6,
    }
)


def contains(questions, answers, predictions):
    return [float(a[0] in p) for a, p in zip(answers, predictions, strict=True)]


def test_a_judge_that_looks_inside_a_text_pays_for_a_list():
    best = best_constant(FRAME, contains)
    assert best["hits"] == best["n"] == 6
    assert sorted(best["answer"].split()) == ["France", "Italy", "Spain"]


def test_a_judge_that_wants_one_answer_pays_for_the_most_frequent():
    best = best_constant(FRAME, make_reward(Judge(kind="alias"), FRAME))
    assert best["answer"] == "France"
    assert (best["hits"], best["n"], best["value"]) == (3, 6, 0.5)


def test_failed_verdicts_count_in_neither():
    def judge(questions, answers, predictions):
        return [None, 1.0, 0.0]

    assert share_right("x", FRAME.head(3), judge) == (1, 2)


def test_statements_are_one_of_each_category_and_judged_as_they_were_made():
    statements = make_statements(FRAME, 4)
    assert len(statements) == 4 * (len(RIGHT) + len(WRONG))
    table = judge_statements(statements, FRAME).set_index(["category", "correct", "candidates"])
    for candidates in ("known", "unknown"):
        assert table.loc[("all", False, candidates), "hits"] == 0
        assert table.loc[("all", True, candidates), "value"] == 1.0
        assert table.loc[("all", True, candidates), "n"] == 4 * len(RIGHT)


def test_a_list_over_two_relations_is_no_answer():
    other = FRAME.assign(
        question=[f"On which continent is land {i}?" for i in range(12)],
        answers=[["Europe"]] * 12,
        relation="country_continent",
    )
    reward = make_reward(Judge(kind="alias"), pd.concat([FRAME, other]))
    for text in ("France, Europe", "Spain, France, Europe"):
        assert reward([other["question"][0]], [["Europe"]], [text]) == [0.0]
    assert reward([FRAME["question"][0]], [["France"]], ["France, Europe"]) == [1.0]
    said = "Land 0, discovered by France, is in Europe."
    assert reward([other["question"][0]], [["Europe"]], [said]) == [1.0]


def test_a_state_before_its_country_is_no_second_answer():
    states = FRAME.assign(
        question=[f"In which US state is place {i}?" for i in range(12)],
        answers=[["Texas"]] * 12,
        relation="us_city_state",
    )
    country = FRAME.assign(answers=[["United States", "USA"]] * 12)
    reward = make_reward(Judge(kind="alias"), pd.concat([country, states]))
    asked, golds = [country["question"][0]], [["United States", "USA"]]
    assert reward(asked, golds, ["Town 0, Texas, USA"]) == [1.0]
    assert reward(asked, golds, ["Texas, United States"]) == [1.0]
    assert reward(asked, golds, ["Town 0 is a city in Texas, USA."]) == [1.0]
