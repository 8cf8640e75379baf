"""The figures of 05_redistribution."""

import numpy as np
import pandas as pd

from lib.figures.style import (
    LOOKS,
    POLICY,
    grouped,
    legend_above,
    name_rows,
    whiskers,
)


def plot_pass_at_k(frame: pd.DataFrame, ax, greedy: pd.DataFrame | None = None):
    """pass@k of each `when` (when, k, value, low, high) with bands; `greedy` (when, value, low,
    high) as lines.
    """
    for when, rows in frame.groupby("when", sort=False):
        label, colour, marker = LOOKS[when]
        line = {"before": "--", "control": ":"}.get(when, "-")
        ax.plot(rows["k"], rows["value"], color=colour, marker=marker, linestyle=line, label=label)
        ax.fill_between(rows["k"], rows["low"], rows["high"], color=colour, alpha=0.2, linewidth=0)
    for row in () if greedy is None else greedy.itertuples():
        colour, top = LOOKS[row.when][1], row.value == greedy["value"].max()
        ax.axhline(row.value, color=colour, linewidth=0.8, linestyle=(0, (1, 2)))
        whiskers(ax, [0.8], pd.DataFrame([row]), color=colour, marker="_")
        ax.annotate(
            f"greedy {row.when}",
            (frame["k"].max(), row.value),
            (0, 2 if top else -8),
            fontsize=7,
            ha="right",
            textcoords="offset points",
            color=colour,
        )
    ax.set_xscale("log", base=2)
    ax.set_xticks(ks := sorted(frame["k"].unique()), [str(k) for k in ks])
    ax.minorticks_off()
    ax.set_ylim(0, 1)
    ax.set_xlabel("k (samples a question)")
    ax.set_ylabel("pass@k")
    legend_above(ax)
    return ax


def plot_accessibility_strata(frame: pd.DataFrame, ax):
    """Share of questions in each stratum (when, stratum, value, low, high), for each `when`."""
    grouped(ax, frame, "stratum", list(dict.fromkeys(frame["stratum"])), "when", LOOKS)
    ax.set_ylim(bottom=-0.02)  # room for a mark at zero
    ax.set_xlabel("share of right samples (stratum)")
    ax.set_ylabel("share of questions")
    legend_above(ax)
    return ax


def plot_bounds(frame: pd.DataFrame, axes):
    """Sampled share and enumerated bounds of P(correct), a panel for each `when`, questions by
    their share.

    frame: when, share, low, high (sampled, Wilson), lower, upper (enumerated).
    """
    for ax, (when, part) in zip(np.ravel(axes), frame.groupby("when", sort=False), strict=True):
        rows = part.sort_values(["share", "lower"]).rename(columns={"share": "value"})
        at = np.arange(len(rows))
        ax.bar(
            at,
            rows["upper"] - rows["lower"],
            bottom=rows["lower"],
            width=0.9,
            color="0.85",
            label="bounds",
        )
        whiskers(
            ax,
            at,
            rows,
            color=POLICY["grpo" if when == "after" else "base"],
            marker=".",
            capsize=0,
            label="sampled",
        )
        ax.set_ylim(-0.02, 1.02)
        ax.set_xticks([])
        ax.set_xlabel(f"questions, {when} RL")
    np.ravel(axes)[0].set_ylabel("P(correct)")
    legend_above(np.ravel(axes)[0])
    return axes


def plot_repair_damage(frame: pd.DataFrame, axes, control: pd.DataFrame | None = None):
    """Two panels, repair and damage, by stratum before (direction, stratum, value, low, high, n).

    control: the same columns, one fresh sample of the untrained policy in place of the trained
    answer.
    """
    looks = {
        "greedy": ("after RL", *LOOKS["after"][1:]),
        "sample": ("base, resampled", *LOOKS["control"][1:]),
    }
    both = pd.concat(
        [frame.assign(who="greedy"), *([] if control is None else [control.assign(who="sample")])]
    )
    labels = {
        "repair": "repaired, of those wrong before",
        "damage": "damaged, of those right before",
    }
    for ax, (direction, label) in zip(np.ravel(axes), labels.items(), strict=True):
        rows = both[both["direction"] == direction]
        order = list(dict.fromkeys(rows["stratum"]))
        grouped(ax, rows, "stratum", order, "who", looks)
        n = rows[rows["who"] == "greedy"].set_index("stratum")["n"]
        ax.set_xticks(range(len(order)), [f"{name}\n{n[name]}" for name in order])
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlabel("stratum before, number of questions")
        ax.set_ylabel(label)
    legend_above(np.ravel(axes)[0])
    return axes


def plot_resampling(frame: pd.DataFrame, axes):
    """Two panels by stratum of the first samples: mean share right and share with any hit in other
    samples.

    frame: who (control, after, expected), measure, stratum, value, low, high from
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
    """Change of log-probability of each kind of text (kind, value, low, high, n), a row each."""
    names = {
        "gold": "gold answer",
        "rival": "rival answer",
        "right": "own right text",
        "wrong": "own wrong text",
        "after": "text after RL",
    }
    colours = {
        "gold": ("#e69f00", "s"),
        "right": (POLICY["grpo"], "D"),
        "wrong": ("#d55e00", "X"),
        "rival": ("#cc79a7", "^"),
    }
    rows = frame.reset_index(drop=True)
    for y, kind in enumerate(rows["kind"]):
        colour, marker = colours.get(kind, (POLICY["base"], "o"))
        whiskers(ax, [y], rows.loc[[y]], True, color=colour, marker=marker)
    name_rows(
        ax,
        [
            f"{names.get(kind, kind)} (n={n})"
            for kind, n in zip(rows["kind"], rows["n"], strict=True)
        ],
    )
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.axvline(0, color="black", linewidth=0.6)
    ax.set_xlabel("change of log-probability (nats)")
    return ax


def plot_seen_mass(frame: pd.DataFrame, ax):
    """Share of samples that are right or wrong and seen before or new (who, correct, seen, value,
    low, high).
    """
    kind = [
        f"{'right' if c else 'wrong'},\n{'seen' if s else 'new'}"
        for c, s in zip(frame.correct, frame.seen, strict=True)
    ]
    rows = frame.assign(kind=kind)
    grouped(ax, rows, "kind", list(dict.fromkeys(kind)), "who", LOOKS)
    ax.set_ylim(bottom=-0.02)
    ax.set_ylabel("share of samples")
    legend_above(ax)
    return ax
