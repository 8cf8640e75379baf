"""Can a judge be trusted? Its verdicts against known facts, labelled rows and attacks."""

from itertools import combinations

import numpy as np
import pandas as pd

from lib.config import ROOT, Judge, Profile
from lib.judge.attacks import attack_cases
from lib.judge.grading import make_reward
from lib.metrics import bootstrap, cohen_kappa, holm, mcnemar, wilson
from lib.tables import read_table
from lib.text import holds

LABELLED_FILE = ROOT / "data" / "labelled.jsonl"
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
    """The rows labelled one by one (see data/README.md) as cases.

    Frame of LABEL_COLUMNS, dataset, question_id, model, prompt.
    """
    rows = read_table(LABELLED_FILE).rename(columns={"correct": "label"})
    rows = rows.assign(source="labelled", note=rows["note"].fillna(""))
    return rows[[*LABEL_COLUMNS, "dataset", "question_id", "model", "prompt"]]


def known_cases(questions: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """Cases of known truth from n facts: each fact's own answer and another's, in a sentence.

    questions: a question frame with relation and subject. The wrong answer is one of the same
    relation that neither holds nor stands in any gold answer. Relations with a single answer give
    no wrong one and are left out.
    """
    rng = np.random.default_rng([seed, 7])
    known = questions[questions["relation"].notna()]
    pools = {
        relation: [answers[0] for answers in part["answers"]]
        for relation, part in known.groupby("relation")
    }
    rows = []
    for question in known.iloc[rng.permutation(len(known))].itertuples():
        if len(rows) >= 2 * n:
            break
        golds = list(question.answers)
        others = [answer for answer in pools[question.relation] if _apart(answer, golds)]
        if not others:
            continue

        right, wrong = golds[rng.integers(len(golds))], others[rng.integers(len(others))]
        for answer, label, name in ((right, True, "right"), (wrong, False, "wrong")):
            saying = SAYINGS[rng.integers(len(SAYINGS))]
            text = saying.format(answer=answer, subject=question.subject)
            row = f"{question.question_id}-{name}"
            about = (question.question, golds, text, label, question.relation, "")
            rows.append((row, "known", *about))
    return pd.DataFrame(rows, columns=LABEL_COLUMNS)


def _apart(answer: str, golds: list[str]) -> bool:
    """Whether the answer neither holds nor stands in any gold answer."""
    return not any(holds(answer, gold) or holds(gold, answer) for gold in golds)


def attack_rows(questions: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """Cases of at most n attacks of lib.judge.attacks, all wrong; kind is the attack's category."""
    part = questions.sample(min(len(questions), 60), random_state=seed)
    cases = attack_cases(part, each=1).rename(columns={"text": "prediction", "category": "kind"})
    cases = cases.sample(min(n, len(cases)), random_state=seed).sort_index()
    rows = "attack-" + cases.index.astype(str)
    cases = cases.assign(row=rows, source="attack", label=False, note=cases["attack"])
    return cases[LABEL_COLUMNS].reset_index(drop=True)


def judges(profile: Profile) -> dict[str, Judge]:
    """The judges to audit: the two rules, and the profile's model both ways when it names one."""
    model = profile.audit.judge or (profile.judge if profile.judge.kind == "llm" else None)
    rules = {kind: Judge(kind=kind) for kind in ("exact", "alias")}
    return rules | (both_ways(model) if model else {})


def both_ways(judge: Judge) -> dict[str, Judge]:
    """One model as two judges: a naive prompt without guards, and this project's rules with."""
    uncapped = {"max_failed": 1.0}  # failures are counted and stop nothing
    naive = {"prompt": "naive", "guards": False} | uncapped
    guarded = {"prompt": "rules", "guards": True} | uncapped
    return {
        "model, naive": judge.model_copy(update=naive),
        "model, guarded": judge.model_copy(update=guarded),
    }


def verdicts(cases: pd.DataFrame, named: dict[str, Judge]) -> pd.DataFrame:
    """Each judge's verdict on each case: the cases with judge and correct (NA = it failed)."""
    questions = cases["question"].tolist()
    golds = [list(answers) for answers in cases["answers"]]
    texts = cases["prediction"].tolist()

    frames = []
    for name, judge in named.items():
        rewards = make_reward(judge)(questions, golds, texts)
        right = [None if reward is None else reward == 1.0 for reward in rewards]
        frames.append(cases.assign(judge=name, correct=pd.array(right, dtype="boolean")))
    return pd.concat(frames, ignore_index=True)


def agreement(judged: pd.DataFrame, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """How each judge fares on each source: rows of source, judge, measure, value, low, high, n.

    agreement: share of verdicts that equal the label; false_positive: of the wrong answers, the
    share called right; false_negative: of the right ones, the share called wrong (Wilson
    intervals); kappa: bootstrapped over questions, whose rows stay together; failed: share without
    a verdict. The other measures leave the failed rows out.
    """
    rows = []
    for (source, judge), part in judged.groupby(["source", "judge"], sort=False):
        given = part[part["correct"].notna()]
        said = given["correct"].astype(bool)
        true = given["label"].astype(bool)

        hits = {
            "agreement": said == true,
            "false_positive": said[~true],
            "false_negative": ~said[true],
        }
        measures = {measure: _share(hit) for measure, hit in hits.items()}
        measures["kappa"] = _kappa(said, true, given["question"], n_boot, seed)
        measures["failed"] = _share(part["correct"].isna())

        rows += [(source, judge, measure, *values) for measure, values in measures.items()]
    return pd.DataFrame(rows, columns=["source", "judge", "measure", "value", "low", "high", "n"])


def _share(hit: pd.Series) -> tuple[float, float, float, int]:
    """The share of True (nan of none), its Wilson interval, and n."""
    value = float(hit.mean()) if len(hit) else np.nan
    return value, *wilson(hit.sum(), len(hit)), len(hit)


def _kappa(said, true, questions, n_boot: int, seed: int) -> tuple[float, float, float, int]:
    """Cohen's kappa, its interval over questions, and n; nan where all labels are alike."""
    if true.all() or not true.any():
        return np.nan, np.nan, np.nan, len(true)
    cells = {0: said & true, 1: said & ~true, 2: ~said & true, 3: ~said & ~true}
    counts = pd.DataFrame(cells).astype(float).groupby(questions).sum().to_numpy()
    low, high = bootstrap(counts, cohen_kappa, n_boot, seed)
    return cohen_kappa(counts), low, high, len(true)


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
            one, two = both[first], both[second]
            only = (int((one & ~two).sum()), int((two & ~one).sum()))
            rows.append((source, first, second, *only, len(both), mcnemar(one, two)))
    columns = ["source", "first", "second", "first_only", "second_only", "n", "p"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(p_holm=holm(frame["p"]) if len(frame) else [])


def confusions(judged: pd.DataFrame) -> pd.DataFrame:
    """The rows that a judge has wrong, one for each judge and row.

    Frame of source, judge, mistake (called right, called wrong), row, question, answers,
    prediction, kind, note. A row on which the judge failed is not among them.
    """
    wrong = judged[judged["correct"].notna() & (judged["correct"] != judged["label"])]
    mistake = np.where(wrong["correct"].astype(bool), "called right", "called wrong")
    answers = wrong["answers"].map(list)  # parquet gives arrays
    columns = ["source", "judge", "mistake", "row", *LABEL_COLUMNS[2:5], "kind", "note"]
    return wrong.assign(mistake=mistake, answers=answers)[columns]
