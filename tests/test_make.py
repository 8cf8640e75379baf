"""The Makefile: every target parses and plans, and it reads a profile as a run reads it."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from lib.config import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")
TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
WORDS = {
    "seeds": ["SEEDS=0 1"],
    "compare": ["A=outputs/a", "B=outputs/b"],
    "grid": ["GRID=grids/smoke.yaml", "STATE=1"],
}


def make(*words, where=ROOT, py=sys.executable, **more):
    """What make says and how it ends, without what a make around the tests has set."""
    ours = ("SEEDS", "SET", "MAKEFLAGS", "MAKELEVEL", "OUTPUTS", "HUB_MIRROR")
    env = {k: v for k, v in os.environ.items() if k not in ours} | more
    command = ["make", *words, f"PY={py}"]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, env=env)


@pytest.fixture
def place(tmp_path):
    """The repository with profiles of one's own, and no environment."""
    for name in ("lib", "notebooks", "pyproject.toml", "requirements", "Makefile"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    return tmp_path


def write(place, text, name="mine"):
    (place / "profiles" / f"{name}.yaml").write_bytes(
        text.encode() if isinstance(text, str) else text
    )


def folder(place, *words, **options):
    """The folder of the run that make would write, from its dry run."""
    done = make("-n", "01_data", *words, where=place, **options)
    assert done.returncode == 0, done.stderr
    return re.search(r"== 01_data \((.*)\)", done.stdout)[1]


@pytest.mark.parametrize("target", [*TARGETS, "settings", "04_grpo"])
def test_every_target_can_be_made(target, tmp_path):
    done = make("-n", target, *WORDS.get(target, ()), f"OUTPUTS={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_plan_is_made_for_the_seeds_that_it_is_asked_for(tmp_path):
    words = ["plan", "RUN=smoke", f"OUTPUTS={tmp_path}"]
    assert " SEEDS=1 " in make("-n", *words).stdout
    for measure, said in (("1", "MEASURE=1 "), ("0", "MEASURE= "), ("", "MEASURE= ")):
        assert said in make("-n", *words, f"MEASURE={measure}").stdout
    done = make(*words, "SEEDS=3")
    assert done.returncode == 0, done.stderr
    assert "2 more training seeds: GRPO" in done.stdout
    assert "disk: some" in done.stdout


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("SEEDS=0", "SEEDS='0' cannot be used: it is not a whole number from 1 on"),
        ("SEEDS=00", "SEEDS='00' cannot be used"),
        ("SEEDS=", "SEEDS='' cannot be used"),
        ("SEED=00", "SEED='00' cannot be used"),
        ("MODEL=", "MODEL='' cannot be used: it is empty here and in profiles/laptop.yaml"),
        ("SET=grpo.steps=5 grpo.steps=6", "are two values of one setting"),
        ("SET=grpo.steps=010", "grpo.steps=010: 010 would be read as another number"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(word, said):
    done = make("-n", "all", word)
    assert done.returncode != 0
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_seeds_of_a_list_may_begin_at_0(tmp_path):
    done = make("-n", "seeds", "SEEDS=0 1", f"OUTPUTS={tmp_path}")
    assert re.findall(r"== 01_data \(.*(seed\d)\)", done.stdout) == ["seed0", "seed1"]
    done = make("-n", "seeds", f"OUTPUTS={tmp_path}")
    assert done.returncode != 0
    assert 'make seeds needs SEEDS="0 1 2"' in done.stderr


def test_a_home_that_no_shell_has_written_out_is_refused():
    """A recipe's shell would write `~` out, and Python would make a folder of that name."""
    done = make("-n", "all", "OUTPUTS=~/runs")
    assert done.returncode != 0
    assert "a folder is written without spaces and quotes and without ~" in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "extends: smoke\n",
        "extends: \"smoke\"\nmodel: 'smollm2-135m'\n",
        "\ufeffextends: smoke\n",
        "{extends: smoke, dataset: atlas}\n",
        "extends:   smoke  # the small one\n",
    ],
)
def test_a_profile_of_any_form_gives_model_and_data_set(place, text):
    write(place, text)
    assert folder(place, "RUN=mine") == "outputs/mine/smollm2-135m/atlas/seed0"
    assert folder(place, "RUN=mine", "SET=dataset=nq").endswith(
        "mine+dataset=nq/smollm2-135m/nq/seed0"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "extends: nobody\n",
            "profiles/mine.yaml: extends 'nobody', which is not there; profiles: ",
        ),
        ("extends: example\n", "profiles/mine.yaml: 'example' extends another profile itself"),
        ("a: 1\n", "MODEL='' cannot be used: it is empty here and in profiles/mine.yaml"),
        ("extends: smoke\nmodel: my model\n", "MODEL='my!model' cannot be used: a name has"),
        (
            "extends: smoke\ngrpo: {}\ngrpo: {}\n",
            "profiles/mine.yaml: line 3: `grpo` is there twice",
        ),
        ("# café\n".encode("latin-1"), "profiles/mine.yaml: byte 5 is no UTF-8"),
        ("extends: smoke\ntraining_seeds: 0\n", "SEEDS='0' cannot be used"),
    ],
)
def test_a_profile_that_cannot_be_read_is_told_by_its_name(place, text, said):
    write(place, text)
    done = make("-n", "all", "RUN=mine", where=place)
    assert done.returncode != 0
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


