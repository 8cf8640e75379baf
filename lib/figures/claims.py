"""The figures of 11_claims."""

import pandas as pd

from lib.figures.style import POLICY, name_rows, nth_look, plain, whiskers
from lib.study.claims import CLAIM_WORDS

LOOK = {True: ("o", POLICY["grpo"]), False: ("X", "#d55e00")}
OPEN = ("s", "#7f7f7f")


def plot_claims(frame: pd.DataFrame, ax):
    """The paired differences among the claims, one row each, by what they say of the claim.

    frame: claim, value, low, high, verdict.
    """
    rows = frame.reset_index(drop=True)
    for y, row in enumerate(rows.itertuples()):
        found = (look for answer, look in LOOK.items() if row.verdict in CLAIM_WORDS[answer])
        marker, colour = next(found, OPEN)
        whiskers(ax, [y], rows.loc[[y]], horizontal=True, color=colour, marker=marker, markersize=4)
    name_rows(ax, rows["claim"])
    ax.axvline(0, color="black", linewidth=0.6)
    ax.set_xlabel("difference of accuracy")
    return ax


def plot_sizes(frame: pd.DataFrame, ax):
    """Gain over the size of the model, a point with its interval for each data set.

    frame: dataset, billions, value, low, high.
    """
    for i, (dataset, rows) in enumerate(frame.groupby("dataset")):
        colour, marker = nth_look(i)
        look = {"color": colour, "marker": marker, "linestyle": ":", "label": plain(dataset)}
        whiskers(ax, rows["billions"], rows, **look)
    ax.set_xscale("log")
    ax.set_xlabel("parameters (billions)")
    ax.set_ylabel("gain of GRPO")
    ax.axhline(0, color="black", linewidth=0.6)
    ax.legend()
    return ax
