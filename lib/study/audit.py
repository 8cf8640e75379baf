"""Can a judge be trusted? Its verdicts against labels of three sources: known facts, labelled rows,
attacks.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from lib.config import ROOT, Judge, Profile
from lib.judge.attacks import attack_cases
from lib.judge.grading import make_reward
from lib.metrics import bootstrap, cohen_kappa, holm, mcnemar, wilson
from lib.tables import read_table
from lib.text import holds

LABELLED = ROOT / "data" / "labelled.jsonl"
LABEL_COLUMNS = ["row", "source", "question", "answers", "prediction", "label", "kind", "note"]
SAYINGS = (
    "{answer}",
    "{answer}.",
    "The answer is {answer}.",
    "It is {answer}, I think.",
    "{subject}: {answer}",
)
MEASURES = ("agreement", "false_positive", "false_negative", "kappa", "failed")


def labelled() -> pd.DataFrame:
    """The rows labelled one by one (see data/README.md) as cases, with dataset, question_id, model
    and prompt.
    """
    rows = read_table(LABELLED).rename(columns={"correct": "label"})
    rows = rows.assign(source="labelled", note=rows["note"].fillna(""))
    return rows[[*LABEL_COLUMNS, "dataset", "question_id", "model", "prompt"]]


def known_cases(questions: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """Cases of n facts: a gold answer in a sentence, and another subject's answer in a sentence, of
    known truth.

    questions: a question frame with relation and subject. The wrong answer is one of the same
    relation that neither holds nor stands in any gold answer. Relations with a single answer give
    no wrong one and are left out.
    """
    rng, rows = np.random.default_rng([seed, 7]), []
    known = questions[questions["relation"].notna()]
    pools = {relation: list(part["answers"]) for relation, part in known.groupby("relation")}
    for question in known.iloc[rng.permutation(len(known))].itertuples():
        golds = list(question.answers)
        others = [
            a[0]
            for a in pools[question.relation]
            if not any(holds(a[0], g) or holds(g, a[0]) for g in golds)
        ]
        if not others or len(rows) >= 2 * n:
            continue
        told = {True: golds[rng.integers(len(golds))], False: others[rng.integers(len(others))]}
        for label, answer in told.items():
            text = SAYINGS[rng.integers(len(SAYINGS))].format(
                answer=answer, subject=question.subject
            )
            row = f"{question.question_id}-{'right' if label else 'wrong'}"
            rows.append(
                (row, "known", question.question, golds, text, label, question.relation, "")
            )
    return pd.DataFrame(rows, columns=LABEL_COLUMNS)


def attack_rows(questions: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """Cases of at most n attack answers of lib.judge.attacks, all of them wrong; kind is the
    attack's category.
    """
    some = questions.sample(min(len(questions), 60), random_state=seed)
    cases = attack_cases(some, each=1).rename(columns={"text": "prediction", "category": "kind"})
    cases = (
        cases.sample(min(n, len(cases)), random_state=seed)
        .reset_index(names="at")
        .sort_values("at")
    )
    rows = "attack-" + cases["at"].astype(str)
    return cases.assign(row=rows, source="attack", label=False, note=cases["attack"])[
        LABEL_COLUMNS
    ].reset_index(drop=True)


def judges(profile: Profile) -> dict[str, Judge]:
    """The judges to audit: the two rules, and the profile's model, naive and guarded, when it names
    one.
    """
    model = profile.audit.judge or (profile.judge if profile.judge.kind == "llm" else None)
    found = {kind: Judge(kind=kind) for kind in ("exact", "alias")}
    return found | (both_ways(model) if model else {})


def both_ways(judge: Judge) -> dict[str, Judge]:
    """One model as two judges: a naive prompt that is believed, and this project's rules behind
    their guards.
    """
    ways = {
        "model, naive": {"prompt": "naive", "guards": False},
        "model, guarded": {"prompt": "rules", "guards": True},
    }
    return {
        name: judge.model_copy(update=way | {"max_failed": 1.0}) for name, way in ways.items()
    }  # counted, no stop


def verdicts(cases: pd.DataFrame, named: dict[str, Judge]) -> pd.DataFrame:
    """Each judge's verdict on each case: the cases with columns judge and correct (boolean, NA = it
    failed).
    """
    questions, answers, texts = (cases[c].tolist() for c in ("question", "answers", "prediction"))
    frames = []
    for name, judge in named.items():
        got = make_reward(judge)(questions, [list(a) for a in answers], texts)
        correct = pd.array([None if v is None else v == 1.0 for v in got], dtype="boolean")
        frames.append(cases.assign(judge=name, correct=correct))
    return pd.concat(frames, ignore_index=True)


def agreement(judged: pd.DataFrame, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """How each judge fares on each source: rows of source, judge, measure, value, low, high, n.

    agreement: share of verdicts that equal the label; false_positive: of the wrong answers, the
    share called right; false_negative: of the right ones, the share called wrong (Wilson
    intervals); kappa: bootstrapped over questions, whose rows stay together; failed: share without
    a verdict, which the other measures leave out.
    """
    rows = []
    for (source, judge), part in judged.groupby(["source", "judge"], sort=False):
        given = part[part["correct"].notna()]
        said, true = given["correct"].astype(bool), given["label"].astype(bool)
        cells = [said & true, said & ~true, ~said & true, ~said & ~true]
        shares = {
            "agreement": (said == true, None),
            "false_positive": (said, ~true),
            "false_negative": (~said, true),
        }
        for measure, (hit, among) in shares.items():
            hit = hit if among is None else hit[among]
            low, high = wilson(hit.sum(), len(hit))
            value = float(hit.mean()) if len(hit) else np.nan
            rows.append((source, judge, measure, value, low, high, len(hit)))
        counts = (
            pd.DataFrame({i: cell.astype(float) for i, cell in enumerate(cells)})
            .groupby(given["question"])
            .sum()
        )
        two_sided = bool(true.any() and not true.all())
        low, high = (
            bootstrap(counts.to_numpy(), cohen_kappa, n_boot, seed)
            if two_sided
            else (np.nan, np.nan)
        )
        rows.append(
            (
                source,
                judge,
                "kappa",
                cohen_kappa(counts) if two_sided else np.nan,
                low,
                high,
                len(given),
            )
        )
        failed = len(part) - len(given)
        rows.append(
            (source, judge, "failed", failed / len(part), *wilson(failed, len(part)), len(part))
        )
    return pd.DataFrame(rows, columns=["source", "judge", "measure", "value", "low", "high", "n"])


def compare(judged: pd.DataFrame) -> pd.DataFrame:
    """McNemar's test of every two judges on each source, with Holm's correction over all of them.

    Frame of source, first, second, first_only and second_only (rows that only one of them has
    right), n, p, p_holm.
    """
    right = judged.assign(right=(judged["correct"] == judged["label"]).astype("boolean"))
    rows = []
    for source, part in right.groupby("source", sort=False):
        table = part.pivot(index="row", columns="judge", values="right")
        for first, second in combinations(dict.fromkeys(part["judge"]), 2):
            both = table[[first, second]].dropna().astype(bool)
            only = [int((both[a] & ~both[b]).sum()) for a, b in ((first, second), (second, first))]
            rows.append(
                (source, first, second, *only, len(both), mcnemar(both[first], both[second]))
            )
    names = ["source", "first", "second", "first_only", "second_only", "n", "p"]
    frame = pd.DataFrame(rows, columns=names)
    return frame.assign(p_holm=holm(frame["p"]) if len(frame) else [])


def confusions(judged: pd.DataFrame) -> pd.DataFrame:
    """The rows that a judge has wrong, one a judge and row: what, gold, prediction, label, verdict,
    kind and note.
    """
    wrong = judged[judged["correct"].notna() & (judged["correct"] != judged["label"])]
    mistake = np.where(wrong["correct"].astype(bool), "called right", "called wrong")
    wrong = wrong.assign(
        mistake=mistake, answers=wrong["answers"].map(list)
    )  # parquet gives arrays
    return wrong[["source", "judge", "mistake", "row", *LABEL_COLUMNS[2:5], "kind", "note"]]
