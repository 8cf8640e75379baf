"""The figures of 01_data and 02_dedup."""

import numpy as np
import pandas as pd
import seaborn as sns

from lib.figures.style import mark_lone_points, name_rows, spaced, whiskers

BLUE = "#08306b"
SPLIT_COLOURS = {"train": "#9ecae1", "validation": "#fdae6b", "test": BLUE}
VERDICT_COLOURS = {"contained": "#d55e00", "not contained": "#7f7f7f"}
# colour and dashes of each curve; more curves than these could not be told apart in grey
CURVE_LOOKS = {
    BLUE: "",
    "#d55e00": (3.7, 1.6),
    "#009e73": (1, 1.65),
    "#cc79a7": (6.4, 1.6, 1, 1.6),
    "#7f7f7f": (5, 1),
}


def plot_data(frame: pd.DataFrame, axes):
    """Four panels of the questions: relations by split, popularity, answers, majority floor.

    frame: panel, key, split, x, value, low, high, n (from `survey.plotted`).
    """
    parts = {name: rows for name, rows in frame.groupby("panel")}
    counted, popular, answered, floor = axes.flat
    _relations(parts["relations"], counted)
    popular.set_visible("popularity" in parts)
    if "popularity" in parts:
        _popularity(parts["popularity"], popular)
        popular.set(xlabel="popularity of the subject", ylabel="share at most as popular")

    answers = parts["answers"]
    answered.plot(answers["x"], answers["value"], color=BLUE)
    mark_lone_points(answered)
    answered.set(xscale="log", yscale="log")
    answered.set(xlabel="rank of the answer", ylabel="questions with it")

    _estimates(parts["floor"], floor)
    floor.set_xlabel("accuracy of the majority answer")
    return axes


def _relations(counts: pd.DataFrame, ax) -> None:
    """The number of questions of each relation, one bar each, stacked by split."""
    rows = counts.assign(key=counts["key"].map(spaced))
    bars = _stacked("split", SPLIT_COLOURS)
    sns.histplot(rows, y="key", weights="value", shrink=0.8, ax=ax, **bars)
    ax.grid(axis="y", visible=False)
    ax.set(xlabel="questions", ylabel=None)
    _name_above(ax, columns=3, reverse=True)


def _stacked(column: str, colours: dict) -> dict:
    """The options of a stacked histogram in `colours`, the first of them at the bottom.

    seaborn stacks from the top down, so the order is reversed here and in the legend.
    """
    order = list(reversed(colours))
    fill = {"multiple": "stack", "alpha": 1, "linewidth": 0}
    return {"hue": column, "hue_order": order, "palette": colours} | fill


def _popularity(rows: pd.DataFrame, ax) -> None:
    """The cumulative share over popularity, one curve for each of the largest relations."""
    sizes = rows.groupby("key", sort=False).size().sort_values(ascending=False, kind="stable")
    largest = sizes.index[: len(CURVE_LOOKS)]
    names = [spaced(key) for key in largest]
    shown = rows[rows["key"].isin(largest)]
    key = shown["key"].map(spaced)

    colours = dict(zip(names, CURVE_LOOKS, strict=False))
    dashes = dict(zip(names, CURVE_LOOKS.values(), strict=False))
    looks = {"hue": key, "hue_order": names, "style": key, "palette": colours, "dashes": dashes}
    sns.lineplot(shown, x="x", y="value", estimator=None, ax=ax, **looks)

    ax.set_xscale("log")
    mark_lone_points(ax)
    _name_above(ax, columns=2)


def _name_above(ax, columns: int, reverse: bool = False) -> None:
    """seaborn's legend above the axes, where it hides no curve and no bar."""
    place = {"bbox_to_anchor": (0.45, 1.0), "ncols": columns, "title": None}
    sns.move_legend(ax, "lower center", reverse=reverse, **place)


def _estimates(rows: pd.DataFrame, ax) -> None:
    """Shares with their intervals, one row each, named by `key` and n."""
    whiskers(ax, range(len(rows)), rows, horizontal=True, color=BLUE, marker="o", clip_on=False)
    name_rows(ax, rows["key"], rows["n"])
    ax.set_xlim(0, 1)


def plot_dedup(frame: pd.DataFrame, axes):
    """Candidate pairs by similarity and verdict, and the precision and recall of the verdicts.

    frame: panel (similarity, truth), key, x, value, low, high, n (from `survey.plotted_pairs`).
    """
    pairs, shares = axes
    similar = frame[frame["panel"] == "similarity"]
    if len(similar):
        edges = np.linspace(min(0.0, similar["x"].min()), 1.0, 26)
        sns.histplot(similar, x="x", bins=edges, ax=pairs, **_stacked("key", VERDICT_COLOURS))
        _name_above(pairs, columns=2, reverse=True)
    pairs.set(yscale="log", xlabel="similarity of the pair", ylabel="candidate pairs")

    truth = frame[frame["panel"] == "truth"]
    shares.set_visible(len(truth) > 0)
    if len(truth):
        _estimates(truth, shares)
        shares.set_xlabel("share of pairs")
    return axes
