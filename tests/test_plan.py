"""The plan's counts by hand."""

import json

from lib.config import load_profile
from lib.study.memory import Shape
from lib.study.plan import SIGNAL, kept_weights, main, planned_sizes, remarks, took, work


def test_counts_are_those_of_the_profile():
    profile = load_profile("laptop")
    table = work(profile, {"train": 280, "validation": 256, "test": 1000}).set_index("what")
    before = 280 * 16 + 128 * (64 + 3 * 2)
    assert table.loc["samples before RL", "samples"] == before
    # four policies; few-shot, a thought as long as an answer; three methods, five evaluations
    greedy = 1000 * 4 + 400 * 2 + 3 * 5 * 256
    assert table.loc["greedy answers and chain of thought", "samples"] == greedy
    groups = 42 * 16
    counts = table.loc["42 steps with the search", ["samples", "groups"]].tolist()
    assert counts == [groups * 5, groups * SIGNAL]
    assert table.loc["6 evaluations", "samples"] == 6 * 256 + 1000
    assert table.loc["samples of GRPO, SFT and RFT", "samples"] == 3 * 128 * 32
    assert table.loc["15 subsets, 6 steps each", "samples"] == 15 * 6 * 16 * 5
    assert table.loc["controls", "samples"] == (6 * 6 + 24) * 16 * 5  # one is as long as GRPO
    assert table.loc["their greedy answers", "samples"] == 10 * 400
    assert table.loc["likeliest answers", "prefixes"] == 32 * 128
    hacking = table.loc["8 steps without and with guards", ["samples", "groups"]]
    assert hacking.tolist() == [640, 128 * SIGNAL]


def test_a_reference_model_needs_every_group():
    table = work(load_profile("paper"), {"train": 10_000, "validation": 500, "test": 3610})
    assert table["groups"].sum() > 625 * 128  # nothing is skipped at beta > 0


def test_further_training_seeds_are_counted(monkeypatch):
    one = load_profile("laptop")
    monkeypatch.setenv("SEEDS", "3")
    sizes, three = planned_sizes(one), load_profile("laptop")
    table = work(three, sizes).set_index("what")
    assert len(table) == len(work(one, sizes)) + 4
    assert table.loc["2 more training seeds: GRPO", "samples"] == 2 * 24 * 16 * 5
    assert table.loc["2 more training seeds: SFT, RFT", "groups"] == 2 * 2 * 24 * 16 / 2
    answers = 2 * (2 * 256 + 1000)
    assert table.loc["2 more training seeds: evaluations", "samples"] == answers
    assert table.loc["2 more training seeds: greedy answers", "samples"] == 2 * answers
    assert kept_weights(three) == kept_weights(one) + 12


def test_the_experiments_are_counted():
    profile = load_profile("laptop")
    table = work(profile, planned_sizes(profile)).set_index("what")
    arms = len(profile.ablations.arms) + profile.ablations.repeats
    assert table.loc[f"{arms} arms, 6 steps each", "samples"] == arms * 6 * 16 * 5
    assert table.loc["7 sources, 6 steps each", "groups"] == 7 * 6 * 16 * SIGNAL
    told = 3 * 15 * (24 + 40)  # seeds, exposures of each set of facts, facts
    groups = 3 * 12 * 16 * SIGNAL + told / 2
    assert table.loc["3 seeds", "groups"] == groups
    assert table.loc["samples before and after", "samples"] == 2 * 3 * 40 * 5 * (8 + 1)


def test_sizes_are_planned_without_reading_the_questions():
    assert planned_sizes(load_profile("laptop")) == {"train": 280, "validation": 256, "test": 1000}
    assert planned_sizes(load_profile("paper", dataset="nq"))["test"] == 3610
    assert planned_sizes(load_profile("paper", dataset="popqa"))["test"] == round(0.2 * 14267)
    small = planned_sizes(load_profile("paper", dataset="simpleqa"))  # less than 10,000 to train on
    assert sum(small.values()) == 4326 and small["test"] == round(0.2 * 4326)


def test_adapters_take_little_disk():
    profile = load_profile("lora")
    shape = Shape(28, 1536, 8960, 12, 2, 128, 151_936, 1_500_000_000)
    table = work(profile, planned_sizes(profile))
    assert "04_grpo" in table.set_index("what").at["10 steps", "stage"]  # the profile has no search
    assert remarks(profile, table, shape) == ["disk: some 2 GB of weights and checkpoints"]
    whole = profile.model_copy(update={"lora": None})
    assert remarks(whole, table, shape) == ["disk: some 156 GB of weights and checkpoints"]


def test_what_does_not_fit_here_is_planned_all_the_same(monkeypatch, capsys):
    def full(profile, shape):
        raise MemoryError("too much")

    monkeypatch.setattr("lib.study.plan.check_memory", full)
    monkeypatch.setattr("sys.argv", ["plan", "gpu"])
    monkeypatch.delenv("MEASURE", raising=False)
    main()
    said = capsys.readouterr().out
    assert "not here: too much" in said
    assert "06_attribution" in said and "disk: some" in said
    assert "minutes: `make plan MEASURE=1`" in said


def test_a_finished_run_shows_what_it_took(monkeypatch, tmp_path):
    monkeypatch.setenv("OUTPUTS", str(tmp_path))
    profile = load_profile("smoke")
    assert took(profile, "smoke").empty
    rows = [{"stage": "04_grpo", "name": "seconds_04_grpo", "value": 120.0}]
    path = tmp_path / "smoke" / profile.model / profile.dataset / "seed0" / "summary.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([*rows, {"stage": "04_grpo", "name": "gain", "value": 1.0}]))
    assert took(profile, "smoke").to_dict() == {"04_grpo": 2.0}
