"""How often the intervals hold the truth, and how often the tests cry wolf: by simulation.

    python tests/coverage.py [SIMULATIONS]

Each kind of interval that the notebooks print is computed by the project's own functions from data
whose truth is known. An interval should hold it in 93 to 97 of 100 cases, a test should find a
difference that is not there in at most 6. Prints a table; an error where
one is outside.
"""

import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from lib.metrics import (
    accuracy,
    bootstrap,
    gain,
    holm,
    mcnemar,
    paired_permutation,
    pass_at_k,
    pass_curve,
    ratio,
    smallest_visible_gain,
    wilson,
)
from lib.study import attribution
from lib.study.claims import pool_seeds
from lib.study.confidence import FITS, measures
from lib.study.methods import gain_over_seeds
from lib.study.origin import over_seeds as origin_seeds
from lib.study.redistribution import equivalent_k
from lib.study.transfer import crossover, own_and_other

SIMULATIONS, BOOT = 400, 400
MANY = 200_000  # questions in place of infinitely many, where the truth has no formula


def grades(correct) -> pd.DataFrame:
    """One answer for each question; columns of `correct` are samples."""
    table = np.atleast_2d(np.asarray(correct, bool).T).T  # (questions, samples)
    questions, samples = table.shape
    frame = pd.DataFrame({"question_id": np.repeat(np.arange(questions), samples)})
    frame["sample"] = np.tile(np.arange(samples), questions)
    return frame.assign(correct=pd.array(table.reshape(-1), dtype="boolean"))


def known_share(rng, n: int) -> np.ndarray:
    """How probable a right answer is, for n questions: many near zero, some near one."""
    return rng.beta(0.35, 0.8, n)


def trained(p: np.ndarray) -> np.ndarray:
    """The same after a training that helps most in the middle."""
    return np.clip(p + 1.2 * p * (1 - p) + 0.03, 0, 1)


def planted(rng, n: int, up: float, down: float) -> tuple[np.ndarray, np.ndarray]:
    """Answers before and after: the shares `up` become right and `down` wrong, on average."""
    change = rng.choice([1, 0, -1], n, p=[up, 1 - up - down, down])
    before = np.where(change == 1, 0, np.where(change == -1, 1, rng.random(n) < 0.4))
    return before, before + change


def wilson_intervals(rng, n: int, p: float):
    return [(p, *wilson(rng.binomial(n, p), n))]


def paired_gain(rng, n: int, up: float = 0.25, down: float = 0.06):
    before, after = planted(rng, n, up, down)
    row = gain(grades(before), grades(after), BOOT, int(rng.integers(1e6)))
    return [(up - down, row["low"], row["high"])]


def mean_share(rng, n: int, samples: int = 32):
    p = known_share(rng, n)
    hits = rng.random((n, samples)) < p[:, None]
    row = accuracy(grades(hits), BOOT, int(rng.integers(1e6)))
    return [(0.35 / 1.15, row["low"], row["high"])]


def sparse(rng, n: int, samples: int = 32):
    """Questions without a right sample before: most stay at 0, a few go far."""
    p = np.where(rng.random(n) < 0.9, rng.beta(0.3, 6, n), rng.beta(2, 2, n))
    row = accuracy(grades(rng.random((n, samples)) < p[:, None]), BOOT, int(rng.integers(1e6)))
    return [(0.9 * 0.3 / 6.3 + 0.1 * 0.5, row["low"], row["high"])]


def curve(rng, n: int, k: int, truth: float, samples: int = 32):
    hits = rng.random((n, samples)) < known_share(rng, n)[:, None]
    row = pass_curve(grades(hits), [k], BOOT, int(rng.integers(1e6))).iloc[0]
    return [(truth, row["low"], row["high"])]


