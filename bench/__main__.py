"""The engine against its peers, interleaved in one run: seconds, ratios, exactness, limits.

Every row times ours and the peer on the same questions in turn, several times after a first that is
not counted, and reports medians and the range of the ratio; `same_products` is the ratio to the
peer with this project's linear layers (lib.engine.linear) put in, so that what the engine does and
what the kernels do can be told apart. The limit is the time that the counted matrix products would
take at the rate measured just before.
"""

import argparse
import json
import os
import warnings

import pandas as pd
import torch
from datasets import disable_progress_bars

from bench.figure import draw_bench
from bench.memory import peak_of_sampling, sample_forever
from bench.rows import ROWS, Bench
from lib.runs import manifest
from lib.tables import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the engine against its peers.")
    parser.add_argument(
        "rows", nargs="*", default=ROWS, metavar="row", help=f"any of {', '.join(ROWS)}"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--random", metavar="SHAPE", help="a model of random weights: 7b, a hub id or a folder"
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--sample", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--load", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    unknown = sorted(set(args.rows) - set(ROWS))
    if unknown:
        parser.error(f"unknown row {unknown}; allowed: {', '.join(ROWS)}")
    if args.sample:
        return peak_of_sampling(args.sample)
    if args.load:
        return sample_forever()
    os.environ["TQDM_DISABLE"] = "1"
    disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning)
    bench = Bench(args.repeats, args.random, args.dtype)
    print(f"matrix products: {bench.rate / 1e9:.0f} GFLOP/s", flush=True)
    for name in args.rows:
        getattr(bench, name)()
    facts = manifest() | {"matmul_gflops": bench.rate / 1e9, "threads": torch.get_num_threads()}
    write_text(bench.folder / "machine.json", json.dumps(facts, indent=1) + "\n")
    rows = pd.DataFrame(bench.rows)
    draw_bench(rows, bench.folder)
    columns = ["name", "ours_s", "peer_s", "ratio", "low", "high", "same_products", "peer"]
    table = rows.reindex(columns=columns)  # a few rows alone may lack some
    print(table.to_string(index=False, float_format=lambda x: f"{x:.2f}"))
    print(bench.folder / "engine.json")


if __name__ == "__main__":
    main()
