"""The picture of the bench: ratios to the peers with their goals, and how time grows with size."""

from pathlib import Path

import pandas as pd

from lib.figures.style import caption, legend_above, panels, save, whiskers


def draw_bench(rows: pd.DataFrame, folder: Path) -> None:
    """Ratios with their ranges and goals, and the growth of sampling, as `engine` in `folder`."""
    if rows.empty:
        return
    columns = ["ratio", "low", "high", "value", "exactness"]
    rows = rows.reindex(columns=list(dict.fromkeys([*rows.columns, *columns])))
    goals = {
        "update": 5,
        "step": 4,
        "rollout": 3,
        "greedy": 3,
        "samples_generate": 4,
        "samples_vllm": 4,
        "samples_llama_cpp": 4,
        "samples_openvino": 4,
        "samples_openvino_f32": 4,
        "scoring": 5,
    }
    grown = rows[rows["name"].str.startswith("growth_")]
    fig, axes = panels(2, height=2.7) if len(grown) else panels(height=2.7)
    left = axes[0] if len(grown) else axes
    shown = rows[rows["name"].isin(goals)].assign(value=lambda f: f["ratio"]).reset_index(drop=True)
    whiskers(left, shown.index, shown, True, color="black", marker="o", label="peer as it ships")
    same = shown.reindex(columns=["same_products"])["same_products"].astype(float)
    left.plot(
        same,
        shown.index,
        "o",
        color="black",
        markerfacecolor="white",
        label="with our linear layers",
        zorder=3,
    )
    left.plot(
        [goals[name] for name in shown["name"]],
        shown.index,
        "|",
        color="0.5",
        markersize=12,
        label="goal",
    )
    left.set_yticks(shown.index, shown["name"].str.replace("_", " "))
    left.set_xlim(left=0)
    left.set_xlabel("times as fast as the peer")
    legend_above(left, 2)
    for (name, part), marker in zip(grown.groupby("name", sort=False), "os^D", strict=False):
        label = f"{name[7:]} up to {part['value'].max():.0f}"
        axes[1].plot(
            part["value"] / part["value"].max(), part["ours_s"], marker=marker, label=label
        )
    if len(grown):
        axes[1].set_xlabel("share of the largest size")
        axes[1].set_ylabel("seconds")
        legend_above(axes[1], 2)
    save(fig, rows.drop(columns="exactness"), folder, "engine", caption("engine"))
