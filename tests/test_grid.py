"""A grid of runs: its file, the state of a cell from its files, one machine, sbatch files, Slurm.

Cells are cheap: `stand_in_make.sh` makes a run's files in place of make. Everything else is real:
processes, locks, kills, and, where one answers on this machine, Slurm itself.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from lib.config import PROFILES, ROOT, ProfileError
from lib.grid.attempt import attempt, last_line_of, seconds_at_work
from lib.grid.cells import Cell, JudgeJob, list_cells, load_grid
from lib.grid.slurm import (
    SlurmError,
    array_script,
    end_script,
    judge_script,
    make_key,
    queued_cells,
    wait_for_judge,
)
from lib.grid.state import Queued, Row, draw_table, failures, look
from lib.processes import FolderInUse, held, hold, let_go
from lib.runs import STAGES, forget
from lib.training.apart import run_and_print, train_apart
from tests.another import HOLDER, start
from tests.test_serve import ABOUT, SERVER, interpreter

PY = sys.executable
CELL = Cell("smoke", "smollm2-135m", "atlas", 0)
GRID = {"run": "smoke", "models": ["smollm2-135m"], "datasets": ["atlas"], "seeds": [0, 1]}


def write(folder: Path, **changes) -> Path:
    """A grid file `mine.yaml`: GRID with changes."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(GRID | changes))
    return path


def make_files(folder: Path, *stages: str) -> None:
    """The files of a run whose stages are done."""
    for stage in stages:
        (folder / stage).mkdir(parents=True, exist_ok=True)
        for name in (f"{stage}/settings.json", f"{stage}/done.json", f"{stage}.ipynb"):
            (folder / name).write_text("{}")


def until(what, seconds: float = 240.0):
    """Wait until `what` holds; what it gave last."""
    end = time.monotonic() + seconds
    while not (got := what()) and time.monotonic() < end:
        time.sleep(0.1)
    return got


# the file


def test_shipped_grids_hold_what_they_say():
    paper, smoke = (load_grid(ROOT / "grids" / f"{name}.yaml") for name in ("paper", "smoke"))
    cells = list_cells(paper)
    assert len(cells) == len(set(cells)) == 3 * 4 * 3
    assert {c.seed for c in cells[:12]} == {0}  # a whole set before the second seed
    assert paper.slurm.judge is not None
    words = ("RUN=smoke", "MODEL=smollm2-135m", "DATASET=atlas", "SEED=1")
    assert [c.seed for c in list_cells(smoke)] == [0, 1]
    assert list_cells(smoke)[1].words == words
    assert smoke.slurm.judge is None


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"sedes": [1]}, "unknown key `sedes`; allowed: datasets, make, models, run, seeds, slurm"),
        ({"slurm": {"gpu": 8}}, "unknown key `slurm.gpu`; allowed: account, at_once, cpus_per"),
        ({"slurm": {"judge": {"gpus": 8}}}, "unknown key `slurm.judge.gpus`; allowed: account"),
        (
            {"run": "papr"},
            "unknown profile 'papr'; allowed: benchmark, example, gpu, laptop, lora, paper, smoke",
        ),
        ({"models": ["gpt"]}, "unknown model 'gpt'; allowed: smollm2-135m"),
        ({"datasets": ["nqq"]}, "unknown dataset 'nqq'; allowed: atlas, nq, triviaqa"),
        ({"models": []}, "`models` = []: List should have at least 1 item"),
        ({"seeds": [0, -1]}, "`seeds.1` = -1: Input should be greater than or equal to 0"),
        ({"seeds": [2, 0, 2]}, "`seeds` = [2, 0, 2]: [2] stands there twice"),
        ({"target": "04"}, "`target` = '04': Input should be 'all', 'experiments', '01_data'"),
        ({"make": {"MODEL": "x"}}, "'MODEL' is no variable to set here"),
        ({"make": {"SEEDS": "1; rm"}}, "SEEDS='1; rm' has other characters"),
        ({"make": {"SET": "grpo.steps=1"}}, "'SET' is no variable to set here"),
        ({"slurm": {"time": 43200}}, "`slurm.time` = 43200: Input should be a valid string"),
        ({"slurm": {"sbatch": ["-x\nrm"]}}, "`slurm.sbatch.0` = '-x\\nrm': String should match"),
    ],
)
def test_a_wrong_grid_is_told_in_one_line(changes, said, tmp_path):
    path = write(tmp_path, **changes)
    with pytest.raises(ProfileError) as error:
        load_grid(path)
    assert said in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_runs_targets_and_variables(tmp_path):
    grid = load_grid(write(tmp_path, run=["smoke", "gpu"], target="04_grpo", make={"SEEDS": 3}))
    cells = list_cells(grid)
    assert [(c.seed, c.run) for c in cells] == [(0, "smoke"), (0, "gpu"), (1, "smoke"), (1, "gpu")]
    line = "--run smoke --model smollm2-135m --dataset atlas --seed 0 --target 04_grpo SEEDS=3"
    assert cells[0].line == line
    assert cells[0].words[-1] == "SEEDS=3"