FORMS = ["files: {{my: '{0}'}}\n", 'files:\n    my: "{0}"\n', "files:\n  other: x.csv\n  my: {0}\n"]


@pytest.mark.parametrize("file", ["q.csv", "my questions  [1]: 50% #1*.csv", "sub/it's?.csv"])
@pytest.mark.parametrize("form", FORMS)
def test_an_edited_file_of_one_s_own_is_another_data_set(place, form, file):
    text = form.format(file.replace("'", "''") if "'{0}" in form else file)
    if "{0}\n" in form and file != "q.csv":
        text = form.format(f'"{file}"')
    write(place, "extends: smoke\ndataset: my\n" + text)
    path = place / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("question,answers\n")
    run = place / folder(place, "RUN=mine")
    run.mkdir(parents=True)
    (run / "01_data.ipynb").touch()
    assert "== 01_data" not in make("-n", "01_data", "RUN=mine", where=place).stdout
    newer = (run / "01_data.ipynb").stat().st_mtime + 5
    os.utime(path, (newer, newer))
    assert "== 01_data" in make("-n", "01_data", "RUN=mine", where=place).stdout


def test_a_file_that_make_cannot_follow_is_refused(place):
    write(place, "extends: smoke\ndataset: my\nfiles: {my: 'a;b.csv'}\n")
    (place / "a;b.csv").touch()
    done = make("-n", "all", "RUN=mine", where=place)
    assert "a;b.csv: make cannot follow a name with ; | or" in done.stderr


def test_before_there_is_an_environment_plain_lines_are_read(place):
    none = {"py": ".venv/bin/python"}
    assert make("help", where=place, **none).returncode == 0
    done = make("-n", "setup", where=place, **none)
    assert done.returncode == 0, done.stderr
    assert "-m venv .venv" in done.stdout
    assert folder(place, "RUN=example", **none) == "outputs/example/smollm2-135m/my_questions/seed0"
    write(place, 'extends: "smoke"\n')
    done = make("-n", "all", "RUN=mine", where=place, **none)
    assert "before `make setup` it is read from a line `model: name` without quotes" in done.stderr


def test_a_profile_s_training_seeds_are_those_that_a_run_has(place):
    write(place, "extends: smoke\ntraining_seeds: 3\n")
    plain = make("-n", "04_grpo", "RUN=mine", where=place).stdout
    assert "lib.runs seeds" not in plain
    assert plain == make("-n", "04_grpo", "RUN=mine", "SEEDS=3", where=place).stdout
    assert "lib.runs seeds" in make("-n", "04_grpo", "RUN=mine", "SEEDS=1", where=place).stdout
