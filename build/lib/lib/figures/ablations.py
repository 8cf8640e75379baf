"""The figure of 08_ablations."""

import pandas as pd

from lib.figures.style import NAME, POLICY, legend_above, name_rows, whiskers
from lib.study.ablations import DEFAULT


def plot_arms(frame: pd.DataFrame, axes):
    """Two panels over the same rows, one for each arm: gain, and difference from the default arm.

    frame: judge, arm, what (gain, less default), value, low, high. The first judge's points are
    filled, exact match's are open where it is not the first. The default arm is a dashed line.
    """
    first = frame["judge"].iloc[0]
    gains = frame[(frame["judge"] == first) & (frame["what"] == "gain")]
    order = gains.sort_values("value", ascending=False)["arm"].tolist()
    shown = {first: ("o", POLICY["grpo"], POLICY["grpo"], -0.14)}
    if first != "exact":
        shown["exact"] = ("s", POLICY["dpo"], "white", 0.14)

    for ax, what in zip(axes, ("gain", "less default"), strict=True):
        for judge, (marker, colour, face, shift) in shown.items():
            rows = frame[(frame["judge"] == judge) & (frame["what"] == what)]
            at = [order.index(arm) + shift for arm in rows["arm"]]
            label = "exact match" if judge == "exact" else f"judge: {judge}"
            look = {"color": colour, "marker": marker, "markerfacecolor": face, "markersize": 3.5}
            whiskers(ax, at, rows, horizontal=True, label=label, **look)
        ax.axvline(0, color="black", linewidth=0.6)

    usual = gains.loc[gains["arm"] == DEFAULT, "value"]
    axes[0].axvline(usual.iloc[0], color=POLICY["grpo"], linewidth=0.8, linestyle="--")
    name_rows(axes[0], [NAME.get(arm, arm) for arm in order])
    axes[1].grid(axis="y", visible=False)
    axes[0].set_xlabel("gain over the base policy")
    axes[1].set_xlabel("difference from GRPO as it is")
    legend_above(axes[0])
    return axes
