"""How figures look and how they are saved: sizes in inches, one colour for one thing."""

from io import BytesIO
from pathlib import Path
from string import ascii_lowercase

import matplotlib as mpl
import numpy as np
import pandas as pd
import yaml
from IPython.display import Markdown, display
from matplotlib import figure

from lib.tables import save_table, write_text

SINGLE, DOUBLE = 3.3, 6.9  # widths of one and of two columns, inches
HEIGHT = 2.3

# Okabe-Ito hues; marker shapes tell the same things apart in grey
POLICY = {
    "base": "#7f7f7f", "majority": "#e69f00", "cot": "#56b4e9", "sft": "#009e73", "rft": "#cc79a7",
    "dpo": "#d55e00", "grpo": "#08306b", "best_of_n": "#117733", "p_true": "#aa4499",
    "few_shot": "#332288",
}  # fmt: skip
MARKER = {
    "base": "o",
    "majority": "s",
    "cot": "^",
    "sft": "v",
    "rft": "D",
    "dpo": "P",
    "grpo": "*",
    "best_of_n": "X",
    "p_true": "p",
    "few_shot": "h",
}
NAME = {
    "base": "greedy",
    "majority": "majority vote",
    "cot": "chain of thought",
    "best_of_n": "likeliest of n",
    "p_true": "P(true)",
    "few_shot": "few-shot",
    "constant": "best constant",
    "sft": "SFT",
    "rft": "RFT",
    "dpo": "DPO",
    "grpo": "GRPO",
    "grpo_matched": "GRPO",
    "on_policy_rft": "GRPO, right answers only",
    "offline": "GRPO on stored answers",
    "offline_rft": "stored, right answers only",
    "form_reward": "reward for form",
    "coin_reward": "random reward",
    "majority_reward": "majority as reward",
    "start": "bare-form start",
    "start_sft": "SFT from the start",
    "start_grpo": "GRPO from the start",
}
STRATUM = {"zero": "#fde0a6", "low": "#f4a261", "middle": "#b5594f", "high": "#4a1c40"}
# the same policy at different times: label, colour, marker
LOOKS = {
    "before": ("before RL", POLICY["base"], "o"),
    "control": ("before RL, resampled", "#e69f00", "^"),
    "after": ("after RL", POLICY["grpo"], "D"),
    "expected": ("uniform prior", "black", "x"),
}

