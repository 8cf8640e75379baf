"""The figures of 06_attribution."""

import pandas as pd

from lib.figures.style import POLICY, STRATUM, legend_above, name_rows, whiskers


def plot_gain_shares(frame: pd.DataFrame, ax):
    """Share of the full-data gain that each training subset brings alone (subset, value, low,
    high), a row each.
    """
    rows = frame.reset_index(drop=True)
    for y, subset in enumerate(rows["subset"]):
        colour = STRATUM.get(
            subset, POLICY["grpo"] if subset in ("all", "full") else POLICY["base"]
        )
        whiskers(
            ax,
            [y],
            rows.loc[[y]],
            True,
            color=colour,
            marker="o",
            markeredgecolor="black",
            markersize=5,
            markeredgewidth=0.5,
            ecolor="black",
        )
    name_rows(ax, [str(name).replace("_", " ") for name in rows["subset"]])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    for at in (0, 1):
        ax.axvline(at, color="black", linewidth=0.6, linestyle="-" if at == 0 else ":")
    ax.set_xlabel("gain, as a share of the gain with all data")
    return ax


def plot_first_hits(frame: pd.DataFrame, ax):
    """Share of questions at zero with a right rollout by each step (step, value, low, high,
    expected).
    """
    colour = POLICY["grpo"]
    ax.plot(
        frame["step"], frame["value"], color=colour, marker="D", markersize=2.5, label="in training"
    )
    ax.fill_between(
        frame["step"], frame["low"], frame["high"], color=colour, alpha=0.2, linewidth=0
    )
    ax.plot(frame["step"], frame["expected"], color="black", linestyle=":", label="by luck")
    ax.set_ylim(0, 1)
    ax.set_xlabel("step")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_ylabel("questions at zero with a hit")
    legend_above(ax)
    return ax
