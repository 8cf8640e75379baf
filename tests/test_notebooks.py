"""Notebooks as sources: stripped, thin, runnable anywhere with the parameters that make passes."""

import ast
import re
import subprocess
from statistics import median

import nbformat
import pytest

from lib.config import ROOT
from lib.runs import STAGES

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
DEFAULTS = {"run": "laptop", "model": None, "dataset": None, "seed": 0}


def cells(path, kind):
    """The cells of one kind, in order."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def code(cell):
    """A code cell's syntax tree, without lines that only IPython understands."""
    return ast.parse(re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.M))


def parameters(path):
    """The one cell tagged `parameters`."""
    found = [cell for cell in cells(path, "code") if "parameters" in cell.metadata.get("tags", [])]
    assert len(found) == 1, f"{path.name}: {len(found)} cells tagged parameters"
    return found[0]


def test_one_notebook_a_stage():
    assert tuple(path.stem for path in NOTEBOOKS) == STAGES


@every_notebook
def test_valid_stripped_and_for_any_python3(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert set(notebook.metadata.get("language_info", {})) <= {"name"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@every_notebook
def test_parameters_are_plain_and_explained(path):
    cell = parameters(path)
    values = {}
    for node in code(cell).body:
        assert isinstance(node, ast.Assign) and len(node.targets) == 1, ast.unparse(node)
        values[node.targets[0].id] = ast.literal_eval(node.value)
        last = cell.source.splitlines()[node.end_lineno - 1]
        assert re.search(r"#\s*\w", last), f"no why-comment: {last}"
    assert {name: values[name] for name in DEFAULTS} == DEFAULTS


@every_notebook
def test_make_passes_only_names_that_exist(path):
    passed = re.findall(r"-[rp] (\w+) \$\(", (ROOT / "Makefile").read_text().replace("\\\n", " "))
    assert sorted(passed) == sorted(DEFAULTS)
    names = {node.targets[0].id for node in code(parameters(path)).body}
    assert set(passed) <= names


@every_notebook
def test_every_parameter_is_used(path):
    used = {
        node.id
        for cell in cells(path, "code")
        for node in ast.walk(code(cell))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    assert {node.targets[0].id for node in code(parameters(path)).body} <= used


@every_notebook
def test_title_asks_and_the_last_cell_answers(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].cell_type == "markdown"
    title = notebook.cells[0].source.splitlines()[0]
    assert title.startswith("# ") and title.endswith("?"), title
    last = notebook.cells[-1]
    assert last.cell_type == "code"
    assert any(
        isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
        for node in ast.walk(code(last))
    )


@every_notebook
def test_a_cell_checks_something(path):
    assert any(
        isinstance(node, ast.Assert)
        for cell in cells(path, "code")
        for node in ast.walk(code(cell))
    )


@every_notebook
def test_cells_show_and_functions_do(path):
    sources = cells(path, "code")
    lengths = [sum(bool(line.strip()) for line in cell.source.splitlines()) for cell in sources]
    assert median(lengths) <= 6
    assert max(lengths) <= 20
    for cell in sources:
        assert not re.search(r"\.backward\(|optimizer|\.step\(\)", cell.source), cell.source
        for node in ast.walk(code(cell)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                assert node.end_lineno - node.lineno + 1 <= 6, node.name


@every_notebook
def test_no_path_is_written_out(path):
    for cell in cells(path, "code"):
        for node in ast.walk(code(cell)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.match(r"(/|~/|\.\.?/|outputs/|profiles/|[A-Za-z]:\\)", node.value), (
                    node.value
                )
            if isinstance(node, ast.Call) and getattr(
                node.func, "id", getattr(node.func, "attr", "")
            ) in (
                "open",
                "read_parquet",
                "read_csv",
                "read_json",
                "Path",
            ):
                assert not (node.args and isinstance(node.args[0], ast.Constant)), ast.unparse(node)
    for cell in cells(path, "markdown"):
        assert not re.search(r"\]\((/|file:)|/home/|/Users/|/tmp/", cell.source), cell.source


def test_git_does_not_ignore_the_library():
    ignored = subprocess.run(
        ["git", "check-ignore", "lib", "lib/runs.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert (ignored.stdout, ignored.returncode) == ("", 1)
