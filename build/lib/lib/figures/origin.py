"""The figures of 10_origin."""

import pandas as pd

from lib.figures.style import LOOKS, POLICY, grouped, legend_above, whiskers

MEASURE = {
    "greedy": "greedy answer right",
    "samples": "one sample right",
    "pass_at_n": "some sample right",
    "contrast": "right city over others in\nthe same sentence (nats)",
}


def plot_exposures(frame: pd.DataFrame, floor: float, axes):
    """A panel for each measure over the number of exposures, before and after RL.

    frame: exposures, measure, when (before, after), value, low, high; floor: what the best constant
    answer earns, a dotted line where the measure is an accuracy.
    """
    levels = sorted(frame["exposures"].unique())
    for ax, (measure, label) in zip(axes, MEASURE.items(), strict=True):
        for when, shift in (("before", -0.1), ("after", 0.1)):
            name, colour, marker = LOOKS[when]
            rows = frame[(frame["measure"] == measure) & (frame["when"] == when)]
            at = [levels.index(one) + shift for one in rows["exposures"]]
            whiskers(ax, at, rows, color=colour, marker=marker, label=name)
        ax.set_xticks(range(len(levels)), levels)
        ax.set_xlabel("wordings seen")
        ax.set_ylabel(label)
        if measure != "contrast":
            ax.set_ylim(-0.03, 1.03)
        if measure in ("greedy", "samples"):
            ax.axhline(floor, color="black", linewidth=0.8, linestyle=":")
    legend_above(axes[0])
    return axes


def plot_encoded(frame: pd.DataFrame, ax):
    """Repaired share of wrong answers, by whether the policy chose the right one among four.

    frame: by (choice, p_true), encoded (yes, no), value, low, high.
    """
    looks = {
        "yes": ("chosen among four", POLICY["grpo"], "D"),
        "no": ("not chosen", POLICY["base"], "o"),
    }
    names = {"choice": "likeliest answer", "p_true": "P(true)"}
    rows = frame.assign(by=frame["by"].map(names))
    grouped(ax, rows, "by", list(dict.fromkeys(rows["by"])), "encoded", looks)
    ax.set_ylim(-0.03, 1.03)
    ax.set_ylabel("wrong answers repaired")
    legend_above(ax)
    return ax
