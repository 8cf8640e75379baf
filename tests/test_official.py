"""Official normal forms on hand-made cases, and three grades through a real server."""

import os

import pandas as pd
import pytest

from lib.config import Judge
from lib.judge.client import Client
from lib.judge.official import (
    THREE_GRADES,
    beside_official,
    nq_normal,
    squad_normal,
    three_grades,
    triviaqa_normal,
)
from tests.loopback import loopback

MIRROR = os.environ.get("HUB_MIRROR")


@pytest.mark.parametrize(
    ("text", "squad", "triviaqa"),
    [
        ("The  Eiffel-Tower!", "eiffeltower", "eiffel tower"),
        ("An apple_pie, a day", "applepie day", "apple pie day"),
        ("Rock ’n’ Roll", "rock ’n’ roll", "rock n roll"),
        ("U.S.A.", "usa", "u s"),  # the last letter is an article to TriviaQA's rule
        ("the", "", ""),
    ],
)
def test_official_normal_forms(text, squad, triviaqa):
    assert (squad_normal(text), triviaqa_normal(text)) == (squad, triviaqa)


def test_nq_takes_two_spellings_of_an_accent_for_one():
    composed, decomposed = "Beyonc\u00e9", "Beyonce\u0301"
    assert squad_normal(composed) != squad_normal(decomposed)
    assert nq_normal(composed) == nq_normal(decomposed) == "beyonce\u0301"


def test_ours_beside_the_official_ones():
    cases = pd.DataFrame(
        {
            "question": "q",
            "answers": [["Beyoncé"], ["Jay-Z"], ["Jay-Z"], ["Paris"]],
            "prediction": ["beyonce", "Jay Z", "jayz", "London"],
        }
    )
    got = beside_official(cases)
    assert got["ours"].tolist() == [True, True, False, False]
    assert got["nq"].tolist() == [False, False, True, False]
    assert got["triviaqa"].tolist() == [False, True, False, False]


def test_three_grades_take_one_word_and_nothing_else(tmp_path):
    replies = {
        "Rome": "CORRECT",
        "Lima": "Incorrect.",
        "?": "not_attempted",
        "Bern": "I think CORRECT",
        "Oslo": "A",
    }

    def script(body, attempt):
        assert body["messages"][0]["content"] == THREE_GRADES
        return next(
            reply
            for name, reply in replies.items()
            if f'"answer": "{name}"' in body["messages"][1]["content"]
        )

    cases = pd.DataFrame(
        {"question": "Where?", "answers": [["Rome"]] * 5, "prediction": list(replies)}
    )
    with loopback(script) as server:
        client = Client(Judge(kind="llm", model="m", base_url=server.url), tmp_path / "cache.jsonl")
        assert three_grades(client, cases) == ["CORRECT", "INCORRECT", "NOT_ATTEMPTED", None, None]
