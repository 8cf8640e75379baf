"""The figures of 09_transfer."""

import pandas as pd

from lib.figures.style import POLICY, grouped, legend_above, nth_look, plain


def plot_matrix(frame: pd.DataFrame, ax):
    """Gain on each source's questions, side by side for what was trained on.

    frame: trained, tested, value, low, high, n.
    """
    names = list(dict.fromkeys(frame["trained"]))
    looks = {name: (f"trained on {plain(name)}", *nth_look(i)) for i, name in enumerate(names)}
    counts = frame.groupby("tested")["n"].max()
    tested = list(dict.fromkeys(frame["tested"]))
    order = [*(name for name in names if name in tested), *(t for t in tested if t not in names)]
    grouped(ax, frame, "tested", order, "trained", looks, gap=min(0.14, 0.98 / len(names)))
    ax.set_xticks(range(len(order)), [f"{plain(name)}\n(n={counts[name]:.0f})" for name in order])
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_ylabel("gain over the base policy")
    legend_above(ax, 3)
    return ax


def plot_forgotten(frame: pd.DataFrame, ax):
    """Change of accuracy in each ability, side by side for the trained policies.

    frame: ability, policy (grpo, sft), value, low, high, n.
    """
    looks = {"grpo": ("GRPO", POLICY["grpo"], "*"), "sft": ("SFT", POLICY["sft"], "v")}
    order = list(dict.fromkeys(frame["ability"]))
    counts = frame.groupby("ability")["n"].max()
    grouped(ax, frame, "ability", order, "policy", looks)
    ax.set_xticks(range(len(order)), [f"{plain(name)}\n(n={counts[name]:.0f})" for name in order])
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_ylabel("change of accuracy")
    legend_above(ax)
    return ax
