"""Figures: the same bytes twice, final size, embedded fonts, numbers beside them, intervals."""

import re
import zlib
from io import BytesIO

import matplotlib
import numpy as np
import pandas as pd
import pytest
import yaml
from IPython.core.formatters import PNGFormatter
from PIL import Image

from lib.config import ROOT
from lib.figures.accuracy import plot_accuracy, plot_finding, plot_split, plot_training_curves
from lib.figures.attribution import plot_first_hits, plot_gain_shares
from lib.figures.claims import plot_sizes
from lib.figures.data import plot_data, plot_dedup
from lib.figures.judge import plot_hacking, plot_judges
from lib.figures.redistribution import (
    plot_accessibility_strata,
    plot_difference,
    plot_learnt,
    plot_mass_shift,
    plot_pass_at_k,
    plot_power,
    plot_ranks,
    plot_repair_damage,
    plot_resampling,
    plot_seen_mass,
)
from lib.figures.style import (
    DOUBLE,
    LOOKS,
    MARKER,
    POLICY,
    SINGLE,
    STRATUM,
    caption,
    panels,
    present,
    save,
    whiskers,
)
from lib.figures.transfer import plot_matrix


def estimates(**columns):
    """A tidy frame of estimates with an interval of 0.05 either side."""
    frame = pd.DataFrame(columns)
    return frame.assign(low=frame["value"] - 0.05, high=frame["value"] + 0.05, n=50)


