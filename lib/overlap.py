"""How much of a test set the training questions give away, and how well dedup finds it: known pairs, repeats."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from lib.blocking import PAIR
from lib.metrics import wilson
from lib.text import normalise

PAIRS = Path(__file__).parent / "data" / "dedup_pairs.jsonl"


def read_pairs(dataset: str | None = None) -> pd.DataFrame:
    """The labelled pairs of one benchmark, or all (see lib/data/README.md).

    Columns pair, dataset, kind, contained (the label), origin, then question and answers of the test and the train side.
    """
    pairs = pd.DataFrame([json.loads(line) for line in PAIRS.open(encoding="utf-8")])
    return pairs if dataset is None else pairs[pairs["dataset"] == dataset].reset_index(drop=True)


def sides(pairs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(pairs with test_id and train_id, their questions as rows with a split): the same question is one row."""
    parts = []
    for side in ("test", "train"):
        rows = pairs[["dataset", f"{side}_question", f"{side}_answers"]].set_axis(["dataset", "question", "answers"], axis=1)
        parts.append(rows.assign(split=side, question_id=f"{side}: " + rows["question"].map(normalise)))
    pairs = pairs.assign(test_id=parts[0]["question_id"], train_id=parts[1]["question_id"])
    rows = pd.concat(parts).drop_duplicates("question_id", ignore_index=True)
    return pairs, rows.assign(subject=None, relation=None, names=[[] for _ in range(len(rows))])


def hide(pairs: pd.DataFrame, questions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(pairs with test_id and train_id, the questions with the pairs' sides among them, as they stand in the file).

    A question that is a side of a pair is left out of the others, in both splits, so that each pair's training side
    is hidden among the other training questions and no text is there twice.
    """
    pairs, rows = sides(pairs)
    other = ~questions["question"].map(normalise).isin(rows["question"].map(normalise))
    columns = ["question_id", "split", "question", "answers", "subject", "relation", "names"]
    return pairs, pd.concat([rows[columns], questions.loc[other, columns]], ignore_index=True)


def label(pairs: pd.DataFrame, found: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """The labelled pairs with `found` (a candidate) and `called` (said to be contained, whether found or not)."""
    known = found[PAIR].assign(found=True).drop_duplicates()
    called = verdicts[[*PAIR, "is_contained"]].rename(columns={"is_contained": "called"}).drop_duplicates(PAIR)
    both = pairs.merge(known, on=PAIR, how="left").merge(called, on=PAIR, how="left")
    return both.assign(found=both["found"].eq(True), called=both["called"].eq(True))


def score(labelled: pd.DataFrame) -> pd.DataFrame:
    """Candidates and verdicts against the labels: what, of, value, low, high, hits, n (Wilson intervals).

    blocker_recall: true pairs that are candidates, of all, by origin and by kind; verdict_recall: true pairs called
    contained, all and by kind; verdict_precision: pairs called contained that are true; false_merges: pairs labelled
    different that are called contained, all and by kind. No pair that shares a training question is independent of
    another one, so the intervals are somewhat narrow.
    """
    true, different = labelled[labelled["contained"]], labelled[~labelled["contained"]]
    called = labelled[labelled["called"]]
    rows = [("blocker_recall", "all", true["found"])]
    rows += [("blocker_recall", f"{c}: {v}", part["found"]) for c in ("origin", "kind") for v, part in true.groupby(c)]
    rows += [("verdict_recall", "all", true["called"])]
    rows += [("verdict_recall", f"kind: {v}", part["called"]) for v, part in true.groupby("kind")]
    rows += [("verdict_precision", "all", called["contained"]), ("false_merges", "all", different["called"])]
    rows += [("false_merges", f"kind: {v}", part["called"]) for v, part in different.groupby("kind")]
    return pd.DataFrame([{"what": what, "of": of, **share(hits.sum(), len(hits))} for what, of, hits in rows])


def share(hits: int, n: int) -> dict:
    """A share with its Wilson interval: value, low, high, hits, n; a share of nothing is nan."""
    low, high = wilson(hits, n)
    return {"value": hits / n if n else np.nan, "low": low, "high": high, "hits": int(hits), "n": int(n)}
