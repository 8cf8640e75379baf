"""The whole pipeline through make: every notebook, the real small model, tiny sizes."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from lib.config import ROOT, load_profile
from lib.runs import STAGES, run_folder

pytestmark = [pytest.mark.smoke, pytest.mark.skipif(not shutil.which("make"), reason="needs make")]
NAMES = [
    "accuracy_base",
    "accuracy_majority",
    "accuracy_cot",
    "accuracy_sft",
    "accuracy_rft",
    "accuracy_dpo",
    "accuracy_grpo",
    "gain_grpo",
    "repair_rate",
    "damage_rate",
]


def make(*words, outputs, **options):
    """Run make with this Python in a clean environment: no flags of an outer make."""
    clean = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("MAKE", "MFLAGS", "MPLBACKEND", "OUTPUTS"))
    }
    clean |= {"OUTPUTS": str(outputs)}
    return subprocess.run(["make", *words, f"PY={sys.executable}"], cwd=ROOT, env=clean, **options)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def run(outputs, pytestconfig):
    """The folder of a fresh smoke run; its lines go to the terminal, the last into a failure."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    log = outputs / "log"
    with capture.global_and_fixture_disabled():
        tee = subprocess.Popen(["tee", log], stdin=subprocess.PIPE)
        done = make("smoke", outputs=outputs, stdout=tee.stdin, stderr=subprocess.STDOUT)
        tee.communicate()
    assert done.returncode == 0, log.read_text()[-6000:]
    profile = load_profile("smoke")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTPUTS", str(outputs))
        return run_folder("smoke", profile.model, profile.dataset, 0)


def test_every_notebook_ran_to_its_end(run):
    assert [path.stem for path in sorted(run.glob("*.ipynb"))] == list(STAGES)
    assert not list((run / "failed").glob("*.ipynb"))
    for stage in STAGES:
        assert (run / stage / "done.json").exists()
        cells = json.loads((run / f"{stage}.ipynb").read_text())["cells"]
        text = "".join(
            out.get("text", "") if isinstance(out.get("text", ""), str) else "".join(out["text"])
            for out in cells[-1]["outputs"]
        )
        assert len(text.split()) > 5, f"{stage} ends without an answer"


def test_summary_holds_the_finding(run):
    rows = {row["name"]: row for row in json.loads((run / "summary.json").read_text())}
    shares = [name for name in rows if name.startswith("gain_share_")]
    passes = [name for name in rows if name.startswith("pass_at_")]
    assert shares
    assert any(name.endswith("_before") for name in passes)
    assert any(name.endswith("_after") for name in passes)
    for name in NAMES:
        assert name in rows
        if rows[name]["value"] is not None and not name.startswith("gain"):
            assert 0 <= rows[name]["low"] <= rows[name]["value"] <= rows[name]["high"] <= 1, rows[
                name
            ]
    base, grpo, gain = (
        rows[name]["value"] for name in ("accuracy_base", "accuracy_grpo", "gain_grpo")
    )
    assert gain == pytest.approx(grpo - base)
    assert all(rows[f"seconds_{stage}"]["value"] > 0 for stage in STAGES)


def test_headline_numbers_are_the_same_by_a_second_way(run):
    command = [sys.executable, str(ROOT / "tests" / "recompute.py"), str(run)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "33 of 33 agree" in done.stdout


def test_notebooks_show_their_figures_and_no_warnings(run):
    for stage in STAGES:
        cells = json.loads((run / f"{stage}.ipynb").read_text())["cells"]
        outputs = [out for cell in cells for out in cell.get("outputs", [])]
        shown = sum("image/png" in out.get("data", {}) for out in outputs)
        captions = sum("text/markdown" in out.get("data", {}) for out in outputs)
        saved = len(list((run / "figures").glob(f"{stage}*.png")))
        assert 0 < shown == captions == saved, stage
        assert [out["text"] for out in outputs if out.get("name") == "stderr"] == [], stage


def test_every_figure_is_there_in_three_forms_with_its_caption(run):
    files = {path.name for path in (run / "figures").iterdir()}
    stems = {name.rsplit(".", 1)[0] for name in files}
    assert files == {f"{stem}.{kind}" for stem in stems for kind in ("pdf", "png", "csv", "txt")}
    assert all(path.stat().st_size > 0 for path in (run / "figures").iterdir())
    assert {stem[:2] for stem in stems} >= {"01", "04", "05", "06", "07"}


def test_a_second_make_does_nothing(run, outputs):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    start = time.monotonic()
    again = make("all", "RUN=smoke", outputs=outputs, capture_output=True, text=True)
    assert again.returncode == 0
    assert time.monotonic() - start < 10
    assert "==" not in again.stdout.replace("===", "")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


def test_a_bad_name_ends_in_one_clear_line(outputs):
    run = make("all", "RUN=smoke", "MODEL=nobody", outputs=outputs, capture_output=True, text=True)
    assert run.returncode != 0
    found = [line for line in run.stderr.splitlines() if "unknown model 'nobody'" in line]
    assert len(found) == 1
    assert "allowed: smollm2-135m" in found[0]
    assert "Traceback" not in run.stdout + run.stderr
    assert not list(outputs.glob("smoke/nobody/*/*/*.ipynb"))
    other = make("all", "RUN=nobody", outputs=outputs, capture_output=True, text=True)
    assert other.returncode != 0
    assert "unknown profile RUN=nobody; allowed:" in other.stderr


def link_weights(source, target):
    """Weights fill a disk and nobody changes them."""
    (os.link if source.endswith(".safetensors") else shutil.copy2)(source, target)


def test_redistribution_and_attribution_go_through_with_failed_verdicts(run, tmp_path):
    copy = tmp_path / "outputs" / run.relative_to(run.parents[3])
    shutil.copytree(run, copy, copy_function=link_weights)
    rng = np.random.default_rng(0)
    for path in sorted([*copy.glob("03_*/grades_*.parquet"), *copy.glob("04_*/grades_*.parquet")]):
        grades = pd.read_parquet(path)
        grades.loc[rng.random(len(grades)) < 0.05, "correct"] = pd.NA
        grades.to_parquet(path)
    thin = pd.read_parquet(copy / "03_baselines" / "grades_base_test.parquet")
    first = thin["question_id"].iloc[0]
    thin.loc[thin["question_id"] == first, "correct"] = pd.NA  # a question without any verdict
    thin.to_parquet(copy / "03_baselines" / "grades_base_test.parquet")
    rollouts = pd.read_parquet(copy / "04_grpo" / "rollouts.parquet")
    missing = (rollouts["hits"] < rollouts["n"]) & (rng.random(len(rollouts)) < 0.2)
    rollouts.assign(n=rollouts["n"] - missing).to_parquet(copy / "04_grpo" / "rollouts.parquet")

    for stage in ("05_redistribution", "06_attribution"):
        (copy / f"{stage}.ipynb").unlink()
        (copy / stage / "done.json").unlink()
    for path in copy.glob("05_*/*.parquet"):
        if not path.name.startswith(("samples", "likely", "greedy")):
            path.unlink()
    (copy / "06_attribution" / "trace.parquet").unlink()
    done = make("all", "RUN=smoke", outputs=copy.parents[3], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads((copy / "summary.json").read_text())
    rows = {row["name"]: row for row in summary if row["stage"] < "07"}
    assert rows["thin_questions"]["value"] >= 1
    curve = [row for name, row in rows.items() if name.startswith("pass_at_")]
    assert len({row["n"] for row in curve}) == 1  # one set of questions for all k