ACCURACY = estimates(policy=list(POLICY), value=np.linspace(0.2, 0.6, len(POLICY)))
CURVES = estimates(
    when=["before"] * 3 + ["after"] * 3, k=[1, 2, 4] * 2, value=[0.2, 0.3, 0.4, 0.5, 0.6, 0.65]
)
POWER = estimates(
    how=["samples", "samples", "enumerated", "enumerated", "after"],
    alpha=[1.0, 4.0, 1.0, 4.0, None],
    value=[0.2, 0.3, 0.22, 0.31, 0.35],
)
GREEDY = estimates(when=["before", "after"], value=[0.25, 0.3])
STRATA = estimates(when=["before"] * 4 + ["after"] * 4, stratum=list(STRATUM) * 2, value=[0.25] * 8)
FLIPS = estimates(
    direction=["repair", "damage"] * 4,
    stratum=np.repeat(list(STRATUM), 2),
    value=np.linspace(0.1, 0.9, 8),
)
DIFFERENCE = estimates(
    who=np.repeat(["control", "grpo", "sft", "rft"], 2), k=[1, 2] * 4, value=np.linspace(0, 0.2, 8)
)
RANKED = estimates(
    who=np.repeat(["control", "grpo", "sft", "rft"], 2), rank=["1", "unseen"] * 4, value=[0.4] * 8
)
LEARNT = estimates(
    who=["base", "grpo"] * 4, split=np.repeat(["training", "test"], 4),
    stratum=np.repeat(["zero", "high"], 2).tolist() * 2, value=np.linspace(0.1, 0.9, 8),
)  # fmt: skip
SPLIT = estimates(
    by=np.repeat(["reward for form", "bare-form start"], 3),
    part=["total", "form", "recall"] * 2,
    value=np.linspace(0.1, 0.3, 6),
)
AGAIN = estimates(
    who=["control", "after", "expected"] * 4, measure=(["accuracy"] * 3 + ["hit"] * 3) * 2,
    stratum=["zero"] * 6 + ["low"] * 6, value=np.linspace(0.1, 0.9, 12),
)  # fmt: skip
SHIFT = estimates(kind=["gold", "right", "wrong", "after"], value=[-1.0, 2.0, -3.0, 4.0])
SEEN = estimates(
    who=["control"] * 4 + ["after"] * 4, correct=[True, True, False, False] * 2,
    seen=[True, False] * 4, value=[0.3, 0.1, 0.5, 0.1, 0.6, 0.1, 0.2, 0.1],
)  # fmt: skip
SHARES = estimates(
    subset=["zero", "low", "high", "random_0", "all"], value=[0.3, 0.8, 0.6, 0.9, 1.0]
)
STEPS = np.arange(1.0, 11.0)
LOG = pd.DataFrame({
    "step": STEPS, "reward": STEPS / 20, "accuracy": np.where(STEPS % 5 == 0, 0.4, np.nan),
    "accuracy_low": 0.3, "accuracy_high": 0.5, "kl": STEPS / 50,
    "entropy": 1 / STEPS, "length": 10 - STEPS / 2, "signal_share": 0.5,
})  # fmt: skip
HITS = estimates(step=[1, 2, 3] * 3, value=[0.1, 0.2, 0.4] * 3).assign(
    who=["trained"] * 3 + ["resampled"] * 3 + ["prior"] * 3
)
RATES = estimates(
    source=["known", "labelled"] * 6, judge=np.repeat(["exact", "alias"], 6),
    measure=np.repeat(["false_positive", "false_negative", "kappa"] * 2, 2),
    value=np.linspace(0.1, 0.9, 12),
)  # fmt: skip
HACKING = estimates(
    arm=np.repeat(["unguarded", "guarded"], 6), step=[1, 2] * 6,
    measure=np.repeat(["reward", "true", "attack"] * 2, 2), value=np.linspace(0.1, 0.9, 12),
)  # fmt: skip
COUNTS = pd.DataFrame({
    "panel": "relations", "key": ["city_country"] * 3 + ["element_symbol"] * 2,
    "split": ["train", "validation", "test", "train", "test"], "value": [30, 5, 10, 8, 2],
})  # fmt: skip
POPULAR = pd.DataFrame({
    "panel": "popularity", "key": [f"relation_{i}" for i in range(6) for _ in range(6 - i)],
    "x": np.geomspace(10, 1e6, 21), "value": np.linspace(0.05, 1, 21),
})  # fmt: skip
ANSWERS = pd.DataFrame({"panel": "answers", "key": list("abc"), "x": [1, 2, 3], "value": [9, 3, 1]})
FLOOR = estimates(panel="floor", key=["city_country", "all"], value=[0.2, 0.3])
QUESTIONS = pd.concat([COUNTS, POPULAR, ANSWERS, FLOOR], ignore_index=True)
SIMILAR = pd.DataFrame({
    "panel": "similarity", "key": ["contained"] * 3 + ["not contained"] * 40,
    "x": [0.9, 0.93, 0.97, *np.linspace(-0.02, 0.92, 40)],
})  # fmt: skip
PAIRS = pd.concat(
    [SIMILAR, estimates(panel="truth", key=["recall", "verdict_precision"], value=[0.9, 0.8])],
    ignore_index=True,
)

PLOTS = {
    "data": (lambda axes: plot_data(QUESTIONS, axes), {"columns": 2, "rows": 2}, QUESTIONS),
    "dedup": (lambda axes: plot_dedup(PAIRS, axes), {"columns": 2}, PAIRS),
    "accuracy": (lambda ax: plot_accuracy(ACCURACY, ax), {}, ACCURACY),
    "training": (lambda ax: plot_training_curves(LOG, ax), {"columns": 3, "rows": 2}, LOG),
    "power": (lambda ax: plot_power(POWER, ax), {}, POWER),
    "pass_at_k": (lambda ax: plot_pass_at_k(CURVES, ax, GREEDY), {}, CURVES),
    "strata": (lambda ax: plot_accessibility_strata(STRATA, ax), {}, STRATA),
    "flips": (lambda ax: plot_repair_damage(FLIPS, ax), {"columns": 2}, FLIPS),
    "difference": (lambda ax: plot_difference(DIFFERENCE, ax), {}, DIFFERENCE),
    "ranks": (lambda ax: plot_ranks(RANKED, ax), {}, RANKED),
    "learnt": (lambda ax: plot_learnt(LEARNT, ax), {"columns": 2}, LEARNT),
    "split": (lambda ax: plot_split(SPLIT, ax), {}, SPLIT),
    "resampling": (lambda ax: plot_resampling(AGAIN, ax), {"columns": 2}, AGAIN),
    "shift": (lambda ax: plot_mass_shift(SHIFT, ax), {}, SHIFT),
    "seen": (lambda ax: plot_seen_mass(SEEN, ax), {}, SEEN),
    "shares": (lambda ax: plot_gain_shares(SHARES, ax), {}, SHARES),
    "first_hits": (lambda ax: plot_first_hits(HITS, ax), {}, HITS),
    "judges": (lambda axes: plot_judges(RATES, axes), {"columns": 3}, RATES),
    "hacking": (lambda axes: plot_hacking(HACKING, axes), {"columns": 2}, HACKING),
    "finding": (
        lambda ax: plot_finding(ACCURACY, CURVES, FLIPS, ax),
        {"columns": 3},
        ACCURACY,
    ),
}


