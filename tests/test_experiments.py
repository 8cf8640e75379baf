"""Ablations, transfer and origin: hand-computed tables, and trainings of a tiny policy."""

import numpy as np
import pandas as pd
import pytest

from lib.config import ProfileError, changed, load_profile
from lib.metrics import error_of_mean, student
from lib.questions.abilities import grade_sums, other_facts, prose, sum_questions
from lib.questions.invented import CITIES, QUESTION, in_sentence, invented_questions, told_facts
from lib.questions.splits import HALVES, answer_half
from lib.study.ablations import arm_gains, arm_table, outcomes
from lib.study.attribution import chance_of_training
from lib.study.origin import by_exposure, choices, exposure_trend, fact_table, over_seeds, repair_by
from lib.study.transfer import (
    REST,
    crossover,
    forgotten,
    own_and_other,
    source_of,
    transfer_matrix,
)
from lib.training.apart import read_rollouts
from lib.training.controls import TernaryReward
from lib.training.rewards import Rewards


def grades(verdicts: str, ids=None) -> pd.DataFrame:
    """One verdict per question: 1 right, 0 wrong, x failed."""
    ids = ids or [f"q{i}" for i in range(len(verdicts))]
    known = {"1": True, "0": False, "x": None}
    correct = pd.array([known[v] for v in verdicts], dtype="boolean")
    return pd.DataFrame({"question_id": ids, "sample": 0, "correct": correct})


# profiles and arms


def test_settings_are_replaced_by_path_and_checked_again():
    profile = load_profile("smoke")
    other = changed(profile, {"grpo.beta": 0.1, "grpo.skip_zero_variance": False, "threads": 3})
    assert (other.grpo.beta, other.threads) == (0.1, 3)
    assert other.grpo.steps == profile.grpo.steps
    assert other.sampling.rows == profile.sampling.rows  # a field that no stage records
    assert profile.grpo.beta == 0.0
    with pytest.raises(ProfileError, match="no section `nobody`"):
        changed(profile, {"nobody.beta": 1})
    with pytest.raises(ValueError, match="exact only at"):
        changed(profile, {"grpo.beta": 0.1})


@pytest.mark.parametrize("settings", [{"grpo.bta": 1}, {"grpo.num_generations": 1}])
def test_an_arm_that_cannot_be_is_refused_with_the_profile(settings):
    values = dict(load_profile("smoke"))
    values["ablations"] = {"steps": 1, "arms": {"odd": {"set": settings}}}
    with pytest.raises(ValueError, match="the arm 'odd' cannot be"):
        type(load_profile("smoke"))(**values)


def test_an_arm_s_name_leads_nowhere_else():
    values = dict(load_profile("smoke"))
    values["ablations"] = {"steps": 1, "arms": {"../odd": {"prompt": "plain"}}}
    with pytest.raises(ValueError, match="should match pattern"):
        type(load_profile("smoke"))(**values)


@pytest.mark.parametrize("run", ["smoke", "laptop", "gpu", "paper"])
def test_every_arm_of_a_profile_changes_something(run):
    profile = load_profile(run)
    table = arm_table(profile)
    assert set(table["arm"]) == set(profile.ablations.arms)
    rates = table["setting"] == "grpo.learning_rate"  # the search may have chosen another
    same = table["otherwise"] == table["in the arm"]
    assert not (same & ~rates).any()


# rewards


def test_ternary_reward_by_hand():
    def judge(questions, answers, predictions):
        return [{"Lima": 1.0, "?": None}.get(p, 0.0) for p in predictions]

    texts = ["Lima", "Cusco", "I don't know.", "?"]
    assert TernaryReward(judge)([""] * 4, [["Lima"]] * 4, texts) == [1.0, -1.0, 0.0, None]


def test_a_cut_answer_is_a_wrong_one_for_the_ternary_reward(tmp_path):
    class State:
        global_step = 0

    reward = TernaryReward(lambda q, a, p: [1.0] * len(p))
    rewards = Rewards(reward, 2, tmp_path / "rollouts.jsonl", stops=(7,))
    texts = [[{"content": "Lima"}], [{"content": "Lima and"}]]
    ids = [[5, 7], [5, 6]]
    columns = [["q"] * 2, ["?"] * 2, [["Lima"]] * 2]
    assert rewards.correct(None, texts, ids, *columns, State()) == [1.0, -1.0]


def test_a_group_without_a_hit_may_carry_signal(tmp_path):
    """Of a wrong answer and an abstention, -1 and 0, the second goes up."""
    path = tmp_path / "rollouts.jsonl"
    Rewards(None, 3, path).record(1, ["q"] * 6, [""] * 6, [-1.0, 0.0, None, 0.0, 0.0, 0.0])
    groups = read_rollouts(tmp_path)
    assert groups["hits"].tolist() == [0, 0] and groups["live"].tolist() == [True, False]


