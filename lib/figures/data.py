"""The figures of 01_data and 02_dedup."""

import numpy as np
import pandas as pd

from lib.figures.style import (
    name_rows,
    whiskers,
)


def plot_data(frame: pd.DataFrame, axes):
    """Four panels of the questions (`survey.plotted`): by relation and split, popularity, answers,
    majority floor.
    """
    counted, popular, answers, floor = axes.flat
    part = {name: rows for name, rows in frame.groupby("panel")}
    table = (
        part["relations"]
        .pivot_table(index="key", columns="split", values="value", sort=False)
        .fillna(0)
    )
    left = np.zeros(len(table))
    for split, colour in zip(
        ("train", "validation", "test"), ("#9ecae1", "#fdae6b", "#08306b"), strict=True
    ):
        counted.barh(
            range(len(table)), table.get(split, left * 0), left=left, color=colour, label=split
        )
        left = left + table.get(split, left * 0)
    name_rows(counted, [key.replace("_", " ") for key in table.index])
    counted.set_xlabel("questions")
    counted.legend(loc="lower right")
    styles = (
        ("#08306b", "-"),
        ("#d55e00", "--"),
        ("#009e73", ":"),
        ("#cc79a7", "-."),
        ("#7f7f7f", (0, (5, 1))),
    )
    groups = part.get("popularity", frame.iloc[:0]).groupby("key", sort=False)
    for (key, rows), (colour, line) in zip(
        sorted(groups, key=lambda g: -len(g[1])), styles, strict=False
    ):
        popular.plot(
            rows["x"], rows["value"], color=colour, linestyle=line, label=key.replace("_", " ")
        )
    popular.set_xlabel("popularity of the subject")
    popular.set_ylabel("share at most as popular")
    if len(groups):
        popular.set_xscale("log")
        popular.legend(
            loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2
        )  # above: five curves leave no room
    answers.plot(part["answers"]["x"], part["answers"]["value"], color="#08306b")
    answers.set(xscale="log", yscale="log", xlabel="rank of the answer", ylabel="questions with it")
    rows = part["floor"].reset_index(drop=True)
    whiskers(floor, range(len(rows)), rows, True, color="#08306b", marker="o", clip_on=False)
    name_rows(
        floor,
        [
            f"{key.replace('_', ' ')} (n={n:.0f})"
            for key, n in zip(rows["key"], rows["n"], strict=True)
        ],
    )
    floor.set_xlim(0, 1)
    floor.set_xlabel("accuracy of the majority answer")
    return axes


def plot_dedup(frame: pd.DataFrame, axes):
    """Candidate pairs by similarity and verdict (panel `similarity`: x, key), precision and recall
    (panel `truth`).
    """
    pairs, shares = axes
    similar = frame[frame["panel"] == "similarity"]
    edges = np.linspace(min(0.0, similar["x"].min()) if len(similar) else 0.0, 1.0, 26)
    values = [similar.loc[similar["key"] == key, "x"] for key in ("contained", "not contained")]
    pairs.hist(
        values,
        bins=edges,
        color=["#d55e00", "#7f7f7f"],
        label=["contained", "not contained"],
        stacked=True,
    )
    pairs.set(yscale="log", xlabel="similarity of the pair", ylabel="candidate pairs")
    pairs.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    rows = frame[frame["panel"] == "truth"].reset_index(drop=True)
    if len(rows):
        whiskers(shares, range(len(rows)), rows, True, color="#08306b", marker="o", clip_on=False)
        name_rows(
            shares,
            [
                f"{k.replace('_', ' ')} (n={n:.0f})"
                for k, n in zip(rows["key"], rows["n"], strict=True)
            ],
        )
    shares.set_xlim(0, 1)
    shares.set_xlabel("share of pairs")
    return axes
