"""The quick faults of `make faults`, and the table's own conduct when one goes wrong."""

import json

import pytest

from faults import __main__ as faults
from faults import staging

QUICK = (
    "malformed_verdicts",
    "random_replies",
    "failing_judge",
    "hangs",
    "refusals",
    "damaged_cache",
    "two_writers",
    "cache_keys",
    "data_drifts",
    "tokenizer_traps",
)


@pytest.mark.parametrize("name", QUICK)
def test_a_fault_is_noticed_and_loses_nothing(name):
    rows = faults.table([name])
    assert rows and all(r["ok"] and not r["lost"] and not r["false_positives"] for r in rows), rows
    assert all(r["n"] == r["detected"] > 0 for r in rows)
    assert all(r["seconds"] < 10 for r in rows)


def test_attacks_are_many_and_all_refused():
    rows = {r["fault"]: r for r in faults.table(["attacks"])}
    total = rows.pop("attacks, all")
    assert total["ok"]
    assert total["n"] == sum(r["n"] for r in rows.values()) > 500
    assert len(rows) >= 14
    assert all(r["false_positives"] == 0 for r in rows.values())


def test_a_fault_that_is_not_noticed_fails_the_command_and_the_table_is_written(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("OUTPUTS", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["faults"])
    known = {
        "fine": lambda: staging.row(2, 2),
        "missed": lambda: staging.row(3, 2),
        "broken": lambda: 1 / 0,
    }
    monkeypatch.setattr(faults, "FAULTS", known)
    with pytest.raises(SystemExit, match="not as they should be: missed, broken"):
        faults.main()
    rows = json.loads((tmp_path / "faults" / "summary.json").read_text())
    assert [(r["fault"], r["n"], r["detected"], r["ok"]) for r in rows] == [
        ("fine", 2, 2, True),
        ("missed", 3, 2, False),
        ("broken", 1, 0, False),
    ]
    assert "ZeroDivisionError" in rows[2]["note"]
