"""Profiles that build on another one, and single settings given beside a profile.

`extends: laptop` in a profile takes over that profile's settings; SET='grpo.steps=50' in the
environment replaces single ones, and stands in the run's path, so that nothing mixes.
"""

import os
import re
from pathlib import Path

import yaml

SETTING = r"[a-z_]+(\.[A-Za-z0-9_-]+)*=[A-Za-z0-9._-]+"  # it becomes a part of a folder's name


def read_profile(path: Path) -> dict:
    """The settings in a profile's file, over those of the profile that it `extends`.

    Sections are merged key by key; below a section a value replaces the other whole. Raises
    ValueError for what is no mapping, and for a base that is missing or itself extends another.
    """
    values = _yaml_mapping(path)
    base = values.pop("extends", None)
    if base is None:
        return values
    file = path.with_name(f"{base}.yaml")
    if not file.is_file():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml")))
        raise ValueError(f"{path}: extends {base!r}, which is not there; profiles: {known}")
    below = _yaml_mapping(file)
    if "extends" in below:
        raise ValueError(f"{path}: {base!r} extends another profile itself; extend that one")
    for key, value in values.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        below[key] = below[key] | value if both else value
    return below


def _yaml_mapping(path: Path) -> dict:
    """The mapping in a YAML file."""
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a mapping of settings")
    return values


def given() -> list[str]:
    """The single settings in the environment's SET, such as ["grpo.steps=50"], sorted.

    Raises ValueError for one that is not written as key=value or section.key=value.
    """
    words = sorted(set(os.environ.get("SET", "").split()))
    for word in words:
        if not re.fullmatch(SETTING, word):
            raise ValueError(f"SET: {word!r} is not section.key=value, such as grpo.steps=50")
    return words


def with_given(values: dict) -> dict:
    """The settings with those of SET put in, which are read as YAML reads them."""
    values = {k: dict(v) if isinstance(v, dict) else v for k, v in values.items()}
    for word in given():
        path, _, text = word.partition("=")
        *sections, key = path.split(".")
        inside = values
        for section in sections:
            if not isinstance(inside.get(section), dict):
                raise ValueError(f"SET: {word}: this profile has no section `{section}`")
            inside[section] = dict(inside[section])
            inside = inside[section]
        inside[key] = yaml.safe_load(text)
    return values


def variant_name(run: str) -> str:
    """The run's folder name: the profile's, then each single setting after a plus sign."""
    return "+".join([run, *given()])


def differing(old: dict, new: dict, path: str = "") -> list[str]:
    """The settings that differ, as `section.key: old -> new`, by their order in the alphabet."""
    found = []
    for key in sorted(set(old) | set(new)):
        one, other, here = old.get(key), new.get(key), f"{path}{key}"
        if isinstance(one, dict) and isinstance(other, dict):
            found += differing(one, other, f"{here}.")
        elif one != other:
            found.append(f"{here}: {one!r} -> {other!r}")
    return found
