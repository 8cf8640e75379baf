"""One function a figure: each takes a tidy frame and axes, draws an interval on every estimate, returns the axes."""

import numpy as np
import pandas as pd

from lib.style import DOUBLE, HEIGHT, LINE, MARKER, NAME, POLICY, SINGLE, STRATUM, WHEN, panels, save

WIDTH = {"single": SINGLE, "double": DOUBLE}
__all__ = ["DOUBLE", "HEIGHT", "POLICY", "SINGLE", "STRATUM", "WHEN", "WIDTH", "panels", "save"]


def whiskers(ax, x, frame: pd.DataFrame, horizontal: bool = False, **options):
    """The points `value` at positions `x` with bars from `low` to `high`; returns the container."""
    value = frame["value"].to_numpy(float)
    error = np.vstack([value - frame["low"].to_numpy(float), frame["high"].to_numpy(float) - value])
    error = np.clip(np.nan_to_num(error), 0, None)  # rounding may leave -1e-17
    style = {"capsize": 2, "elinewidth": 0.9, "linestyle": "none"} | options
    if horizontal:
        return ax.errorbar(value, x, xerr=error, **style)
    return ax.errorbar(x, value, yerr=error, **style)


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
