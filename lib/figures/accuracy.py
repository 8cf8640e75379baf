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
    whiskers,
)


def plot_accuracy(frame: pd.DataFrame, ax):
    """Accuracy of each policy (policy, value, low, high) as points with intervals, one row each."""
    rows = frame.reset_index(drop=True)
    for y, row in rows.iterrows():
        policy = row["policy"]
        colour, marker = POLICY.get(policy, "black"), MARKER.get(policy, "o")
        size = 8 if marker == "*" else 5
        whiskers(ax, [y], rows.loc[[y]], True, color=colour, marker=marker, markersize=size)
    ax.set_yticks(range(len(rows)), [NAME.get(p, p) for p in rows["policy"]])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlim(left=0)
    ax.set_xlabel("accuracy on held-out questions")
    return ax


def plot_training_curves(log: pd.DataFrame, axes):
    """Six panels over steps (step, reward, heldout_accuracy with _low and _high, kl, entropy,
    length, signal_share).
    """
    labels = {
        "reward": "reward",
        "heldout_accuracy": "held-out accuracy",
        "kl": "KL to the start (nats)",
        "entropy": "entropy (nats a token)",
        "length": "answer length (tokens)",
        "signal_share": "groups with signal",
    }
    for ax, (column, label) in zip(np.ravel(axes), labels.items(), strict=True):
        known = log.dropna(subset=column) if column in log else log.iloc[:0]
        ax.plot(
            known["step"], known[column] if len(known) else [], color=POLICY["grpo"], linewidth=1
        )
        if {f"{column}_low", f"{column}_high"} <= set(log):
            rows = known.rename(
                columns={column: "value", f"{column}_low": "low", f"{column}_high": "high"}
            )
            whiskers(ax, rows["step"], rows, color=POLICY["grpo"], marker="o")
        if column in ("reward", "heldout_accuracy", "signal_share"):
            ax.set_ylim(0, 1)
        else:
            ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
        ax.set_xlabel("step")
        ax.set_ylabel(label)
    return axes


def plot_finding(accuracy: pd.DataFrame, curves: pd.DataFrame, flips: pd.DataFrame, axes):
    """The finding in three panels: accuracy by method, pass@k before and after, repair and damage
    by stratum.
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
