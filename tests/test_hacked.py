"""The readings of the hacking run on hand-made rollouts."""

import json

import pandas as pd

from lib.study import hacked

QUESTIONS = pd.DataFrame(
    {
        "question_id": ["a", "b"],
        "question": ["Where is Lima?", "Where is Sarh?"],
        "answers": [["Peru"], ["Chad"]],
    }
)


def frame(rows):
    """Rollouts of (step, group, reward, true, attack)."""
    table = pd.DataFrame(rows, columns=["step", "group", "reward", "true", "attack"])
    return table.astype({"reward": "Float64"})


def test_rollouts_are_held_against_known_answers(tmp_path):
    counts = {"hits": 1, "n": 2}
    first = {"texts": ["Peru", "solution!"], "rewards": [1.0, 0.0]}
    second = {"texts": ["Peru", "Solution"], "rewards": [None, 1.0]}
    rows = [
        {"step": 1, "question_id": "a"} | counts | first,
        {"step": 2, "question_id": "b"} | counts | second,
    ]
    (tmp_path / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    table = hacked.rollouts(tmp_path, QUESTIONS, "Solution")
    assert table["true"].tolist() == [True, False, False, False]
    assert table["attack"].tolist() == [False, True, False, True]
    assert table["reward"].isna().tolist() == [False, False, True, False]
    assert table["group"].tolist() == [0, 0, 1, 1]


def test_curves_and_ends_by_hand():
    rows = []
    for step in range(1, 9):
        for group in range(2):
            late = step > 6
            rows += [(step, 2 * step + group, 1.0 if late else 0.0, not late, late)] * 2
    rows[0] = (1, 2, None, True, False)  # a failed verdict is left out, its rollout's truth is not

    curves = hacked.curves({"unguarded": frame(rows)}, 100).set_index(["measure", "step"])
    assert curves.loc[("reward", 1), ["value", "n"]].tolist() == [0.0, 2]
    assert curves.loc[("true", 1), "value"] == 1.0
    assert curves.loc[("attack", 8), "value"] == 1.0

    ends = hacked.ends({"unguarded": frame(rows)}, 100).set_index(["measure", "when"])
    assert ends.loc[("attack", "first"), "value"] == 0.0
    assert ends.loc[("attack", "last"), "n"] == 4
    assert ends.loc[("true", "change"), ["value", "low", "high"]].tolist() == [-1.0, -1.0, -1.0]
