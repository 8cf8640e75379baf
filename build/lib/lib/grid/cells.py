"""A grid file in `grids/`, checked like a profile, and its cells: one `make` of one run each."""

import itertools
import os
import re
import subprocess
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, field_validator

from lib.config import ROOT, ProfileError, checked, load_profile, read_yaml
from lib.runs import EXPERIMENTS, STAGES, run_folder
from lib.sections import SAFE_NAME, Count, Name, Section
from lib.variants import variant_name

# what a cell says itself, and what would change its folder behind its back
OWN_KEYS = ("RUN", "MODEL", "DATASET", "SEED", "SET", "OUTPUTS", "PY", "GRID")
SAFE_VALUE = r"[A-Za-z0-9._/+@=~:-]*"  # a word of a shell, as it stands

Names = Annotated[list[Name], Field(min_length=1)]
Word = Annotated[str, Field(pattern=r"^[\w.,:@+-]+$")]
# an option of sbatch on a line of its own
Option = Annotated[str, Field(pattern=r"^-[^\n]*$")]
# what sbatch reads: minutes, h:m:s, days-hours; 12:00:00 without quotes is a number in YAML
Duration = Annotated[str, Field(pattern=r"^(\d+(:\d\d){0,2}|\d+-\d+(:\d\d){0,2})$")]


class Resources(Section):
    """What a job asks Slurm for; `sbatch` holds any other option of it, such as `--mem=0`."""

    partition: Word | None = None
    account: Word | None = None
    time: Duration | None = None
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    cpus_per_task: Count | None = None
    sbatch: list[Option] = []


class JudgeJob(Resources):
    """The job that serves the judge; without `command` it is `make judge` of the first `run`."""

    command: Annotated[str, Field(pattern=r"^[^\n]+$")] | None = None


class Slurm(Resources):
    """The job of each cell: its nodes, how many cells run at once, the job of their judge."""

    nodes: Count = 1
    at_once: Count | None = None  # None: as many as Slurm gives
    judge: JudgeJob | None = None


class Grid(Section):
    """Every setting of a grid; `target` is what is made of each run, `make` further variables."""

    run: Names
    models: Names
    datasets: Names
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    target: Literal["all", "experiments", *STAGES] = "all"
    make: dict[str, str | int] = {}
    slurm: Slurm = Slurm()

    @field_validator("run", mode="before")
    @classmethod
    def one_or_several(cls, run):
        return [run] if isinstance(run, str) else run

    @field_validator("run", "models", "datasets", "seeds")
    @classmethod
    def each_once(cls, values):
        twice = sorted({v for v in values if values.count(v) > 1})
        if twice:
            raise ValueError(f"{twice} stands there twice")
        return values

    @field_validator("make")
    @classmethod
    def plain_variables(cls, variables):
        for name, value in variables.items():
            if name in OWN_KEYS or not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
                raise ValueError(f"{name!r} is no variable to set here; such as SEEDS: 3")
            if not re.fullmatch(SAFE_VALUE, str(value)):
                raise ValueError(f"{name}={value!r} has other characters than letters, digits")
        return variables


class Cell(NamedTuple):
    """One run of a grid: what make is asked for, and `NAME=value` words for it."""

    run: str
    model: str
    dataset: str
    seed: int
    target: str = "all"
    variables: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return run_folder(self.run, self.model, self.dataset, self.seed)

    @property
    def words(self) -> tuple[str, ...]:
        """The words that tell make which run it is."""
        names = ("RUN", "MODEL", "DATASET", "SEED")
        return (*(f"{k}={v}" for k, v in zip(names, self[:4], strict=True)), *self.variables)

    @property
    def line(self) -> str:
        """The cell as options of `python -m lib.grid cell`; no word of it needs quotes."""
        names = ("--run", "--model", "--dataset", "--seed", "--target")
        options = (f"{k} {v}" for k, v in zip(names, self[:5], strict=True))
        return " ".join((*options, *self.variables))


def load_grid(path: Path) -> Grid:
    """The checked grid file; raises ProfileError with file, key and allowed values."""
    if not path.is_file():
        known = ", ".join(f"grids/{p.name}" for p in sorted((ROOT / "grids").glob("*.yaml")))
        raise ProfileError(f"there is no grid file {path}; there are: {known}")
    if not re.fullmatch(SAFE_NAME, path.stem):
        raise ProfileError(f"{path}: its name becomes a folder; use letters, digits and . _ -")

    grid = checked(Grid, read_yaml(path), path)
    for run, model, dataset in itertools.product(grid.run, grid.models, grid.datasets):
        try:
            load_profile(run, model, dataset)
        except ProfileError as error:
            raise ProfileError(f"{path}: {error}") from None
    return grid


def list_cells(grid: Grid) -> list[Cell]:
    """The cells in the order in which they are made: seed by seed, so that a whole set is early."""
    variables = tuple(f"{name}={value}" for name, value in grid.make.items())
    order = itertools.product(grid.seeds, grid.run, grid.models, grid.datasets)
    return [Cell(run, m, d, seed, grid.target, variables) for seed, run, m, d in order]


def is_made(cell: Cell, py: str) -> bool:
    """Whether all of the cell is made: its stages are done and make finds nothing to renew.

    py: the Python that make would use, in its words.
    """
    study = tuple(stage for stage in STAGES if stage not in EXPERIMENTS)
    stages = {"all": study, "experiments": STAGES}.get(cell.target, (cell.target,))
    folder = cell.folder
    for stage in stages:
        if not ((folder / stage / "done.json").exists() and (folder / f"{stage}.ipynb").exists()):
            return False

    base = os.environ.get("OUTPUTS", "outputs")  # as make spells it
    where = f"{base}/{variant_name(cell.run)}/{cell.model}/{cell.dataset}/seed{cell.seed}"
    command = ["make", "-q", *cell.words, f"PY={py}", *(f"{where}/{s}.ipynb" for s in stages)]
    asked = subprocess.run(command, cwd=ROOT, env=plain_environment(), capture_output=True)
    return asked.returncode == 0


def plain_environment() -> dict[str, str]:
    """The environment without the words of the make that this process may have been started by."""
    names = ("MAKE", "MFLAGS", "GNUMAKEFLAGS")
    return {name: value for name, value in os.environ.items() if not name.startswith(names)}