def curve_difference(rng, n: int, k: int, truth: float, samples: int = 32):
    p = known_share(rng, n)
    sides = [rng.binomial(samples, q) for q in (p, trained(p))]
    change = pass_at_k(samples, sides[1], k) - pass_at_k(samples, sides[0], k)
    return [(truth, *bootstrap(change, n_boot=BOOT, seed=int(rng.integers(1e6))))]


def gain_share(rng, n: int, part: float = 0.4):
    full = rng.choice([1, 0, -1], n, p=[0.28, 0.64, 0.08])
    some = np.where(rng.random(n) < part, full, 0)
    row = ratio(some, full, BOOT, int(rng.integers(1e6)))
    return [(part, row["low"], row["high"])]


def confidence_rows(rng, n: int) -> np.ndarray:
    confidence = rng.beta(1.2, 1.5, n)
    return np.column_stack([confidence, rng.random(n) < 0.15 + 0.5 * confidence])


def fits(rng, n: int, truth: np.ndarray):
    table = confidence_rows(rng, n).astype(float)
    low, high = bootstrap(table, measures, BOOT, int(rng.integers(1e6)))
    return list(zip(truth, low, high, strict=True))


def over_seeds(rng, n: int, seeds: int, spread: float = 0.03):
    """Training seeds move the accuracy by `spread` (standard deviation), on the same questions."""
    base = rng.random(n)
    before, lift = base < 0.38, 0.2 + spread * rng.standard_normal(seeds)
    noise = 0.15 * rng.standard_normal((n, seeds))  # single questions differ between seeds
    after = [base + noise[:, s] < 0.38 + lift[s] for s in range(seeds)]
    reached = np.mean(MIXED < 0.58)
    row = gain_over_seeds([grades(before)], [grades(a) for a in after])
    return [(reached - 0.38, row["low"], row["high"])]


_draw = np.random.default_rng(1)
MIXED = _draw.random(MANY) + 0.15 * _draw.standard_normal(MANY)


def subset(rng, n: int, repeats: int, spread: float = 0.12):
    """Trainings on subsets that bring the same: one against several pooled and one, as a share.

    A share without a finite interval may be anything.
    """
    questions = 1.2 * rng.standard_normal(n)

    def training() -> pd.DataFrame:
        return grades(questions + spread * rng.standard_normal() + 0.7 * rng.standard_normal(n) > 0)

    base = grades(questions + 0.7 * rng.standard_normal(n) > 1.2)
    ours, full, others = training(), training(), [training() for _ in range(repeats)]
    pairs = {"pooled": (ours, attribution.pooled(others)), "one": (ours, full)}
    chance = attribution.chance_of_training(others)
    rows = attribution.against(pairs, chance=chance, trainings={"pooled": (1, repeats)})
    share = attribution.gain_shares(base, full, {"ours": ours}, chance=chance).iloc[0]
    ends = (share["low"], share["high"]) if share["low"] == share["low"] else (-np.inf, np.inf)
    return [*((0, row.low, row.high) for row in rows.itertuples()), (1, *ends)]


def transfer(rng, n: int, repeats: int, spread: float = 0.12):
    """Trainings on five kinds, and on two halves, that all bring the same everywhere."""
    questions = 1.2 * rng.standard_normal(n)
    ids = [f"q{i}" for i in range(n)]
    source = pd.Series(rng.choice(list("abcde"), n, p=(0.6, 0.14, 0.12, 0.08, 0.06)), index=ids)

    def training() -> pd.DataFrame:
        common, own = spread * rng.standard_normal(), spread * rng.standard_normal(5)
        shift = common + source.map(dict(zip("abcde", own, strict=True))).to_numpy()
        return grades(questions + shift + 0.7 * rng.standard_normal(n) > 0).assign(question_id=ids)

    base, others = training(), [training() for _ in range(repeats)]
    kinds = own_and_other(base, {k: training() for k in "abcde"}, source, repeats=others)
    halves = source.isin(["a"]).map({True: "first", False: "second"})
    met = crossover(base, {k: training() for k in ("first", "second")}, halves, repeats=others)
    rows = (kinds.iloc[-1], met.iloc[-1])
    return [(0, row["low"], row["high"]) for row in rows]


