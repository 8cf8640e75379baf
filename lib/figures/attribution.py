"""The figures of 06_attribution."""

import pandas as pd

from lib.figures.style import (
    LOOKS,
    POLICY,
    STRATUM,
    banded,
    legend_above,
    mark_lone_points,
    name_rows,
    whiskers,
)


def plot_gain_shares(frame: pd.DataFrame, ax):
    """Share of the full-data gain that each training subset brings alone, one row each.

    frame: subset, value, low, high.
    """
    rows = frame.reset_index(drop=True)
    rim = {"markeredgecolor": "black", "markeredgewidth": 0.5, "ecolor": "black"}
    for y, subset in enumerate(rows["subset"]):
        stratum = subset.removeprefix("not_").removesuffix("_matched")
        marker = "X" if subset.startswith("not_") else "s" if subset in STRATUM else "o"
        colour = STRATUM.get(stratum, POLICY["base"])
        look = {"color": colour, "marker": marker, "markersize": 5}
        whiskers(ax, [y], rows.loc[[y]], horizontal=True, **look, **rim)

    name_rows(ax, rows["subset"])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.axvline(0, color="black", linewidth=0.6)
    ax.axvline(1, color="black", linewidth=0.6, linestyle=":")
    ax.set_xlabel("gain, as a share of the gain with all data")
    return ax


def plot_first_hits(frame: pd.DataFrame, ax):
    """Share of the questions at zero that had a right rollout by each step, beside luck.

    frame: step, who (trained, resampled, prior), value, low, high; from `attribution.first_hits`.
    """
    looks = {
        "trained": ("in training", POLICY["grpo"], "D", "-"),
        "resampled": ("base policy, as many draws", LOOKS["control"][1], "^", "--"),
    }
    for who, (label, colour, marker, line) in looks.items():
        look = {"marker": marker, "markersize": 2.5, "label": label, "linestyle": line}
        banded(ax, "step", frame[frame["who"] == who], colour, **look)
    prior = frame[frame["who"] == "prior"]
    ax.plot(prior["step"], prior["value"], color="black", linestyle=":", label="uniform prior")
    mark_lone_points(ax)

    ax.set_ylim(0, 1)
    ax.set_xlabel("step")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_ylabel("questions at zero with a hit")
    legend_above(ax, 1)
    return ax
