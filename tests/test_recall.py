"""Known pairs and what is given away: the labelled file, scores by hand, accuracy by twin."""

import os

import numpy as np
import pandas as pd
import pytest

from lib.config import BENCHMARKS
from lib.dedup.benchmarks import whole_benchmark
from lib.dedup.candidates import PAIR, candidates, portions, remembered
from lib.dedup.contained import judge_rule
from lib.dedup.recall import (
    by_twin,
    given_away,
    hide,
    label,
    read_pairs,
    repeats,
    score_pairs,
    share,
)
from lib.text import normalise

MIRROR = os.environ.get("HUB_MIRROR")


def rows(texts, split, answers=None):
    """Questions of one split, named by their place."""
    frame = pd.DataFrame(
        {"question": texts, "answers": answers or [[f"a{i}"] for i in range(len(texts))]}
    )
    ids = [f"{split}{i}" for i in range(len(texts))]
    return frame.assign(
        question_id=ids, split=split, subject=None, relation=None, names=[[] for _ in texts]
    )


def test_labelled_pairs_are_whole():
    pairs = read_pairs()
    assert set(pairs["dataset"]) == set(BENCHMARKS)
    assert pairs["pair"].is_unique
    assert pairs["contained"].sum() >= 150
    assert (~pairs["contained"]).sum() >= 150
    assert not pairs[[f"{side}_answers" for side in ("test", "train")]].map(len).eq(0).any().any()
    texts = pairs[["dataset", "test_question", "train_question"]]
    keys = texts.map(normalise)
    assert not keys.duplicated().any()
    assert (keys["test_question"] != keys["train_question"]).all()
    for _, part in keys.groupby("dataset"):
        assert not set(part["test_question"]) & set(part["train_question"])
    assert len(read_pairs("nq")) == (pairs["dataset"] == "nq").sum()


def test_hidden_pairs_stand_once_and_other_questions_stay():
    pairs = pd.DataFrame(
        {
            "dataset": "d",
            "test_question": ["Who wrote Faust?", "who wrote faust", "Where is Rome?"],
            "test_answers": [["Goethe"], ["Goethe"], ["Italy"]],
            "train_question": ["Faust is by whom?", "x y", "x y"],
            "train_answers": [["Goethe"], ["a"], ["a"]],
        }
    )
    others = pd.concat(
        [rows(["where is rome", "How old?"], "test"), rows(["X, y!", "Why?"], "train")]
    )
    named, both = hide(pairs, others)
    assert named["test_id"].nunique() == 2
    assert named["train_id"].nunique() == 2
    assert both["question_id"].is_unique
    assert both["question"].map(normalise).is_unique
    assert both["split"].value_counts().to_dict() == {"test": 3, "train": 3}
    assert {"How old?", "Why?"} < set(both["question"])


def test_scores_by_hand():
    pairs = pd.DataFrame(
        {
            "test_id": list("abcd"),
            "train_id": list("wxyz"),
            "contained": [True, True, True, False],
            "kind": ["alias", "alias", "order", "year"],
            "origin": ["written", "benchmark", "written", "benchmark"],
        }
    )
    found = pd.DataFrame({"test_id": list("abd"), "train_id": list("wxz")})
    verdicts = pairs[PAIR].assign(is_contained=[True, False, True, True])
    table = score_pairs(label(pairs, found, verdicts)).set_index(["what", "of"])
    hits = table[["hits", "n"]].apply(tuple, axis=1)
    assert hits["blocker_recall", "all"] == (2, 3)
    assert hits["blocker_recall", "origin: written"] == (1, 2)
    assert hits["verdict_recall", "all"] == (2, 3)
    assert hits["verdict_recall", "kind: alias"] == (
        1,
        2,
    )
    assert hits["recall", "all"] == (1, 3)
    assert hits["verdict_precision", "all"] == (2, 3)
    assert hits["false_merges", "all"] == (1, 1)
    assert hits["false_merges", "kind: year"] == (1, 1)


def test_a_share_has_an_interval():
    assert share(0, 0)["n"] == 0
    assert np.isnan(share(0, 0)["value"])
    one = share(8, 10)
    assert one["value"] == 0.8
    assert one["low"] == pytest.approx(0.490, abs=1e-3)
    assert one["high"] < 0.95


