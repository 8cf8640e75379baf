"""A grid on a cluster: plain sbatch files, a job array of cells, a job that serves the judge."""

import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from lib.config import ROOT
from lib.grid.cells import Cell, Grid, Resources, plain_environment
from lib.grid.state import Queued, look
from lib.processes import hold, let_go
from lib.tables import load_json, write_text
from lib.variants import given, variant_name

# a port of one's own: jobs of several people may share a node
OWN_PORT = "$((20000 + SLURM_JOB_ID % 10000))"


class SlurmError(RuntimeError):
    """Slurm cannot be used as asked: the message says why and what to do."""


def grid_folder(name: str) -> str:
    """Where a grid's sbatch files, their logs and `jobs.json` lie, from the repository's root.

    Each SET has its own: the same cells with other settings are other runs.
    """
    return f"{os.environ.get('OUTPUTS', 'outputs')}/grids/{variant_name(name)}"


def ask(*command: str) -> str:
    """What a command of Slurm prints; raises SlurmError with its own words.

    A job gets this environment: the make in it must not read what this process's make was told.
    """
    if not shutil.which(command[0]):
        raise SlurmError(f"{command[0]} is not on PATH: run this where Slurm takes jobs")
    environment = plain_environment()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SlurmError(f"{command[0]} failed: {' '.join(done.stderr.split())}")
    return done.stdout


def ask_queue() -> dict[str, str]:
    """State by job of this user, tasks of an array apart (12_3). Raises SlurmError."""
    lines = ask("squeue", "--me", "--noheader", "--array", "--format=%i %T").splitlines()
    return dict(line.split() for line in lines)


def head(name: str, log: str, asked: Resources) -> list[str]:
    """The first lines of an sbatch file: shell, job's name, log and resources."""
    options = [f"--job-name={name}", f"--output={log}", "--ntasks-per-node=1"]
    for key in ("partition", "account", "time", "cpus_per_task", "gpus_per_node"):
        if getattr(asked, key):
            options.append(f"--{key.replace('_', '-')}={getattr(asked, key)}")
    return ["#!/bin/bash", *(f"#SBATCH {option}" for option in [*options, *asked.sbatch])]


def export_set() -> str:
    """The line of an sbatch file for SET: `--export=NONE` hands down nothing of it."""
    return f"export SET={shlex.quote(' '.join(given()))}"


def array_script(name: str, grid: Grid, cells: list[Cell], py: str, judge: str | None) -> str:
    """The sbatch file of the job array: a task for each cell. judge: the job that serves it."""
    folder, ask_for = grid_folder(name), grid.slurm
    at_once = f"%{ask_for.at_once}" if ask_for.at_once else ""
    options = f" --judge {folder}/judge-{judge}" if judge else ""
    lines = [
        *head(f"grid-{name}", f"{folder}/%A_%a.out", ask_for),
        f"#SBATCH --nodes={ask_for.nodes}",
        f"#SBATCH --array=0-{len(cells) - 1}{at_once}",
        "# one cell a task; a cell's own log is grid.log in its folder",
        "cells=(",
        *(f'  "{cell.line}"' for cell in cells),
        ")",
        f"export OUTPUTS={os.environ.get('OUTPUTS', 'outputs')}",
        export_set(),
        "# for profiles/accelerate/nodes.sh",
        'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        f"export MASTER_PORT={OWN_PORT}",
        f"exec {shlex.quote(py)} -m lib.grid cell ${{cells[SLURM_ARRAY_TASK_ID]}} "
        f"--py {shlex.quote(py)}{options}",
    ]
    return "\n".join(lines) + "\n"


def judge_script(name: str, grid: Grid, py: str) -> str:
    """The sbatch file of the judge: its server listens on the node, for who has the grid's key."""
    folder, job = grid_folder(name), grid.slurm.judge
    options = f'JUDGE="--host 0.0.0.0 --port {OWN_PORT}"'
    lines = [
        *head(f"grid-{name}-judge", f"{folder}/judge-%j.out", job),
        "#SBATCH --nodes=1",
        f"export OUTPUTS={folder}/judge-$SLURM_JOB_ID VLLM_API_KEY=$(<{folder}/key)",
        export_set(),
        'rm -f "$OUTPUTS/judge.json"  # of the same job, begun on another node',
        job.command or f"exec make judge RUN={grid.run[0]} PY={shlex.quote(py)} {options}",
    ]
    return "\n".join(lines) + "\n"


def end_script(name: str, grid: Grid, judge: str) -> str:
    """The sbatch file of the job that ends the judge: a cell's resources but GPUs, five minutes."""
    asked = grid.slurm
    plain = [option for option in asked.sbatch if not re.match(r"-G|--gres|--[a-z-]*gpu", option)]
    few = {"gpus_per_node": 0, "cpus_per_task": None, "time": "5", "sbatch": plain}
    folder = grid_folder(name)
    lines = head(f"grid-{name}-end", f"{folder}/end-%j.out", asked.model_copy(update=few))
    return "\n".join([*lines, "#SBATCH --nodes=1", f"scancel {judge}"]) + "\n"


