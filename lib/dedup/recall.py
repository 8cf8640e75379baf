"""How much of a test set the training questions give away, and how well dedup finds it."""

import json

import numpy as np
import pandas as pd

from lib.config import ROOT
from lib.dedup.candidates import PAIR, candidates
from lib.dedup.contained import judge
from lib.metrics import accuracy, wilson
from lib.questions.splits import ONE_SET_TEST
from lib.text import normalise

PAIRS = ROOT / "data" / "dedup_pairs.jsonl"


def read_pairs(dataset: str | None = None) -> pd.DataFrame:
    """The labelled pairs of one benchmark, or all (see data/README.md).

    Columns pair, dataset, kind, contained (the label), origin, then question and answers of both
    sides.
    """
    pairs = pd.DataFrame([json.loads(line) for line in PAIRS.open(encoding="utf-8")])
    return pairs if dataset is None else pairs[pairs["dataset"] == dataset].reset_index(drop=True)


def sides(pairs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The pairs by test_id and train_id, and their questions as rows; equal ones are one row."""
    parts = []
    for side in ("test", "train"):
        rows = pairs[["dataset", f"{side}_question", f"{side}_answers"]].set_axis(
            ["dataset", "question", "answers"], axis=1
        )
        parts.append(
            rows.assign(split=side, question_id=f"{side}: " + rows["question"].map(normalise))
        )
    pairs = pairs.assign(test_id=parts[0]["question_id"], train_id=parts[1]["question_id"])
    rows = pd.concat(parts).drop_duplicates("question_id", ignore_index=True)
    return pairs, rows.assign(subject=None, relation=None, names=[[] for _ in range(len(rows))])


def hide(pairs: pd.DataFrame, questions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The pairs by test_id and train_id, and the file's questions with the pairs' sides added.

    A question that is a side of a pair is left out of the others, in both splits, so that each
    pair's training side is hidden among the other training questions and no text is there twice.
    """
    pairs, rows = sides(pairs)
    other = ~questions["question"].map(normalise).isin(rows["question"].map(normalise))
    columns = ["question_id", "split", "question", "answers", "subject", "relation", "names"]
    return pairs, pd.concat([rows[columns], questions.loc[other, columns]], ignore_index=True)


def label(pairs: pd.DataFrame, pool: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """The labelled pairs with `found` (a candidate) and `called` (judged contained)."""
    known = pool[PAIR].assign(found=True).drop_duplicates()
    called = (
        verdicts[[*PAIR, "is_contained"]]
        .rename(columns={"is_contained": "called"})
        .drop_duplicates(PAIR)
    )
    both = pairs.merge(known, on=PAIR, how="left").merge(called, on=PAIR, how="left")
    return both.assign(found=both["found"].eq(True), called=both["called"].eq(True))


def score_pairs(labelled: pd.DataFrame) -> pd.DataFrame:
    """Candidates and verdicts against labels: what, of, value, low, high, hits, n (Wilson).

    blocker_recall: true pairs that are candidates, all, by origin and by kind; verdict_recall: true
    pairs called contained, all and by kind; recall: true pairs found and called contained;
    verdict_precision: pairs called contained that are true; false_merges: pairs labelled different
    that are called contained, all and by kind. Pairs that share a question are not independent, so
    the intervals are somewhat narrow.
    """
    true, different = labelled[labelled["contained"]], labelled[~labelled["contained"]]
    called = labelled[labelled["called"]]
    rows = [("blocker_recall", "all", true["found"])]
    rows += [
        ("blocker_recall", f"{c}: {v}", part["found"])
        for c in ("origin", "kind")
        for v, part in true.groupby(c)
    ]
    rows += [("verdict_recall", "all", true["called"])]
    rows += [("verdict_recall", f"kind: {v}", part["called"]) for v, part in true.groupby("kind")]
    rows += [("recall", "all", true["found"] & true["called"])]
    rows += [
        ("verdict_precision", "all", called["contained"]),
        ("false_merges", "all", different["called"]),
    ]
    rows += [
        ("false_merges", f"kind: {v}", part["called"]) for v, part in different.groupby("kind")
    ]
    return pd.DataFrame(
        [{"what": what, "of": of, **share(hits.sum(), len(hits))} for what, of, hits in rows]
    )


def share(hits: int, n: int) -> dict:
    """A share with its Wilson interval: value, low, high, hits, n; a share of nothing is nan."""
    low, high = wilson(hits, n)
    return {
        "value": hits / n if n else np.nan,
        "low": low,
        "high": high,
        "hits": int(hits),
        "n": int(n),
    }


def truth(questions: pd.DataFrame) -> pd.DataFrame:
    """Atlas's true pairs: the training question gives the fact that the test question asks for.

    Known from GeoNames ids and codes (columns `fact`, `gives`), which neither candidates nor
    verdicts read.
    """
    train = questions[questions["split"] == "train"][["question_id", "gives"]].explode("gives")
    held_out = questions[questions["split"] != "train"][["question_id", "fact"]]
    pairs = held_out.merge(train, left_on="fact", right_on="gives", suffixes=("_test", "_train"))
    pairs = pairs.rename(columns={"question_id_test": "test_id", "question_id_train": "train_id"})
    return pairs[PAIR].drop_duplicates().sort_values(PAIR, ignore_index=True)


def compare_with_truth(verdicts: pd.DataFrame, true_pairs: pd.DataFrame) -> pd.DataFrame:
    """Precision and recall of candidates and verdicts: what, value, low, high, hits, n (Wilson).

    blocker_recall: true pairs that are candidates; blocker_precision: candidates that are true
    pairs; verdict_recall: true candidates called contained; verdict_precision: pairs called
    contained that are true; recall: true pairs found and called contained. A share of nothing is
    nan.
    """
    true = set(true_pairs[PAIR].itertuples(index=False, name=None))
    contained = set(verdicts[PAIR].itertuples(index=False, name=None))
    called = set(verdicts.loc[verdicts["is_contained"], PAIR].itertuples(index=False, name=None))
    shares = {
        "blocker_recall": (true & contained, true),
        "blocker_precision": (true & contained, contained),
        "verdict_recall": (true & called, true & contained),
        "verdict_precision": (true & called, called),
        "recall": (true & called, true),
    }
    return pd.DataFrame(
        [{"what": what, **share(len(hits), len(of))} for what, (hits, of) in shares.items()]
    )


def in_training(rows: pd.DataFrame) -> np.ndarray:
    """Whether each row is a training one: officially, else but for a random ONE_SET_TEST."""
    official = "official" in rows and rows["official"].eq("train").any()
    if official:
        return rows["official"].eq("train").to_numpy()
    return np.random.default_rng([0, 4]).random(len(rows)) >= ONE_SET_TEST


def repeats(rows: pd.DataFrame) -> dict:
    """Test questions that repeat a training question's text when the rows are split as they come.

    rows: `question`, and `official` where the benchmark is published in splits; else a random
    ONE_SET_TEST of the rows is the test set. This is what exact matching finds, and all that it
    finds. Returns value, low, high, hits, n.
    """
    train = in_training(rows)
    text = rows["question"].map(normalise)
    return share(text[~train].isin(set(text[train])).sum(), (~train).sum())


def given_away(
    questions: pd.DataFrame, removed: pd.DataFrame, repeated: dict | None = None
) -> pd.DataFrame:
    """Test questions that training questions give away: what, value, low, high, hits, n (Wilson).

    `exact text` (where `repeated` is given: see `repeats`; of the rows as published), `contained,
    another text`: a twin that the judge found and exact matching of questions misses, and of these
    `with the same answer` (an exact match of answers, which would have flagged many others too) and
    `only with another answer` (a reversed question).
    """
    test = questions[questions["split"] == "test"].set_index("question_id")["answers"]
    twins = removed[removed["test_split"] == "test"]
    gold = questions.set_index("question_id")["answers"].map(
        lambda names: {normalise(a) for a in names}
    )
    same = [bool(gold[a] & gold[b]) for a, b in twins[PAIR].itertuples(index=False)]
    with_same = set(twins.loc[np.array(same, bool), "test_id"])
    rows = [{"what": "exact text", **repeated}] if repeated else []
    rows += [
        {"what": what, **share(len(ids), len(test))}
        for what, ids in (
            ("contained, another text", set(twins["test_id"])),
            ("with the same answer", with_same),
            ("only with another answer", set(twins["test_id"]) - with_same),
        )
    ]
    return pd.DataFrame(rows)


def by_twin(
    grades: pd.DataFrame, removed: pd.DataFrame, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Accuracy with and without dedup: questions, value, low, high, n, failed of test grades.

    `all`, `with a twin` (a training question contained the fact; dedup drops it), `without a twin`.
    When the policy was trained on the kept questions only, a difference between the last two is one
    of difficulty; when it was trained on all of them, memorised twins are in it too. Failed
    verdicts are left out, never wrong.
    """
    twin = grades["question_id"].isin(removed["test_id"])
    parts = {"all": grades, "with a twin": grades[twin], "without a twin": grades[~twin]}
    return pd.DataFrame(
        [{"questions": name, **accuracy(part, n_boot, seed)} for name, part in parts.items()]
    )


def examine(name: str, questions: pd.DataFrame, settings, search, ask=None) -> pd.DataFrame:
    """The labelled pairs among the questions: with found, called, reasoning and failed.

    Each pair is judged whether it is found or not. search: the embedding (see `remembered`).
    """
    pairs, hidden = hide(read_pairs(name), questions)
    train, test = (hidden[hidden["split"] == split] for split in ("train", "test"))
    met = candidates(train, test, settings.dedup.neighbours, settings.dedup.similarity, search)
    judged = judge(pairs[PAIR], hidden, settings, ask)
    return label(pairs, met, judged).merge(judged[[*PAIR, "reasoning", "failed"]], on=PAIR)
