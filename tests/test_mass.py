"""Texts to score, shifts of their probability, texts seen before, style, on hand-made samples."""

import numpy as np
import pandas as pd
import pytest

from lib.study import mass

QUESTIONS = pd.DataFrame({
    "question_id": ["a", "b"], "relation": "city_country",
    "question": ["In which country is Lyon?", "In which country is Porto?"],
    "answers": [["France", "French Republic"], ["Portugal"]],
})  # fmt: skip
TRAIN = [
    ("In which country is Turin?", "Italy"),
    ("In which country is Cadiz?", "Spain"),
    ("Its symbol?", "In"),
]
EVERY = pd.concat([QUESTIONS, pd.DataFrame([
    {"question_id": f"t{i}", "question": q, "answers": [a], "relation": "city_country"}
    for i, (q, a) in enumerate(TRAIN)
])], ignore_index=True)  # fmt: skip


def sampled(rows: dict, policy="base"):
    """Samples and their grades from question -> list of (text, correct)."""
    flat = [
        (q, i, text, correct)
        for q, pairs in rows.items()
        for i, (text, correct) in enumerate(pairs)
    ]
    frame = pd.DataFrame(flat, columns=["question_id", "sample", "text", "correct"])
    frame = frame.assign(policy=policy, judge="alias", logprob=-1.0, finish="stop")
    frame = frame.assign(tokens=frame["text"].str.split().str.len())
    grades = frame[["question_id", "policy", "sample", "judge", "correct"]]
    return frame.drop(columns=["correct", "judge"]), grades.astype({"correct": "boolean"})


BEFORE = sampled({
    "a": [("Spain", False), ("It is in Italy.", False), ("It is in Italy.", False),
          ("France", True), ("It is France.", True)],
    "b": [("Spain", False), ("Brazil", False), ("Italy", None), ("Italy", None), ("", False)],
})  # fmt: skip
AFTER = sampled({
    "a": [("France", True), ("France!", True), ("Spain", False), ("Chad", False)],
    "b": [("Portugal", True), ("Portugal", True), ("Spain", False), ("Spain", None)],
}, "grpo")  # fmt: skip


def test_texts_are_the_gold_and_the_policys_own():
    texts = mass.answers_to_score(EVERY, *BEFORE, AFTER[0])
    texts = texts.set_index(["question_id", "kind"])["answer"]
    assert texts["a"].to_dict() == {
        "gold": "France",
        "rival": "Italy",
        "right": "France",
        "wrong": "It is in Italy.",
        "after": "France",
    }
    # Italy was never judged, Spain came before Brazil, and nothing right was sampled
    assert texts["b"].to_dict() == {
        "gold": "Portugal",
        "rival": "Spain",
        "wrong": "Spain",
        "after": "Portugal",
    }


def test_a_cut_text_names_a_rival_but_is_not_scored_itself():
    samples, grades = sampled({"a": [("Spain", False), ("Italy is", False), ("Italy is", False)]})
    samples.loc[1:, "finish"] = "length"
    texts = mass.answers_to_score(EVERY, samples, grades).set_index("kind")["answer"]
    assert texts.to_dict() == {"gold": "France", "rival": "Italy", "wrong": "Spain"}


def test_rivals_are_other_answers_of_the_relation_first_named():
    named = ["It is in Spain or Italy.", "The ITALY, Portugal"]
    texts = [named[0], "France", "in Lyon", named[1], "Spaniards", "Chad"]
    samples = pd.DataFrame({"question_id": "a", "text": texts})
    assert mass.rivals(samples, EVERY).tolist() == ["Spain", "", "", "Italy", "", "Chad"]
    assert mass.rivals(samples, EVERY.assign(relation=None)).tolist() == [""] * 6
    every = EVERY.assign(question=EVERY["question"] + " Not Spain?")
    assert mass.rivals(samples, every).tolist()[0] == "Italy"


def test_without_a_closed_set_rivals_are_the_answers_of_the_questions():
    samples = pd.DataFrame({"question_id": ["a", "a"], "text": ["It is Spain.", "Chad"]})
    own = EVERY.assign(relation="own")
    assert mass.rivals(samples, own).tolist() == ["Spain", ""]
    twice = pd.concat([own, own.assign(question_id=own["question_id"] + "2")])
    assert mass.rivals(samples, twice).tolist() == ["Spain", ""]


def test_each_distinct_text_is_scored_once():
    texts = mass.answers_to_score(QUESTIONS, *BEFORE, AFTER[0])
    scored = mass.to_score(QUESTIONS, texts).set_index("question_id")["answers"]
    assert scored.to_dict() == {
        "a": ["France", "Italy", "It is in Italy."],
        "b": ["Portugal", "Spain"],
    }


