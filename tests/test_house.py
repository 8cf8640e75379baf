"""The house: which room may use which, one name at one address, functions that fit one look."""

import ast
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from lib.config import ROOT

# from the ground up: a room uses what stands before it, never what stands after it
ROOMS = ["ground", "questions", "judge", "dedup", "engine", "training", "study", "figures", "grid"]
OUTSIDE = ["faults", "bench"]
LONGEST_FUNCTION, LONGEST_MODULE = 64, 420


def modules() -> dict[Path, ast.Module]:
    """Every module of the library, the fault rig and the bench, parsed, by its path."""
    folders = ("lib", *OUTSIDE)
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT): ast.parse(path.read_text()) for path in paths}


def room(parts: tuple[str, ...]) -> str:
    """The room of a path or dotted name: `lib/judge/rules.py` and `lib.judge.rules` -> judge."""
    if parts[0] != "lib":
        return parts[0]
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "ground"


def imports(tree: ast.Module) -> set[str]:
    """The project's own modules that a module imports, inside functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {name for name in names if name.split(".")[0] in ("lib", "tests", *OUTSIDE)}


def arrows() -> dict[tuple[str, str], list[str]]:
    """The arrows between rooms, (from, to), each with the modules that draw it."""
    drawn = defaultdict(list)
    for path, tree in modules().items():
        here = room(path.parts)
        for name in imports(tree):
            there = room(tuple(name.split(".")))
            if here != there:
                drawn[here, there].append(f"{path} -> {name}")
    return dict(drawn)


def top_level_names(tree: ast.Module) -> list[str]:
    """Functions, classes and constants that a module defines, without the shared idiom `main`."""
    names = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in names if name != "main"]


def test_a_room_uses_only_what_stands_before_it():
    upward = {
        edge: where
        for edge, where in arrows().items()
        if edge[0] in ROOMS
        and (edge[1] not in ROOMS or ROOMS.index(edge[1]) > ROOMS.index(edge[0]))
    }
    assert not upward


def test_every_module_lies_in_a_known_room():
    folders = {
        path.parts[1] for path in modules() if path.parts[0] == "lib" and len(path.parts) > 2
    }
    assert folders == set(ROOMS) - {"ground"}


def test_a_name_has_one_address():
    addresses = defaultdict(list)
    for path, tree in modules().items():
        for name in top_level_names(tree):
            addresses[name].append(str(path))
    assert not {name: paths for name, paths in addresses.items() if len(paths) > 1}


def test_no_two_names_of_a_module_differ_by_case_only():
    for path, tree in modules().items():
        names = [name for name in top_level_names(tree) if not name.isupper()]
        names = sorted(names, key=str.lower)
        twins = [(one, other) for one, other in pairwise(names) if one.lower() == other.lower()]
        assert not twins, path


def test_packages_define_nothing():
    for path, tree in modules().items():
        if path.name == "__init__.py":
            assert len(tree.body) == 1, f"{path} re-exports; import from where a name lives"


def test_functions_and_modules_fit_one_sitting():
    for path, tree in modules().items():
        lines = len((ROOT / path).read_text().splitlines())
        assert lines <= LONGEST_MODULE, f"{path} has {lines} lines"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= LONGEST_FUNCTION, f"{path}: {node.name} has {length} lines"


def test_formatting_is_left_to_the_formatter():
    for path in modules():
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
            inside = re.match(r"\s+.*# fmt: skip", line)
            assert not inside, f"{path}:{number}: `fmt: skip` is for tables of constants only"
