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
from lib.tables import (
    TableError,
    check_output,
    key_text,
    load_table,
    named_rows,
    need,
    read_table,
    save_table,
)
from lib.text import question_key

KEYS = ("question_id", "question")
TRUTHS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def read_graded(path: Path) -> pd.DataFrame:
    """The graded answers of a file: its rows with `correct` as booleans, NA for a failed verdict.

    Raises TableError for a missing column and for a verdict that is none, with its row.
    """
    frame = read_table(path)
    need(frame, ["correct"], path)
    if not set(KEYS) & set(frame):
        raise TableError(f"{path}: no column `question_id` or `question` to pair the answers by")
    texts = frame["correct"].map(lambda v: key_text(v).lower())
    bad = ~texts.isin([*TRUTHS, ""])
    if bad.any():
        row = int(bad.to_numpy().argmax())
        allowed = "true, false, 1, 0 or nothing"
        raise TableError(f"{path}: row {row}: `correct` = {texts[row]!r}; allowed: {allowed}")
    return frame.assign(correct=pd.array(texts.map(TRUTHS.get), dtype="boolean"))


def pair_up(frames: dict[str, pd.DataFrame]) -> tuple[dict[str, pd.DataFrame], str]:
    """(each file's `correct` and, as `question_id`, the text that pairs its rows; what to note).

    Rows pair by their ids where those are filled in, some are in all files, and an id has one
    question; else by the question's text (lib.text.question_key), and the note says why. Raises
    TableError where neither pairs them, naming the rows or the question.
    """
    reasons = []
    for column in KEYS:
        lacking = [name for name, frame in frames.items() if column not in frame]
        if lacking:
            reasons.append(f"no column `{column}` in {', '.join(lacking)}")
            continue
        form = question_key if column == "question" else str
        keys = {name: frame[column].map(key_text).map(form) for name, frame in frames.items()}
        if reason := _unpaired(column, keys, frames):
            reasons.append(reason)
            continue
        chosen = reasons and any("question_id" in frame for frame in frames.values())
        rows = {
            name: pd.DataFrame({"question_id": keys[name], "correct": frame["correct"]})
            for name, frame in frames.items()
        }
        return rows, f"paired by `question`: {reasons[0]}" if chosen else ""
    raise TableError("; ".join(reasons))


def _unpaired(column: str, keys: dict[str, pd.Series], frames: dict) -> str | None:
    """Why a column's keys do not pair the files; None where they do."""
    for name, key in keys.items():
        if key.eq("").any():
            return f"{name}: `{column}` is empty in {named_rows(key.eq(''))}"
    if not set.intersection(*map(set, keys.values())):
        by = "id" if column == "question_id" else "text"
        return f"{', '.join(keys)}: no question is in all of them, by {by}"
    return _contradiction(keys, frames) if column == "question_id" else None


def _contradiction(ids: dict[str, pd.Series], frames: dict) -> str | None:
    """The first id that stands at two questions, in one file or in two; None where none does."""
    known: dict[str, tuple[str, str]] = {}
    for name, frame in frames.items():
        if "question" not in frame:
            continue
        for key, text in zip(ids[name], frame["question"].map(key_text), strict=True):
            file, other = known.setdefault(key, (name, text)) if text else (name, "")
            if question_key(other) != question_key(text):
                return (
                    f"id {key!r} is {other[:50]!r} in {file} and {text[:50]!r} in {name} (where "
                    "they are one question, drop the column `question`)"
                )
    return None


