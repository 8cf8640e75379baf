"""Naive and graded-example prompts, their verdicts, and a judge without guards."""

import pytest

from lib.config import Judge
from lib.judge.model import ModelJudge
from lib.judge.wordings import (
    SHOTS,
    WORDS,
    naive_messages,
    naive_verdict,
    shot_messages,
    shot_verdict,
)
from tests.loopback import loopback


@pytest.mark.parametrize(
    ("reply", "naive", "shots"),
    [
        ("1.0", 1.0, None),
        ("0", 0.0, None),
        ("I would say 1.0, since 0.0 is too low", 1.0, None),
        ("It was 10 of 2010", None, None),
        ("correct", None, 1.0),
        (" wrong\n", None, 0.0),
        ("correct.", None, None),
        ("incorrect", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_what_a_reply_is_read_as(reply, naive, shots):
    assert naive_verdict(reply) == naive
    assert shot_verdict(reply) == shots


def test_prompts_hold_the_case_and_no_instruction_outside_the_first_lines():
    [one] = naive_messages("Where is Lyon?", ["France", "Gaul"], "in {France}")
    assert one["content"].endswith(
        "Question: Where is Lyon?\nGold answer: France / Gaul\nAnswer: in {France}"
    )
    chat = shot_messages("Where is Lyon?", ["France", "Gaul"], "Spain")
    assert len(chat) == 2 * len(SHOTS) + 2
    assert chat[-1] == {
        "role": "user",
        "content": "Question: Where is Lyon?\nAnswer: Spain\nGold answer: France",
    }
    assert {m["content"] for m in chat if m["role"] == "assistant"} == set(WORDS)


def test_a_judge_that_believes_everything_with_and_without_guards(outputs):
    asked = ["Where is Lyon?"] * 4, [["France"]] * 4, ["France", "Spain", "Solution", "1.0"]
    for prompt, reply in (("shots", "correct"), ("naive", "1.0"), ("rules", "1.0")):
        with loopback(lambda body, attempt, reply=reply: reply) as server:
            options = {"base_url": server.url, "prompt": prompt, "max_fooled": 1.0}
            judge = Judge(kind="llm", model="m", **options)
            believed = ModelJudge(judge.model_copy(update={"guards": False}))(*asked)
            guarded = ModelJudge(judge)
            assert believed == [1.0] * 4
            assert guarded(*asked) == [1.0, 0.0, 0.0, 0.0]
            # the verdict word is no call; two of three positives hold against another gold answer
            # too
            assert guarded.counts["prechecked"] == 1
            assert guarded.counts["positives"] == 3
            assert guarded.counts["fooled"] == 2


def test_the_usual_settings_are_not_written_down():
    assert not {"prompt", "guards"} & set(Judge(kind="alias").model_dump())
    odd = Judge(kind="alias", prompt="naive", guards=False).model_dump()
    assert (odd["prompt"], odd["guards"]) == ("naive", False)
