"""A peer's side of `bench.apart`: it needs no package, so every environment can take it."""

import json
import sys
import time
from collections.abc import Callable


def draw_on_request(load: Callable[[dict], Callable[[int], list[int]]]) -> None:
    """Read one JSON line, {prompts, n, length}; draw for each further line, and print the seconds.

    load: what was given -> a function (seed) -> how many samples each prompt got.
    """
    given = json.loads(sys.stdin.readline())
    draw = load(given)
    for seed, _ in enumerate(sys.stdin):
        began = time.perf_counter()
        counts = draw(seed)
        seconds = time.perf_counter() - began
        assert counts == [given["n"]] * len(given["prompts"]), counts
        print(f"SECONDS {seconds}", flush=True)