@pytest.mark.parametrize(
    "words, said",
    [
        (["GRID=my grid.yaml"], "GRID='my grid.yaml' cannot be used"),
        ([], "make grid needs GRID=…; there are: grids/paper.yaml grids/smoke.yaml"),
        (["GRID=grids/none.yaml"], "there is no grid file grids/none.yaml; there are: grids/paper"),
    ],
)
def test_make_refuses_what_is_no_grid(words, said):
    done = subprocess.run(
        ["make", "grid", *words, f"PY={PY}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert sum(said in line for line in done.stderr.splitlines()) == 1


# the state of a cell


def state_of(cell=CELL, queued=None) -> tuple[str, str]:
    row = look(cell, PY, queued)
    return row.state, row.last


def record(folder: Path, **values) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    begun = {"began": 1000.0, "earlier": 60.0, "process": 7, "host": "h", "job": None}
    (folder / "grid.json").write_text(json.dumps(begun | values))


def test_a_cell_is_done_when_make_itself_finds_nothing_to_do(outputs):
    assert look(CELL, PY) == Row(CELL, "waiting", "", None, "")
    make_files(CELL.folder, *STAGES[:6])
    assert look(CELL, PY) == Row(CELL, "waiting", "06_attribution", None, "")
    make_files(CELL.folder, "07_judge", "11_claims")
    assert state_of() == ("done", "")
    assert state_of(CELL._replace(target="experiments")) == ("waiting", "")
    (CELL.folder / "03_baselines" / "done.json").unlink()
    assert state_of() == ("waiting", "")
    make_files(CELL.folder, *STAGES)
    os.utime(CELL.folder / "04_grpo.ipynb", (1, 1))  # as when the notebook was edited since
    assert state_of() == ("waiting", "")
    assert state_of(CELL._replace(target="03_baselines")) == ("done", "")


def test_failed_refused_and_killed(outputs):
    record(CELL.folder, ended=1090.0, code=2, last="04_grpo failed: x", refused=False)
    assert look(CELL, PY) == Row(CELL, "failed", "", 2.5, "04_grpo failed: x")
    record(CELL.folder, ended=1090.0, code=2, last="unknown model", refused=True)
    assert state_of() == ("refused", "unknown model")
    record(CELL.folder)
    assert state_of() == ("failed", "killed: process 7 on h has ended; it goes on where it was")
    (CELL.folder / "grid.json").write_text("{")
    assert state_of()[0] == "failed"
    assert "grid.json is damaged" in state_of()[1]
    assert failures([look(CELL, PY), look(CELL._replace(seed=1), PY)]) == 1


@pytest.mark.parametrize("place", [".", "04_grpo"])
def test_running_is_what_a_living_process_holds(place, outputs):
    """The cell's own lock, or that of a stage, which a plain `make all` holds."""
    record(CELL.folder)
    (CELL.folder / place).mkdir(exist_ok=True)
    owner = start(HOLDER, CELL.folder / place)
    assert state_of() == ("running", "")
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert (CELL.folder / place / "lock.json").exists()
    assert state_of()[0] == "failed"


def test_slurm_is_believed_where_locks_do_not_reach(outputs, tmp_path):
    log = tmp_path / "12_3.out"
    log.write_text("slurmstepd: error: no node\n\n")

    def told(state, at=900.0):
        return state_of(queued=Queued("12_3", at, state, log))

    assert told("PENDING") == ("waiting", "job 12_3 is queued")
    assert told("RUNNING") == ("running", "")
    gone = "job 12_3 ended before it began: slurmstepd: error: no node"
    assert told("") == ("failed", gone)
    assert told(None) == ("waiting", "")

    record(CELL.folder, job="12_3")
    assert told("RUNNING") == ("running", "")
    hold(CELL.folder)  # as a file server may show it after the node has died
    assert told("")[1] == "killed: job 12_3 on h has ended; it goes on where it was"
    assert told(None) == ("running", "")
    let_go(CELL.folder)
    record(CELL.folder, job="12_3", code=1, ended=1001.0, last="why", refused=False)
    assert told("COMPLETING") == told("") == ("failed", "why")
    record(CELL.folder, job="11_0", code=1, ended=1001.0, last="why", refused=False)
    assert told("", at=2000.0) == ("failed", gone)
    assert told("") == ("failed", "why")  # it was made here after the job had gone
    make_files(CELL.folder, *STAGES)
    assert told("") == ("done", "")


def test_last_words_by_hand():
    stage = (
        "== 01_data (outputs/x)\n01_data failed: {}: no (notebook a, log b)\nmake: *** Error 1\n"
    )
    assert last_line_of(stage.format("OSError")) == (
        "01_data failed: OSError: no (notebook a, log b)",
        False,
    )
    assert last_line_of(stage.format("SettingsDiffer"))[1]
    assert last_line_of(
        "-- now: make all\nprofiles/x.yaml: unknown key\nmake: *** [settings]\n"
    ) == (
        "profiles/x.yaml: unknown key",
        True,
    )
    assert last_line_of("") == ("", True)


def test_minutes_add_up_over_attempts(tmp_path):
    old = {"began": 1000.0, "earlier": 30.0}
    (tmp_path / "grid.log").write_text("x")
    os.utime(tmp_path / "grid.log", (1020, 1020))
    assert seconds_at_work(tmp_path, old) == 50.0  # killed: until its last word
    assert seconds_at_work(tmp_path, old | {"ended": 1100.0}) == 130.0
    assert seconds_at_work(tmp_path, old, until=1005.0) == 35.0


def test_the_table_by_hand():
    rows = [
        Row(CELL, "done", "07_judge", 12.34, ""),
        Row(CELL._replace(dataset="nq", seed=10), "failed", "04_grpo", 1.0, "04_grpo failed: x"),
    ]
    assert draw_table(rows).splitlines() == [
        "model         dataset  seed  state   stage     minutes",
        "smollm2-135m  atlas       0  done    07_judge     12.3",
        "smollm2-135m  nq         10  failed  04_grpo       1.0  04_grpo failed: x",
        "2 cells: 1 done, 1 failed",
    ]
    assert draw_table(rows, 20).splitlines()[2] == "smollm2-135m  nq    "
    other = Row(CELL._replace(run="gpu"), "waiting", "", None, "")
    assert draw_table([*rows, other]).splitlines()[3].split() == [
        "gpu",
        "smollm2-135m",
        "atlas",
        "0",
        "waiting",
    ]


def test_a_look_at_a_lock_takes_it_from_no_one(tmp_path):
    assert not held(tmp_path)
    hold(tmp_path)
    assert held(tmp_path)
    let_go(tmp_path)
    assert not held(tmp_path)


# one machine


@pytest.fixture
def staged(outputs, tmp_path, monkeypatch):
    """The stand-in for make on PATH; what it gives says what a seed's run does first."""
    tools, plans = tmp_path / "tools", tmp_path / "plans"
    for folder in (tools, plans):
        folder.mkdir()
    shutil.copy(ROOT / "tests" / "stand_in_make.sh", tools / "make")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("PLANS", str(plans))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def plan(seed: int, text: str) -> None:
        (plans / f"seed{seed}").write_text(text)

    return plan


def grid_command(*words) -> list[str]:
    return [PY, "-m", "lib.grid", *map(str, words), "--py", PY]


def run_grid(*words) -> subprocess.CompletedProcess:
    return subprocess.run(grid_command(*words), cwd=ROOT, capture_output=True, text=True)


def states(table: str) -> list[str]:
    """The states of the last table in a text, for one run and models without spaces."""
    lines = table.splitlines()
    begin = max(i for i, line in enumerate(lines) if line.startswith("model "))
    end = next(i for i, line in enumerate(lines) if i > begin and " cells: " in line)
    return [line.split()[3] for line in lines[begin + 1 : end]]


def test_a_failing_cell_stops_no_other_and_is_made_again(staged, tmp_path):
    path = write(tmp_path, seeds=[0, 1, 2, 3], make={"SEEDS": 2})
    staged(0, "stage 01_data; echo '01_data failed: OSError: disk (notebook a)'; exit 2")
    staged(1, "echo 'profiles/x.yaml: no'; exit 2")
    staged(3, 'echo "$SEEDS $OUTPUTS" > "$PLANS/seen"')
    done = run_grid("run", path)
    assert done.returncode == 2, done.stderr
    assert states(done.stdout) == ["failed", "refused", "done", "done"]
    assert "01_data failed: OSError: disk (notebook a)" in done.stdout.splitlines()[-5]
    assert done.stdout.splitlines()[-1] == "4 cells: 2 done, 1 failed, 1 refused"
    assert (tmp_path / "plans" / "seen").read_text() == f"2 {tmp_path}\n"
    assert run_grid("state", path).stdout == "\n".join(done.stdout.splitlines()[-6:]) + "\n"

    for seed in (0, 1):
        staged(seed, "")
    staged(3, "exit 9")  # a done cell is left alone
    again = run_grid("run", path)
    assert again.returncode == 0
    assert states(again.stdout) == ["done"] * 4
    assert (CELL.folder / "grid.log").read_text().count("\n-- ") == 1  # both attempts
    forget(tmp_path / "smoke")  # what a grid leaves in a run's folder is a run's
    assert not (tmp_path / "smoke").exists()


@pytest.mark.parametrize("victim", ["grid", "cell", "make"])
def test_after_kill_9_nothing_runs_and_the_table_is_true(victim, staged, tmp_path):
    path = write(tmp_path)
    staged(0, 'stage 01_data; [[ -e $PLANS/again ]] || { echo $$ > "$PLANS/make"; sleep 600; }')
    grid = subprocess.Popen(grid_command("run", path), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    note = tmp_path / "plans" / "make"
    make = psutil.Process(int(until(lambda: note.exists() and note.read_text())))
    assert states(run_grid("state", path).stdout) == ["running", "waiting"]

    family = [make, make.parent(), *make.children()]
    with pytest.raises(FolderInUse, match=f"written by process {make.parent().pid}"):
        hold(CELL.folder)
    {"grid": grid, "cell": make.parent(), "make": make}[victim].send_signal(signal.SIGKILL)
    if victim == "make":
        family[2].kill()
    gone, alive = psutil.wait_procs(family, timeout=30)
    assert not alive

    told = grid.communicate(timeout=60)[0]
    now = run_grid("state", path).stdout
    if victim == "grid":
        assert states(now) == ["failed", "waiting"]
    else:  # the other cell was made all the same
        assert grid.returncode == 1
        assert states(told) == states(now) == ["failed", "done"]
    assert ("killed: process" in now) == (victim != "make")

    (tmp_path / "plans" / "again").touch()
    assert run_grid("run", path).returncode == 0
    assert states(run_grid("state", path).stdout) == ["done", "done"]


def test_a_cell_that_another_process_makes_is_left_to_it(staged, tmp_path):
    path = write(tmp_path)
    CELL.folder.mkdir(parents=True)
    owner = start(HOLDER, CELL.folder)
    done = run_grid("run", path)
    assert states(done.stdout) == ["running", "done"]
    assert done.returncode == 0
    words = CELL.line.split()
    second = run_grid("cell", *words)
    assert second.returncode == 1
    assert second.stderr.startswith(f"grid: {CELL.folder} is written by process {owner.pid}")
    assert second.stderr.count("\n") == 1
    owner.kill()
    owner.wait()


# sbatch files


def test_the_array_s_file_by_hand(monkeypatch, tmp_path):
    monkeypatch.setenv("OUTPUTS", "outputs")
    slurm = {
        "partition": "gpu",
        "time": "2-00:00:00",
        "nodes": 2,
        "gpus_per_node": 8,
        "at_once": 4,
        "sbatch": ["--mem=0"],
        "judge": {"gpus_per_node": 4, "account": "mine"},
    }
    grid = load_grid(write(tmp_path, slurm=slurm))
    text = array_script("mine", grid, list_cells(grid), ".venv/bin/python", "11")
    cell = "--run smoke --model smollm2-135m --dataset atlas --seed"
    assert text.splitlines() == [
        "#!/bin/bash",
        "#SBATCH --job-name=grid-mine",
        "#SBATCH --output=outputs/grids/mine/%A_%a.out",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --partition=gpu",
        "#SBATCH --time=2-00:00:00",
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --mem=0",
        "#SBATCH --nodes=2",
        "#SBATCH --array=0-1%4",
        "# one cell a task; a cell's own log is grid.log in its folder",
        "cells=(",
        f'  "{cell} 0 --target all"',
        f'  "{cell} 1 --target all"',
        ")",
        "export OUTPUTS=outputs",
        "export SET=''",
        "# for profiles/accelerate/nodes.sh",
        'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        "export MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))",
        "exec .venv/bin/python -m lib.grid cell ${cells[SLURM_ARRAY_TASK_ID]} "
        "--py .venv/bin/python --judge outputs/grids/mine/judge-11",
    ]
    judge = judge_script("mine", grid, ".venv/bin/python").splitlines()
    assert judge[:5] == [
        "#!/bin/bash",
        "#SBATCH --job-name=grid-mine-judge",
        "#SBATCH --output=outputs/grids/mine/judge-%j.out",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --account=mine",
    ]
    assert judge[-1] == (
        "exec make judge RUN=smoke PY=.venv/bin/python "
        'JUDGE="--host 0.0.0.0 --port $((20000 + SLURM_JOB_ID % 10000))"'
    )
    options = ["--qos=gpu", "--gres=gpu:8", "--gpus-per-task=1", "-G 8", "-p gpu"]
    asked = grid.slurm.model_copy(update={"account": "mine", "sbatch": options})
    lines = end_script("mine", grid.model_copy(update={"slurm": asked}), "11").splitlines()
    assert lines[2:] == [
        "#SBATCH --output=outputs/grids/mine/end-%j.out",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=mine",
        "#SBATCH --time=5",
        "#SBATCH --qos=gpu",
        "#SBATCH -p gpu",
        "#SBATCH --nodes=1",
        "scancel 11",
    ]
    assert "--judge" not in array_script("mine", grid, list_cells(grid), "python", None)


def test_each_set_has_its_own_jobs_and_reaches_them(outputs, monkeypatch, tmp_path):
    grid = load_grid(write(tmp_path))
    array = [{"kind": "array", "id": "11", "at": 1.0, "cells": [CELL.line]}]
    plain = tmp_path / "grids" / "mine"
    plain.mkdir(parents=True)
    (plain / "jobs.json").write_text(json.dumps(array))
    assert list(queued_cells("mine", {"11_0": "RUNNING"})) == [CELL.line]

    monkeypatch.setenv("SET", "grpo.steps=50  data.test=40")
    name = "mine+data.test=40+grpo.steps=50"
    assert queued_cells("mine", {"11_0": "RUNNING"}) == {}
    text = array_script("mine", grid, list_cells(grid), "python", "11")
    lines = text.splitlines()
    assert f"#SBATCH --output={tmp_path}/grids/{name}/%A_%a.out" in lines
    assert "export SET='data.test=40 grpo.steps=50'" in lines
    assert lines[-1].endswith(f"--judge {tmp_path}/grids/{name}/judge-11")
    judged = grid.slurm.model_copy(update={"judge": JudgeJob()})
    judge = judge_script("mine", grid.model_copy(update={"slurm": judged}), "python")
    assert "export SET='data.test=40 grpo.steps=50'" in judge.splitlines()


def test_the_judge_s_address_is_its_node_s_and_its_end_is_told(tmp_path, monkeypatch):
    squeue = tmp_path / "squeue"
    again = f'[[ ! -e {tmp_path}/asked ]] || echo "14 RUNNING"; touch {tmp_path}/asked'
    squeue.write_text(f'#!/bin/bash\necho "11 RUNNING"\necho "14 PENDING"\n{again}\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("NO_PROXY", "localhost")
    monkeypatch.delenv("no_proxy", raising=False)
    folder = tmp_path / "judge-11"
    folder.mkdir()
    (tmp_path / "key").write_text("secret\n")
    note = {"base_url": "http://127.0.0.1:20011/v1", "model": "m", "pid": 5, "host": "node7"}
    (folder / "judge.json").write_text(json.dumps(note))
    variables = {
        "OPENAI_BASE_URL": "http://node7:20011/v1",
        "OPENAI_API_KEY": "secret",
        "NO_PROXY": "localhost,node7",
        "no_proxy": "node7",
    }
    assert wait_for_judge(folder) == (variables, note)
    for job in (13, 14):
        shutil.copytree(folder, tmp_path / f"judge-{job}")
    with pytest.raises(SlurmError, match=r"the judge, job 13, has ended; .*judge-13.out says why"):
        wait_for_judge(tmp_path / "judge-13", every=0.01)
    (tmp_path / "asked").unlink()
    began = time.monotonic()
    wait_for_judge(tmp_path / "judge-14", every=0.5)  # its note is of its last start
    assert time.monotonic() - began > 0.5


def test_without_slurm_submission_ends_in_one_line(staged, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "tools"))
    done = run_grid("submit", write(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "grid: sbatch is not on PATH: run this where Slurm takes jobs\n"


# nodes.sh


NODES = ["bash", str(PROFILES / "accelerate" / "nodes.sh")]


def test_outside_slurm_nodes_is_accelerate_launch(tmp_path, monkeypatch):
    tool = tmp_path / "accelerate"
    tool.write_text('#!/bin/bash\nprintf "%s|" "$@"\n')
    tool.chmod(0o755)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(sys, "executable", str(tool))  # what lies beside this Python comes first
    given = ["--config_file", "a b.yaml", "-m", "x"]
    assert run_and_print([*NODES, *given])[1] == ["launch|--config_file|a b.yaml|-m|x|"]
    monkeypatch.setenv("SLURM_JOB_ID", "30012")
    monkeypatch.setenv("MASTER_ADDR", "n1")
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    one = "launch|--num_machines|1|--num_processes|4|--main_process_port|20012|-m|x|"
    assert run_and_print([*NODES, "-m", "x"])[1] == [one]


ZERO2 = """
import sys
import accelerate.commands.launch as launch
launch.is_deepspeed_available = lambda: True  # what is installed changes no command
launch.deepspeed_launcher = lambda args: print(launch.prepare_deepspeed_cmd_env(args)[0])
launch.launch_command(launch.launch_command_parser().parse_args(sys.argv[1:]))
"""


def test_deepspeed_on_several_nodes_is_started_by_slurm_alone(tmp_path):
    config = str(PROFILES / "accelerate" / "zero2.yaml")
    nodes = ["--num_machines", "2", "--num_processes", "16", "--machine_rank", "1"]
    main = ["--main_process_ip", "n1", "--main_process_port", "20012"]
    command = [PY, "-c", ZERO2, "--config_file", config, *nodes, *main, "-m", "x"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "None\n"  # no command of deepspeed's own, which goes by pdsh
    ignored = subprocess.run(["git", "check-ignore", ".deepspeed_env"], cwd=ROOT)
    assert ignored.returncode == 0


def test_a_launcher_may_lie_in_a_folder_with_spaces(tmp_path, monkeypatch):
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "launch.sh").write_text('echo "$@"; exit 3\n')
    monkeypatch.setattr("lib.training.apart.PROFILES", folder)
    said = r"code 3, \['sft'\] not whole: x -m lib.training.arms 03_baselines/sft --run smoke"
    with pytest.raises(RuntimeError, match=said):
        folders = {"sft": tmp_path / "03_baselines" / "sft"}
        train_apart(folders, "smoke", launch="bash {profiles}/launch.sh x")


# Slurm itself


def slurm_here() -> bool:
    """Whether a controller answers whose nodes are all this machine, which shares its folders."""
    if not all(map(shutil.which, ("sbatch", "squeue", "scancel", "sinfo"))):
        return False
    try:
        command = ["sinfo", "--noheader", "--Node", "--format=%n %T"]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except subprocess.TimeoutExpired:
        return False
    nodes = {tuple(line.split()) for line in asked.stdout.splitlines()}
    here = {socket.gethostname(), "localhost"}
    hosts = {host for host, state in nodes if state.startswith(("idle", "mix", "alloc"))}
    return bool(hosts) and hosts <= here


real_slurm = pytest.mark.skipif(not slurm_here(), reason="needs a Slurm of this machine alone")


def jobs_of(folder: Path) -> list[dict]:
    return json.loads((folder / "grids" / "mine" / "jobs.json").read_text())


def queued(folder: Path) -> list[str]:
    """What Slurm still holds of a grid's jobs."""
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    ids = {job["id"] for job in jobs_of(folder)}
    return [line for line in lines if line.partition("_")[0] in ids]


@pytest.fixture
def cleared(tmp_path):
    """At the end nothing of the test's own jobs is left in the queue."""
    yield
    if (tmp_path / "grids" / "mine" / "jobs.json").exists():
        left = queued(tmp_path)
        subprocess.run(["scancel", *left]) if left else None
        until(lambda: not queued(tmp_path))


@real_slurm
def test_slurm_s_cells_know_their_settings_without_its_environment(staged, tmp_path, monkeypatch):
    monkeypatch.setenv("SET", "data.test=40")
    staged(0, 'echo "$SET" > "$PLANS/seen"')
    tools = f"--export=PATH={os.environ['PATH']},PLANS={tmp_path}/plans"
    path = write(tmp_path, seeds=[0], slurm={"sbatch": [tools]})
    done = run_grid("submit", path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "grids" / "mine+data.test=40" / "jobs.json").exists()
    seen = tmp_path / "plans" / "seen"
    assert until(lambda: seen.exists() and seen.read_text(), 60) == "data.test=40\n"


@real_slurm
@pytest.mark.parametrize("how", ["scancel", "kill -9"])
def test_slurm_makes_the_cells_and_takes_again_only_what_is_not_done(
    how, staged, cleared, tmp_path
):
    path = write(tmp_path, seeds=[0, 1, 2], slurm={"cpus_per_task": 1})
    staged(1, "stage 01_data; echo '01_data failed: OSError: disk (notebook a)'; exit 2")
    staged(2, 'stage 01_data; echo $$ > "$PLANS/make"; sleep 600')
    first = run_grid("submit", path)
    assert first.returncode == 0, first.stderr
    note = tmp_path / "plans" / "make"
    assert until(lambda: note.exists() and note.read_text())
    assert until(lambda: states(run_grid("state", path).stdout) == ["done", "failed", "running"]), (
        run_grid("state", path).stdout
    )

    [array] = jobs_of(tmp_path)
    assert [line.split()[7] for line in array["cells"]] == ["0", "1", "2"]
    make, cell = psutil.Process(int(note.read_text())), None
    if how == "scancel":
        subprocess.run(["scancel", f"{array['id']}_2"], check=True)
    else:
        cell = make.parent()
        for process in (cell, make, *make.children()):
            process.kill()
    assert until(lambda: not queued(tmp_path))
    table = run_grid("state", path).stdout
    assert states(table) == ["done", "failed", "failed"]
    assert f"killed: job {array['id']}_2 on {socket.gethostname()} has ended" in table

    note.unlink()
    again = run_grid("submit", path)
    assert again.returncode == 0, again.stderr
    assert [line.split()[7] for line in jobs_of(tmp_path)[-1]["cells"]] == ["1", "2"]
    assert until(lambda: note.exists() and note.read_text())
    third = run_grid("submit", path)  # 1 may have failed again by now; 2 runs
    sent = [line.split()[7] for line in jobs_of(tmp_path)[-1]["cells"]]
    assert "2" not in sent or "nothing to submit" in third.stdout
    subprocess.run(["scancel", *queued(tmp_path)], check=True)
    assert until(lambda: not queued(tmp_path))

    for seed in (1, 2):
        staged(seed, "")
    assert run_grid("submit", path).returncode == 0
    assert until(lambda: not queued(tmp_path))
    assert states(run_grid("state", path).stdout) == ["done"] * 3
    assert "nothing to submit" in run_grid("submit", path).stdout


ASK = """
import json, os, urllib.request
asked = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/models")
print(json.load(urllib.request.urlopen(asked))["data"][0]["id"], len(os.environ["OPENAI_API_KEY"]))
"""


@pytest.fixture
def judge_here(staged, tmp_path, monkeypatch):
    """A stand-in for vLLM that a grid's judge runs, and `ask.py`, which asks it."""
    server = SERVER.replace('("127.0.0.1", port)', '("0.0.0.0", port)')
    (tmp_path / "vllm").mkdir()
    monkeypatch.setenv("JUDGE_PYTHON", interpreter(tmp_path / "vllm", ABOUT, server))
    (tmp_path / "ask.py").write_text(ASK)


@real_slurm
def test_slurm_s_judge_answers_the_cells_and_ends_after_the_last(
    staged, cleared, judge_here, tmp_path
):
    for seed in (0, 1):
        waits = "until [[ -e $PLANS/go ]]; do sleep 0.2; done"
        staged(seed, f'{PY} {tmp_path}/ask.py > "$PLANS/said$SEED" || exit 1; {waits}')
    path = write(tmp_path, run="gpu", slurm={"judge": {"cpus_per_task": 1}})
    words = [f"GRID={path}", "SLURM=1", f"OUTPUTS={tmp_path}", f"PY={PY}"]  # make exports them
    asked = ["/usr/bin/make", "grid", *words]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [job["kind"] for job in jobs_of(tmp_path)] == ["judge", "array", "end"]
    assert "nothing to submit" in run_grid("submit", path).stdout

    # a job that ends the judge and is lost is submitted again, without a cell to make
    subprocess.run(["scancel", jobs_of(tmp_path)[-1]["id"]], check=True)
    again = run_grid("submit", path)
    assert again.returncode == 0, again.stderr
    assert [job["kind"] for job in jobs_of(tmp_path)[3:]] == ["end"]
    assert "submitted end" in again.stdout.splitlines()[-1]
    (tmp_path / "plans" / "go").touch()
    assert until(lambda: not queued(tmp_path))
    table = run_grid("state", path).stdout
    assert states(table) == ["done", "done"], table
    for seed in (0, 1):
        assert (tmp_path / "plans" / f"said{seed}").read_text() == "Qwen/Qwen2.5-7B-Instruct 32\n"
    judge = jobs_of(tmp_path)[0]["id"]
    assert (
        "answers at http://127.0.0.1"
        in (tmp_path / "grids" / "mine" / f"judge-{judge}.out").read_text()
    )
    assert (tmp_path / "grids" / "mine" / "key").stat().st_mode & 0o777 == 0o600


@real_slurm
def test_a_cell_goes_on_with_a_judge_that_slurm_started_again(
    staged, cleared, judge_here, tmp_path
):
    requeue = f"""
if [[ ! -e $PLANS/again ]]; then
  touch "$PLANS/again"
  judge=$(basename {tmp_path}/grids/mine/judge-*/)
  judge=${{judge#judge-}}
  scontrol requeue "$judge"
  until [[ $(squeue -h -j "$judge" -o %T) == PENDING ]]; do sleep 0.2; done
  scontrol update JobId="$judge" StartTime=now  # Slurm would wait two minutes
  stage 03_baselines
  echo '03_baselines failed: JudgeFailed: no answer'
  exit 2
fi
{PY} {tmp_path}/ask.py > "$PLANS/said" || exit 1
"""
    staged(0, requeue)
    path = write(tmp_path, run="gpu", seeds=[0], slurm={"judge": {"cpus_per_task": 1}})
    assert run_grid("submit", path).returncode == 0
    assert until(lambda: not queued(tmp_path))
    table = run_grid("state", path).stdout
    assert states(table) == ["done"], table
    assert (tmp_path / "plans" / "said").read_text() == "Qwen/Qwen2.5-7B-Instruct 32\n"
    log = CELL._replace(run="gpu").folder / "grid.log"
    assert log.read_text().count("-- the judge was started again: make goes on") == 1


def test_make_runs_again_only_for_another_judge(staged, tmp_path):
    staged(0, "echo x >> $PLANS/tries; exit 2")
    judges = iter([1, 1])
    assert attempt(CELL, PY, lambda: ({}, next(judges))) == 2
    assert (tmp_path / "plans" / "tries").read_text() == "x\n"

    judges = iter(range(9))
    assert attempt(CELL, PY, lambda: ({}, next(judges))) == 2
    assert (tmp_path / "plans" / "tries").read_text() == "x\n" * 5  # three times more


TOGETHER = """
import os, torch
torch.distributed.init_process_group("gloo")
rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
total = torch.tensor(float(rank + 1))
torch.distributed.all_reduce(total)
told = rank, size, total.item(), os.environ["SLURMD_NODENAME"], "TRAINING_PARENT" in os.environ
print("rank %d of %d: %g on %s, parent %s" % told, flush=True)
torch.distributed.destroy_process_group()
"""


@real_slurm
def test_one_training_over_two_nodes_of_slurm(tmp_path, monkeypatch):
    """accelerate meets itself on both nodes; skipped where the default Slurm has only one."""
    names = subprocess.run(["sinfo", "-h", "-N", "-o", "%N %P"], capture_output=True, text=True)
    nodes = [line.split() for line in names.stdout.splitlines()]
    pairs = {p for _, p in nodes if sum(p == q for _, q in nodes) > 1}
    if not pairs:
        pytest.skip("needs a partition of two nodes")

    (tmp_path / "together.py").write_text(TOGETHER)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # names of nodes that share a machine are none
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TRAINING_PARENT", str(os.getpid()))
    path = f"{Path(PY).parent}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    options = ["--multi_gpu", "--mixed_precision", "no", "--dynamo_backend", "no"]
    job = ["#!/bin/bash", f"#SBATCH --partition={pairs.pop().rstrip('*')}", "#SBATCH --nodes=2"]
    job += ["#SBATCH --ntasks-per-node=1", f"#SBATCH --output={tmp_path}/out"]
    job.append(" ".join([*NODES, *options, f"{tmp_path}/together.py"]))
    (tmp_path / "job.sbatch").write_text("\n".join(job) + "\n")
    subprocess.run(["sbatch", "--wait", f"{tmp_path}/job.sbatch"], cwd=ROOT, timeout=300)
    lines = [x for x in (tmp_path / "out").read_text().splitlines() if x.startswith("rank ")]
    assert [line.partition(" on ")[0] for line in sorted(lines)] == [
        "rank 0 of 2: 3",
        "rank 1 of 2: 3",
    ]
    assert [line.rpartition(" ")[2] for line in sorted(lines)] == ["True", "False"]
    assert len({line.split(" on ")[1].split(",")[0] for line in lines}) == 2


def test_a_key_that_was_half_written_is_made_again(tmp_path):
    path = tmp_path / "key"
    path.write_text("")
    make_key(path)
    key = path.read_text()
    assert len(key.strip()) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    make_key(path)
    assert path.read_text() == key
