"""The paper's claims beside what lies under `outputs/`: our value, its interval, and a verdict.

The rules stand here; git tells when one was changed, and why. A verdict never rests on one seed, of
a run or of its trainings: with one the table says only which way it points.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t

from lib.metrics import LEVEL
from lib.tables import load_json

CELL = ["model", "dataset"]
# what a rule's answer is called with several seeds, and with one
CLAIM_WORDS = {
    True: ("reproduced", "one seed: for it"),
    False: ("not reproduced", "one seed: against it"),
    None: ("undecided", "one seed: open"),
}
MARGIN = 0.05  # differences inside it, in points of accuracy / 100, count as "the same"


@dataclass(frozen=True)
class Claim:
    """One statement of the paper and how a run speaks to it.

    paper: the paper's value in words; mark: stated or inferred. rows: names of summary rows, the
    first is reported. rule: what `holds` tests, in words. holds: (pooled rows by name) -> True,
    False, or None where the numbers do not decide.
    """

    name: str
    paper: str
    mark: str
    rows: tuple[str, ...]
    rule: str
    holds: Callable[[dict], bool | None]


def above(row: dict, bound: float = 0.0) -> bool | None:
    """Whether the interval lies above the bound; None where it holds the bound."""
    return True if row["low"] > bound else False if row["high"] < bound else None


def meets(row: dict, low: float, high: float) -> bool | None:
    """Whether the estimate lies in the paper's range and its interval above 0.

    False where the interval does not touch the range; None where it does and the estimate does not,
    as with an interval so wide that it touches everything.
    """
    if row["low"] > high or row["high"] < low:
        return False
    return True if low <= row["value"] <= high and row["low"] > 0 else None


def within(row: dict, margin: float = MARGIN) -> bool | None:
    """Whether the interval lies inside +-margin; False where it lies outside, else None."""
    if -margin < row["low"] and row["high"] < margin:
        return True
    return False if row["low"] > margin or row["high"] < -margin else None


def narrows(first: dict, last: dict) -> bool | None:
    """Whether a difference above 0 is smaller at the other end; None where that is not settled.

    False where it does not begin above 0, grows, or turns into a larger one of the other sign.
    """
    told = above(first), apart(last, first)
    if False in told:
        return False
    return None if None in told else abs(last["value"]) < first["value"]


def apart(less: dict, more: dict) -> bool | None:
    """Whether `more` is above `less`, interval by interval; None where they meet."""
    return True if more["low"] > less["high"] else False if more["high"] < less["low"] else None


def beats(name: str, said: str) -> Claim:
    """GRPO is better than another method on the same questions."""
    row = f"grpo_less_{name}"
    rule = "the interval of the paired difference lies above 0"
    return Claim(f"better than {said}", "above", "stated", (row,), rule, lambda r: above(r[row]))


def alike(name: str, said: str, judge: str) -> Claim:
    """Another RL algorithm does as well."""
    row = f"{name}_less_default_by_{judge}"
    rule = f"the interval of the difference lies inside ±{MARGIN:.0%}"
    return Claim(
        f"{said} does the same", "the same", "stated", (row,), rule, lambda r: within(r[row])
    )


CLAIMS = (
    Claim("RL raises greedy accuracy", "yes", "stated", ("gain_grpo",),
          "the interval of the gain lies above 0", lambda r: above(r["gain_grpo"])),
    Claim("relative gain of 27 % or more", "27 %", "stated", ("relative_gain",),
          "the estimate is 27 % or more, its interval above 0",
          lambda r: meets(r["relative_gain"], 0.27, np.inf)),
    beats("sft", "SFT"),
    beats("rft", "RFT"),
    beats("dpo", "DPO"),
    beats("majority", "majority vote"),
    beats("cot", "chain of thought"),
    Claim("facts at zero are repaired", "6-13 %", "stated", ("repair_rate_zero",),
          "the estimate lies in 6-13 %, its interval above 0",
          lambda r: meets(r["repair_rate_zero"], 0.06, 0.13)),
    Claim("repair beyond resampling at zero", "not tested", "inferred",
          ("beyond_resampling_zero",), "the interval lies above 0",
          lambda r: above(r["beyond_resampling_zero"])),
    Claim("repair rises with accessibility", "yes", "stated",
          ("repair_rate_highest", "repair_rate_zero"),
          "the intervals of the highest stratum that has questions and of zero are apart",
          lambda r: apart(r["repair_rate_zero"], r["repair_rate_highest"])),
    Claim("a greedy answer after RL is worth k samples", "16-32", "stated", ("equivalent_k",),
          "the estimate lies in 16-32", lambda r: meets(r["equivalent_k"], 16, 32)),
    Claim("share of the gain from questions at zero", "83 %", "stated", ("gain_share_zero",),
          "the estimate lies in 73-93 %, its interval above 0",
          lambda r: meets(r["gain_share_zero"], 0.73, 0.93)),
)  # fmt: skip


def all_claims(judge: str) -> list[Claim]:
    """The claims that a run can speak to. judge: the run's."""
    first, last = "pass_difference_at_1_grpo", "pass_difference_at_most_grpo"
    exact = f"exact_reward_less_default_by_{judge}"
    narrower = Claim(
        "the gap narrows at large k",
        "yes",
        "stated",
        (last, first),
        "at k = 1 above 0, at the largest k smaller, and the intervals of the two are apart",
        lambda r: narrows(r[first], r[last]),
    )
    brings_less = Claim(
        "exact-match reward brings less",
        "yes",
        "stated",
        (exact,),
        "the interval of the difference lies below 0",
        lambda r: None if (higher := above(r[exact])) is None else not higher,
    )
    losses = {"dr_grpo": "Dr. GRPO", "dapo_loss": "DAPO's loss", "bnpo_loss": "BNPO's loss"}
    same = [alike(arm, said, judge) for arm, said in losses.items()]
    return [*CLAIMS, narrower, brings_less, *same]


