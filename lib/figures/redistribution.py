"""The figures of 05_redistribution."""

import numpy as np
import pandas as pd

from lib.figures.style import (
    LOOKS,
    MARKER,
    NAME,
    POLICY,
    banded,
    grouped,
    legend_above,
    name_rows,
    whiskers,
)

# label, colour, marker of each policy
METHOD_LOOKS = {
    "base": ("base", POLICY["base"], "o"),
    "control": ("base, asked again", LOOKS["control"][1], "^"),
} | {who: (NAME[who], POLICY[who], MARKER[who]) for who in ("grpo", "sft", "rft")}
# name, colour, marker of each kind of text
TEXT_LOOKS = {
    "gold": ("gold answer", "#e69f00", "s"),
    "rival": ("rival answer", "#cc79a7", "^"),
    "right": ("own right text", POLICY["grpo"], "D"),
    "wrong": ("own wrong text", "#d55e00", "X"),
    "after": ("text after RL", POLICY["base"], "o"),
}


def doublings(ax, values: pd.Series) -> None:
    """An x axis on which a doubling is one step, with a tick at each of the values."""
    ticks = sorted(values.dropna().unique())
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()


def plot_pass_at_k(frame: pd.DataFrame, ax, greedy: pd.DataFrame | None = None, label="pass@k"):
    """pass@k of each `when` as a line with a band, and greedy accuracy as a level.

    frame: when, k, value, low, high; greedy: when, value, low, high; label: of the y axis, such as
    pass^k for another curve over k.
    """
    for when, rows in frame.groupby("when", sort=False):
        name, colour, marker = LOOKS[when]
        line = {"before": "--", "control": ":"}.get(when, "-")
        banded(ax, "k", rows, colour, marker=marker, linestyle=line, label=name)
    if greedy is not None:
        _levels(greedy, frame["k"].max(), ax)

    doublings(ax, frame["k"])
    ax.set_ylim(0, 1)
    ax.set_xlabel("k (samples per question)")
    ax.set_ylabel(label)
    legend_above(ax)
    return ax


def plot_reliability(frame: pd.DataFrame, ax):
    """Accuracy by confidence, each policy's parts joined; on the diagonal both are the same.

    frame: who, confidence, value, low, high.
    """
    ax.plot([0, 1], [0, 1], color="black", linewidth=0.6, linestyle=":")
    for who, rows in frame.groupby("who", sort=False):
        label, colour, marker = METHOD_LOOKS[who]
        look = {"color": colour, "marker": marker, "linewidth": 1}
        whiskers(ax, rows["confidence"], rows, label=label, **look | {"linestyle": "-"})

    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_xlabel("probability of the greedy answer")
    ax.set_ylabel("share that is right")
    legend_above(ax)
    return ax


def plot_power(frame: pd.DataFrame, ax):
    """Accuracy of one answer drawn from p^alpha by alpha, and the trained policy's as a level.

    frame: how (samples, enumerated, after), alpha, value, low, high; the row of `after` has no
    alpha.
    """
    looks = {
        "samples": ("reweighted samples", POLICY["base"], "o", "--"),
        "enumerated": ("enumerated answers", "#e69f00", "^", ":"),
    }
    for how, rows in frame[frame["how"] != "after"].groupby("how", sort=False):
        label, colour, marker, line = looks[how]
        banded(ax, "alpha", rows, colour, marker=marker, linestyle=line, label=label)
    after = frame[frame["how"] == "after"].iloc[0]
    label = LOOKS["after"][0]
    ax.axhline(after["value"], color=POLICY["grpo"], linewidth=1, label=f"one sample {label}")
    ax.axhspan(after["low"], after["high"], color=POLICY["grpo"], alpha=0.12, linewidth=0)

    doublings(ax, frame["alpha"])
    ax.set_ylim(bottom=0)
    ax.set_xlabel("alpha")
    ax.set_ylabel("accuracy of one answer")
    legend_above(ax, 1)
    return ax


def _levels(greedy: pd.DataFrame, right: float, ax) -> None:
    """Each greedy accuracy as a dotted level, named at its end `right`, interval at its start."""
    for row in greedy.itertuples():
        colour = LOOKS[row.when][1]
        ax.axhline(row.value, color=colour, linewidth=0.8, linestyle=(0, (1, 2)))
        whiskers(ax, [0.8], pd.DataFrame([row]), color=colour, marker="_")

        shift = 2 if row.value == greedy["value"].max() else -8  # points: above the line, or below
        text = {"fontsize": 7, "ha": "right", "textcoords": "offset points", "color": colour}
        ax.annotate(f"greedy {row.when}", (right, row.value), (0, shift), **text)


