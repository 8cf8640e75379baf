"""Two programs timed in turn: seconds, ratios with ranges, and the rate of matrix products."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lib.engine.linear import FASTER, product


@dataclass(frozen=True)
class Timing:
    """The seconds and last result of each side, and the rate before each round."""

    seconds: dict[str, list[float]]
    results: dict[str, Any]
    rates: list[float]  # operations per second

    def ratios(self, side: str) -> list[float]:
        """How many times as long as ours `side` took, round by round."""
        both = zip(self.seconds["ours"], self.seconds[side], strict=True)
        return [theirs / ours for ours, theirs in both]


def interleave(work: dict[str, Callable], rounds: int, device, dtype) -> Timing:
    """Run all sides in turn, `rounds` times after one that is not counted.

    The first round warms memory and kernels up. A result with an attribute `seconds` has timed
    itself. The rate is taken just before each round, because other work on the machine slows both.
    """
    seconds, results, rates = {side: [] for side in work}, {}, []
    for _ in range(rounds + 1):
        rates.append(matmul_rate(device, dtype))
        for side, run in work.items():
            results[side] = None
            gc.collect()

            began = time.perf_counter()
            results[side] = run()
            wait(device)
            elapsed = time.perf_counter() - began
            seconds[side].append(getattr(results[side], "seconds", None) or elapsed)
    return Timing({side: values[1:] for side, values in seconds.items()}, results, rates[1:])


def compared_row(name: str, setting: str, peer: str, timing: Timing, exactness=None) -> dict:
    """A row of the table: medians of the seconds, the median ratio and its range."""
    ratios = timing.ratios("peer")
    same = timing.ratios("same") if "same" in timing.seconds else None
    return {
        "name": name,
        "setting": setting,
        "peer": peer,
        "ours_s": statistics.median(timing.seconds["ours"]),
        "peer_s": statistics.median(timing.seconds["peer"]),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "same_products": statistics.median(same) if same else None,
        "repeats": len(ratios),
        "exactness": exactness,
    }


def limit_row(name: str, setting: str, operations: float, timing: Timing) -> dict:
    """A row of the table: our share of the limit, the counted operations at the measured rate."""
    ours = timing.seconds["ours"]
    shares = [operations / rate / s for rate, s in zip(timing.rates, ours, strict=True)]
    return {
        "name": name,
        "setting": setting,
        "peer": "counted operations / measured rate",
        "ours_s": statistics.median(ours),
        "peer_s": operations / statistics.median(timing.rates),
        "ratio": statistics.median(shares),
        "low": min(shares),
        "high": max(shares),
        "repeats": len(shares),
        "exactness": None,
    }


def wait(device) -> None:
    """Let the device finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def matmul_rate(device, dtype, seconds: float = 2.0) -> float:
    """Operations per second at this model's shapes: 256 tokens, 576 to 1536 features."""
    a, b = (
        torch.randn(256, 576, device=device, dtype=dtype),
        torch.randn(1536, 576, device=device, dtype=dtype),
    )
    best, end = 0.0, time.perf_counter() + seconds
    multiply = (
        product
        if FASTER and device.type == "cpu" and dtype == torch.float32
        else torch.nn.functional.linear
    )
    while time.perf_counter() < end:
        began = time.perf_counter()
        for _ in range(20):
            multiply(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 20 * 2 * 256 * 576 * 1536 / (time.perf_counter() - began))
    return best
