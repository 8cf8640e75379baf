"""How figures look and how they are saved: sizes in inches, one colour for the same thing
everywhere.
"""

from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib import figure

SINGLE, DOUBLE = 3.3, 6.9  # widths of one and of two columns, inches
HEIGHT = 2.3

# Okabe-Ito hues; marker shapes tell the same things apart in grey
POLICY = {
    "base": "#7f7f7f", "majority": "#e69f00", "cot": "#56b4e9", "sft": "#009e73", "rft": "#cc79a7",
    "dpo": "#d55e00", "grpo": "#08306b",
}  # fmt: skip
MARKER = {"base": "o", "majority": "s", "cot": "^", "sft": "v", "rft": "D", "dpo": "P", "grpo": "*"}
NAME = {
    "base": "greedy",
    "majority": "majority vote",
    "cot": "chain of thought",
    "sft": "SFT",
    "rft": "RFT",
    "dpo": "DPO",
    "grpo": "GRPO",
}
STRATUM = {"zero": "#fde0a6", "low": "#f4a261", "middle": "#b5594f", "high": "#4a1c40"}
# the same policy at different times: label, colour, marker
LOOKS = {
    "before": ("before RL", POLICY["base"], "o"), "control": ("before RL, resampled", "#e69f00", "^"),
    "after": ("after RL", POLICY["grpo"], "D"), "expected": ("uniform prior", "black", "x"),
}  # fmt: skip

RC = {
    "pdf.fonttype": 42, "ps.fonttype": 42, "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8,
    "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7,
    "legend.title_fontsize": 7, "figure.titlesize": 8, "axes.spines.top": False, "axes.spines.right": False,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "lines.linewidth": 1.2,
    "lines.markersize": 4, "legend.frameon": False, "axes.grid": True, "grid.color": "#dddddd",
    "grid.linewidth": 0.4, "axes.axisbelow": True, "figure.dpi": 120, "savefig.dpi": 300,
    "figure.constrained_layout.use": True,
}  # fmt: skip
mpl.rcParams.update(RC)  # on import: a figure made before `save` must already have these sizes


class Figure(figure.Figure):
    """A figure that a notebook shows as the value of a cell; pyplot, which does that otherwise, is
    not used.
    """

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
    """
    width = width or (SINGLE if columns == 1 else DOUBLE)
    fig = Figure(figsize=(width, height or HEIGHT * rows), layout="constrained")
    return fig, fig.subplots(rows, columns, **options)


def save(fig: Figure, frame: pd.DataFrame, folder, name: str) -> Path:
    """Write `name`.pdf, .png (300 dpi) and .csv (the plotted frame) to `folder`; returns the png's
    path.

    The same figure and frame give the same bytes: no date, no version and no tight bounding box.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(RC):
        fig.savefig(
            folder / f"{name}.pdf",
            metadata={"CreationDate": None, "Creator": None, "Producer": None},
        )
        fig.savefig(folder / f"{name}.png", dpi=300, metadata={"Software": None})
    frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    return folder / f"{name}.png"
