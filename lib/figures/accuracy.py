"""The figures of 03_baselines and 04_grpo, and the finding in one figure."""

import numpy as np
import pandas as pd

from lib.figures.redistribution import plot_pass_at_k
from lib.figures.style import (
    MARKER,
    NAME,
    POLICY,
    grouped,
    legend_above,
    mark_lone_points,
    name_rows,
    whiskers,
)

CURVE_LABELS = {
    "reward": "reward",
    "accuracy": "validation accuracy",
    "kl": "KL to the start (nats)",
    "entropy": "entropy (nats per token)",
    "length": "answer length (tokens)",
    "signal_share": "groups with signal",
}


def plot_accuracy(frame: pd.DataFrame, ax):
    """Accuracy of each policy, one row each: a point with its interval.

    frame: policy, value, low, high.
    """
    rows = frame.reset_index(drop=True)
    for y, policy in enumerate(rows["policy"]):
        marker = MARKER.get(policy, "o")
        look = {"color": POLICY.get(policy, "black"), "marker": marker}
        size = 8 if marker == "*" else 5
        whiskers(ax, [y], rows.loc[[y]], horizontal=True, markersize=size, **look)

    name_rows(ax, [NAME.get(policy, policy) for policy in rows["policy"]])
    ax.set_xlim(left=0)
    ax.set_xlabel("accuracy on the test questions")
    return ax


def plot_training_curves(log: pd.DataFrame, axes, labels: dict[str, str] = CURVE_LABELS):
    """A panel over the steps of a training for each column of `labels`.

    log: step and these columns; accuracy has an interval (_low, _high). A column that the log lacks
    leaves its panel empty.
    """
    for ax, (column, label) in zip(np.ravel(axes), labels.items(), strict=True):
        if column in log:
            _curve(log.dropna(subset=column), column, ax)
        if column in ("reward", "accuracy", "signal_share"):
            ax.set_ylim(0, 1)
        else:
            ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
        ax.set_xlabel("step")
        ax.set_ylabel(label)
    return axes


def _curve(log: pd.DataFrame, column: str, ax) -> None:
    """One column of the log over its steps, with an interval where the log has one."""
    colour = POLICY["grpo"]
    ax.plot(log["step"], log[column], color=colour, linewidth=1)
    mark_lone_points(ax)

    bounds = {f"{column}_low": "low", f"{column}_high": "high"}
    if set(bounds) <= set(log):
        rows = log.rename(columns={column: "value"} | bounds)
        whiskers(ax, rows["step"], rows, color=colour, marker="o")


def plot_finding(accuracy: pd.DataFrame, curves: pd.DataFrame, flips: pd.DataFrame, axes):
    """The finding in three panels: accuracy, pass@k before and after, flips by stratum.

    accuracy: as of `plot_accuracy`; curves: as of `plot_pass_at_k`; flips: direction (repair,
    damage), stratum, value, low, high.
    """
    plot_accuracy(accuracy, axes[0])
    plot_pass_at_k(curves[curves["when"] != "control"], axes[1])

    looks = {"repair": ("repaired", POLICY["grpo"], "D"), "damage": ("damaged", "#d55e00", "X")}
    order = list(dict.fromkeys(flips["stratum"]))
    grouped(axes[2], flips, "stratum", order, "direction", looks)
    axes[2].set_ylim(-0.03, 1.03)
    axes[2].set_xlabel("stratum before RL")
    axes[2].set_ylabel("share of answers that flipped")
    legend_above(axes[2])
    return axes


def plot_split(frame: pd.DataFrame, ax):
    """A gain over the base policy and its two parts, for each way of telling them apart.

    frame: by, part (total, form, recall), value, low, high.
    """
    looks = {
        "total": ("whole gain", POLICY["grpo"], "*"),
        "form": ("form", "#e69f00", "s"),
        "recall": ("recall", "#009e73", "D"),
    }
    grouped(ax, frame, "by", list(dict.fromkeys(frame["by"])), "part", looks)
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_ylabel("gain over the base policy")
    legend_above(ax)
    return ax
