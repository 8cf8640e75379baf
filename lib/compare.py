"""`python -m lib.compare base.csv other.csv …`: is one better, on the same questions?

Two folders of runs in place of files: each policy that both have graded, the second run's less the
first's.

Reads files of graded answers, such as `python -m lib.judge` writes: `correct`, and `question_id` or
`question`. Prints each file's accuracy, its paired difference from the first one with a bootstrap
interval over questions, a test, Holm's correction over the files, and the smallest true difference
that so many questions would have shown.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from lib.metrics import (
    accuracy,
    holm,
    mcnemar,
    paired_interval,
    paired_permutation,
    smallest_visible_gain,
)
from lib.report import direction, estimate
from lib.tables import TableError, need, read_table, save_table

TRUTHS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def read_graded(path: Path) -> pd.DataFrame:
    """The graded answers of a file: its rows with `correct` as booleans, NA for a failed verdict.

    Raises TableError for a missing column and for a verdict that is none, with its row.
    """
    frame = read_table(path)
    need(frame, ["correct"], path)
    if not {"question_id", "question"} & set(frame):
        raise TableError(f"{path}: no column `question_id` or `question` to pair the answers by")
    texts = frame["correct"].map(lambda v: "" if pd.isna(v) else str(v).strip().lower())
    bad = ~texts.isin([*TRUTHS, ""])
    if bad.any():
        row = int(bad.to_numpy().argmax())
        allowed = "true, false, 1, 0 or nothing"
        raise TableError(f"{path}: row {row}: `correct` = {texts[row]!r}; allowed: {allowed}")
    return frame.assign(correct=pd.array(texts.map(TRUTHS.get), dtype="boolean"))


def key_of(frames: dict[str, pd.DataFrame]) -> str:
    """The column by which the files are paired: question_id where all share some, else question.

    Raises TableError where no column pairs them.
    """
    for column in ("question_id", "question"):
        if all(column in frame for frame in frames.values()):
            keys = [set(frame[column].dropna()) for frame in frames.values()]
            if set.intersection(*keys):
                return column
    raise TableError(f"{', '.join(frames)}: no question is in all of them, by id or by text")


def compare_files(
    frames: dict[str, pd.DataFrame], n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Every file beside the first: file, value, low, high, n, better, worse, p, holm, visible.

    frames: graded answers by file. value is the accuracy less the first file's on the questions
    that both have a verdict for; better and worse count the questions that changed sides. With one
    answer a question the test is McNemar's exact one, with several it is a permutation of the signs
    of the questions' differences, and `visible` is empty.
    """
    by = key_of(frames)
    shares = {
        name: frame.dropna(subset="correct").groupby(by)["correct"].agg(["mean", "size"])
        for name, frame in frames.items()
    }
    first = next(iter(frames))
    single = all((share["size"] == 1).all() for share in shares.values())
    rows = []
    for name in list(frames)[1:]:
        both = shares[first].add_suffix("_first").join(shares[name], how="inner").astype(float)
        change = (both["mean"] - both["mean_first"]).to_numpy()
        row = {"file": name, "value": change.mean(), "n": len(change)}
        row["low"], row["high"] = paired_interval(change, n_boot, seed)
        row |= {"better": int((change > 0).sum()), "worse": int((change < 0).sum())}
        if single:
            sides = [
                pd.DataFrame({"question_id": both.index, "correct": both[column].astype(bool)})
                for column in ("mean_first", "mean")
            ]
            row["p"] = mcnemar(both["mean_first"], both["mean"])
            row["visible"] = smallest_visible_gain(*sides)["value"]
        else:
            row["p"] = paired_permutation(both["mean_first"], both["mean"], seed)
            row["visible"] = np.nan
        rows.append(row | {"test": "McNemar" if single else "permutation"})
    frame = pd.DataFrame(rows)
    return frame.assign(holm=holm(frame["p"]))


def graded_policies(run: Path) -> dict[str, Path]:
    """The files of a run's graded greedy answers to test questions, by policy."""
    found = sorted(run.glob("0[34]_*/grades_greedy_*_test.parquet"))
    return {path.stem.removeprefix("grades_greedy_").removesuffix("_test"): path for path in found}


def compare_runs(first: Path, second: Path) -> pd.DataFrame:
    """Each policy that both runs have graded, the second run's less the first's.

    Columns as of `compare_files`, `file` being the policy; one Holm family over the policies.
    Raises TableError where the runs share no policy or no question.
    """
    one, two = graded_policies(first), graded_policies(second)
    for run, policies in ((first, one), (second, two)):
        if not policies:
            raise TableError(f"{run}: no graded greedy answers; run `make 03_baselines` there")
    shared = [policy for policy in one if policy in two]
    if not shared:
        raise TableError(f"{first} has {', '.join(one)}, {second} has {', '.join(two)}: none alike")
    tables = [
        compare_files({"first": read_graded(one[name]), name: read_graded(two[name])})
        for name in shared
    ]
    table = pd.concat(tables, ignore_index=True)
    return table.assign(holm=holm(table["p"]))


def difference(row, first: str) -> str:
    """A row of `compare_files` as a sentence; first: what it is compared with."""
    said = direction(row, "better", "worse", "no different", holm=row.holm)
    seen = f"; {row.n} questions show a true {row.visible:.1%} four times in five"
    return (
        f"{row.file} less {first}: {estimate(row, '+.1%')}, {row.better} better and {row.worse}"
        f" worse, {row.test} p = {row.p:.2g}, Holm p = {row.holm:.2g}: {said}"
        f"{seen if row.visible == row.visible else ''}"
    )


def sentences(frames: dict[str, pd.DataFrame], table: pd.DataFrame) -> list[str]:
    """What `main` prints: a line for each file, then for each comparison, then what to know."""
    by, lines = key_of(frames), []
    for name, frame in frames.items():
        reached = accuracy(frame.rename(columns={by: "question_id"})[["question_id", "correct"]])
        failed = f", {reached['failed']} without a verdict" if reached["failed"] else ""
        lines.append(f"{name}: {estimate(reached, '.1%')} right{failed}")
    first = next(iter(frames))
    lines += [difference(row, first) for row in table.itertuples()]
    for name, frame in frames.items():
        left = frame[by].nunique() - len(set(frame[by]) & set(frames[first][by]))
        if left:
            lines.append(f"note: {left} questions of {name} are not in {first}")
    judges = {str(j) for f in frames.values() if "judge" in f for j in f["judge"].dropna().unique()}
    if len(judges) > 1:
        lines.append(
            f"note: the files were graded by different judges: {', '.join(sorted(judges))}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lib.compare",
        description="Compare files of graded answers to the same questions, in pairs.",
    )
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        help="csv, jsonl or parquet, the first is the base; or two folders of runs",
    )
    parser.add_argument("--out", type=Path, help="write the table here: csv, jsonl or parquet")
    args = parser.parse_args()
    if len(args.files) < 2:
        parser.error("give two files or more")
    if len(set(args.files)) < len(args.files):
        parser.error("a file is given twice")
    try:
        if any(path.is_dir() for path in args.files):
            if len(args.files) > 2:
                parser.error("give two folders of runs and no more")
            table = compare_runs(*args.files)
            print("\n".join(difference(row, "the first run's") for row in table.itertuples()))
        else:
            frames = {str(path): read_graded(path) for path in args.files}
            table = compare_files(frames)
            print("\n".join(sentences(frames, table)))
        if args.out:
            save_table(table, args.out)
    except (TableError, OSError) as error:
        sys.exit(f"compare: {error}")


if __name__ == "__main__":
    main()