def read_jobs(name: str) -> list[dict]:
    """The jobs that were submitted for a grid, oldest first: kind, id, at and the array's cells."""
    path = ROOT / grid_folder(name) / "jobs.json"
    return load_json(path, "end its jobs, then remove it") if path.exists() else []


def queued_cells(name: str, queue: dict[str, str] | None) -> dict[str, Queued]:
    """The newest task of each cell that was submitted, by the cell's words.

    queue: what `ask_queue` gave; None where it could not be asked.
    """
    found = {}
    for job in read_jobs(name):
        for i, words in enumerate(job.get("cells", ())):
            task = f"{job['id']}_{i}"
            log = ROOT / grid_folder(name) / f"{task}.out"
            state = None if queue is None else queue.get(task, "")
            found[words] = Queued(task, job["at"], state, log)
    return found


def submit(name: str, grid: Grid, cells: list[Cell], py: str) -> list[str]:
    """Submit what is neither done nor queued nor running; a line for each job that was submitted.

    So is the job that ends the judge, where a judge lives and no job will end it. Raises
    SlurmError, and FolderInUse while another process submits the same grid.
    """
    ask("sbatch", "--version")
    queue = ask_queue()
    folder = ROOT / grid_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    hold(folder)
    try:
        known = queued_cells(name, queue)
        rows = [look(cell, py, known.get(cell.line)) for cell in cells]
        todo = [
            row.cell
            for row in rows
            if row.state not in ("done", "running")
            and not getattr(known.get(row.cell.line), "state", "")
        ]
        return _submit(name, grid, todo, py, queue)
    finally:
        let_go(folder)


def _submit(name, grid, cells, py, queue) -> list[str]:
    """Judge, array and the job that ends the judge; each is noted as soon as it is submitted."""
    jobs, told, options = read_jobs(name), [], []
    folder = grid_folder(name)
    living = {job.partition("_")[0] for job in queue}

    def alive(kind: str) -> list[str]:
        return [job["id"] for job in jobs if job["kind"] == kind and job["id"] in living]

    def send(kind: str, script: str, *more: str, **noted) -> str:
        path = f"{folder}/{kind}.sbatch"
        write_text(ROOT / path, script)
        number = ask("sbatch", "--parsable", *more, path).split(";")[0].strip()
        jobs.append({"kind": kind, "id": number, "at": time.time(), **noted})
        write_text(ROOT / folder / "jobs.json", json.dumps(jobs, indent=1) + "\n")
        told.append(f"submitted {kind} as job {number} ({path})")
        living.add(number)
        return number

    judge, fresh = next(reversed(alive("judge")), None), False
    if cells:
        if grid.slurm.judge:
            make_key(ROOT / folder / "key")
            fresh = judge is None
            judge = judge or send("judge", judge_script(name, grid, py))
            options = [f"--dependency=after:{judge}"]
        script = array_script(name, grid, cells, py, judge if grid.slurm.judge else None)
        try:
            send("array", script, *options, cells=[cell.line for cell in cells])
        except SlurmError:
            if fresh:
                ask("scancel", judge)
            raise

    ends = alive("end")
    if judge and (cells or not ends):
        if ends:
            ask("scancel", *ends)
        after = [f"--dependency=afterany:{':'.join(alive('array'))}"] if alive("array") else []
        send("end", end_script(name, grid, judge), *after)
    return told


def make_key(path: Path) -> None:
    """A secret of the grid, for its user's eyes only: the judge answers no one without it."""
    if path.exists() and path.read_text().strip():
        return
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(24) + "\n")
    os.replace(part, path)  # an empty key would open the judge to everyone


def wait_for_judge(folder: Path, every: float = 10.0) -> tuple[dict[str, str], dict]:
    """The environment in which runs find the grid's judge, as soon as its job runs and answers.

    With it the judge's note, another one whenever the judge was started again. folder: of the
    judge's job, `judge-<job>`. Raises SlurmError when the job has ended.
    """
    job, note = folder.name.removeprefix("judge-"), folder / "judge.json"
    while True:
        try:
            state = ask_queue().get(job)
        except SlurmError:  # Slurm's controller may be away for a while
            state = "RUNNING"
        if state is None:
            raise SlurmError(f"the judge, job {job}, has ended; {folder}.out says why")
        if state == "RUNNING":  # queued again it has the note of its last start
            with suppress(FileNotFoundError):
                about = load_json(note)
                break
        time.sleep(every)
    port, host = urlsplit(about["base_url"]).port, about["host"]
    key = (folder.parent / "key").read_text().strip()
    found = {"OPENAI_BASE_URL": f"http://{host}:{port}/v1", "OPENAI_API_KEY": key}
    for name in ("NO_PROXY", "no_proxy"):  # a proxy has no business between two nodes
        found[name] = ",".join(filter(None, (os.environ.get(name), host)))
    return found, about
