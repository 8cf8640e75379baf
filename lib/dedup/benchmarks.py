"""Dedup of whole benchmarks, measured: `python -m lib.dedup.benchmarks DATASET …`."""

import argparse
import os
import sys
import time

import numpy as np
import pandas as pd

from lib.config import BENCHMARKS, ROOT
from lib.dedup.candidates import candidates, remembered
from lib.dedup.contained import open_ask
from lib.dedup.options import add_options, read_options
from lib.dedup.recall import examine, given_away, in_training, repeats, score_pairs
from lib.dedup.removal import dedup
from lib.questions.sources import read_benchmark
from lib.questions.splits import complete, group
from lib.tables import save_table


def whole_benchmark(name: str, mirror: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The benchmark's rows as published, and all its questions in two splits.

    A benchmark that is published as one set gets a random ONE_SET_TEST of its questions as test
    set.
    """
    rows = complete(read_benchmark(name, mirror), name)
    questions = group(rows)
    return rows, questions.assign(split=np.where(in_training(questions), "train", "test"))


def measure_benchmark(
    name: str, settings, mirror: str | None = None, ask=None
) -> dict[str, pd.DataFrame]:
    """Dedup of a whole benchmark: frames counts, given_away, score, labelled and removed.

    counts: training and test questions, pairs judged, pairs in all, seconds of blocking and
    verdicts. The labelled pairs are hidden among the same questions in a second search, and judged
    whether they are found or not.
    """
    rows, questions = whole_benchmark(name, mirror)
    search, began = remembered(), time.monotonic()
    train, test = (questions[questions["split"] == split] for split in ("train", "test"))
    pairs = candidates(train, test, settings.dedup.neighbours, settings.dedup.similarity, search)
    blocked = time.monotonic()
    _, removed, verdicts = dedup(questions, settings, search, ask, pairs)
    seconds = {"seconds_blocking": blocked - began, "seconds_verdicts": time.monotonic() - blocked}
    labelled = examine(name, questions, settings, search, ask)
    counts = {
        "train": len(train),
        "test": len(test),
        "pairs_judged": len(pairs),
        "pairs": len(train) * len(test),
    }
    counts |= {
        "removed": removed["train_id"].nunique(),
        "failed": int(verdicts["failed"].sum()),
        **seconds,
    }
    away = given_away(questions, removed, repeats(rows))
    return {
        "counts": pd.DataFrame([{"dataset": name, **counts}]),
        "given_away": away,
        "score": score_pairs(labelled),
        "labelled": labelled,
        "removed": removed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Dedup of whole benchmarks: what is given away, recall on known pairs."
    )
    parser.add_argument(
        "datasets", nargs="+", choices=BENCHMARKS, metavar="DATASET", help=", ".join(BENCHMARKS)
    )
    parser.add_argument(
        "--mirror", default=os.environ.get("HUB_MIRROR"), help="a folder in the hub's schema"
    )
    add_options(parser)
    args, labelled = parser.parse_args(), []
    folder = ROOT / os.environ.get("OUTPUTS", "outputs") / "dedup" / args.judge
    try:
        settings = read_options(args)
        ask = open_ask(settings) if args.judge == "llm" else None
        for name in args.datasets:
            tables = measure_benchmark(name, settings, args.mirror, ask)
            labelled.append(tables["labelled"])
            for what, table in tables.items():
                save_table(table, folder / f"{name}_{what}.csv")
            print(tables["counts"].round(1).to_string(index=False))
            print(tables["given_away"].round(4).to_string(index=False), flush=True)
        table = score_pairs(pd.concat(labelled))
        save_table(table, folder / "score.csv")
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"dedup: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit(
            "dedup: stopped; verdicts that were answered are kept, and the same command goes on"
        )
    print(f"labelled pairs of {', '.join(args.datasets)}, judge {args.judge}:")
    print(table.round(3).to_string(index=False))
    print(f"every removal and every labelled pair with its verdict: {folder}")


if __name__ == "__main__":
    main()