def plot_accessibility_strata(frame: pd.DataFrame, ax):
    """Share of questions in each stratum, side by side for each `when`.

    frame: when, stratum, value, low, high.
    """
    grouped(ax, frame, "stratum", list(dict.fromkeys(frame["stratum"])), "when", LOOKS)
    ax.set_ylim(bottom=-0.02)  # room for a mark at zero
    ax.set_xlabel("share of right samples (stratum)")
    ax.set_ylabel("share of questions")
    legend_above(ax)
    return ax


def plot_repair_damage(frame: pd.DataFrame, axes):
    """Two panels, repair and damage, by stratum before.

    frame: direction, stratum, value, low, high, n.
    """
    looks = {"greedy": ("greedy answer after RL", *LOOKS["after"][1:])}
    labels = {
        "repair": "repaired, of those wrong before",
        "damage": "damaged, of those right before",
    }
    for ax, (direction, label) in zip(np.ravel(axes), labels.items(), strict=True):
        rows = frame[frame["direction"] == direction].assign(who="greedy")
        order = list(dict.fromkeys(rows["stratum"]))
        grouped(ax, rows, "stratum", order, "who", looks)
        n = rows.set_index("stratum")["n"]
        ax.set_xticks(range(len(order)), [f"{name}\n{n[name]}" for name in order])
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlabel("stratum before, number of questions")
        ax.set_ylabel(label)
    return axes


def plot_difference(frame: pd.DataFrame, ax):
    """pass@k less pass@k before, of each policy, as lines with bands.

    frame: who, k, value, low, high.
    """
    for who, rows in frame.groupby("who", sort=False):
        label, colour, marker = METHOD_LOOKS[who]
        line = ":" if who == "control" else "-"
        banded(ax, "k", rows, colour, marker=marker, linestyle=line, label=label)
    ax.axhline(0, color="black", linewidth=0.6)

    doublings(ax, frame["k"])
    ax.set_xlabel("k (samples per question)")
    ax.set_ylabel("pass@k less pass@k before")
    legend_above(ax)
    return ax


def plot_ranks(frame: pd.DataFrame, ax):
    """Where each policy's most frequent answer stood among the samples before.

    frame: who, rank, value, low, high.
    """
    order = list(dict.fromkeys(frame["rank"]))
    grouped(ax, frame, "rank", order, "who", METHOD_LOOKS)
    ax.set_ylim(bottom=-0.02)
    ax.set_xlabel("rank among the base policy's answers")
    ax.set_ylabel("share of questions")
    legend_above(ax)
    return ax


def plot_learnt(frame: pd.DataFrame, axes):
    """Accuracy by stratum before, one panel for training and one for test questions.

    frame: who, split, stratum, value, low, high.
    """
    for ax, (split, rows) in zip(np.ravel(axes), frame.groupby("split", sort=False), strict=True):
        order = list(dict.fromkeys(rows["stratum"]))
        grouped(ax, rows, "stratum", order, "who", METHOD_LOOKS)
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlabel(f"stratum before, {split} questions")
        ax.set_ylabel("greedy accuracy")
    legend_above(np.ravel(axes)[0])
    return axes


def plot_resampling(frame: pd.DataFrame, axes):
    """Mean share right and share with any hit in other samples, by stratum of the first ones.

    frame: who (control, after, expected), measure, stratum, value, low, high, from
    `resampling_control`.
    """
    labels = {"accuracy": "mean share of right samples", "hit": "questions with any right sample"}
    for ax, (measure, label) in zip(np.ravel(axes), labels.items(), strict=True):
        rows = frame[(frame["measure"] == measure) & (frame["stratum"] != "all")]
        grouped(ax, rows, "stratum", list(dict.fromkeys(rows["stratum"])), "who", LOOKS)
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlabel("stratum before")
        ax.set_ylabel(label)

    legend_above(np.ravel(axes)[0])
    return axes


def plot_mass_shift(frame: pd.DataFrame, ax):
    """Change of log-probability of each kind of text, one row each.

    frame: kind, value, low, high, n.
    """
    rows = frame.reset_index(drop=True)
    looks = [TEXT_LOOKS[kind] for kind in rows["kind"]]
    for y, (_, colour, marker) in enumerate(looks):
        whiskers(ax, [y], rows.loc[[y]], horizontal=True, color=colour, marker=marker)

    name_rows(ax, [name for name, _, _ in looks], rows["n"])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.axvline(0, color="black", linewidth=0.6)
    ax.set_xlabel("change of log-probability (nats)")
    return ax


def plot_seen_mass(frame: pd.DataFrame, ax):
    """Share of samples that are right or wrong, and whose text was seen before or is new.

    frame: who, correct, seen, value, low, high.
    """
    truth = frame["correct"].map({True: "right", False: "wrong"})
    novelty = frame["seen"].map({True: "seen", False: "new"})
    rows = frame.assign(kind=truth + ",\n" + novelty)

    grouped(ax, rows, "kind", list(dict.fromkeys(rows["kind"])), "who", LOOKS)
    ax.set_ylim(bottom=-0.02)
    ax.set_ylabel("share of samples")
    legend_above(ax)
    return ax