def pooled(rng, seeds: int, common: float):
    """Runs whose numbers differ by training, and err together by their questions (`common`)."""
    values = rng.normal(0.2, 0.03, seeds) + rng.normal(0, common)
    own = 1.96 * common
    row = pool_seeds(
        pd.DataFrame({"value": values, "low": values - own, "high": values + own, "n": 1})
    )
    return [(0.2, row["low"], row["high"])]


def made_up(rng, facts: int, seeds: int, spread: float):
    """Made-up facts of several seeds, whose share of right answers differs by training."""
    right = np.repeat(np.clip(0.3 + spread * rng.standard_normal(seeds), 0, 1), facts)
    values = pd.Series((rng.random(facts * seeds) < right).astype(float))
    row = origin_seeds(values, pd.Series(np.repeat(range(seeds), facts)), share=True)
    return [(0.3, row["low"], row["high"])]


def worth(rng, n: int, truth: float, samples: int = 64):
    p = known_share(rng, n)
    before = grades(rng.random((n, samples)) < p[:, None])
    row = equivalent_k(before, grades(rng.random(n) < trained(p)), BOOT, int(rng.integers(1e6)))
    return [(truth, row["low"], row["high"])]


def true_curves(k: int) -> tuple[float, float]:
    """pass@k of infinitely many questions, and what training adds to it."""
    p = known_share(np.random.default_rng(2), MANY)
    before, after = (1 - (1 - q) ** k for q in (p, trained(p)))
    return before.mean(), (after - before).mean()


def true_worth() -> float:
    p = known_share(np.random.default_rng(3), MANY)
    reached, k = trained(p).mean(), 1
    while (1 - (1 - p) ** k).mean() < reached:
        k += 1
    return float(k)


def kinds() -> Iterator[tuple[str, Callable, list[str]]]:
    """Every kind of interval: its name, a function of a generator, the names of its intervals."""
    for n, p in ((34, 0.06), (128, 0.06), (1000, 0.38)):
        yield f"Wilson, n={n}, p={p}", lambda rng, n=n, p=p: wilson_intervals(rng, n, p), [""]
    for n in (90, 400, 1000):
        yield f"paired gain, n={n}", lambda rng, n=n: paired_gain(rng, n), [""]
    yield "mean share of samples, n=128", lambda rng: mean_share(rng, 128), [""]
    for k in (1, 8, 32):
        value, change = true_curves(k)
        yield f"pass@{k}, n=128", lambda rng, k=k, v=value: curve(rng, 128, k, v), [""]
        name = f"pass@{k} after less before, n=128"
        yield name, lambda rng, k=k, v=change: curve_difference(rng, 128, k, v), [""]
    yield "share of a gain, n=400", lambda rng: gain_share(rng, 400), [""]
    truth = measures(confidence_rows(np.random.default_rng(4), MANY).astype(float))
    yield "greedy confidence, n=400", lambda rng: fits(rng, 400, truth), list(FITS)
    for seeds in (3, 5):
        yield (
            f"gain over {seeds} seeds, n=1000",
            lambda rng, s=seeds: over_seeds(rng, 1000, s),
            [""],
        )
    parts = ["against random ones", "left out", "share of the gain"]
    yield "subset of training questions", lambda rng: subset(rng, 400, 3), parts
    parts = ["own kind less others", "answer seen less not seen"]
    yield "training on a kind", lambda rng: transfer(rng, 400, 5), parts
    yield "claims over 3 seeds, other questions", lambda rng: pooled(rng, 3, 0.0), [""]
    yield "claims over 3 seeds, the same questions", lambda rng: pooled(rng, 3, 0.02), [""]
    for facts in (40, 200):
        yield f"{facts} made-up facts a seed", lambda rng, n=facts: made_up(rng, n, 3, 0.05), [""]
    yield "mean share, few questions and most at 0", lambda rng: sparse(rng, 34), [""]
    k = true_worth()
    yield f"a greedy answer is worth {k:.0f} samples, n=128", lambda rng: worth(rng, 128, k), [""]


