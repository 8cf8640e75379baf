"""Every kind of interval holds the truth about as often as it says; finer: coverage.py."""

import numpy as np

from lib.metrics import bootstrap
from tests import coverage


def test_no_interval_is_far_from_95_percent():
    table = coverage.covered(80)
    assert len(table) > 20
    assert coverage.outside(table) == []


def test_an_interval_that_is_too_narrow_is_found(monkeypatch):
    def narrow(rng):
        values = rng.normal(size=50)
        return [(0.0, *bootstrap(values, n_boot=200, level=0.6))]

    monkeypatch.setattr(coverage, "kinds", lambda: iter([("narrow", narrow, [""])]))
    table = coverage.covered(80)
    assert coverage.outside(table) == ["narrow"]
    assert np.isclose(table["value"][0], 0.6, atol=0.15)


def test_tests_do_not_cry_wolf():
    assert (coverage.false_alarms(60)["value"] < 0.15).all()
    assert coverage.power_seen(60) > 0.6
