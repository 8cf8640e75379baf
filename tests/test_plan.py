"""The plan's counts by hand."""

from lib.config import load_profile
from lib.study.plan import SIGNAL, work


def test_counts_are_those_of_the_profile():
    profile = load_profile("laptop")
    table = work(profile, {"train": 280, "validation": 256, "test": 1000}).set_index("what")
    before = 280 * 16 + 128 * (64 + 3 * 4)
    assert table.loc["samples before RL", "samples"] == before
    # four policies; few-shot, a thought as long as an answer; three methods, five evaluations
    greedy = 1000 * 4 + 400 * 2 + 3 * 5 * 256
    assert table.loc["greedy answers and chain of thought", "samples"] == greedy
    groups = 42 * 16
    counts = table.loc["42 steps with the search", ["samples", "groups"]].tolist()
    assert counts == [groups * 5, groups * SIGNAL]
    assert table.loc["6 evaluations", "samples"] == 6 * 256 + 1000
    assert table.loc["samples of GRPO, SFT and RFT", "samples"] == 3 * 128 * 32
    assert table.loc["13 subsets, 6 steps each", "samples"] == 13 * 6 * 16 * 5
    assert table.loc["their greedy answers", "samples"] == 10 * 400
    assert table.loc["likeliest answers", "prefixes"] == 32 * 128
    hacking = table.loc["8 steps without and with guards", ["samples", "groups"]]
    assert hacking.tolist() == [640, 128 * SIGNAL]


def test_a_reference_model_needs_every_group():
    table = work(load_profile("paper"), {"train": 10_000, "validation": 500, "test": 3610})
    assert table["groups"].sum() > 625 * 128  # nothing is skipped at beta > 0
