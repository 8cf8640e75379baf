"""The figures of 07_judge, in the style of lib.figures.study: rates of the judges, and the two
trainings.
"""

import numpy as np
import pandas as pd

from lib.figures.style import POLICY, grouped, legend_above

# one look for the same judge everywhere; shapes tell them apart in grey
JUDGES = {
    "exact": ("exact", "#7f7f7f", "o"), "alias": ("alias", "#08306b", "D"),
    "unguarded": ("unguarded", "#d55e00", "^"), "guarded": ("guarded", "#009e73", "s"),
    "model, naive": ("model, naive", "#e69f00", "v"), "model, guarded": ("model, guarded", "#56b4e9", "P"),
}  # fmt: skip
SOURCE_NAMES = ("known", "labelled", "attack")
RATES = {
    "false_positive": "wrong answers called right",
    "false_negative": "right answers called wrong",
    "kappa": "Cohen's kappa",
}
# label, colour, marker, line
MEASURE_NAMES = {
    "reward": ("reward", "black", "o", "-"), "true": ("true accuracy", POLICY["grpo"], "D", "--"),
    "attack": ("the attack", "#d55e00", "^", ":"),
}  # fmt: skip


def plot_judges(frame: pd.DataFrame, axes):
    """False positives, false negatives and kappa of each judge by source of the labels (see
    audit.agreement).
    """
    for ax, (measure, label) in zip(np.ravel(axes), RATES.items(), strict=True):
        rows = frame[(frame["measure"] == measure) & frame["value"].notna()]
        order = [source for source in SOURCE_NAMES if (rows["source"] == source).any()]
        n = rows.groupby("source")["n"].max()
        grouped(ax, rows, "source", order, "judge", JUDGES, gap=0.14)
        ax.set_xticks(range(len(order)), [f"{source}\n(n={n[source]})" for source in order])
        ax.set_ylim(-0.03 if measure != "kappa" else None, 1.04)
        ax.set_ylabel(label)
    handles, labels = np.ravel(axes)[0].get_legend_handles_labels()
    # outside the axes: above one of them, its width would push the others away
    ax.figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=len(labels),
        columnspacing=1,
        handletextpad=0.3,
    )
    return axes


def plot_hacking(frame: pd.DataFrame, axes):
    """Reward, true accuracy and share of the attack among rollouts, by step, a panel for each arm
    (hacking.curves).
    """
    for ax, (arm, part) in zip(np.ravel(axes), frame.groupby("arm", sort=False), strict=True):
        for measure, (label, colour, marker, line) in MEASURE_NAMES.items():
            rows = part[part["measure"] == measure]
            ax.plot(
                rows["step"],
                rows["value"],
                color=colour,
                marker=marker,
                linestyle=line,
                label=label,
            )
            ax.fill_between(
                rows["step"], rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0
            )
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlabel(f"step, {arm}")
    np.ravel(axes)[0].set_ylabel("share of rollouts")
    legend_above(np.ravel(axes)[0])
    return axes