def read_runs(folder: Path) -> pd.DataFrame:
    """The summary rows of every run in a profile's folder, `outputs/<run>` with its SET.

    Frame of model, dataset, seed, stage, name, value, low, high, n, trainings. Three are added:
    `relative_gain` (gain over the base policy's accuracy, whose own error is left out),
    `repair_rate_highest` (of the highest stratum that a run has) and `pass_difference_at_most_grpo`
    (at its largest k). trainings: the training seeds behind a number, 1 for most; where a gain is
    there over several, it stands in place of that of the first.
    """
    frames = []
    for path in sorted(folder.glob("*/*/seed*/summary.json")):
        model, dataset, seed = path.parts[-4:-1]
        frame = pd.DataFrame(load_json(path))
        frames.append(frame.assign(model=model, dataset=dataset, seed=seed))
    columns = [*CELL, "seed", "stage", "name", "value", "low", "high", "n"]
    if not frames:
        return pd.DataFrame(columns=columns)
    rows = pd.concat(frames, ignore_index=True)[columns]
    rows[["value", "low", "high"]] = rows[["value", "low", "high"]].astype(float)
    rows = _over_trainings(rows.assign(trainings=1))
    return pd.concat(
        [rows, _relative(rows), _highest(rows), _at_largest_k(rows)], ignore_index=True
    )


def _over_trainings(rows: pd.DataFrame) -> pd.DataFrame:
    """Each run's gains over several training seeds in place of those of its first."""
    keys = [*CELL, "seed"]
    counts = rows[rows["name"] == "training_seeds"].set_index(keys)["value"]
    # DPO has one training
    pooled = rows[rows["name"].str.fullmatch("(?!gain_dpo).*_over_seeds")]
    pooled = pooled.assign(trainings=counts.reindex(pd.MultiIndex.from_frame(pooled[keys])).values)
    pooled = pooled[pooled["trainings"] > 1].astype({"trainings": int})
    names = pooled["name"].str.removesuffix("_over_seeds")
    pooled = pooled.assign(name=names.replace({"grpo_less_base": "gain_grpo"}))
    replaced = rows.set_index([*keys, "name"]).index.isin(pooled.set_index([*keys, "name"]).index)
    return pd.concat([rows[~replaced], pooled], ignore_index=True)


def _relative(rows: pd.DataFrame) -> pd.DataFrame:
    """The gain of GRPO as a share of the base policy's accuracy, for each run that has both."""
    keys = [*CELL, "seed"]
    base = rows[rows["name"] == "accuracy_base"].set_index(keys)["value"]
    gains = rows[rows["name"] == "gain_grpo"].set_index(keys)
    before = base.reindex(gains.index)
    found = gains[["value", "low", "high"]].div(before, axis=0)
    found = found.assign(n=gains["n"], trainings=gains["trainings"])
    return found[before > 0].reset_index().assign(stage="04_grpo", name="relative_gain")


def _highest(rows: pd.DataFrame) -> pd.DataFrame:
    """Each run's rate of repair in the highest of its strata that has questions."""
    names = [f"repair_rate_{stratum}" for stratum in ("high", "middle", "low")]
    found = rows[rows["name"].isin(names)].dropna(subset="value")
    found = found.sort_values("name", key=lambda c: c.map(names.index))
    return found.drop_duplicates([*CELL, "seed"]).assign(name="repair_rate_highest")


def _at_largest_k(rows: pd.DataFrame) -> pd.DataFrame:
    """Each run's difference of pass@k at the largest k that it has."""
    k = rows["name"].str.extract(r"^pass_difference_at_(\d+)_grpo$")[0].astype(float)
    found = rows.assign(k=k).dropna(subset="k").sort_values("k").drop(columns="k")
    found = found.drop_duplicates([*CELL, "seed"], keep="last")
    return found.assign(name="pass_difference_at_most_grpo")


