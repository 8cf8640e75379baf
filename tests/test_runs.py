"""Run folders: resume or refuse, whole files only, clear refusals."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pandas as pd
import pytest

from lib import runs
from lib.config import ROOT
from lib.report import failure, finding
from lib.runs import SettingsDiffer, Stage, gather, open_stage, run_folder, summary_row
from lib.tables import write_table, write_text

SETTINGS = {"model": "wheel", "seed": 0, "data": {"train": 8, "test": 4}}


def test_same_settings_resume_then_load(tmp_path):
    stage = Stage(tmp_path, "01_data", SETTINGS)
    assert not stage.done
    write_text(stage.path("part.txt"), "half of it")
    again = Stage(tmp_path, "01_data", SETTINGS)
    assert not again.done
    assert again.path("part.txt").read_text() == "half of it"
    again.finish([summary_row("accuracy_base", 0.25, 0.1, 0.4, 16)])
    assert Stage(tmp_path, "01_data", SETTINGS).done


def renewed(out, *words):
    """The stages that make would run."""
    command = ["make", "-n", "04_grpo", f"OUTPUTS={out}", f"PY={sys.executable}", *words]
    env = {k: v for k, v in os.environ.items() if k not in ("SEEDS", "MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=env)
    return re.findall(r'"== (\w+) ', done.stdout)


def test_training_seeds_are_added_to_a_finished_run(tmp_path):
    run = tmp_path / "laptop" / "smollm2-135m" / "atlas" / "seed0"
    names = ["01_data", "02_dedup", "03_baselines", "04_grpo"]
    for name in names:
        stage = Stage(run, name, SETTINGS)
        write_text(stage.path("samples.txt"), "kept")
        stage.finish([])
        write_text(run / f"{name}.ipynb", '{"cells": []}')
    assert renewed(tmp_path) == renewed(tmp_path, "SEEDS=1") == []
    assert renewed(tmp_path, "SEEDS=3") == names[2:]

    with_lock = Stage(run, "05_redistribution", SETTINGS)  # this process is at work there
    another = [sys.executable, "-m", "lib.runs", "seeds", str(run), "3"]
    refused = subprocess.run(another, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 1
    assert str(os.getpid()) in refused.stderr
    assert renewed(tmp_path) == []  # nothing is changed
    with_lock.finish([])

    done = run / "03_baselines" / "done.json"
    write_text(done, json.dumps(json.loads(done.read_text()) | {"code": "old", "peak_gb": 99.0}))
    runs.reopen(run, 3)
    stages = {name: Stage(run, name, SETTINGS) for name in names}
    assert [name for name, stage in stages.items() if not stage.done] == names[2:]
    assert all(stage.path("samples.txt").read_text() == "kept" for stage in stages.values())
    for name in names[2:]:
        stages[name].finish([])
        write_text(run / f"{name}.ipynb", '{"cells": []}')
    assert renewed(tmp_path) == renewed(tmp_path, "SEEDS=3") == []
    assert renewed(tmp_path, "SEEDS=1") == names[2:]
    assert [json.loads(done.read_text())[key] for key in ("earlier", "peak_gb")] == [["old"], 99.0]
    assert "03_baselines was made by other code" in finding(run)
    assert "04_grpo was made by other code" not in finding(run)
    runs.forget(tmp_path / "laptop")


@pytest.mark.parametrize("seeds", ["0", "00", "-1", "x"])
def test_less_than_one_training_seed_removes_nothing(tmp_path, seeds):
    Stage(tmp_path, "03_baselines", SETTINGS).finish([])
    write_text(tmp_path / "03_baselines.ipynb", "{}")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    command = [sys.executable, "-m", "lib.runs", "seeds", str(tmp_path), seeds]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"data": {"train": 9}}, r"data.train: \d+ -> 9"),
        ({"new": 2}, "new: None -> 2"),
    ],
)
def test_other_settings_are_refused_by_field(tmp_path, change, message):
    Stage(tmp_path, "01_data", SETTINGS)
    before = (tmp_path / "01_data/settings.json").read_bytes()
    with pytest.raises(SettingsDiffer, match=message):
        Stage(tmp_path, "01_data", SETTINGS | change)
    assert (tmp_path / "01_data/settings.json").read_bytes() == before


def test_no_space_left_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**28))
    with pytest.raises(OSError, match=r"0\.2 GB free, this stage needs 0\.5 GB; free some space"):
        Stage(tmp_path, "01_data", SETTINGS)
    assert not (tmp_path / "01_data/settings.json").exists()


def test_a_stage_needs_its_earlier_stages_by_the_whole_command(outputs, monkeypatch):
    monkeypatch.setenv("SET", "grpo.steps=5 data.test=9")
    said = "01_data is not finished; run `make 01_data RUN=laptop MODEL=smollm2-135m DATASET=atlas "
    said += f"SEED=0 SET='grpo.steps=5 data.test=9' OUTPUTS={outputs}` first"
    with pytest.raises(FileNotFoundError, match=re.escape(said)):
        open_stage("02_dedup", "laptop", None, None, 0, uses=("dedup",), after=("01_data",))
    monkeypatch.delenv("SET")
    monkeypatch.setenv("OUTPUTS", "outputs")
    with pytest.raises(FileNotFoundError, match="SEED=7` first"):
        open_stage("02_dedup", "smoke", None, None, 7, uses=("dedup",), after=("01_data",))


def test_an_earlier_stage_made_with_other_settings_is_refused(outputs):
    def first(seed_of_data):
        stage = Stage(
            run_folder("laptop", "smollm2-135m", "atlas", 0), "01_data", {"x": seed_of_data}
        )
        stage.finish([])

    first(1)
    _, stage = open_stage("02_dedup", "laptop", None, None, 0, uses=("dedup",), after=("01_data",))
    stage.finish([])
    shutil.rmtree(stage.run / "01_data")
    first(2)
    with pytest.raises(SettingsDiffer, match="after_01_data: "):
        open_stage("02_dedup", "laptop", None, None, 0, uses=("dedup",), after=("01_data",))


def test_folder_of_a_run(outputs, monkeypatch):
    assert run_folder("laptop", "m", "atlas", 3) == outputs / "laptop/m/atlas/seed3"
    monkeypatch.setenv("OUTPUTS", "elsewhere")
    assert run_folder("laptop", "m", "atlas", 3) == ROOT / "elsewhere/laptop/m/atlas/seed3"


def test_summary_gathers_stages_in_order(tmp_path):
    Stage(tmp_path, "02_dedup", {}).finish([summary_row("removed", 5, n=100)])
    Stage(tmp_path, "01_data", {}).finish([summary_row("accuracy_majority", 0.125, 0.1, 0.15, 256)])
    rows = json.loads((tmp_path / "summary.json").read_text())
    assert [(row["stage"], row["name"]) for row in rows] == [
        ("01_data", "accuracy_majority"),
        ("01_data", "seconds_01_data"),
        ("01_data", "peak_gb_01_data"),
        ("02_dedup", "removed"),
        ("02_dedup", "seconds_02_dedup"),
        ("02_dedup", "peak_gb_02_dedup"),
    ]
    assert rows[0] == {
        "stage": "01_data",
        "name": "accuracy_majority",
        "value": 0.125,
        "low": 0.1,
        "high": 0.15,
        "n": 256,
    }
    assert gather(tmp_path).read_text() == (tmp_path / "summary.json").read_text()


def test_repeated_names_are_refused(tmp_path):
    stage = Stage(tmp_path, "01_data", {})
    with pytest.raises(ValueError, match="summary names repeat: .*'gain'"):
        stage.finish([summary_row("gain", 1), summary_row("gain", 2)])
    assert not stage.done
    assert not (tmp_path / "summary.json").exists()


def test_missing_numbers_become_null():
    row = summary_row("gain", float("nan"), None, 1, 3)
    assert row == {"name": "gain", "value": None, "low": None, "high": 1.0, "n": 3}


def test_seconds_add_up_over_restarts_and_not_after_the_end(tmp_path):
    assert Stage(tmp_path, "04_grpo", {}).seconds("train", 2.5) == 2.5
    stage = Stage(tmp_path, "04_grpo", {})
    assert stage.seconds("train", 1.5) == 4.0
    stage.finish([])
    total = stage.seconds("total")
    Stage(tmp_path, "04_grpo", {}).finish([])
    assert stage.seconds("total") == total


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    write_table(pd.DataFrame({"x": [1]}), path)
    monkeypatch.setattr(
        runs.os, "replace", lambda *a: (_ for _ in ()).throw(OSError("no space left on device"))
    )
    with pytest.raises(OSError, match="no space left"):
        write_table(pd.DataFrame({"x": [2]}), path)
    assert pd.read_parquet(path).x.tolist() == [1]


WRITER = """
import sys
from pathlib import Path
from lib.tables import write_text
for i in range(10**9):
    write_text(Path(sys.argv[1]), f"{i}\\n" * 200_000)
    print(i, flush=True)