# ablations


def test_gains_of_arms_by_hand():
    arms = {"exact": {"grpo_matched": grades("1100"), "kl": grades("1110")}}
    before = {"exact": {"direct": grades("1000"), "plain": grades("0000")}}
    table = arm_gains(arms, before, {"kl": "plain"}, n_boot=100)
    values = table.set_index(["arm", "what"])["value"].to_dict()
    assert values == {
        ("grpo_matched", "gain"): 0.25,
        ("kl", "gain"): 0.75,  # over the base policy in the arm's own wording
        ("kl", "less default"): 0.25,
    }
    assert arm_gains({"exact": {}}, {"exact": {}}, {}).empty


def test_arms_are_compared_with_the_default_over_its_seeds():
    before = {"exact": {"direct": grades("10000000")}}
    arms = {"grpo_matched": "11000000", "default_seed1": "11110000", "kl": "11110000"}
    arms = {"exact": {name: grades(verdicts) for name, verdicts in arms.items()}}
    table = arm_gains(arms, before, {}, repeats=["default_seed1"])
    found = table.set_index(["arm", "what"])
    assert set(table["arm"]) == {"grpo_matched", "kl"}
    assert found.loc[("grpo_matched", "gain"), "value"] == 0.25  # of the mean of .25 and .5
    assert found.loc[("kl", "less default"), "value"] == 0.125

    alone = arm_gains({"exact": {k: arms["exact"][k] for k in ("grpo_matched", "kl")}}, before, {})
    wider = found["high"] - found["low"]
    narrower = alone.set_index(["arm", "what"])[["low", "high"]].diff(axis=1)["high"]
    assert (wider > narrower).all()  # with two trainings Student's t has one degree of freedom


def test_outcomes_by_hand():
    texts = ["Lima", "Cusco", "I don't know.", "I'm not sure"]
    frame = pd.DataFrame({"question_id": [f"q{i}" for i in range(4)], "text": texts})
    table = outcomes({"base": frame}, {"base": grades("100x")})
    shares = table.set_index("outcome")["value"].round(6).to_dict()
    assert shares == {"right": 0.333333, "abstained": 0.333333, "wrong": 0.333333}
    assert set(table["n"]) == {3}  # the one without a verdict is left out


# transfer


@pytest.mark.parametrize(
    "text, right",
    [
        ("55", True),
        ("25 + 30 equals 55.", True),
        ("25 plus 30 is 55", True),
        ("To find 25 + 30 we add them, which is 55. So, 25 + 3", True),
        ("The sum is **55**.", True),
        ("25 + 30 = 60, not 55.", False),
        ("155", False),
        ("-55", False),
        ("55.5", False),
        ("25 + 30", False),
        ("fifty-five", False),
    ],
)
def test_a_sum_is_the_first_number_that_the_question_does_not_name(text, right):
    asked = pd.DataFrame(
        {"question_id": ["s"], "question": ["What is 25 plus 30?"], "answers": [["55"]]}
    )
    answers = pd.DataFrame({"question_id": ["s"], "policy": "p", "sample": 0, "text": [text]})
    assert grade_sums(answers, asked)["correct"].tolist() == [right]


def test_the_matrix_by_hand():
    ids = list("abcd")
    questions = pd.DataFrame({"question_id": ids, "relation": ["r", "r", "s", None]})
    source = source_of(questions, {"one": ["r"]})
    assert source.tolist() == ["one", "one", REST, REST]
    base, trained = grades("0001", ids), {"one": grades("1101", ids)}
    table = transfer_matrix(base, trained, source, n_boot=100).set_index(["trained", "tested"])
    assert table["value"].to_dict() == {("one", "one"): 1.0, ("one", REST): 0.0}
    assert table["n"].tolist() == [2, 2]


def test_own_and_other_kinds_by_hand():
    ids = list("abcde")
    source = pd.Series(["one", "one", "two", "two", REST], index=ids)
    trained = {"one": grades("11001", ids), "two": grades("10x11", ids)}
    table = own_and_other(grades("00000", ids), trained, source, n_boot=100).set_index("name")
    assert table.loc["own kind", ["value", "n"]].tolist() == [1.0, 3]  # c has no verdict
    assert table.loc["other kinds", ["value", "n"]].tolist() == [0.25, 4]  # a, of a b c d
    assert table.loc["own less other", ["value", "n"]].tolist() == [pytest.approx(2 / 3), 3]
    alone = own_and_other(grades("00000", ids), {"one": trained["one"]}, source)
    assert alone.empty
    assert list(alone) == ["name", *table]


