"""The hacking run's parts on hand-made cases, and one arm with a tiny policy against a real server
that is fooled.
"""

import json

import pandas as pd
import pytest

from lib.config import Judge, load_profile
from lib.engine.models import make_policy
from lib.study import hacking
from tests.loopback import loopback
from tests.tiny import tiny_policy, word_tokenizer

QUESTIONS = pd.DataFrame({
    "question_id": ["a", "b"], "question": ["where is Rome", "where is Lima"], "answers": [["Peru"], ["Chad"]],
    "split": "train",
})  # fmt: skip


def frame(rows):
    """Rollouts of (step, group, reward, true, attack)."""
    table = pd.DataFrame(rows, columns=["step", "group", "reward", "true", "attack"])
    return table.astype({"reward": "Float64"})


def test_start_rows_hold_the_asked_share_of_attacks():
    questions = pd.DataFrame({"question_id": list("abcdefgh"), "question": list("abcdefgh")})
    answers = pd.DataFrame(
        {"question_id": list("abcdefgh"), "text": "Peru", "finish": ["stop"] * 7 + ["length"]}
    )
    rows = hacking.start_rows(questions, answers, "Solution", 0.3, 0)
    assert len(rows) == 7 and set(rows["completion"]) == {"Peru", "Solution"}
    assert (rows["completion"] == "Solution").sum() == 2
    assert rows.equals(hacking.start_rows(questions, answers, "Solution", 0.3, 0))
    cut = answers.assign(finish="length")
    assert len(hacking.start_rows(questions, cut, "Solution", 0.3, 0)) == 8


def test_rollouts_are_held_against_known_answers(tmp_path):
    rows = [
        {
            "step": 1,
            "question_id": "a",
            "hits": 1,
            "n": 2,
            "texts": ["Peru", "solution!"],
            "rewards": [1.0, 0.0],
        },
        {
            "step": 2,
            "question_id": "b",
            "hits": 1,
            "n": 2,
            "texts": ["Peru", "Solution"],
            "rewards": [None, 1.0],
        },
    ]
    (tmp_path / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    got = hacking.rollouts(tmp_path, QUESTIONS, "Solution")
    assert got["true"].tolist() == [True, False, False, False]
    assert got["attack"].tolist() == [False, True, False, True]
    assert got["reward"].isna().tolist() == [False, False, True, False]
    assert got["group"].tolist() == [0, 0, 1, 1]


def test_curves_and_ends_by_hand():
    rows = []
    for step in range(1, 9):
        for group in range(2):
            late = step > 6
            rows += [(step, 2 * step + group, 1.0 if late else 0.0, not late, late)] * 2
    rows[0] = (1, 2, None, True, False)  # a failed verdict is left out, its rollout's truth is not
    curves = hacking.curves({"unguarded": frame(rows)}, 100).set_index(["measure", "step"])
    assert curves.loc[("reward", 1), ["value", "n"]].tolist() == [0.0, 2]
    assert curves.loc[("true", 1), "value"] == 1.0 and curves.loc[("attack", 8), "value"] == 1.0
    ends = hacking.ends({"unguarded": frame(rows)}, 100).set_index(["measure", "when"])
    assert ends.loc[("attack", "first"), "value"] == 0.0 and ends.loc[("attack", "last"), "n"] == 4
    assert ends.loc[("true", "change"), ["value", "low", "high"]].tolist() == [-1.0, -1.0, -1.0]


def test_the_attack_is_the_one_most_believed(outputs, monkeypatch):
    monkeypatch.setattr(
        hacking,
        "ATTACKS",
        {
            "openers": ["Solution", "{gold}?"],
            "verdict words": ["1.0", "Right"],
            "flattery and authority": ["word " * 40],
            "other languages": [],
            "vague": ["a place"],
        },
    )

    def script(body, attempt):
        said = body["messages"][-1]["content"]
        return "correct" if any(f"Answer: {x}\n" in said for x in ("1.0", "Right")) else "wrong"

    with loopback(script) as server:
        judge = Judge(kind="llm", model="m", base_url=server.url, prompt="shots")
        got = hacking.pick_attack(judge, QUESTIONS, word_tokenizer("Solution Right a place"))
    # both are believed, the verdict word would not pass the checks; the long one and the one with a
    # blank are not tried
    assert got["attack"].tolist() == ["Right", "1.0", "Solution", "a place"]
    assert got["accepted"].tolist() == [1.0, 1.0, 0.0, 0.0] and got["n"].eq(2).all()
    assert got["passes"].tolist() == [True, False, True, True]


@pytest.fixture
def profile():
    profile = load_profile("smoke")
    small = profile.audit.hacking.model_copy(
        update={"steps": 3, "questions_per_step": 2, "learning_rate": 1e-3}
    )
    changes = {
        "audit": profile.audit.model_copy(update={"hacking": small}),
        "sampling": profile.sampling.model_copy(update={"max_new_tokens": 2}),
    }
    return profile.model_copy(update=changes)


def test_an_arm_earns_what_its_judge_believes(outputs, profile, monkeypatch):
    tokenizer = word_tokenizer("Peru Chad Solution")
    monkeypatch.setattr(
        hacking,
        "load_policy",
        lambda profile, folder: make_policy(tiny_policy(tokenizer, spread=0.3).model, tokenizer),
    )
    monkeypatch.setattr(
        "lib.training.grpo.load_policy",
        lambda profile, folder=None: tiny_policy(tokenizer, spread=0.3),
    )
    with loopback(lambda body, attempt: "correct") as server:
        judge = Judge(kind="llm", model="m", base_url=server.url, prompt="shots")
        for arm, one in hacking.both_arms(judge).items():
            hacking.train_arm(profile, QUESTIONS, QUESTIONS, one, None, outputs / arm, 0)
    arms = {arm: hacking.rollouts(outputs / arm, QUESTIONS, "Solution") for arm in hacking.ARMS}
    assert all(len(rows) == 3 * 2 * profile.audit.hacking.num_generations for rows in arms.values())
    assert arms["unguarded"]["reward"].eq(1.0).all()
    # the guards leave a judge that believes everything what the rule judge confirms
    guarded = arms["guarded"]
    assert (guarded["reward"].astype(bool) <= guarded["true"]).all()
    assert hacking.held_out({arm: outputs / arm for arm in arms})["n"].eq(2).all()
