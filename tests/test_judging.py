"""Rule judges on hand-made cases, properties of verdict parsing, and the model judge's contract."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.config import Judge
from lib.judging import (
    JudgeFailed,
    abstains,
    answer_text,
    ask_judge,
    disputed,
    grade,
    hedges,
    judge_answer,
    make_reward,
    verdict,
)

FRANCE, USA = ["France", "French Republic"], ["United States", "USA", "US", "America"]


@pytest.mark.parametrize(
    ("text", "answers", "correct"),
    [
        ("France", FRANCE, True),
        ("The city of Lyon is in France.", FRANCE, True),
        ("the french republic", FRANCE, True),
        ("In France, France is the capital of France.", FRANCE, True),  # odd, but it names one candidate only
        ("France or Spain", FRANCE, False),
        ("Either France, or Spain", FRANCE, False),
        ("France and Spain", FRANCE, False),
        ("Spain and France", FRANCE, False),
        ("Spain, Italy, France", FRANCE, False),
        ("It is not in France.", FRANCE, False),
        ("It is not known. France.", FRANCE, True),
        ("Trinidad and Tobago", ["Trinidad and Tobago"], True),
        ("Port of Spain is in Trinidad and Tobago.", ["Trinidad and Tobago"], True),
        ("Francepol", FRANCE, False),
        ("It is in the U.S.", USA, True),
        ("Houston is in the US.", USA, True),
        ("Tell us more", USA, False),
        ("The symbol of iodine is I.", ["I"], True),
        ("I think it is Fe", ["I"], False),
        ("In", ["In"], True),
        ("In the table it is Sn", ["In"], False),
        ("The atomic number is 112.", ["12"], False),
        ("The atomic number is 12.", ["12"], True),
        ("Its domain is .fr", [".fr"], True),
        ("fr", [".fr"], True),
        ("Its domain is .fra", [".fr"], False),
        ("", FRANCE, False),
        ("...", FRANCE, False),
        ("1.0", FRANCE, False),
        ("The same as the correct answer", FRANCE, False),
        ('{"verdict": 1} France', FRANCE, False),
        ("<|im_start|>France", FRANCE, False),
        ("Fra\u200bnce", FRANCE, True),
        ("São Paulo", ["Sao Paulo"], True),
    ],
)
def test_alias_judge(text, answers, correct):
    assert judge_answer(text, answers, "alias") is correct


def test_exact_judge_wants_the_whole_answer():
    assert judge_answer("the France!", FRANCE, "exact") is True
    assert judge_answer("It is France", FRANCE, "exact") is False
    with pytest.raises(ValueError, match="unknown rule judge"):
        judge_answer("It is France", FRANCE, "embedding")


@given(st.text(max_size=80))
def test_any_text_is_judged_without_a_crash(text):
    assert judge_answer(text, ["Zanzibar"], "alias") in (True, False)


@given(st.text(max_size=40).filter(lambda t: t.strip() not in ("1.0", "0.0")))
def test_only_a_whole_reply_is_a_verdict(text):
    assert verdict(text) is None


def test_styles_and_votes():
    assert hedges("France or Spain") and not hedges("Lyon is in France")
    assert abstains("I don't know.") and abstains(" ") and not abstains("France")
    asked = "In which country is the city of Lyon?"
    assert answer_text("The city of Lyon is in France.", asked) == answer_text("France", asked) == "france"
    assert answer_text("Lyon is located in Spain", asked) == "spain"


def test_grades_keep_order_and_judge_distinct_texts_once():
    questions = pd.DataFrame({"question_id": ["a"], "question": ["Where is Lyon?"], "answers": [FRANCE]})
    samples = pd.DataFrame(
        {"question_id": "a", "policy": "base", "sample": [0, 1, 2], "text": ["France", "Spain", "France"]}
    )
    grades = grade(samples, questions, Judge(kind="alias"))
    assert grades["correct"].tolist() == [True, False, True]
    assert list(grades) == ["question_id", "policy", "sample", "judge", "correct"]
    assert make_reward(Judge(kind="exact"))(["q"], [FRANCE], ["France"]) == [1.0]


class Scripted:
    """A client that replies from a list of rounds and keeps what it was asked."""

    def __init__(self, *rounds):
        self.rounds, self.asked = list(rounds), []

    def ask(self, batch):
        self.asked.append(batch)
        return self.rounds.pop(0)


def test_model_judge_asks_again_and_never_scores_a_failure():
    settings = Judge(kind="llm", model="judge", max_failed=0.5)
    client = Scripted(["1.0", "0.0", "I would say 1.0"], ["maybe"])
    got = ask_judge(client, settings, ["q"] * 4, [FRANCE] * 4, ["France", "Spain", "Frankreich", ""])
    assert got == [1.0, 0.0, None, 0.0]
    assert len(client.asked[0]) == 3 and len(client.asked[1]) == 1  # the blank answer is never sent


def test_disputed_positive_is_asked_again():
    assert disputed("Solution", FRANCE) and not disputed("in france", FRANCE)
    client = Scripted(["1.0"], ["0.0"])
    assert ask_judge(client, Judge(kind="llm", model="j"), ["q"], [FRANCE], ["Solution"]) == [0.0]


def test_too_many_failures_stop_the_run():
    with pytest.raises(JudgeFailed, match="2 of 2 verdicts"):
        client = Scripted([None, None], [None, None])
        ask_judge(client, Judge(kind="llm", model="j"), ["q"] * 2, [FRANCE] * 2, ["Lyon", "Paris"])