def compare_files(
    frames: dict[str, pd.DataFrame], n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Every file beside the first: file, value, low, high, n, better, worse, p, holm, visible.

    frames: graded answers by file. value is the accuracy less the first file's on the questions
    that both have a verdict for; better and worse count the questions that changed sides. With one
    answer a question the test is McNemar's exact one, with several it is a permutation of the signs
    of the questions' differences, and `visible` is empty. Where no question has a verdict in both,
    n is 0 and the rest is empty.
    """
    shares = {
        name: rows.dropna(subset="correct").groupby("question_id")["correct"].agg(["mean", "size"])
        for name, rows in pair_up(frames)[0].items()
    }
    first = next(iter(frames))
    single = all((share["size"] == 1).all() for share in shares.values())
    rows = []
    for name in list(frames)[1:]:
        both = shares[first].add_suffix("_first").join(shares[name], how="inner").astype(float)
        change = (both["mean"] - both["mean_first"]).to_numpy()
        row = {"file": name, "value": change.mean() if len(change) else np.nan, "n": len(change)}
        row["low"], row["high"] = paired_interval(change, n_boot, seed)
        row |= {"better": int((change > 0).sum()), "worse": int((change < 0).sum())}
        if not len(change):
            row |= {"p": np.nan, "visible": np.nan}
        elif single:
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
    return pd.DataFrame(rows).assign(holm=lambda table: holm(table["p"]))


def graded_policies(run: Path) -> dict[str, Path]:
    """The files of a run's graded greedy answers to test questions, by policy."""
    found = sorted(run.glob("0[34]_*/grades_greedy_*_test.parquet"))
    return {path.stem.removeprefix("grades_greedy_").removesuffix("_test"): path for path in found}


def question_texts(run: Path) -> pd.Series:
    """The text of each of a run's questions by id; empty where the run does not have them."""
    asked = run / "02_dedup" / "questions.parquet"
    if not asked.exists():
        return pd.Series(dtype="str")
    return load_table(asked).set_index("question_id")["question"]


def compare_runs(first: Path, second: Path) -> tuple[pd.DataFrame, list[str]]:
    """(each policy that both runs have graded, the second run's less the first's; what to note).

    Columns as of `compare_files`, `file` being the policy; one Holm family over the policies. A
    note names the policies that it is about. Where an id is another question in the second run (a
    file that was edited between them), rows pair by the questions' text. Raises TableError where
    the runs share no policy or no question.
    """
    one, two = graded_policies(first), graded_policies(second)
    for run, policies in ((first, one), (second, two)):
        if not policies:
            raise TableError(f"{run}: no graded greedy answers; run `make 03_baselines` there")
    shared = [policy for policy in one if policy in two]
    if not shared:
        raise TableError(f"{first} has {', '.join(one)}, {second} has {', '.join(two)}: none alike")
    tables, noted = [], {}
    sides = [(run, paths, question_texts(run)) for run, paths in ((first, one), (second, two))]
    for name in shared:
        frames = {}
        for run, paths, texts in sides:
            graded = read_graded(paths[name])
            frames[str(run)] = graded.assign(question=graded["question_id"].map(texts))
        tables.append(compare_files(frames).assign(file=name))
        for note in notes(frames, *pair_up(frames)):
            noted.setdefault(note, []).append(name)
    table = pd.concat(tables, ignore_index=True).assign(holm=lambda table: holm(table["p"]))
    return table, [f"{note} ({', '.join(policies)})" for note, policies in noted.items()]


def difference(row, first: str) -> str:
    """A row of `compare_files` as a sentence; first: what it is compared with."""
    if not row.n:
        return f"{row.file} less {first}: no question has a verdict in both"
    said = direction(row, "better", "worse", "no different", holm=row.holm)
    seen = f"; {row.n} questions show a true {row.visible:.1%} four times in five"
    return (
        f"{row.file} less {first}: {estimate(row, '+.1%')}, {row.better} better and {row.worse}"
        f" worse, {row.test} p = {row.p:.2g}, Holm p = {row.holm:.2g}: {said}"
        f"{seen if row.visible == row.visible else ''}"
    )


def sentences(frames: dict[str, pd.DataFrame], table: pd.DataFrame) -> list[str]:
    """What `main` prints: a line for each file, then for each comparison, then what to know."""
    paired, note = pair_up(frames)
    lines = []
    for name, rows in paired.items():
        reached = accuracy(rows)
        failed = f", {reached['failed']} without a verdict" if reached["failed"] else ""
        right = f"{estimate(reached, '.1%')} right" if reached["n"] else "no answer has a verdict"
        lines.append(f"{name}: {right}{failed}")
    lines += [difference(row, next(iter(paired))) for row in table.itertuples()]
    return lines + notes(frames, paired, note)


def notes(frames: dict[str, pd.DataFrame], paired: dict, note: str) -> list[str]:
    """What to know of a comparison: why it pairs by text, questions of one side, other judges.

    paired, note: as of `pair_up`.
    """
    lines = [f"note: {note}"] if note else []
    first, *others = paired
    asked = {name: set(rows["question_id"]) for name, rows in paired.items()}
    for name in others:
        for one, other in ((name, first), (first, name)):
            if left := len(asked[one] - asked[other]):
                lines.append(f"note: {left} questions of {one} are not in {other}")
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
    if len({path.resolve() for path in args.files}) < len(args.files):
        parser.error("a file is given twice")
    try:
        if args.out:
            check_output(args.out, args.files)
        if any(path.is_dir() for path in args.files):
            if len(args.files) > 2:
                parser.error("give two folders of runs and no more")
            table, noted = compare_runs(*args.files)
            said = [difference(row, "the first run's") for row in table.itertuples()]
            print("\n".join(said + noted))
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