def test_repeats_of_published_and_of_random_splits():
    texts = ["Where is Rome?", "where is rome", "Why?", "When?"]
    published = pd.DataFrame(
        {"question": texts, "official": ["train", "validation", "validation", "train"]}
    )
    assert repeats(published)["hits"] == 1
    assert repeats(published)["n"] == 2
    one_set = pd.DataFrame(
        {"question": [f"q {i % 5000}" for i in range(10000)], "official": "test"}
    )
    found = repeats(
        one_set
    )  # each text is there twice, so four of five test rows meet the other one in training
    assert found["low"] < 0.8 < found["high"]
    assert 1900 < found["n"] < 2100
    assert found == repeats(one_set)


def test_given_away_counts_test_questions_once_and_tells_the_answers_apart():
    questions = pd.concat(
        [
            rows(["a", "b", "c", "d"], "test", [["x"], ["y"], ["z"], ["w"]]),
            rows(["e", "f", "g"], "train", [["X!"], ["q"], ["x"]]),
        ]
    )
    removed = pd.DataFrame(
        {
            "test_id": ["test0", "test0", "test1", "v0"],
            "train_id": ["train0", "train1", "train1", "train2"],
            "test_split": ["test", "test", "test", "validation"],
        }
    )
    table = given_away(questions, removed, share(1, 4)).set_index("what")
    assert table["hits"].to_dict() == {
        "exact text": 1,
        "contained, another text": 2,
        "with the same answer": 1,
        "only with another answer": 1,
    }
    assert (table["n"] == 4).all()
    assert given_away(questions, removed[:0])["hits"].tolist() == [
        0,
        0,
        0,
    ]


def test_accuracy_with_and_without_twins():
    grades = pd.DataFrame(
        {"question_id": list("abcde"), "correct": [True, True, False, False, None]}
    )
    removed = pd.DataFrame({"test_id": ["a", "b", "b"], "train_id": list("xyz")})
    table = by_twin(grades, removed).set_index("questions")
    assert table["value"].to_dict() == {"all": 0.5, "with a twin": 1.0, "without a twin": 0.0}
    assert table["n"].tolist() == [4, 2, 2]
    assert table["failed"].tolist() == [1, 0, 1]
    assert table.loc["all", "low"] < 0.5 < table.loc["all", "high"]


def test_a_text_is_embedded_once():
    asked = []
    recall = remembered(
        lambda texts: asked.extend(texts) or np.array([[len(t), 1.0] for t in texts])
    )
    assert recall(["aa", "b", "aa"]).tolist() == [[2, 1], [1, 1], [2, 1]]
    assert recall(["b", "ccc"]).tolist() == [[1, 1], [3, 1]]
    assert asked == ["aa", "b", "ccc"]


def test_progress_says_what_is_left(capsys, monkeypatch):
    clock = iter([0.0, 4.0, 12.0, 14.0, 30.0])
    monkeypatch.setattr("lib.dedup.candidates.time.monotonic", lambda: next(clock))
    assert list(portions(list(range(7)), 2, "verdicts")) == [[0, 1], [2, 3], [4, 5], [6]]
    assert (
        capsys.readouterr().out == "4 of 7 verdicts, 9 s to go\n"
    )  # 12 s for 4: 9 for 3; not at 4, 14 nor the end


@pytest.mark.skipif(not MIRROR, reason="needs HUB_MIRROR, a folder with the benchmarks")
@pytest.mark.parametrize("name", ["simpleqa", "popqa"])
def test_words_and_answers_alone_find_most_labelled_pairs_of_a_benchmark(name):
    _, questions = whole_benchmark(name, MIRROR)
    pairs, both = hide(read_pairs(name), questions)
    train, test = (both[both["split"] == split] for split in ("train", "test"))
    near = test[test["question_id"].isin(pairs["test_id"])]
    flat = candidates(
        train, near, 10, 0.5, lambda texts: np.ones((len(texts), 1), np.float32)
    )  # no embedding
    table = score_pairs(label(pairs, flat, judge_rule(pairs[PAIR], both))).set_index(["what", "of"])
    assert table.loc[("blocker_recall", "all"), "value"] > 0.9
    assert table.loc[("verdict_precision", "all"), "value"] > 0.8
