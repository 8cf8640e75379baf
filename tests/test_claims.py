"""The table of claims: pooling by hand, verdicts by their rules, files read from several runs."""

import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lib.config import ROOT
from lib.report import estimate
from lib.study.claims import (
    CELL,
    CLAIMS,
    all_claims,
    apart,
    claim_table,
    claim_verdict,
    latex,
    meets,
    narrows,
    pool_seeds,
    read_runs,
    relative_gains,
    sizes,
    within,
)


def summary(folder, gain, base=0.4, **more):
    """A run's summary.json with a gain of GRPO (value, low, high)."""
    rows = [{"name": "accuracy_base", "value": base, "low": 0.3, "high": 0.5, "n": 100}]
    for name, (value, low, high) in ({"gain_grpo": gain} | more).items():
        rows.append({"name": name, "value": value, "low": low, "high": high, "n": 100})
    folder.mkdir(parents=True)
    text = json.dumps([{"stage": "04_grpo", **row} for row in rows])
    (folder / "summary.json").write_text(text)


def verdicts(base):
    table = claim_table(read_runs(base / "laptop"), all_claims("alias"))
    return table.set_index([*CELL, "claim"])["verdict"]


def test_a_verdict_needs_two_seeds(tmp_path):
    cell = tmp_path / "laptop" / "m-135m" / "atlas"
    summary(cell / "seed0", (0.2, 0.1, 0.3))
    first = verdicts(tmp_path)["m-135m", "atlas"]
    assert first["RL raises greedy accuracy"] == "one seed: for it"
    assert first["better than SFT"] == "not run"
    summary(cell / "seed1", (0.2, 0.1, 0.3))
    summary(cell / "seed2", (0.21, 0.1, 0.3))
    assert verdicts(tmp_path)["m-135m", "atlas"]["RL raises greedy accuracy"] == "reproduced"
    summary(tmp_path / "smoke" / "m-135m" / "atlas" / "seed0", (-0.9, -1, -0.8))  # another profile
    assert verdicts(tmp_path)["m-135m", "atlas"]["RL raises greedy accuracy"] == "reproduced"


def test_a_run_with_settings_of_its_own_reads_its_own_folder(tmp_path):
    """The notebook itself, beside a run of the plain profile that says the opposite."""
    run = "smollm2-135m/atlas/seed0"
    summary(tmp_path / "laptop" / run, (-0.2, -0.3, -0.1))
    folder = tmp_path / "laptop+grpo.steps=50" / run
    summary(folder, (0.2, 0.1, 0.3))
    (folder / "04_grpo").mkdir()
    for name in ("done.json", "settings.json"):
        (folder / "04_grpo" / name).write_text("{}")
    command = [sys.executable, "-m", "papermill", "-k", "python3", "--no-progress-bar"]
    environment = os.environ | {"SET": "grpo.steps=50", "OUTPUTS": str(tmp_path)}
    notebook = ROOT / "notebooks" / "11_claims.ipynb"
    done = subprocess.run(
        [*command, notebook, folder / "11_claims.ipynb"],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    table = pd.read_csv(folder / "11_claims" / "claims.csv").set_index("claim")
    assert table.loc["RL raises greedy accuracy", "value"] == 0.2


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ([-0.2, -0.21, -0.19], "not reproduced"),
        ([0.2, -0.2, 0.1], "undecided"),
    ],
)
def test_gains_that_fall_or_scatter(tmp_path, gains, said):
    for k, gain in enumerate(gains):
        summary(tmp_path / "laptop" / "m" / "d" / f"seed{k}", (gain, gain - 0.1, gain + 0.1))
    assert verdicts(tmp_path)["m", "d"]["RL raises greedy accuracy"] == said


def test_pooled_over_seeds_by_hand():
    rows = pd.DataFrame({"value": [0.1, 0.2, 0.3], "low": 0.0, "high": 0.4, "n": [5, 6, 7]})
    rows = rows.assign(trainings=[3, 1, 1])
    found = pool_seeds(rows)
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert found["value"] == pytest.approx(0.2) and found["n"] == 18
    assert (found["low"], found["high"]) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-6)
    alone = pool_seeds(rows.head(1))  # one run keeps its own interval
    assert (alone["high"], alone["seeds"]) == (0.4, 3)


