"""Questions: atlas, bad files, grouping before splitting, mirrors of the benchmarks."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.cells import read_answers
from lib.config import ROOT, Data, load_profile
from lib.judge.rules import judge_answer
from lib.questions.atlas import BARE, allot, atlas, bare_questions
from lib.questions.sources import own_path, read_benchmark, read_file, source_files, typical
from lib.questions.splits import (
    assign_splits,
    check_splits,
    complete,
    draw_part,
    group,
    load_questions,
)
from lib.questions.survey import answer_counts, majority_floor, plotted, shots, wrong_answers
from lib.tables import TableError
from lib.text import holds, normalise, unique

MIRROR = os.environ.get("HUB_MIRROR")
SHARES = {"country_capital": 2.0, "capital_country": 1.0, "element_symbol": 1.0}


def data(**changed):
    return Data(**({"train": 60, "validation": 10, "test": 30, "relations": SHARES} | changed))


def profile(**changed):
    base = load_profile("laptop")
    return base.model_copy(update={"hub_mirror": None} | changed)


@pytest.mark.parametrize(
    "text, normal",
    [
        ("The  Beatles!", "beatles"),
        ("Café-Bar", "cafe bar"),
        ("Straße", "strasse"),
        ("a", "a"),
        ("?", "?"),
        ("U.S.A.", "usa"),
        ("İzmir", "izmir"),
        ("ﬁn\u200bland", "finland"),
        ("An apple a day", "apple a day"),
        ("N’Djamena", "ndjamena"),
        ("  ", ""),
        ("東京", "東京"),
    ],
)
def test_normal_form(text, normal):
    assert normalise(text) == normal


@given(st.text(max_size=30))
def test_normal_form_is_stable(text):
    assert normalise(normalise(text)) == normalise(text)


def test_holds_and_unique():
    assert holds("Mexico City", "Mexico")
    assert not holds("Nigeria", "Niger")
    assert not holds("Oslo", "")
    assert unique(["Paris", "paris!", " ", "Lyon "]) == ["Paris", "Lyon"]


def test_atlas_is_repeatable_and_asks_its_shares():
    one, same, other = (atlas(200, SHARES, None, seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(one, same)
    assert set(one["question"]) != set(other["question"])
    assert one["relation"].value_counts().to_dict() == {
        "country_capital": 100,
        "capital_country": 50,
        "element_symbol": 50,
    }
    assert one["question_id"].is_unique
    assert one["question"].map(normalise).is_unique
    assert (
        one["question_id"].str.endswith("-again").sum() == 9
    )  # 5 % of 100, of 50 and of 50, halves to even


def test_atlas_knows_some_facts():
    asked = atlas(
        None, {"country_capital": 1.0, "capital_country": 1.0, "country_continent": 1.0}, None, 0
    )
    asked = asked.set_index("question_id")
    assert asked.loc["country_capital-FR", "question"] == "What is the capital of France?"
    assert asked.loc["country_capital-FR", "answers"][0] == "Paris"
    assert {"USA", "US", "United States of America"} <= set(
        asked.loc["capital_country-US", "answers"]
    )
    assert asked.loc["country_capital-NL", "question"] == "What is the capital of the Netherlands?"
    assert asked.loc["country_continent-RU", "answers"] == ["Europe", "Asia"]
    assert "country_capital-MX" not in asked.index  # Mexico City holds Mexico
    assert not any(
        holds(s, a)
        for s, answers in zip(asked["subject"], asked["answers"], strict=True)
        for a in answers
    )
    assert not {"IN", "NO", "CAN", "AND"} & {a for answers in asked["answers"] for a in answers}
    same = asked.loc["capital_country-FR", "fact"]
    assert same in asked.loc["country_capital-FR", "gives"]


def test_most_popular_cities_come_first():
    cities = atlas(40, {"city_country": 1.0}, 40, 0)
    assert cities["popularity"].min() > 5_000_000
    assert "Paris" not in set(cities["subject"])
    fact = cities[cities["subject"] == "Shanghai"].iloc[0]
    assert fact["answers"][0] == "China"
    assert fact["relation"] == "city_country"


@pytest.mark.parametrize(
    "total, shares, available, expected",
    [
        (10, {"a": 1, "b": 1}, {"a": 2, "b": 20}, {"a": 2, "b": 8}),
        (10, {"a": 3, "b": 1}, {"a": 99, "b": 99}, {"a": 8, "b": 2}),
        (9, {"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2, "c": 3}),
    ],
)
def test_allot(total, shares, available, expected):
    assert allot(total, shares, available) == expected


def test_too_few_subjects_are_told():
    with pytest.warns(UserWarning, match="element_symbol: 118 of 150"):
        asked = atlas(300, {"element_symbol": 1.0, "country_continent": 1.0}, None, 0)
    assert asked["relation"].value_counts().to_dict() == {
        "country_continent": 182,
        "element_symbol": 118,
    }


def test_splits_of_atlas():
    one = load_questions(profile(data=data()), 0)
    assert check_splits(one) == {
        "questions": {"train": 60, "validation": 10, "test": 30},
        "texts_in_two_splits": 0,
        "ids_twice": 0,
    }
    pd.testing.assert_frame_equal(one, load_questions(profile(data=data()), 0))
    other = load_questions(profile(data=data()), 1)
    assert set(one.query("split == 'test'")["question_id"]) != set(
        other.query("split == 'test'")["question_id"]
    )


def test_check_splits_sees_a_shared_text():
    frame = pd.DataFrame(
        {"question": ["Who?", "who"], "split": ["train", "test"], "question_id": ["a", "a"]}
    )
    assert check_splits(frame)["texts_in_two_splits"] == 1
    assert check_splits(frame)["ids_twice"] == 1


def test_same_text_is_one_question_with_all_answers():
    frame = pd.DataFrame(
        {
            "question": ["Who made It?", "who made it", "When?"],
            "answers": [["A"], ["B", "a"], ["1"]],
        }
    )
    one = group(complete(frame.assign(question_id=["x", "y", "z"]), "mine"))
    assert one["question_id"].tolist() == ["x", "z"]
    assert one["answers"].tolist() == [
        ["A", "B"],
        ["1"],
    ]


def test_official_test_keeps_its_answers_and_train_loses_the_twin():
    frame = pd.DataFrame(
        {"question": ["q1", "Q2", "q2?", "q3"], "answers": [["1"], ["2"], ["zwei"], ["3"]]}
    )
    frame = frame.assign(
        question_id=list("abcd"), official=["train", "train", "validation", "train"]
    )
    one = group(complete(frame, "nq"))
    assert set(one["question_id"]) == {"a", "c", "d"}
    assert one.set_index("question_id")["answers"]["c"] == ["zwei"]
    splits = assign_splits(one, data(train=1, validation=1, test="official"), 0).set_index(
        "question_id"
    )["split"]
    assert splits["c"] == "test"
    assert set(splits[["a", "d"]]) == {"train", "validation"}


def test_shares_split_a_set():
    frame = pd.DataFrame(
        {"question": [f"question {i}" for i in range(50)], "answers": [["x"]] * 50}
    )
    frame = complete(frame.assign(question_id=[str(i) for i in range(50)]), "mine")
    counts = assign_splits(frame, data(train=0.7, validation=0.1, test=0.2), 0)[
        "split"
    ].value_counts()
    assert counts.to_dict() == {"train": 35, "test": 10, "validation": 5}
    # 50 + 10 + 30 do not fit: one each, and of the other 47 shares of 50, 10 and 30 in 90
    mend = "set data.train to 27, data.validation to 6, data.test to 16"
    with pytest.raises(TableError, match=f"mine: 50 different questions .*data.train = 50.*{mend}"):
        assign_splits(frame, data(train=50), 0)
    fits = data(train=27, validation=6, test=16)
    assert len(assign_splits(frame, fits, 0)) == 49
    with pytest.raises(TableError, match="set data.train to 1, data.validation to 1, data.test to"):
        assign_splits(frame, data(train=1, validation=1, test=9000), 0)
    with pytest.raises(TableError, match="no official test split"):
        assign_splits(frame, data(test="official"), 0)
    published = frame.assign(
        dataset="popqa"
    )  # one set: a fifth is the test, and training takes at most the rest
    counts = assign_splits(published, data(train=100, validation=3, test="official"), 0)[
        "split"
    ].value_counts()
    assert counts.to_dict() == {"train": 37, "test": 10, "validation": 3}


ROWS = pd.DataFrame({"question": ["Who?", "When?"], "answers": [["A", "B"], ["1999"]]})


def test_own_files(tmp_path):
    ROWS.to_parquet(tmp_path / "q.parquet")
    ROWS.to_json(tmp_path / "q.jsonl", orient="records", lines=True)
    (tmp_path / "q.csv").write_text(
        'question,answers\nWho?,"[""A"", ""B""]"\nWhen?,1999\nWhere?,NA\n'
    )
    assert read_file(tmp_path / "q.parquet")["answers"].tolist() == [["A", "B"], ["1999"]]
    assert read_file(tmp_path / "q.jsonl")["answers"].tolist() == [["A", "B"], ["1999"]]
    assert read_file(tmp_path / "q.csv")["answers"].tolist() == [["A", "B"], ["1999"], ["NA"]]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.csv", "question,answer\nWho?,A\n", r"a.csv: no column \['answers'\].*mean 'answer'"),
        ("a.csv", "question,answers\nWho?,A\nWhen?,\n", "a.csv: row 1: `answers` is empty"),
        ("a.csv", 'question,answers\nWho?,"[""A"""\n', "a.csv: row 0: `answers` .* no JSON list"),
        (
            "a.csv",
            "question_id,question,answers\n1,Who?,A\n1,When?,B\n",
            "a.csv: row 1: `question_id` '1' is there twice",
        ),
        ("a.csv", "question,answers\n", "a.csv: holds no rows"),
        ("a.csv", "", "a.csv: cannot be read as csv"),
        ("a.txt", "Who?", "a.txt: unknown extension '.txt'"),
        ("a.jsonl", "{broken\n", "a.jsonl: cannot be read as jsonl"),
        ("a.jsonl", '{"question": "Who?", "answers": []}\n', "a.jsonl: row 0: `answers` is empty"),
        ("a.csv", "question,answers,popularity\nWho?,A,high\n", "a.csv: column `popularity`"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(TableError, match=message):
        read_file(tmp_path / name)


def test_columns_of_a_file_s_own_mean_nothing_to_a_run(tmp_path):
    rows = pd.DataFrame({"question": [f"Who is {name}?" for name in "ABCDEF"], "answers": "X"})
    own = {"names": "Italy", "fact": "one", "official": "train", "split": "test", "gives": None}
    read = []
    for name, frame in (("plain", rows), ("more", rows.assign(**own, dataset=1, row="r"))):
        path = tmp_path / name / "q.jsonl"
        path.parent.mkdir()
        frame.to_json(path, orient="records", lines=True)
        sizes = data(train=2, validation=2, test=2, relations={})
        settings = profile(dataset="mine", files={"mine": str(path)})
        read.append(load_questions(settings.model_copy(update={"data": sizes}), 0))
    pd.testing.assert_frame_equal(*read)
    assert read[1]["names"].tolist() == [[]] * 6


def test_texts_of_a_file_may_be_numbers_or_missing(tmp_path):
    rows = ROWS.assign(subject=["George Orwell", 1984], relation=[" ", None], question_id=[7, 8.0])
    path = tmp_path / "q.json"
    path.write_text(json.dumps(rows.to_dict("records")))
    read = read_file(path)
    assert read["subject"].tolist() == ["George Orwell", "1984"]
    assert read["relation"].tolist() == [None, None]
    assert read["question_id"].tolist() == ["7", "8"]
    read.to_parquet(tmp_path / "out.parquet")


@pytest.mark.parametrize("cell", [["capital"], {"of": "capital"}, True])
@pytest.mark.parametrize("column", ["question", "question_id", "subject", "relation"])
def test_what_is_no_text_is_refused_by_file_row_and_column(tmp_path, column, cell):
    rows = [{"question": f"Who is {name}?", "answers": "X", column: name} for name in "AB"]
    rows[1] |= {column: cell}
    (tmp_path / "q.json").write_text(json.dumps(rows))
    with pytest.raises(TableError, match=rf"q.json: row 1: `{column}` .* is no text; write one"):
        read_file(tmp_path / "q.json")


def test_a_source_that_is_no_relation_of_the_file_is_refused(tmp_path):
    rows = pd.DataFrame({"question": [f"Who is {name}?" for name in "ABCDEF"], "answers": "X"})
    transfer = load_profile("laptop").transfer.model_copy(update={"halved": ["river"]})
    sizes = data(train=2, validation=2, test=2, relations={})
    path = tmp_path / "q.csv"
    settings = profile(dataset="mine", files={"mine": str(path)}).model_copy(
        update={"data": sizes, "transfer": transfer}
    )
    rows.assign(relation="river").to_csv(path, index=False)
    assert len(load_questions(settings)) == 6
    rows.assign(relation="rivers").to_csv(path, index=False)
    with pytest.raises(TableError, match=r"mine: no relation \['river'\]; it has rivers; mend"):
        load_questions(settings)
    rows.to_csv(path, index=False)
    with pytest.raises(TableError, match=r"mine: no relation \['river'\]; it has none; mend"):
        load_questions(settings)


def test_missing_file_and_empty_question(tmp_path):
    with pytest.raises(TableError, match="none.csv: no such file"):
        read_file(tmp_path / "none.csv")
    (tmp_path / "a.jsonl").write_text('{"question": " ", "answers": ["x"]}\n')
    with pytest.raises(TableError, match="row 0: `question` is empty"):
        load_questions(profile(dataset="mine", files={"mine": str(tmp_path / "a.jsonl")}), 0)


def test_the_example_asks_its_sixty_facts_wherever_the_kernel_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = load_profile("example")
    questions = load_questions(example, 0)
    assert check_splits(questions) == {
        "questions": {"train": 30, "validation": 10, "test": 20},
        "texts_in_two_splits": 0,
        "ids_twice": 0,
    }
    asked = questions.set_index("question")["answers"]
    assert asked["What is the capital of Austria?"] == ["Vienna", "Wien"]
    assert asked["Who wrote The Trial?"] == ["Franz Kafka"]
    assert list(source_files(example)["sources"]) == ["examples/my_questions.csv"]
    right = [judge_answer(a, golds, "alias") for golds in asked for a in golds]
    assert len(right) > 60 and all(right)
    wrong = wrong_answers(questions)
    assert not any(judge_answer(a, golds, "alias") for a, golds in zip(wrong, asked, strict=True))
    assert "make all RUN=example" in (ROOT / "README.md").read_text()


def test_a_path_of_a_profile_begins_at_the_repository_or_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for path, place in (
        ("a/q.csv", ROOT / "a/q.csv"),
        ("~/q.csv", tmp_path / "q.csv"),
        ("/q.csv", Path("/q.csv")),
    ):
        assert own_path(profile(dataset="mine", files={"mine": path})) == place


def test_read_answers():
    assert read_answers("A") == ["A"]
    assert read_answers('["A", "B"]') == ["A", "B"]
    assert read_answers(7) == ["7"]
    for nothing in (None, float("nan"), [], [" "], "", {}):
        with pytest.raises(TableError, match="`answers` is empty"):
            read_answers(nothing)


def test_typical_alias():
    assert (
        typical(["Jenkins, Robert", "Robert Jenkins Jr.", "Robert Jenkins", "Bob"])
        == "Robert Jenkins"
    )


def write_mirror(folder: Path) -> Path:
    """A tiny mirror in the hub's schema."""
    (folder / "nq_open").mkdir(parents=True)
    (folder / "PopQA").mkdir()
    frame = pd.DataFrame(
        {"question": [f"who was {i}" for i in range(9)], "answer": [["x", "y"]] * 9}
    )
    frame.to_parquet(folder / "nq_open" / "train.parquet")
    frame[:3].to_parquet(folder / "nq_open" / "validation.parquet")
    frame.rename(columns={"answer": "possible_answers"}).to_parquet(
        folder / "PopQA" / "test.parquet"
    )
    return folder


def test_mirror_and_its_drift(tmp_path):
    mirror = str(write_mirror(tmp_path / "hub"))
    settings = data(train=4, validation=2, test="official", relations={})
    questions = load_questions(profile(dataset="nq", hub_mirror=mirror, data=settings), 0)
    assert set(questions.query("split == 'test'")["question"]) == {
        "who was 0",
        "who was 1",
        "who was 2",
    }
    assert not set(questions.query("split != 'test'")["question"]) & {
        "who was 0",
        "who was 1",
        "who was 2",
    }
    with pytest.raises(
        TableError, match=r"PopQA.*test.parquet: no column \['subj', 'prop', 's_pop'\]"
    ):
        read_benchmark("popqa", mirror)
    with pytest.raises(TableError, match=r"SimpleQA.*test.parquet: no such file"):
        read_benchmark("simpleqa", mirror)


def test_the_files_of_a_mirror_are_counted_and_digested(tmp_path):
    mirror = write_mirror(tmp_path / "hub")
    asked = profile(dataset="nq", hub_mirror=str(mirror))
    before = source_files(asked)["sources"]
    assert list(before) == ["nq_open/train.parquet", "nq_open/validation.parquet"]
    assert before["nq_open/train.parquet"].startswith("9 rows, sha256 ")
    moved = mirror.rename(tmp_path / "elsewhere")
    asked = profile(dataset="nq", hub_mirror=str(moved))
    assert source_files(asked)["sources"] == before
    path = moved / "nq_open" / "validation.parquet"
    pd.read_parquet(path).assign(question="who else").to_parquet(path)
    changed = source_files(asked)["sources"]
    assert {key for key in before if before[key] != changed[key]} == {"nq_open/validation.parquet"}
    assert source_files(profile(dataset="atlas")) == {}


@pytest.mark.skipif(not MIRROR, reason="set HUB_MIRROR to a mirror of the benchmarks")
@pytest.mark.parametrize(
    "name, test", [("nq", 3610), ("triviaqa", 11313), ("popqa", 2580), ("simpleqa", 865)]
)
def test_benchmarks_from_the_mirror(name, test):
    settings = data(train=1000, validation=100, test="official", relations={})
    questions = load_questions(profile(dataset=name, hub_mirror=MIRROR, data=settings), 0)
    found = check_splits(questions)
    assert found["questions"]["train"] == 1000
    assert found["texts_in_two_splits"] == found["ids_twice"] == 0
    assert abs(found["questions"]["test"] - test) <= 0.01 * test  # repeated texts are one question
    assert questions["answers"].map(len).min() >= 1


def test_floor_and_wrong_answers():
    frame = pd.DataFrame(
        {
            "split": ["train"] * 3 + ["test"] * 4,
            "relation": "r",
            "answers": [["a b"], ["A b!"], ["c"], ["x", "a b"], ["c"], ["c"], ["a b"]],
        }
    )
    floor = majority_floor(frame).set_index("relation")
    assert floor.loc["r", "answer"] == "a b"
    assert floor.loc["r", "hits"] == 2
    assert floor.loc["all", "value"] == 0.5
    assert 0 < floor.loc["r", "low"] < 0.5 < floor.loc["r", "high"] < 1
    assert answer_counts(frame)["questions"].tolist() == [3, 3, 1]
    wrong = wrong_answers(frame)
    assert wrong[2] in ("a b", "A b!", "x")
    assert wrong[0] in ("c", "x")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["r", None, None], ["none", "r", "all"]),
        (["r", "all", "all"], ["relation all", "r", "all"]),
        ([None, None, None], ["all"]),
    ],
)
def test_each_relation_has_a_floor_of_its_own_name(given, named):
    frame = pd.DataFrame(
        {
            "split": ["train"] * 3 + ["test"] * 3,
            "relation": given * 2,
            "answers": [["a"], ["b"], ["b"]] * 2,
            "popularity": [None, 1.0, 2.0] * 2,
        }
    )
    floor = majority_floor(frame)
    assert floor["relation"].tolist() == named
    assert floor["n"].tolist()[-1] == 3
    popular = plotted(frame, floor).query("panel == 'popularity'")
    assert popular["key"].unique().tolist() == named[:1]