def test_mass_shift_is_after_minus_before_by_kind():
    texts = mass.answers_to_score(QUESTIONS, *BEFORE)
    flat = mass.to_score(QUESTIONS, texts).explode("answers").rename(columns={"answers": "answer"})
    before = flat.assign(logprob=-4.0)
    after = flat.assign(logprob=np.where(flat["answer"].isin(["France", "Portugal"]), -1.0, -6.0))
    table = mass.mass_shift(texts, before, after, n_boot=100).set_index("kind")
    assert table["value"].to_dict() == {"gold": 3, "rival": -2, "right": 3, "wrong": -2}
    assert table["n"].to_dict() == {"gold": 2, "rival": 2, "right": 1, "wrong": 2}
    assert table.loc["wrong", "before"] == -4
    assert table.loc["gold", "after"] == -1


def test_seen_mass_by_text_and_by_answer():
    table = mass.seen_mass(QUESTIONS, *BEFORE, n_boot=100, after=AFTER)
    table = table.set_index(["level", "correct", "seen"])["value"]
    for level in ("text", "answer"):
        assert table[level].sum() == pytest.approx(1)
    # a: France is right and seen, France! is new as a text but the same fact, Spain is seen, Chad
    # is new; b: two are right and new, one is seen
    assert table["text", True, True] == pytest.approx((1 / 4 + 0) / 2)
    assert table["answer", True, True] == pytest.approx((2 / 4 + 0) / 2)
    assert table["answer", True, False] == pytest.approx((0 + 2 / 3) / 2)
    assert table["answer", False, True] == pytest.approx((1 / 4 + 1 / 3) / 2)
    assert table["answer", False, False] == pytest.approx((1 / 4 + 0) / 2)


def test_style_measures_what_it_says():
    first = [("I don't know", False), ("France", True)]
    second = [("", False), ("Spain or Italy", False)]
    samples, _ = sampled({"a": first, "b": second})
    samples.loc[3, "finish"] = "length"
    marked = mass.mark_style(samples)
    assert marked["abstains"].tolist()[:2] == [True, False]
    assert marked["hedges"].tolist()[3]
    assert marked["empty"].tolist() == [False, False, True, False]
    assert marked["words"].tolist() == [3, 1, 0, 3]

    table = mass.style(n_boot=100, before=samples).set_index("measure")
    assert table.loc["cut", "value"] == 0.25
    assert table.loc["words", "value"] == pytest.approx(7 / 4)
    assert table.loc["empty", "n"] == 2


def test_repaired_from_tells_wrong_facts_from_format():
    rows = {
        "a": [("I don't know", False)],
        "b": [("It is Spain", False)],
        "t0": [("It is Peru", True)],
    }
    texts, before = sampled(rows | {"t1": [("Italy", False)]})
    right = {q: [("-", True)] for q in ("a", "b", "t0")}
    _, after = sampled(right | {"t1": [("-", False)]})
    table = mass.repaired_from(texts, before, after, EVERY).set_index(["who", "measure"])
    assert table.loc[("repaired", "names_other"), "value"] == 0.5
    assert table.loc[("repaired", "abstains"), "value"] == 0.5
    assert table.loc[("unrepaired", "names_other"), ["value", "n"]].tolist() == [1, 1]
    none = mass.repaired_from(texts, before, before, EVERY).set_index(["who", "measure"])
    assert none.loc[("repaired", "cut"), "n"] == 0
    assert np.isnan(none.loc[("repaired", "cut"), "value"])


def test_own_sentences_differ_in_the_name_alone():
    rows = {"a": [("Lyon is in Spain.", False), ("Lyon is in Spain.", False), ("France", True)]}
    samples, grades = sampled(rows)
    own = mass.own_sentences(EVERY, samples, grades).set_index("kind")["answer"]
    assert own.to_dict() == {"own_rival": "Lyon is in Spain.", "own_gold": "Lyon is in France."}


def test_gold_gains_on_its_rival_in_pairs():
    texts = pd.DataFrame({"question_id": ["a", "a"], "kind": ["own_gold", "own_rival"],
                          "answer": ["g", "r"]})  # fmt: skip

    def scores(gold, rival):
        rows = {"question_id": ["a", "a"], "answer": ["g", "r"], "logprob": [gold, rival]}
        return pd.DataFrame(rows)

    both = {"before": scores(-3.0, -1.0), "after": scores(-2.5, -2.0)}
    table = mass.gold_over_rival(texts, both)
    assert table[["who", "value", "n"]].values.tolist() == [["after", 1.5, 1]]


def test_without_a_named_rival_there_is_no_sentence():
    questions = pd.DataFrame(
        {"question_id": ["q"], "question": ["Where is Lima?"], "answers": [["Peru"]]}
    ).assign(relation=None)
    samples = pd.DataFrame(
        {"question_id": ["q"], "sample": [0], "text": ["Chile"], "finish": ["stop"]}
    )
    grades = pd.DataFrame({"question_id": ["q"], "sample": [0], "correct": [False]})
    own = mass.own_sentences(questions, samples, grades)
    assert own.empty
    assert list(own.columns) == ["question_id", "kind", "answer"]
