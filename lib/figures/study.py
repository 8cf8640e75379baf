"""One function a figure: it takes a tidy frame and axes, draws intervals, returns the axes."""

import numpy as np
import pandas as pd

from lib.figures.style import (
    DOUBLE,
    HEIGHT,
    LOOKS,
    MARKER,
    NAME,
    POLICY,
    SINGLE,
    STRATUM,
    panels,
    save,
)

WIDTH = {"single": SINGLE, "double": DOUBLE}
__all__ = ["DOUBLE", "HEIGHT", "POLICY", "SINGLE", "STRATUM", "WIDTH", "panels", "save"]


def whiskers(ax, x, frame: pd.DataFrame, horizontal: bool = False, **options):
    """The points `value` at positions `x` with bars from `low` to `high`; returns the container."""
    value = frame["value"].to_numpy(float)
    error = np.vstack([value - frame["low"].to_numpy(float), frame["high"].to_numpy(float) - value])
    error = np.clip(error, 0, None)  # rounding may leave -1e-17; nan draws no bar
    style = {"capsize": 2, "elinewidth": 0.9, "linestyle": "none"} | options
    if horizontal:
        return ax.errorbar(value, x, xerr=error, **style)
    return ax.errorbar(x, value, yerr=error, **style)


def plot_accuracy(frame: pd.DataFrame, ax):
    """Accuracy of each policy (policy, value, low, high) as points with intervals, one row each."""
    rows = frame.reset_index(drop=True)
    for y, row in rows.iterrows():
        policy = row["policy"]
        colour, marker = POLICY.get(policy, "black"), MARKER.get(policy, "o")
        size = 8 if marker == "*" else 5
        whiskers(ax, [y], rows.loc[[y]], True, color=colour, marker=marker, markersize=size)
    ax.set_yticks(range(len(rows)), [NAME.get(p, p) for p in rows["policy"]])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlim(left=0)
    ax.set_xlabel("accuracy on held-out questions")
    return ax


def legend_above(ax, columns: int | None = None):
    """The names above the axes, where they can hide no estimate: in one row, or in so many columns."""
    columns = columns or len(ax.get_legend_handles_labels()[1])
    return ax.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        columnspacing=1,
        handletextpad=0.3,
        borderaxespad=0.2,
        handlelength=1.4,
    )


def grouped(ax, frame: pd.DataFrame, x: str, order, by: str, looks: dict, gap: float = 0.18):
    """Points with intervals at the categories `order` of column `x`, side by side for each key of
    `looks`.

    looks: value of column `by` -> (label, colour, marker); the categories' labels carry no n,
    callers add it.
    """
    shown = [key for key in looks if (frame[by] == key).any()]
    for i, key in enumerate(shown):
        rows = frame[frame[by] == key].set_index(x).reindex(list(order))
        label, colour, marker = looks[key]
        at = np.arange(len(rows)) + gap * (i - (len(shown) - 1) / 2)
        whiskers(ax, at, rows, color=colour, marker=marker, markerfacecolor=colour, label=label)
    ax.set_xticks(range(len(order)), [str(name) for name in order])
    ax.set_xlim(-0.6, len(order) - 0.4)
    ax.grid(axis="x", visible=False)
    return ax


def plot_training_curves(log: pd.DataFrame, axes):
    """Six panels over steps (step, reward, heldout_accuracy with _low and _high, kl, entropy,
    length, signal_share).
    """
    labels = {
        "reward": "reward",
        "heldout_accuracy": "held-out accuracy",
        "kl": "KL to the start (nats)",
        "entropy": "entropy (nats a token)",
        "length": "answer length (tokens)",
        "signal_share": "groups with signal",
    }
    for ax, (column, label) in zip(np.ravel(axes), labels.items(), strict=True):
        known = log.dropna(subset=column) if column in log else log.iloc[:0]
        ax.plot(
            known["step"], known[column] if len(known) else [], color=POLICY["grpo"], linewidth=1
        )
        if {f"{column}_low", f"{column}_high"} <= set(log):
            rows = known.rename(
                columns={column: "value", f"{column}_low": "low", f"{column}_high": "high"}
            )
            whiskers(ax, rows["step"], rows, color=POLICY["grpo"], marker="o")
        if column in ("reward", "heldout_accuracy", "signal_share"):
            ax.set_ylim(0, 1)
        else:
            ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
        ax.set_xlabel("step")
        ax.set_ylabel(label)
    return axes


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
    _names(
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
    _names(ax, [str(name).replace("_", " ") for name in rows["subset"]])
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


def plot_finding(accuracy: pd.DataFrame, curves: pd.DataFrame, flips: pd.DataFrame, axes):
    """The finding in three panels: accuracy by method, pass@k before and after, repair and damage
    by stratum.
    """
    plot_accuracy(accuracy, axes[0])
    plot_pass_at_k(curves[curves["when"] != "control"], axes[1])
    looks = {"repair": ("repaired", POLICY["grpo"], "D"), "damage": ("damaged", "#d55e00", "X")}
    order = list(dict.fromkeys(flips["stratum"]))
    grouped(axes[2], flips, "stratum", order, "direction", looks)
    axes[2].set_ylim(-0.03, 1.03)
    axes[2].set_xlabel("stratum before RL")
    axes[2].set_ylabel("share of answers that flipped")
    legend_above(axes[2])
    return axes


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
    _names(counted, [key.replace("_", " ") for key in table.index])
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
    _names(
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
        _names(
            shares,
            [
                f"{k.replace('_', ' ')} (n={n:.0f})"
                for k, n in zip(rows["key"], rows["n"], strict=True)
            ],
        )
    shares.set_xlim(0, 1)
    shares.set_xlabel("share of pairs")
    return axes


def _names(ax, labels: list[str]) -> None:
    """Rows of a horizontal chart from the top down, each with its name."""
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
