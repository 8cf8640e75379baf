"""A run's headline numbers a second way: from its parquet files alone, with nothing of `lib`.

    python tests/recompute.py outputs/laptop/smollm2-135m/atlas/seed0

Prints each number beside the one in the run's summary.json; an error where they differ.
"""

import json
import sys
from math import comb, isclose
from pathlib import Path

import pandas as pd


def read(run: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(run / f"{name}.parquet")


def verdicts(run: Path, name: str) -> dict[str, float]:
    """question_id -> 1.0 or 0.0 of one answer each; a failed verdict is left out."""
    frame = read(run, name).dropna(subset="correct")
    return dict(zip(frame["question_id"], frame["correct"].astype(float), strict=True))


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def difference(one: dict, other: dict) -> float:
    """Mean of one less other over the questions that both answered."""
    return mean(one[q] - other[q] for q in one.keys() & other.keys())


def shares(run: Path, name: str, first: int | None = None) -> dict[str, tuple[int, int]]:
    """question_id -> (right samples, samples), of the first `first` samples or all."""
    frame = read(run, name).dropna(subset="correct")
    if first is not None:
        frame = frame[frame["sample"] < first]
    counts: dict[str, tuple[int, int]] = {}
    for question, correct in zip(frame["question_id"], frame["correct"], strict=True):
        right, n = counts.get(question, (0, 0))
        counts[question] = (right + int(correct), n + 1)
    return counts


def pass_at(counts: dict[str, tuple[int, int]], k: int) -> float:
    return mean(1 - comb(n - right, k) / comb(n, k) for right, n in counts.values())


def mcnemar(before: dict, after: dict) -> float:
    """Two-sided exact binomial test on the questions that changed sides."""
    up = sum(before[q] < after[q] for q in before)
    down = sum(before[q] > after[q] for q in before)
    tail = sum(comb(up + down, i) for i in range(min(up, down) + 1)) / 2 ** (up + down)
    return min(1.0, 2 * tail)


def headline(run: Path) -> dict[str, float]:
    """The numbers by their name in summary.json."""
    early, grpo, moved, which = (
        "03_baselines/grades_", "04_grpo/grades_greedy_", "05_redistribution/grades_",
        "06_attribution/grades_greedy_",
    )  # fmt: skip
    base, trained = verdicts(run, f"{early}greedy_base_test"), verdicts(run, f"{grpo}grpo_test")
    numbers = {"accuracy_base": mean(base.values()), "accuracy_grpo": mean(trained.values())}
    numbers["gain_grpo"] = difference(trained, base)
    numbers["gain_grpo_mcnemar_p"] = mcnemar(base, trained)

    others = {name: f"{early}greedy_{name}_test" for name in ("sft", "rft", "dpo")}
    others |= {
        n: f"{early}{n}_test" for n in ("few_shot", "cot", "majority", "best_of_n", "p_true")
    }
    for name, table in others.items():
        numbers[f"gain_{name}"] = difference(verdicts(run, table), base)
        numbers[f"grpo_less_{name}"] = difference(trained, verdicts(run, table))

    form, full = (verdicts(run, f"{grpo}{name}_test") for name in ("form_reward", "grpo_matched"))
    numbers["reward for form: form"] = difference(form, base)
    numbers["reward for form: recall"] = difference(full, form)
    start, after = (verdicts(run, f"{grpo}{name}_test") for name in ("start", "start_grpo"))
    numbers["bare-form start: recall"] = difference(after, start)

    relation = read(run, "02_dedup/questions").set_index("question_id")["relation"]
    cities = {q: v for q, v in trained.items() if relation[q] == "city_country"}
    numbers["gain_grpo_city_country"] = difference(cities, base)

    wrong = [q for q in base if not base[q]]
    numbers["repair_rate"] = mean(trained[q] for q in wrong)
    numbers["damage_rate"] = mean(1 - trained[q] for q in base if base[q])

    drawn = read(run, "05_redistribution/samples_grpo_test")["question_id"]
    n = len(drawn) // drawn.nunique()
    before, later = shares(run, f"{early}base_test", n), shares(run, f"{moved}grpo_test")
    for k in (1, n):
        numbers[f"pass_at_{k}_before"] = pass_at(before, k)
        numbers[f"pass_at_{k}_after"] = pass_at(later, k)
    held = [q for q, (right, _) in before.items() if right]
    numbers["support_lost_grpo"] = mean(later[q][0] == 0 for q in held)

    hidden, control = (verdicts(run, f"{which}{name}_test") for name in ("masked", "masked_random"))
    numbers["zero masked beyond random masks"] = difference(hidden, control)
    cut = read(run, "03_baselines/greedy_base_test")["finish"] == "length"
    return numbers | {"cut_base": float(cut.mean())}


def main() -> None:
    run = Path(sys.argv[1])
    known = {row["name"]: row["value"] for row in json.loads((run / "summary.json").read_text())}
    numbers = headline(run)
    for name, value in numbers.items():
        same = isclose(value, known[name], abs_tol=1e-9)
        print(f"{name:36} {value:10.4f} {known[name]:10.4f} {'' if same else 'DIFFERS'}")
    differ = [
        name for name, value in numbers.items() if not isclose(value, known[name], abs_tol=1e-9)
    ]
    print(f"{len(numbers) - len(differ)} of {len(numbers)} agree")
    sys.exit(f"{differ} differ" if differ else 0)


if __name__ == "__main__":
    main()