def draw(name, folder):
    """The figure `name`, plotted and saved; returns the figure and its axes."""
    plot, layout, frame = PLOTS[name]
    fig, axes = panels(**layout)
    assert plot(axes) is axes
    save(fig, frame, folder, name)
    return fig, axes


def interval_bars(ax):
    """The error bars of an axes."""
    return [c for c in ax.containers if isinstance(c, matplotlib.container.ErrorbarContainer)]


def pdf_text(path):
    """A PDF's bytes with its compressed streams opened."""
    data = path.read_bytes()
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, flags=re.S):
        try:
            data += zlib.decompress(stream)
        except zlib.error:
            continue
    return data


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """name -> (figure, axes, folder), each plotted once."""
    return {name: (*draw(name, folder := tmp_path_factory.mktemp(name)), folder) for name in PLOTS}


@pytest.mark.parametrize("name", PLOTS)
def test_saved_twice_is_the_same_at_its_final_size(name, figures, tmp_path):
    fig, axes, first = figures[name]
    draw(name, tmp_path)
    for kind in ("pdf", "png", "csv"):
        one, two = (folder / f"{name}.{kind}" for folder in (first, tmp_path))
        assert one.read_bytes() == two.read_bytes(), kind
    width = SINGLE if isinstance(axes, matplotlib.axes.Axes) else DOUBLE
    with Image.open(tmp_path / f"{name}.png") as image:
        assert image.size == tuple(round(300 * side) for side in fig.get_size_inches())
        assert image.width == round(300 * width)
    pdf = pdf_text(tmp_path / f"{name}.pdf")
    assert b"/CIDFontType2" in pdf or b"/TrueType" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    box = [float(x) for x in re.search(rb"/MediaBox \[([^\]]*)\]", pdf).group(1).split()]
    assert box[2:] == pytest.approx(list(fig.get_size_inches() * 72))


@pytest.mark.parametrize("name", PLOTS)
def test_a_notebook_shows_the_picture(name, figures):
    fig = figures[name][0]
    data, size = PNGFormatter()(fig)
    with Image.open(BytesIO(data)) as image:
        assert image.size == (2 * size["width"], 2 * size["height"])
        darkest, lightest = image.convert("L").getextrema()
        assert darkest < 128 < lightest, "a blank picture"
    on_page = list(fig.get_size_inches() * 120)
    assert [size["width"], size["height"]] == pytest.approx(on_page, abs=1)


@pytest.mark.parametrize("name", PLOTS)
def test_csv_is_the_plotted_frame(name, figures):
    saved = pd.read_csv(figures[name][2] / f"{name}.csv")
    pd.testing.assert_frame_equal(saved, PLOTS[name][2], check_dtype=False)


@pytest.mark.parametrize("name", PLOTS)
def test_axes_named_no_titles_and_readable_type(name, figures):
    fig, axes, _ = figures[name]
    assert fig.get_suptitle() == ""
    for ax in np.ravel(axes):
        assert ax.get_title() == ""
        assert ax.get_xlabel() or ax.get_ylabel()
        ticks = [*ax.get_xticklabels(), *ax.get_yticklabels()]
        texts = [ax.xaxis.label, ax.yaxis.label, *ticks, *ax.texts]
        assert all(7 <= text.get_fontsize() <= 8 for text in texts)