def test_the_interval_over_seeds_covers():
    rng = np.random.default_rng(0)
    draws = 0.3 + 0.1 * rng.standard_normal((2000, 3))
    frames = (pd.DataFrame({"value": d, "low": 0, "high": 0, "n": 1}) for d in draws)
    rows = (pool_seeds(frame.assign(trainings=1)) for frame in frames)
    assert 0.93 <= np.mean([row["low"] <= 0.3 <= row["high"] for row in rows]) <= 0.97


def test_seeds_on_the_same_questions_share_their_luck():
    rng, errors = np.random.default_rng(0), []
    for _ in range(2000):  # what the questions do is common to the seeds, what training does is not
        values = 0.3 + 0.05 * rng.standard_normal() + 0.05 * rng.standard_normal(3)
        frame = pd.DataFrame({"value": values, "low": values - 0.098, "high": values + 0.098})
        row = pool_seeds(frame.assign(n=1, trainings=1))
        errors.append(row["low"] <= 0.3 <= row["high"])
    assert 0.93 <= np.mean(errors) <= 0.98


def test_a_seed_without_value_or_interval_leaves_the_mean_without_one():
    rows = pd.DataFrame({"value": [0.8, 0.9], "low": [np.nan, 0.7], "high": [np.nan, 1.0], "n": 5})
    assert math.isnan(pool_seeds(rows)["low"])
    rows = pd.DataFrame({"value": [np.nan, 20, 21], "low": 14.0, "high": 27.0, "n": 5})
    found = pool_seeds(rows)
    assert math.isnan(found["value"]) and found["seeds"] == 3
    claim = next(c for c in CLAIMS if c.rows == ("equivalent_k",))
    assert claim_verdict(claim, {"equivalent_k": found}) == "undecided"


def test_one_seed_without_an_interval_is_open_and_not_undecided(tmp_path):
    cell = tmp_path / "laptop" / "m" / "d"
    summary(cell / "seed0", (0.2, None, None))
    assert verdicts(tmp_path)["m", "d"]["RL raises greedy accuracy"] == "one seed: open"
    summary(cell / "seed1", (0.2, 0.1, 0.3))
    assert verdicts(tmp_path)["m", "d"]["RL raises greedy accuracy"] == "undecided"


def test_a_gap_narrows_from_above_towards_nothing():
    def row(value, half=0.01):
        return {"value": value, "low": value - half, "high": value + half}

    assert narrows(row(0.1), row(0.02)) is True
    assert narrows(row(0.1), row(0.1)) is None
    assert narrows(row(0.0), row(-0.1)) is None  # was there a gap?
    assert narrows(row(0.1), row(0.2)) is False
    assert narrows(row(-0.02), row(-0.1)) is False
    assert narrows(row(0.05), row(-0.3)) is False


def test_rules_by_hand():
    low, high = {"low": 0.1, "high": 0.2}, {"low": 0.3, "high": 0.4}
    assert (apart(low, high), apart(high, low), apart(low, low)) == (True, False, None)
    assert within({"low": -0.04, "high": 0.04}) is True
    assert within({"low": 0.06, "high": 0.2}) is False
    assert within({"low": 0.0, "high": 0.2}) is None


def test_a_wide_interval_does_not_reproduce_a_range():
    assert meets({"value": 0.1, "low": 0.05, "high": 0.2}, 0.06, 0.13) is True
    assert meets({"value": 0.0, "low": 0.0, "high": 0.39}, 0.06, 0.13) is None
    assert meets({"value": 0.4, "low": 0.05, "high": 0.9}, 0.06, 0.13) is None
    assert meets({"value": 0.4, "low": 0.3, "high": 0.5}, 0.06, 0.13) is False


def test_both_means_of_relative_gains(tmp_path):
    summary(tmp_path / "laptop" / "m" / "large" / "seed0", (0.1, 0, 0.2), base=0.5)
    summary(tmp_path / "laptop" / "m" / "tiny" / "seed0", (0.03, 0, 0.1), base=0.01)
    rows = read_runs(tmp_path / "laptop")
    found = relative_gains(rows).set_index("how")["value"]
    assert found["mean of ratios"] == pytest.approx((0.2 + 3) / 2)
    assert found["ratio of means"] == pytest.approx(0.13 / 0.51)
    own = rows[rows["name"] == "relative_gain"].set_index("dataset")["value"]
    assert own["large"] == pytest.approx(0.2)
    assert relative_gains(rows.head(0)).empty