def test_bare_questions_are_of_relations_that_are_not_asked():
    bare = bare_questions(("city_country", "element_year"), 30, 0)
    assert len(bare) == 30
    assert set(bare["relation"]) == set(BARE) - {"element_year"}
    assert (bare["split"] == "train").all()


def test_shots_are_of_other_relations_and_the_same_within_one():
    train = pd.DataFrame({
        "question": [f"t{i}" for i in range(6)], "answers": [[f"a{i}", "x"] for i in range(6)],
        "relation": ["r"] * 3 + ["s"] * 3,
    })  # fmt: skip
    asked = pd.DataFrame({"question": ["q1", "q2", "q3"], "relation": ["r", "r", None]})
    examples = shots(asked, train, 2)
    assert examples["q1"] == examples["q2"]
    assert all(answer in ("a3", "a4", "a5") for _, answer in examples["q1"])
    assert len(examples["q3"]) == 2


def test_a_part_is_drawn_in_order_and_nested():
    questions = pd.DataFrame({"question_id": range(50)})
    small, large = (draw_part(questions, count, seed=3) for count in (10, 20))
    assert len(small) == 10 and small["question_id"].is_monotonic_increasing
    assert set(small["question_id"]) < set(large["question_id"])
    assert not small.equals(draw_part(questions, 10, seed=4))
    for all_of_them in (None, 50, 99):
        assert draw_part(questions, all_of_them, seed=3).equals(questions)


@pytest.mark.parametrize("count", [10, 11, 29, 58, 97])
def test_shares_of_the_whole_always_fit(count):
    asked = {"question": [f"Which is {i}?" for i in range(count)], "answers": [["A"]] * count}
    frame = complete(pd.DataFrame(asked).assign(question_id=[str(i) for i in range(count)]), "own")
    for train, validation, test in ((0.6, 0.2, 0.2), (0.7, 0.15, 0.15)):
        data = Data(train=train, validation=validation, test=test)
        sizes = assign_splits(frame, data, 0)["split"].value_counts()
        assert sizes.sum() in (count - 1, count)
        assert abs(sizes["train"] - train * count) <= 1
