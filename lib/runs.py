"""Run folders: where a stage writes, when it may resume, and what it leaves for others."""

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from lib.config import ROOT, Profile, load_profile
from lib.processes import FolderInUse, end_with_parent, hold, let_go, peak_memory
from lib.tables import load_json, load_table, write_table, write_text
from lib.variants import differing, variant_name

PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "datasets",
    "accelerate",
    "vllm",
    "sentence-transformers",
    "numpy",
    "pandas",
    "papermill",
)
STAGES = (
    "01_data",
    "02_dedup",
    "03_baselines",
    "04_grpo",
    "05_redistribution",
    "06_attribution",
    "07_judge",
    "08_ablations",
    "09_transfer",
    "10_origin",
    "11_claims",
)
SEEDED = ("03_baselines", "04_grpo")  # they have trainings with several seeds
EXPERIMENTS = ("08_ablations", "09_transfer", "10_origin")  # not a part of `make all`


class SettingsDiffer(RuntimeError):
    """A stage folder was made with other settings: the message names them with both values."""


def run_folder(run: str, model: str, dataset: str, seed: int) -> Path:
    """The folder `outputs/<run>/<model>/<dataset>/seed<k>`; OUTPUTS replaces `outputs`.

    Single settings given by SET stand after <run>, each with a plus sign before it.

    A relative OUTPUTS starts at the repository, so that make and JupyterLab mean the same folder.
    """
    base = ROOT / os.environ.get("OUTPUTS", "outputs")
    return base / variant_name(run) / model / dataset / f"seed{seed}"


