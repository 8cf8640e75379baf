"""The figures of 07_judge: the error rates of the judges, and the two trainings."""

import numpy as np
import pandas as pd

from lib.figures.style import POLICY, banded, grouped, legend_above

# one look for the same judge everywhere; shapes tell them apart in grey: label, colour, marker
JUDGE_LOOKS = {
    "exact": ("exact", "#7f7f7f", "o"),
    "alias": ("alias", "#08306b", "D"),
    "unguarded": ("unguarded", "#d55e00", "^"),
    "guarded": ("guarded", "#009e73", "s"),
    "model, naive": ("model, naive", "#e69f00", "v"),
    "model, guarded": ("model, guarded", "#56b4e9", "P"),
}
SOURCE_ORDER = ("known", "labelled", "attack")
RATES = {
    "false_positive": "wrong answers called right",
    "false_negative": "right answers called wrong",
    "kappa": "Cohen's kappa",
}
# label, colour, marker, line
HACKING_LOOKS = {
    "reward": ("reward", "black", "o", "-"),
    "true": ("true accuracy", POLICY["grpo"], "D", "--"),
    "attack": ("the attack", "#d55e00", "^", ":"),
}


def plot_judges(frame: pd.DataFrame, axes):
    """False positives, false negatives and kappa of each judge, by the source of the labels.

    frame: source, judge, measure, value, low, high, n (from `audit.agreement`).
    """
    for ax, (measure, label) in zip(np.ravel(axes), RATES.items(), strict=True):
        rows = frame[(frame["measure"] == measure) & frame["value"].notna()]
        order = [source for source in SOURCE_ORDER if (rows["source"] == source).any()]
        n = rows.groupby("source")["n"].max()

        grouped(ax, rows, "source", order, "judge", JUDGE_LOOKS, gap=0.14)
        ax.set_xticks(range(len(order)), [f"{source}\n(n={n[source]})" for source in order])
        ax.set_ylim(-0.03 if measure != "kappa" else None, 1.04)
        ax.set_ylabel(label)

    # outside the axes: above one of them, its width would push the others away
    first = np.ravel(axes)[0]
    handles, labels = first.get_legend_handles_labels()
    look = {"ncols": len(labels), "columnspacing": 1, "handletextpad": 0.3}
    first.figure.legend(handles, labels, loc="outside upper left", **look)
    return axes


def plot_hacking(frame: pd.DataFrame, axes):
    """Reward, true accuracy and share of the attack among rollouts by step, one panel per arm.

    frame: arm, step, measure, value, low, high (from `hacked.curves`).
    """
    for ax, (arm, part) in zip(np.ravel(axes), frame.groupby("arm", sort=False), strict=True):
        for measure, (label, colour, marker, line) in HACKING_LOOKS.items():
            rows = part[part["measure"] == measure]
            banded(ax, "step", rows, colour, marker=marker, linestyle=line, label=label)
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlabel(f"step, {arm}")

    first = np.ravel(axes)[0]
    first.set_ylabel("share of rollouts")
    legend_above(first)
    return axes