"""


def test_kill_9_in_a_write_leaves_a_whole_file(tmp_path):
    path = tmp_path / "rows.txt"
    for delay in (0.0, 0.003, 0.011):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, cwd=ROOT
        )
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        lines = path.read_text().splitlines()
        assert len(lines) == 200_000
        assert len(set(lines)) == 1


def test_the_finding_of_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="no stage has finished"):
        finding(tmp_path)
    rows = [{"stage": "03_baselines", **summary_row("seconds_03_baselines", 61)}]
    rows += [{"stage": "04_grpo", **summary_row("seconds_04_grpo", 600)}]
    rows += [{"stage": "04_grpo", **summary_row("peak_gb_04_grpo", 4.25)}]
    write_text(tmp_path / "summary.json", json.dumps(rows))
    printed = [{"outputs": [{"text": text}]} for text in (["a table"], "GRPO gains.\n", "- so\n")]
    cells = [printed[0], {"outputs": []}, *printed[1:]]  # the last two cells are the answer
    (tmp_path / "04_grpo.ipynb").write_text(json.dumps({"cells": cells}))
    lines = finding(tmp_path).splitlines()
    at = lines.index("## 04_grpo")
    assert lines[at : at + 4] == ["## 04_grpo", "", "- GRPO gains.", "- so"]
    assert lines[-7:-2] == [
        "| stage | seconds | GB at most |",
        "|---|---|---|",
        "| 03_baselines | 61 | - |",
        "| 04_grpo | 600 | 4.2 |",
        "| all stages | 661 | |",
    ]
    assert "a table" not in lines


def test_a_failed_notebook_is_one_line(tmp_path):
    error = {
        "output_type": "error",
        "ename": "SettingsDiffer",
        "evalue": "`seed` is 0,\nnow 1",
        "traceback": [""] * 60,
    }
    notebook = tmp_path / "04_grpo.ipynb"
    notebook.write_text(json.dumps({"cells": [{"outputs": []}, {"outputs": [error]}, {}]}))
    line = failure(notebook)
    assert line.startswith("04_grpo failed: SettingsDiffer: `seed` is 0, now 1 (notebook ")
    assert "\n" not in line


def test_a_dead_kernel_is_told_from_the_log(tmp_path):
    (tmp_path / "04_grpo.log").write_text("working\nDeadKernelError: Kernel died\n\n")
    assert failure(tmp_path / "04_grpo.ipynb").startswith(
        "04_grpo failed: DeadKernelError: Kernel died ("
    )
