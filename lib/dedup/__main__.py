"""`python -m lib.dedup`: drop the training questions that give a test question's answer away."""

import argparse
import sys
import time
from pathlib import Path

import pandas as pd

from lib.dedup.options import add_options, read_options
from lib.dedup.removal import dedup
from lib.dedup.texts import read_training
from lib.questions.sources import read_file
from lib.questions.splits import complete
from lib.tables import check_output, save_table


def read_sides(train: Path, test: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The training file's rows, and the questions of both files with a split and distinct ids.

    A training question knows its `row`; a row of another tool's may hold several (lib.dedup.texts).
    """
    given, asked, shape = read_training(train)
    if shape != "questions":
        print(f"{train}: read as {shape}, {len(given)} rows with {len(asked)} replies", flush=True)
    protected = read_file(test).assign(is_text=False)
    sides = {"train": complete(asked, "train"), "test": complete(protected, "test")}
    if set(sides["train"]["question_id"]) & set(sides["test"]["question_id"]):
        sides = {
            side: rows.assign(question_id=f"{side}-" + rows["question_id"])
            for side, rows in sides.items()
        }
    return given, pd.concat(
        [rows.assign(split=side) for side, rows in sides.items()], ignore_index=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lib.dedup",
        description="Drop the training questions that give a test question's answer away.",
    )
    parser.add_argument(
        "train",
        type=Path,
        help="a table with question and answers, or rows of ShareGPT, TRL or Alpaca",
    )
    parser.add_argument("test", type=Path, help="a table with the questions to protect")
    parser.add_argument(
        "output",
        type=Path,
        help="the kept training questions; NAME.removed lists the others, twice "
        "where they have two twins, with twin and reason",
    )
    add_options(parser)
    args, began = parser.parse_args(), time.monotonic()
    try:
        settings = read_options(args)
        listed = args.output.with_name(f"{args.output.stem}.removed{args.output.suffix}")
        for output in (args.output, listed):
            check_output(output, [args.train, args.test])
        given, questions = read_sides(args.train, args.test)
        kept, removed, verdicts = dedup(questions, settings)
        train = questions["split"].eq("train").to_numpy()
        leaves = train & ~questions["question_id"].isin(kept["question_id"])
        stays = ~given.index.isin(questions.loc[leaves, "row"].astype(int))
        save_table(given[stays], args.output)
        save_table(removed, listed)
    except (ValueError, OSError, RuntimeError) as error:  # every failure of ours is one of these
        sys.exit(f"dedup: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit(
            "dedup: stopped; verdicts that were answered are kept, and the same command goes on"
        )
    gone, leaked, n, m = (
        removed["train_id"].nunique(),
        removed["test_id"].nunique(),
        train.sum(),
        (~train).sum(),
    )
    print(f"{gone} of {n} training questions give {leaked} of {m} test questions away")
    print(
        f"{len(verdicts):,} pairs were judged, of {n * m:,} (one in "
        f"{n * m / max(len(verdicts), 1):,.0f}), "
        f"{verdicts['failed'].sum()} failed and count as contained, "
        f"{time.monotonic() - began:.0f} s"
    )
    print(f"kept: {stays.sum()} of {len(given)} rows in {args.output}")
    print(f"removed, each with its twin and the reason: {listed}")


if __name__ == "__main__":
    main()
