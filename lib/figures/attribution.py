"""The figures of 06_attribution."""

import pandas as pd

from lib.figures.style import POLICY, STRATUM, banded, legend_above, name_rows, whiskers


def plot_gain_shares(frame: pd.DataFrame, ax):
    """Share of the full-data gain that each training subset brings alone, one row each.

    frame: subset, value, low, high.
    """
    rows = frame.reset_index(drop=True)
    colours = STRATUM | {"all": POLICY["grpo"], "full": POLICY["grpo"]}
    rim = {"markeredgecolor": "black", "markeredgewidth": 0.5, "ecolor": "black"}
    for y, subset in enumerate(rows["subset"]):
        look = {"color": colours.get(subset, POLICY["base"]), "marker": "o", "markersize": 5}
        whiskers(ax, [y], rows.loc[[y]], horizontal=True, **look, **rim)

    name_rows(ax, rows["subset"])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.axvline(0, color="black", linewidth=0.6)
    ax.axvline(1, color="black", linewidth=0.6, linestyle=":")
    ax.set_xlabel("gain, as a share of the gain with all data")
    return ax


def plot_first_hits(frame: pd.DataFrame, ax):
    """Share of the questions at zero that had a right rollout by each step, beside luck.

    frame: step, value, low, high, expected (from `attribution.first_hits`).
    """
    look = {"marker": "D", "markersize": 2.5, "label": "in training"}
    banded(ax, "step", frame, POLICY["grpo"], **look)
    ax.plot(frame["step"], frame["expected"], color="black", linestyle=":", label="by luck")

    ax.set_ylim(0, 1)
    ax.set_xlabel("step")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_ylabel("questions at zero with a hit")
    legend_above(ax)
    return ax
