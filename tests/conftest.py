"""Shared test settings: no hub, no telemetry, no windows, one outputs folder per test."""

import os

import pytest

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="agg",
)


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """A fresh outputs folder that `lib.runs` writes into."""
    monkeypatch.setenv("OUTPUTS", str(tmp_path))
    return tmp_path