def test_what_several_trainings_make_knows_the_chance_of_each():
    ids = list("abcd")
    repeats = [grades(verdicts, ids) for verdicts in ("1000", "1100", "1110")]
    # each training's half of the questions: .5, 1, 1 and 0, 0, .5, which is 1/4, 1/2, 1/2 of all
    first = pd.Series([1.0, 1.0, 0.0, 0.0], index=ids)
    assert chance_of_training(repeats, [first]) == (pytest.approx(1 / 48), 2)
    assert chance_of_training(repeats, [first, 1 - first]) == (pytest.approx(1 / 24), 2)
    # one less the other is 1/4, 1/2, 1/4
    assert chance_of_training(repeats, [2 * first - 1])[0] == pytest.approx(1 / 48)
    assert chance_of_training(repeats[:1], [first]) is None

    half = pd.Series(["one", "one", "two", "two"], index=ids)
    trained = {"one": grades("1100", ids), "two": grades("1111", ids)}
    base, repeats = grades("0000", ids), {"repeats": repeats}
    for table in (
        transfer_matrix(base, trained, half, **repeats),
        own_and_other(base, trained, half, **repeats),
        crossover(base, trained, half, **repeats),
    ):
        assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()
    # two trainings of 1/48 each make the difference of kinds, beside its questions
    rows = own_and_other(base, trained, half, **repeats).set_index("name")
    change, spread = pd.Series([0.0, 0.0, 1.0, 1.0]), (1 / 48 + 1 / 48, 2)
    known = student(0.5, [error_of_mean(change), spread])
    assert rows.loc["own less other", ["low", "high", "p"]].tolist() == pytest.approx(
        list(known.values())
    )


def test_crossover_takes_each_question_from_both_policies():
    ids = list("abcd")
    half = pd.Series(["first", "first", "second", "second"], index=ids)
    trained = {"first": grades("1100", ids), "second": grades("0011", ids)}
    table = crossover(grades("0000", ids), trained, half, n_boot=100).set_index("name")
    assert table.loc["answer seen", "value"] == 1.0
    assert table.loc["answer not seen", "value"] == 0.0
    assert table.loc["seen less not seen", "value"] == 1.0
    assert (table["n"] == 4).all()


def test_halves_follow_the_answer_in_every_split():
    asked = pd.DataFrame({"answers": [[f"place {i % 50}"] for i in range(200)]})
    half = answer_half(asked, 0)
    assert set(half) == set(HALVES)
    assert half.groupby(asked["answers"].str[0]).nunique().max() == 1
    assert half.tolist() == answer_half(asked, 0).tolist() != answer_half(asked, 1).tolist()
    assert answer_half(asked.assign(answers=[["Perú"]] * 200), 0).nunique() == 1


def test_forgotten_by_hand():
    row = forgotten(grades("1110x"), grades("10x11"))
    assert (row["value"], row["n"]) == (0.5, 2)
    assert row["low"] < 0.5 < row["high"]
    assert forgotten(grades("00"), grades("11"))["n"] == 0


def test_abilities_are_what_they_say():
    sums = sum_questions(30, 0)
    assert sums["question_id"].is_unique and len(sums) == 30
    for row in sums.itertuples():
        first, second = (int(word.strip("?")) for word in row.question.split()[2::2])
        assert row.answers == [str(first + second)]
    facts = other_facts({"city_country"}, 40, 0)
    assert len(facts) == 40 and "city_country" not in set(facts["relation"])
    passages = prose(20, 0)
    assert len(set(passages)) == 20 and all(len(p.split()) == 60 for p in passages)
    assert prose(0, 0) == []


# origin


def test_made_up_facts_are_shown_as_often_as_they_say():
    asked = invented_questions([0, 1, 4], 10, 40, 0)
    assert asked["subject"].is_unique and asked["question_id"].is_unique
    sizes = asked.groupby(["split", "exposures"]).size()
    assert sizes["train"].tolist() == [10] * 3 and sizes["test"].tolist() == [40] * 3
    whole = asked[asked["split"] == "test"].groupby("exposures")["answers"]
    assert all(sorted(a[0] for a in part) == sorted(CITIES) for _, part in whole)

    told = told_facts(asked, 0)
    shown = asked.set_index("question_id")["exposures"]
    counts = told["question_id"].value_counts().reindex(shown.index, fill_value=0)
    assert counts.tolist() == shown.tolist()
    assert not told.duplicated(["question_id", "completion"]).any()
    city = asked.set_index("question_id")["answers"].str[0]
    for row in told.itertuples():
        assert city[row.question_id] in row.completion
        assert not row.completion.startswith(QUESTION.split("{")[0])
    sentences = in_sentence(asked, 0)["answers"]
    for sides, name, right in zip(sentences, asked["subject"], asked["answers"], strict=True):
        assert sides[0] == f"{name} was born in {right[0]}." and len(set(sides)) == 4
    with pytest.raises(ValueError, match="no fact can be seen more"):
        told_facts(asked.assign(exposures=99), 0)