# of things without a name of their own
COLOURS = ("#08306b", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
MARKERS = "DosvP^X"

RC = {
    "pdf.fonttype": 42, "ps.fonttype": 42,
    "font.family": "DejaVu Sans", "font.size": 8,
    "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7, "legend.title_fontsize": 7, "figure.titlesize": 8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "lines.linewidth": 1.2, "lines.markersize": 4, "legend.frameon": False,
    "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.4, "axes.axisbelow": True,
    "figure.dpi": 120, "savefig.dpi": 300, "figure.constrained_layout.use": True,
}  # fmt: skip
mpl.rcParams.update(RC)  # on import: a figure made before `save` must already have these sizes


class Figure(figure.Figure):
    """A figure that a notebook shows as the value of a cell, without pyplot."""

    def _repr_png_(self):
        """The picture in twice the pixels of its size on the page, and that size."""
        with BytesIO() as file, mpl.rc_context(RC):
            self.savefig(file, dpi=2 * RC["figure.dpi"], metadata={"Software": None})
            width, height = self.get_size_inches() * RC["figure.dpi"]
            return file.getvalue(), {"width": round(width), "height": round(height)}


def panels(
    columns: int = 1,
    rows: int = 1,
    width: float | None = None,
    height: float | None = None,
    **options,
):
    """A figure at its final size and its axes: one axes, or an array of (rows, columns) squeezed.

    width, height: inches; the default is one column wide for one panel, two columns for more.
    Several panels are called a, b, c.
    """
    width = width or (SINGLE if columns == 1 else DOUBLE)
    fig = Figure(figsize=(width, height or HEIGHT * rows), layout="constrained")
    axes = fig.subplots(rows, columns, **options)
    if rows * columns > 1:
        for letter, ax in zip(ascii_lowercase, np.ravel(axes), strict=False):
            at = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right"}
            ax.annotate(letter, (0, 1), (-20, 4), fontweight="bold", **at)
    return fig, axes


def nth_look(i: int) -> tuple[str, str]:
    """Colour and marker of the i-th of several things: 49 differ, and neighbours in both."""
    return COLOURS[i % 7], MARKERS[(i + i // 7) % 7]


def caption(name: str, strata: dict | None = None) -> str:
    """The caption of a figure, from captions.yaml.

    strata: name -> (low, high) shares, for a caption that tells the thresholds. Raises KeyError
    for a figure that has no caption.
    """
    texts = yaml.safe_load((Path(__file__).parent / "captions.yaml").read_text())
    words = {key: texts[key] for key in ("bars", "bands")}
    if strata:
        words["strata"] = thresholds(strata)
        words["by_stratum"] = texts["by_stratum"].format(**words)
    return texts[name].format(**words)


def thresholds(strata: dict[str, tuple[float, float]]) -> str:
    """Strata in words, such as "zero: none, low: up to 25%, high: above 25%"."""
    top = max(high for _, high in strata.values())
    words = {
        name: "none" if high == 0 else f"above {low:.0%}" if high == top else f"up to {high:.0%}"
        for name, (low, high) in strata.items()
    }
    return ", ".join(f"{name}: {word}" for name, word in words.items())


def present(
    fig: Figure, frame: pd.DataFrame, folder, name: str, strata: dict | None = None
) -> None:
    """Save a notebook's figure with its caption, and show it above its caption."""
    words = caption(name, strata)
    save(fig, frame, folder, name, words)
    display(fig, Markdown(words))


def save(fig: Figure, frame: pd.DataFrame, folder, name: str, words: str | None = None) -> Path:
    """Write the figure as `name`.pdf and .png, its `frame` as .csv; returns the png's path.

    words: its caption, which goes to .txt. The png has 300 dpi. The same figure and frame give the
    same bytes: no date, no version and no tight bounding box.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    undated = {"CreationDate": None, "Creator": None, "Producer": None}

    with mpl.rc_context(RC):
        fig.savefig(folder / f"{name}.pdf", metadata=undated)
        fig.savefig(folder / f"{name}.png", dpi=300, metadata={"Software": None})

    save_table(frame, folder / f"{name}.csv")
    if words:
        write_text(folder / f"{name}.txt", words + "\n")
    return folder / f"{name}.png"


def whiskers(ax, x, frame: pd.DataFrame, horizontal: bool = False, **options):
    """The points `value` at positions `x` with bars from `low` to `high`; returns the container."""
    value = frame["value"].to_numpy(float)
    error = np.vstack([value - frame["low"].to_numpy(float), frame["high"].to_numpy(float) - value])
    error = np.clip(error, 0, None)  # rounding may leave -1e-17; nan draws no bar
    style = {"capsize": 2, "elinewidth": 0.9, "linestyle": "none"} | options

    if horizontal:
        return ax.errorbar(value, x, xerr=error, **style)
    return ax.errorbar(x, value, yerr=error, **style)


def banded(ax, x: str, frame: pd.DataFrame, colour: str, **options) -> None:
    """The line `value` over column `x` with a band from `low` to `high`."""
    ax.plot(frame[x], frame["value"], color=colour, **options)
    ax.fill_between(frame[x], frame["low"], frame["high"], color=colour, alpha=0.2, linewidth=0)


def grouped(ax, frame: pd.DataFrame, x: str, order, by: str, looks: dict, gap: float = 0.18):
    """Points with intervals at the categories of column `x`, side by side for each value of `by`.

    order: the categories from left to right; looks: value of column `by` -> (label, colour,
    marker). A category's label carries no n; the caller adds it.
    """
    shown = [key for key in looks if (frame[by] == key).any()]
    for i, key in enumerate(shown):
        rows = frame[frame[by] == key].set_index(x).reindex(list(order))
        label, colour, marker = looks[key]
        at = np.arange(len(rows)) + gap * (i - (len(shown) - 1) / 2)
        whiskers(ax, at, rows, color=colour, marker=marker, markerfacecolor=colour, label=label)

    ax.set_xticks(range(len(order)), [plain(name) for name in order])
    ax.set_xlim(-0.6, len(order) - 0.4)
    ax.grid(axis="x", visible=False)
    return ax


def mark_lone_points(ax) -> None:
    """Give every line of one point, which is not seen, a marker."""
    for line in ax.lines:
        if len(line.get_xdata()) == 1 and line.get_marker() == "None":
            line.set_marker("o")


def plain(text) -> str:
    """A text of the data as matplotlib draws it as it is: two dollar signs would be a formula."""
    return str(text).replace("$", r"\$")


def spaced(name) -> str:
    """A name as it is written beside a row: `plain`, with spaces for underscores."""
    return plain(name).replace("_", " ")


def name_rows(ax, names, counts=None) -> None:
    """Name the rows of a horizontal chart from the top down, with n where `counts` has it."""
    labels = [spaced(name) for name in names]
    if counts is not None:
        labels = [f"{label} (n={n:.0f})" for label, n in zip(labels, counts, strict=True)]

    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)


def legend_above(ax, columns: int | None = None):
    """The legend above the axes, where it can hide no estimate: in one row or in `columns`."""
    return ax.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns or len(ax.get_legend_handles_labels()[1]),
        columnspacing=1,
        handletextpad=0.3,
        borderaxespad=0.2,
        handlelength=1.4,
    )