def covered(simulations: int) -> pd.DataFrame:
    """Of each kind of interval the share that holds the truth: what, value, low, high, seconds."""
    rows = []
    for name, simulate, parts in kinds():
        rng, began = np.random.default_rng(0), time.monotonic()
        found = np.array([simulate(rng) for _ in range(simulations)], float)
        inside = (found[..., 1] - 1e-9 <= found[..., 0]) & (found[..., 0] <= found[..., 2] + 1e-9)
        for part, held in zip(parts, inside.T, strict=True):
            low, high = wilson(held.sum(), simulations)
            row = {"what": f"{name} {part}".strip(), "value": held.mean(), "low": low, "high": high}
            rows.append(row | {"seconds": time.monotonic() - began})
        print(f"{rows[-1]['what']}: {rows[-1]['value']:.1%}", flush=True)
    return pd.DataFrame(rows)


def outside(intervals: pd.DataFrame) -> list[str]:
    """The kinds whose share is outside 93 to 97 %, by the interval of the share itself.

    Whole numbers of samples cannot be covered in 95 of 100 cases exactly, and are in more; so are
    sums of several trainings, for what single questions do by chance is in their spread, too (to
    take it out again holds the truth in 87 to 91). A few questions, of which most stay at 0, do not
    show how far others go: no method holds the truth in 95 there, which the README says.
    """
    wide, few = (intervals["what"].str.contains(k) for k in ("is worth|on a kind", "most at 0"))
    bad = (intervals["high"] < 0.93) & ~few | (intervals["low"] > 0.97) & ~wide
    return intervals[bad]["what"].tolist()


def false_alarms(simulations: int) -> pd.DataFrame:
    """Of each test the share of false alarms at 5 %: what, value."""
    rng, alarms = np.random.default_rng(0), {"McNemar": 0, "permutation": 0, "Holm over 17": 0}
    for _ in range(simulations):
        before, after = rng.random((2, 400)) < 0.4
        alarms["McNemar"] += mcnemar(before, after) < 0.05
        shares = rng.binomial(8, 0.4, (2, 200)) / 8
        alarms["permutation"] += paired_permutation(*shares, int(rng.integers(1e6)), 999) < 0.05
        others = rng.random((17, 400)) < 0.4
        alarms["Holm over 17"] += holm([mcnemar(before, one) for one in others]).min() < 0.05
    rows = [{"what": f"false alarms, {k}", "value": v / simulations} for k, v in alarms.items()]
    return pd.DataFrame(rows)


def power_seen(simulations: int) -> float:
    """How often McNemar's test sees the gain that `smallest_visible_gain` calls visible.

    Planted among 1000 questions of which three in ten change sides; four times in five is due.
    """
    rng, seen = np.random.default_rng(0), 0
    for _ in range(simulations):
        before, after = planted(rng, 1000, 0.2, 0.1)
        visible = smallest_visible_gain(grades(before), grades(after))["value"]
        seen += mcnemar(*planted(rng, 1000, (0.3 + visible) / 2, (0.3 - visible) / 2)) < 0.05
    return seen / simulations


def main() -> None:
    simulations = int(sys.argv[1]) if len(sys.argv) > 1 else SIMULATIONS
    intervals, alarms = covered(simulations), false_alarms(simulations)
    print(intervals.round(3).to_string(index=False))
    print(alarms.round(3).to_string(index=False))
    print(f"power at the smallest visible gain: {power_seen(simulations):.1%}")
    loud = alarms["value"] > 0.06 + 2 * np.sqrt(0.05 / simulations)
    bad = outside(intervals) + alarms.loc[loud, "what"].tolist()
    if bad:
        sys.exit(f"outside: {', '.join(bad)}")


if __name__ == "__main__":
    main()