@pytest.mark.parametrize("name", sorted(set(PLOTS) - {"training", "data", "dedup"}))
def test_every_estimate_has_its_interval(name, figures):
    _, axes, _ = figures[name]
    for ax in np.ravel(axes):
        bars = interval_bars(ax)
        assert bars or ax.collections, "no interval drawn"
        assert all(bar.has_xerr or bar.has_yerr for bar in bars)


@pytest.mark.parametrize(("name", "row"), [("data", FLOOR), ("dedup", PAIRS.tail(2))])
def test_the_estimates_beside_counts_have_their_intervals(name, row, figures):
    _, axes, _ = figures[name]
    (bars,) = interval_bars(np.ravel(axes)[-1])
    ends = np.array([segment[:, 0] for segment in bars[2][0].get_segments()])
    np.testing.assert_allclose(ends, row[["low", "high"]])


def test_bars_of_counts_stand_on_one_another(figures):
    ax = np.ravel(figures["data"][1])[0]
    ends = {(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches if bar.get_width()}
    assert ends == {(0, 30), (30, 35), (35, 45), (0, 8), (8, 10)}  # train, validation, test

    ax = np.ravel(figures["dedup"][1])[0]
    lowest = [bar for bar in ax.patches if bar.get_height() and bar.get_y() == 0]
    colours = {bar.get_facecolor() for bar in lowest if bar.get_x() > 0.91}
    assert colours == {matplotlib.colors.to_rgba("#d55e00")}  # the few contained ones at the bottom


def test_only_the_largest_relations_have_a_popularity_curve(figures):
    legend = np.ravel(figures["data"][1])[1].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [f"relation {i}" for i in range(5)]


def test_interval_ends_where_the_frame_says(figures):
    _, ax, _ = figures["accuracy"]
    ends = np.array([c[2][0].get_segments()[0][:, 0] for c in ax.containers])
    np.testing.assert_allclose(ends, ACCURACY[["low", "high"]])


def test_a_missing_interval_draws_no_bar():
    fig, ax = panels()
    whiskers(ax, [0, 1], estimates(value=[0.5, 0.6]).assign(low=[0.4, np.nan], high=[0.7, np.nan]))
    segments = ax.containers[0][2][0].get_segments()
    assert sum(len(s) > 0 and np.isfinite(s).all() for s in segments) == 1


def test_policies_differ_in_shape_so_that_grey_is_enough():
    assert set(MARKER) == set(POLICY)
    assert len(set(MARKER.values())) == len(MARKER)
    assert len({marker for _, _, marker in LOOKS.values()}) == len(LOOKS)
    grey = [matplotlib.colors.to_rgb(c) @ np.array([0.299, 0.587, 0.114]) for c in STRATUM.values()]
    assert all(a - b > 0.12 for a, b in zip(grey, grey[1:], strict=False))


def test_every_figure_of_a_notebook_has_a_caption(tmp_path):
    sources = [path.read_text() for path in (ROOT / "notebooks").glob("*.ipynb")]
    named = re.findall(r'present\(\w+, .*?\\"(\d\d_\w+)\\"', "\n".join(sources))
    texts = yaml.safe_load((ROOT / "lib" / "figures" / "captions.yaml").read_text())
    assert set(named) == set(texts) - {"bars", "bands", "by_stratum", "engine"}
    strata = {"zero": (0.0, 0.0), "low": (0.0, 0.25), "middle": (0.25, 0.75), "high": (0.75, 1.0)}
    for name in named:
        asks = "{by_stratum}" in texts[name] or "{strata}" in texts[name]
        words = caption(name, strata if asks else None)
        assert "{" not in words and words.endswith(".")
        assert ("zero: none, low: up to 25%, middle: up to 75%, high: above 75%" in words) is asks
    with pytest.raises(KeyError):
        caption("05_redistribution_strata")  # its thresholds are missing


@pytest.mark.parametrize("key", ["$x^{$", "a $b_c$ d", r"\$5 or $6$"])
def test_dollars_in_names_are_drawn_as_they_are(key, tmp_path):
    shown = key.replace("_", " ")
    renamed = QUESTIONS.assign(key=QUESTIONS["key"].replace(["city_country", "relation_0"], key))
    fig, axes = panels(2, 2)
    plot_data(renamed, axes)
    save(fig, renamed, tmp_path, "data")
    texts = [*axes[0, 0].get_yticklabels(), *axes[0, 1].get_legend().get_texts()]
    texts += axes[1, 1].get_yticklabels()
    matrix = estimates(trained=[key, "all"] * 2, tested=[key] * 2 + ["all"] * 2, value=[0.1] * 4)
    fig, ax = panels()
    plot_matrix(matrix, ax)
    save(fig, matrix, tmp_path, "matrix")
    texts += [*ax.get_xticklabels(), *ax.get_legend().get_texts()]
    drawn = [text._preprocess_math(text.get_text()) for text in texts]
    assert not any(is_math for _, is_math in drawn)
    for name in (shown, f"{shown} (n=50)", f"{key}\n(n=50)", f"trained on {key}"):
        assert name in [text for text, _ in drawn]


def test_a_line_of_one_point_is_seen():
    fig, axes = panels(3, 2)
    plot_training_curves(LOG.head(1), axes)
    one = list(np.ravel(axes))
    _, ax = panels()
    plot_first_hits(HITS[HITS["step"] == 1], ax)
    _, grid = panels(2, 2)
    plot_data(QUESTIONS.drop_duplicates(["panel", "key", "split"]), grid)
    lone = [line for panel in [*one, ax, *np.ravel(grid)] for line in panel.lines]
    lone = [line for line in lone if len(line.get_xdata()) == 1]
    assert len(lone) > 12
    assert all(line.get_marker() not in ("None", "") for line in lone)
    _, ax = panels()
    plot_first_hits(HITS, ax)
    assert ax.lines[-1].get_marker() == "None"


def test_more_than_seven_are_all_drawn_and_stay_apart():
    names = [f"n{i}" for i in range(16)]
    _, ax = panels()
    plot_matrix(estimates(trained=names * 2, tested=["a"] * 16 + ["b"] * 16, value=0.1), ax)
    seen = [(bars[0].get_color(), bars[0].get_marker()) for bars in interval_bars(ax)]
    assert len(seen) == len(set(seen)) == 16
    at = sorted(float(x) for bars in interval_bars(ax) for x in bars[0].get_xdata()[:1])
    assert at[0] > -0.5 and at[-1] < 0.5 and np.diff(at).min() > 0.05

    _, ax = panels()
    plot_sizes(estimates(dataset=names * 2, billions=[1.0] * 16 + [7.0] * 16, value=0.1), ax)
    seen = [(bars[0].get_color(), bars[0].get_marker()) for bars in interval_bars(ax)]
    assert len(seen) == len(set(seen)) == 16


def test_a_spreadsheet_runs_no_name_of_a_figure_s_numbers(tmp_path):
    frame = pd.DataFrame({"key": ["=1+1", "@x", "plain", "-5"], "value": [0.1, -0.2, 3, None]})
    frame["single"] = np.array([0.1, 0.2, 0.3, 0.4], "float32")
    save(panels()[0], frame, tmp_path, "numbers")
    assert (tmp_path / "numbers.csv").read_text() == (
        "key,value,single\n'=1+1,0.1,0.1\n'@x,-0.2,0.2\nplain,3.0,0.3\n-5,,0.4\n"
    )


def test_a_figure_is_shown_above_its_caption(tmp_path, capsys):
    fig, axes = panels()
    present(fig, pd.DataFrame({"x": [1]}), tmp_path, "03_baselines_accuracy")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".pdf", ".png", ".txt"]
    assert (
        (tmp_path / "03_baselines_accuracy.txt").read_text().startswith("Accuracy of each method")
    )
    shown = capsys.readouterr().out
    assert 0 <= shown.find("Figure") < shown.find("Markdown")