def test_sizes_are_read_from_names(tmp_path):
    for model in ("smollm2-135m", "qwen2.5-1.5b-instruct", "llama-8B", "nameless"):
        summary(tmp_path / "laptop" / model / "d" / "seed0", (0.1, 0, 0.2))
    table = sizes(read_runs(tmp_path / "laptop"))
    assert table["billions"].tolist() == [0.135, 1.5, 8.0]


@pytest.mark.parametrize(
    ("models", "why"),
    [
        (["m-135m"], "one size was run"),
        (["m"], "one size was run"),
        (["m-135m", "n-135m"], "the models' names tell one size"),
        (["m", "n"], "the models' names tell no size"),
        (["m-135m", "n-1b"], None),
    ],
)
def test_the_notebook_says_why_sizes_are_not_compared(tmp_path, capsys, models, why):
    for model in models:
        summary(tmp_path / "laptop" / model / "d" / "seed0", (0.1, 0, 0.2))
    rows = read_runs(tmp_path / "laptop")
    table = claim_table(rows, all_claims("alias")).query("model == @models[0]")
    names = {"rows": rows, "by_size": sizes(rows), "own": table, "pd": pd, "estimate": estimate}
    names |= {"profile": SimpleNamespace(model=models[0], dataset="d")}
    names |= {"found": rows.groupby(CELL)["seed"].unique()}
    notebook = json.loads((ROOT / "notebooks" / "11_claims.ipynb").read_text())
    exec("".join(notebook["cells"][-1]["source"]), names)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"not testable, {why}.") is (why is not None)


def test_a_table_without_runs_is_empty_and_latex_is_escaped(tmp_path):
    assert read_runs(tmp_path / "laptop").empty
    summary(tmp_path / "laptop" / "m_1" / "d" / "seed0", (0.1, 0.05, 0.2))
    text = latex(claim_table(read_runs(tmp_path / "laptop"), all_claims("alias")))
    assert r"m\_1" in text and r"27 \%" in text and "0.1 [0.05, 0.2]" in text
    assert "nan" not in text


def test_the_highest_stratum_with_questions_speaks_for_accessibility(tmp_path):
    zero, middle, high = (0.05, 0.01, 0.1), (0.5, 0.3, 0.7), (0.08, 0.02, 0.15)
    runs = {"one": {"repair_rate_middle": middle}}
    runs["two"] = {"repair_rate_middle": middle, "repair_rate_high": high}
    runs["three"] = {"repair_rate_middle": middle, "repair_rate_high": (None, None, None)}
    for model, rates in runs.items():
        folder = tmp_path / "laptop" / model / "atlas" / "seed0"
        summary(folder, (0.2, 0.1, 0.3), repair_rate_zero=zero, **rates)
    said = verdicts(tmp_path)
    assert said["one", "atlas", "repair rises with accessibility"] == "one seed: for it"
    assert said["two", "atlas", "repair rises with accessibility"] == "one seed: open"
    assert said["three", "atlas", "repair rises with accessibility"] == "one seed: for it"


def test_gains_over_training_seeds_stand_for_those_of_the_first(tmp_path):
    folder = tmp_path / "laptop" / "m" / "d" / "seed0"
    over = {"grpo_less_base_over_seeds": (0.1, 0.05, 0.15), "grpo_less_sft": (0.03, 0.01, 0.05)}
    over |= {"grpo_less_sft_over_seeds": (0.02, -0.01, 0.05), "grpo_less_dpo": (0.03, 0.01, 0.05)}
    summary(folder, (0.2, 0.1, 0.3), training_seeds=(3, None, None), **over)
    table = claim_table(read_runs(tmp_path / "laptop"), all_claims("alias"))
    table = table.set_index("claim")[["value", "seeds", "verdict"]]
    assert table.loc["RL raises greedy accuracy"].tolist() == [0.1, 3, "reproduced"]
    assert table.loc["relative gain of 27 % or more", "value"] == pytest.approx(0.25)
    assert table.loc["better than SFT"].tolist() == [0.02, 3, "undecided"]
    assert table.loc["better than DPO"].tolist() == [0.03, 1, "one seed: for it"]
