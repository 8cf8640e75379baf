"""A run's greedy answers that name a gold answer and were judged wrong, for a person to read.

    python tests/named.py outputs/laptop/smollm2-135m/atlas/seed0 [policy …]

A strict judge errs on this side, and a policy that rambles gives it more to err on: read them
before you believe a difference of a few points.
"""

import re
import sys
from pathlib import Path

import pandas as pd


def named(run: Path, policy: str) -> pd.DataFrame:
    """question, gold (the answer that is named), text; in the attrs n, the answers looked at."""
    stages = (run / name for name in ("03_baselines", "04_grpo"))
    stage = next(stage for stage in stages if (stage / greedy(policy)).exists())
    questions = pd.read_parquet(run / "02_dedup" / "questions.parquet")
    rows = pd.read_parquet(stage / greedy(policy)).merge(questions, on="question_id")
    grades = pd.read_parquet(stage / f"grades_{greedy(policy)}")[["question_id", "correct"]]
    rows = rows.merge(grades, on="question_id").dropna(subset="correct")

    def gold(row) -> str | None:
        said = (
            a for a in row["answers"] if re.search(rf"(?<!\w){re.escape(a)}(?!\w)", row["text"])
        )
        return next(said, None)

    wrong = rows[~rows["correct"].astype(bool)]
    wrong = wrong.assign(gold=wrong.apply(gold, axis=1)).dropna(subset="gold")
    wrong.attrs["n"] = len(rows)
    return wrong[["question", "gold", "text"]]


def greedy(policy: str) -> str:
    return f"greedy_{policy}_test.parquet"


def main() -> None:
    run, *policies = sys.argv[1:]
    for policy in policies or ("base", "sft", "rft", "dpo", "grpo"):
        if not policies and not any(Path(run).glob(f"0[34]*/{greedy(policy)}")):
            continue  # it had nothing to learn from
        found = named(Path(run), policy)
        print(f"\n{policy}: {len(found)} of {found.attrs['n']}")
        for row in found.itertuples():
            print(f"  {row.question} [{row.gold}] {row.text}")


if __name__ == "__main__":
    main()
