"""The plan's counts by hand."""

from lib.config import load_profile
from lib.study.plan import SIGNAL, work


def test_counts_are_those_of_the_profile():
    profile = load_profile("laptop")
    table = work(profile, {"train": 320, "validation": 64, "test": 128}).set_index("what")
    assert table.loc["samples before RL", "samples"] == 320 * 16 + 128 * 128
    assert table.loc["greedy answers and chain of thought", "samples"] == 128 * (4 + 64 // 16)
    assert table.loc["18 steps", ["samples", "groups"]].tolist() == [18 * 32 * 5, 18 * 32 * SIGNAL]
    assert table.loc["4 evaluations", "samples"] == 4 * 64 + 128
    assert table.loc["samples after RL", "samples"] == 128 * 64
    assert table.loc["4 subsets, 6 steps each", "samples"] == 4 * 6 * 32 * 5
    assert table.loc["likeliest answers", "prefixes"] == 2 * 32 * 256
    hacking = table.loc["8 steps without and with guards", ["samples", "groups"]]
    assert hacking.tolist() == [640, 128 * SIGNAL]


def test_a_reference_model_needs_every_group():
    table = work(load_profile("paper"), {"train": 10_000, "validation": 500, "test": 3610})
    assert table["groups"].sum() > 625 * 128  # nothing is skipped at beta > 0