def pool_seeds(rows: pd.DataFrame) -> dict:
    """One number from the rows of several seeds: value, low, high, n, seeds.

    One run keeps its own interval, and counts its training seeds. Several give their mean and
    Student's interval over seeds, which is never narrower than their own intervals are on average:
    seeds that ask the same questions share what the choice of questions does. Where one of them has
    no value or no interval, the mean has none either.
    """
    values = rows["value"].to_numpy(float)
    n, seeds = rows["n"].sum(), len(rows)
    found = {"value": float(values.mean()), "n": None if pd.isna(n) else int(n), "seeds": seeds}
    if seeds == 1:
        found["seeds"] = int(rows["trainings"].iloc[0])
        return found | {side: float(rows[side].iloc[0]) for side in ("low", "high")}
    own = (rows["high"] - rows["low"]).to_numpy(float) / 2
    over = t.ppf((1 + LEVEL) / 2, seeds - 1) * values.std(ddof=1) / np.sqrt(seeds)
    half = float(np.maximum(over, np.sqrt(np.mean(own**2))))  # nan stays nan
    return found | {"low": found["value"] - half, "high": found["value"] + half}


def claim_table(rows: pd.DataFrame, claims: list[Claim]) -> pd.DataFrame:
    """Every claim for every model and data set.

    Frame of model, dataset, claim, paper, mark, value, low, high, n, seeds, rule, verdict. verdict:
    reproduced, not reproduced or undecided with two seeds and more; with one seed which way it
    points; `not run` where the rows are missing.
    """
    table = []
    for (model, dataset), cell in rows.groupby(CELL):
        for claim in claims:
            found = {
                name: pool_seeds(cell[cell["name"] == name])
                for name in claim.rows
                if (cell["name"] == name).any()
            }
            row = {"model": model, "dataset": dataset, "claim": claim.name, "paper": claim.paper}
            row |= {"mark": claim.mark, "rule": claim.rule}
            row |= found.get(claim.rows[0], {}) | {"verdict": claim_verdict(claim, found)}
            table.append(row)
    columns = ["claim", "paper", "mark", "value", "low", "high", "n", "seeds", "rule", "verdict"]
    return pd.DataFrame(table, columns=[*CELL, *columns])


def claim_verdict(claim: Claim, found: dict) -> str:
    """The verdict on a claim by its rule, from the pooled rows by name."""
    if set(claim.rows) - set(found):
        return "not run"
    unknown = any(np.isnan([row["low"], row["high"]]).any() for row in found.values())
    alone = min(row["seeds"] for row in found.values()) < 2
    return CLAIM_WORDS[None if unknown else claim.holds(found)][alone]


def relative_gains(rows: pd.DataFrame) -> pd.DataFrame:
    """The relative gain over all models and data sets, in both ways: rows of how, value, n.

    The mean of ratios gives a data set with a tiny base as much weight as any; the ratio of means
    does not. n counts models times data sets, whose seeds are averaged first.
    """
    named = rows[rows["name"].isin(["accuracy_base", "gain_grpo"])]
    cells = named.pivot_table(index=CELL, columns="name", values="value").dropna()
    if cells.empty:
        return pd.DataFrame(columns=["how", "value", "n"])
    gain, base = cells["gain_grpo"], cells["accuracy_base"]
    both = {"mean of ratios": (gain / base).mean(), "ratio of means": gain.mean() / base.mean()}
    return pd.DataFrame([{"how": k, "value": v, "n": len(cells)} for k, v in both.items()])


def sizes(rows: pd.DataFrame) -> pd.DataFrame:
    """The gain by model size, smallest first: model, dataset, billions, value, low, high, seeds.

    The size is read from the model's name (135m, 1.5b, 7b); a name without one is left out.
    """
    table = []
    for (model, dataset), cell in rows[rows["name"] == "gain_grpo"].groupby(CELL):
        size = re.search(r"(\d+(?:\.\d+)?)([mb])(?![a-z])", model.lower())
        if size:
            billions = float(size[1]) / (1000 if size[2] == "m" else 1)
            row = {"model": model, "dataset": dataset, "billions": billions}
            table.append(row | pool_seeds(cell))
    columns = [*CELL, "billions", "value", "low", "high", "n", "seeds"]
    return pd.DataFrame(table, columns=columns).sort_values("billions", ignore_index=True)


def latex(table: pd.DataFrame) -> str:
    """The claims as a LaTeX table: claim, paper, ours with interval, n, seeds, verdict."""
    ours = [
        "--" if pd.isna(row.value) else f"{row.value:.3g} [{row.low:.3g}, {row.high:.3g}]"
        for row in table.itertuples()
    ]
    shown = table.assign(ours=ours)[[*CELL, "claim", "paper", "ours", "n", "seeds", "verdict"]]
    shown = shown.astype({"n": "Int64", "seeds": "Int64"}).astype(object).fillna("--")
    escape = {"%": r"\%", "_": r"\_", "±": r"$\pm$", "&": r"\&"}
    for column in shown.select_dtypes("object"):
        texts = shown[column].astype(str)
        for mark, safe in escape.items():
            texts = texts.str.replace(mark, safe, regex=False)
        shown[column] = texts
    return shown.to_latex(index=False, column_format="lllllrrl")