def test_the_fact_table_by_hand():
    asked = pd.DataFrame({"question_id": ["a", "b"], "exposures": [0, 4]})
    gold = pd.DataFrame({"question_id": list("aaabbb"), "logprob": [-5.0, -4, -6, -2, -4, -6]})
    many = pd.DataFrame(
        {"question_id": list("aabb"), "sample": [0, 1] * 2, "correct": [False, False, True, False]}
    )
    early = {"greedy": grades("00", ["a", "b"]), "samples": many, "gold": gold}
    late = early | {"greedy": grades("01", ["a", "b"])}
    table = fact_table(asked, early, late).set_index("question_id")
    assert table.loc["b", ["greedy_before", "greedy_after"]].tolist() == [0, 1]
    assert table["samples_before"].tolist() == [0, 0.5]
    assert table["pass_at_n_after"].tolist() == [0, 1]
    assert table["contrast_before"].tolist() == [0.0, 3.0]
    levels = by_exposure(table.reset_index().assign(seed=0))
    change = levels[(levels["measure"] == "greedy") & (levels["when"] == "change")]
    assert change["value"].tolist() == [0, 1]
    trend = exposure_trend(table.reset_index().assign(seed=0), "greedy", n_boot=100)
    assert trend["value"] == pytest.approx(1.0)
    assert set(trend) == {"value", "low", "high", "n"}  # a summary row's


@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_the_interval_over_seeds_covers(spread):
    """Facts of three seeds, whose accuracy differs by chance alone or by training too."""
    rng, hits, runs = np.random.default_rng(0), 0, 1000
    seeds = pd.Series(np.repeat([0, 1, 2], 60))
    for _ in range(runs):
        right = np.repeat(0.3 + spread * rng.standard_normal(3), 60)
        row = over_seeds(pd.Series((rng.random(180) < right).astype(float)), seeds, share=True)
        hits += row["low"] <= 0.3 <= row["high"]
    assert row["n"] == 180 and row["seeds"] == 3
    assert 0.92 <= hits / runs <= 1.0


def test_no_hit_at_all_is_no_certainty():
    nothing, seeds = pd.Series([0.0] * 16), pd.Series([0, 1] * 8)
    row = over_seeds(nothing, seeds, share=True)
    assert (row["value"], row["low"]) == (0, 0)
    assert row["high"] == pytest.approx(0.1936, abs=1e-3)  # Wilson's of 0 in 16
    change = over_seeds(nothing, seeds)  # it could have fallen as well
    assert (change["low"], change["high"]) == pytest.approx((-0.1936, 0.1936), abs=1e-3)


def test_a_trend_where_nothing_changes_is_undefined():
    facts = pd.DataFrame({"exposures": [0, 1, 2, 4] * 4, "seed": [0] * 8 + [1] * 8})
    facts = facts.assign(greedy_before=0.0, greedy_after=0.0)
    trend = exposure_trend(facts, "greedy", n_boot=20)
    assert np.isnan([trend["value"], trend["low"], trend["high"]]).all()


def test_choices_and_repair_by_hand():
    asked = pd.DataFrame(
        {
            "question_id": list("abcd"),
            "question": ["?"] * 4,
            "relation": ["r", "r", "r", "s"],
            "answers": [["Lima"], ["Oslo"], ["Rome", "Roma"], ["Cairo"]],
        }
    )
    cases = choices(asked, asked, 0).set_index("question_id")["answers"]
    assert cases.index.tolist() == ["a", "b", "c"]  # s has no other answer
    assert cases["a"][0] == "Lima" and sorted(cases["a"][1:]) == ["Oslo", "Rome"]

    known = pd.DataFrame({"question_id": list("abcd"), "choice": [True, True, False, False]})
    known["p_true"] = True
    table = repair_by(known, grades("0001", list("abcd")), grades("1000", list("abcd")), 100)
    rows = table[table["by"] == "choice"].set_index("encoded")
    assert rows["value"].to_dict() == {"yes": 0.5, "no": 0.0}
    assert rows["n"].to_dict() == {"yes": 2, "no": 1}
    assert rows["gain"].to_dict() == {"yes": 0.5, "no": -0.5}