class Stage:
    """One stage's folder: `settings.json` first, tables, then `summary.json` and `done.json`.

    Opening it with the settings it was made with resumes (or loads, when `done`); with other
    settings it raises SettingsDiffer and names what differs. An unfinished stage
    has one writer: where another process is at work it raises FolderInUse.
    """

    def __init__(self, folder: Path, name: str, settings: dict, needs_gb: float = 0.5):
        self.run, self.name, self.folder = Path(folder), name, Path(folder) / name
        self.settings = json.loads(json.dumps(settings, default=str))
        self.started = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.done:
            hold(self.folder)
            self.memory = peak_memory()
            free = shutil.disk_usage(self.folder).free / 2**30
            if free < needs_gb:
                let_go(self.folder)
                raise OSError(
                    f"{self.folder}: {free:.1f} GB free, this stage needs {needs_gb} GB; free "
                    "some space"
                )
        path = self.folder / "settings.json"
        if path.exists():
            old = load_json(path, f"remove {self.folder} to start again")
            changes = differing(old, self.settings)
            if changes:
                more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
                raise SettingsDiffer(
                    f"{path}: made with other settings: {', '.join(changes[:3])}{more}; use "
                    f"another SEED, SET or OUTPUTS, or remove {self.folder} to start again"
                )
        else:
            write_text(path, json.dumps(self.settings, indent=1, sort_keys=True) + "\n")

    def path(self, name: str) -> Path:
        """The path of a file in this stage's folder."""
        return self.folder / name

    @property
    def done(self) -> bool:
        """Whether the stage finished with these settings."""
        return (self.folder / "done.json").exists()

    def table(self, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The table `name` of this stage: loaded, or made once and written whole."""
        path = self.path(f"{name}.parquet")
        if not path.exists():
            write_table(make(), path)
        return load_table(path)

    def earlier(self, stage: str, name: str) -> pd.DataFrame:
        """The table `name` of an earlier stage of this run."""
        return load_table(self.run / stage / f"{name}.parquet")

    def timed(self, part: str, work: Callable, *arguments, **options):
        """The result of `work`; its seconds are added to the part's clock."""
        start = time.monotonic()
        result = work(*arguments, **options)
        self.seconds(part, time.monotonic() - start)
        return result

    def seconds(self, part: str, value: float | None = None) -> float:
        """Add `value` seconds to a part's clock, kept across restarts; returns the part's total."""
        path = self.folder / "seconds.json"
        clock = load_json(path) if path.exists() else {}
        if value is not None:
            clock[part] = clock.get(part, 0.0) + value
            write_text(path, json.dumps(clock, indent=1) + "\n")
        return clock.get(part, 0.0)

    def finish(self, rows: list[dict]) -> pd.DataFrame:
        """Write `summary.json` (name, value, low, high, n), the run's summary, then `done.json`."""
        names = [row["name"] for row in rows]
        if len(set(names)) < len(names):
            raise ValueError(
                f"summary names repeat: {sorted(n for n in names if names.count(n) > 1)}"
            )
        if self.done:  # one that is opened again stays what it was
            done = load_json(self.folder / "done.json")
        else:
            self.seconds("total", time.monotonic() - self.started)
            done = {"settings": fingerprint(self.settings), "code": code_digest()}
            done["peak_gb"] = self.memory.look()
            before = self.folder / "reopened.json"
            if before.exists():  # a part of it was made then
                old = load_json(before)
                done["earlier"] = sorted({old["code"], *old.get("earlier", [])} - {done["code"]})
                done["peak_gb"] = max(done["peak_gb"], old.get("peak_gb") or 0.0)
            write_text(self.folder / "manifest.json", json.dumps(manifest(), indent=1) + "\n")
        rows = [*rows, summary_row(f"seconds_{self.name}", self.seconds("total"))]
        rows.append(summary_row(f"peak_gb_{self.name}", done.get("peak_gb")))
        write_text(self.folder / "summary.json", json.dumps(rows, indent=1) + "\n")
        write_text(self.folder / "done.json", json.dumps(done) + "\n")
        gather(self.run)
        let_go(self.folder)
        return pd.DataFrame(rows)


def forget(folder: Path) -> None:
    """Remove a folder of runs, `<model>/<dataset>/seed<k>/…`, where it is there.

    Raises ValueError and removes nothing where it holds what no run has made.
    """
    if not folder.exists():
        return
    made = re.compile(
        r"\d\d_\w+(\.ipynb)?|figures|failed|report|training_seeds|(summary|lock)\.json|finding\.md"
        r"|grid\.(json|log)"
    )
    strange = [path for depth in ("*", "*/*") for path in folder.glob(depth) if not path.is_dir()]
    strange += [p for p in folder.glob("*/*/*") if not re.fullmatch(r"seed\d+", p.name)]
    strange += [path for path in folder.glob("*/*/*/*") if not made.fullmatch(path.name)]
    if folder.is_symlink() or strange:
        what = strange[0] if strange else "a link"
        raise ValueError(f"{folder} is not removed: no run has made {what}; remove it yourself")
    shutil.rmtree(folder)


def summary_row(name, value, low=None, high=None, n=None) -> dict:
    """One row of a summary; numbers are plain Python, None where a field does not apply."""
    plain = [None if x is None or x != x else float(x) for x in (value, low, high)]
    return {
        "name": name,
        "value": plain[0],
        "low": plain[1],
        "high": plain[2],
        "n": None if n is None else int(n),
    }


def summary_rows(frame: pd.DataFrame, name: str) -> list[dict]:
    """One summary row for each row of a frame with value, and low, high and n where it has them.

    name: how a row is called, by its columns, such as "pass_at_{k}_{when}".
    """
    rows = frame.to_dict("records")
    return [
        summary_row(name.format(**row), row["value"], row.get("low"), row.get("high"), row.get("n"))
        for row in rows
    ]


def gather(run: Path) -> Path:
    """Join the stages' summaries into the run's `summary.json`: rows with a `stage`."""
    rows = []
    for stage in sorted(p.parent for p in run.glob("*/summary.json")):
        rows += [{"stage": stage.name, **row} for row in load_json(stage / "summary.json")]
    path = run / "summary.json"
    write_text(path, json.dumps(rows, indent=1) + "\n")
    return path


def fingerprint(settings: dict) -> str:
    """A short digest of settings, the same for the same values."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[
        :16
    ]


def code_digest() -> str:
    """A short digest of the library's sources: the same as long as no line of them changes."""
    sources = sorted((ROOT / "lib").rglob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    return digest.hexdigest()[:16]


def manifest() -> dict:
    """Versions, commit and hardware that a repetition needs. Holds no environment variable."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    return {
        "python": sys.version.split()[0],
        "versions": versions,
        "commit": git.stdout.strip() or None,
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
    }


def versions(*packages: str) -> str:
    """Python's version and those of some packages, as one line for a notebook's head."""
    return " ".join([f"python {sys.version.split()[0]}", *(f"{p} {version(p)}" for p in packages)])


def open_stage(
    name: str,
    run: str,
    model: str | None,
    dataset: str | None,
    seed: int,
    uses: tuple[str, ...],
    after: tuple[str, ...] = (),
    needs_gb: float = 0.5,
    more: Callable[[Profile], dict] | None = None,
):
    """The checked profile and the Stage `name` of this run.

    The stage's settings are model, dataset, seed, the profile's sections named in `uses`, and a
    digest of the settings of each finished stage in `after`; a missing or unfinished one raises
    FileNotFoundError. more: what else of the profile decides on the stage.
    """
    profile = load_profile(run, model, dataset)
    folder = run_folder(run, profile.model, profile.dataset, seed)
    end_with_parent()  # where make runs the notebook
    count = folder / "training_seeds"  # which make writes
    if count.exists():
        profile = profile.model_copy(update={"training_seeds": int(count.read_text())})
    dump = profile.model_dump()
    settings = {"model": profile.models[profile.model], "dataset": profile.dataset, "seed": seed}
    settings |= {key: dump[key] for key in uses if key in dump}
    settings |= more(profile) if more else {}
    for earlier in after:
        if not (folder / earlier / "done.json").exists():
            raise FileNotFoundError(
                f"{folder / earlier} is not finished; run `make {earlier} RUN={run} "
                f"MODEL={profile.model} DATASET={profile.dataset} SEED={seed}{_given()}` first"
            )
        path = folder / earlier / "settings.json"
        mend = f"remove {folder / earlier} to start again"
        settings[f"after_{earlier}"] = fingerprint(load_json(path, mend))
    return profile, Stage(folder, name, settings, needs_gb)


def _given() -> str:
    """What make was given beside names and seed, as words of its command line."""
    values = {"SET": os.environ.get("SET", ""), "OUTPUTS": os.environ.get("OUTPUTS", "outputs")}
    changed = {name: value for name, value in values.items() if value not in ("", "outputs")}
    return "".join(f" {name}={shlex.quote(value)}" for name, value in changed.items())


def reopen(run: Path, seeds: int) -> None:
    """Give a run another number of training seeds: 03 and 04 are open again, what they hold stays.

    Raises FolderInUse, and changes nothing, where another process is at work in the run; ValueError
    for less than one seed.
    """
    if seeds < 1:
        raise ValueError(f"{seeds} training seeds: give a whole number from 1 on")
    folders = [run / name for name in STAGES if (run / name).exists()]
    try:
        for folder in folders:
            hold(folder)
        for name in SEEDED:
            done = run / name / "done.json"
            if done.exists():
                if load_json(done).get("code") != code_digest():
                    print(f"{run / name} was made by other code; its first seed stays as it is")
                os.replace(done, done.with_name("reopened.json"))
            (run / f"{name}.ipynb").unlink(missing_ok=True)
        run.mkdir(parents=True, exist_ok=True)
        write_text(run / "training_seeds", f"{seeds}\n")
    finally:
        for folder in folders:
            let_go(folder)


def main() -> None:
    match sys.argv[1:]:
        case ["forget", folder]:
            work = partial(forget, Path(folder))
        case ["seeds", folder, seeds] if seeds.isdecimal():
            work = partial(reopen, Path(folder), int(seeds))
        case _:
            sys.exit("usage: python -m lib.runs forget FOLDER, or seeds FOLDER NUMBER")
    try:
        work()
    except (ValueError, FolderInUse) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
