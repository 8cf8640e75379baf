"""Is an answer correct? True, False, or None when the judge failed, never a wrong answer.

`exact` compares normal forms, `alias` looks for a gold answer inside a sentence (lib.judge.rules),
`llm` asks a model as the paper does, behind guards (lib.judge.model); a second model may audit its
verdicts in evaluation.
"""

import contextlib
import json
from collections.abc import Callable

import numpy as np
import pandas as pd

from lib.config import Judge
from lib.judge.catalogue import Catalogue
from lib.judge.model import (
    ModelJudge,
)
from lib.judge.rules import judge_answer
from lib.metrics import bootstrap, cohen_kappa, wilson
from lib.tables import TableError, need, read_answers


def grade(samples: pd.DataFrame, questions: pd.DataFrame, settings: Judge) -> pd.DataFrame:
    """Grades: question_id, policy, sample, judge, correct (boolean, NA = the judge failed).

    Each distinct (question, text) is judged once; a model judge says in a line what it took. With
    `judge.auditor` a column `audited` holds the second model's verdicts, and a line how far the two
    agree. Raises JudgeFailed above the profile's rate of failures.
    """
    known = questions.set_index("question_id")
    pairs = samples[["question_id", "text"]].drop_duplicates()
    texts, answers = (known.loc[pairs["question_id"], c].tolist() for c in ("question", "answers"))
    cases = texts, [list(a) for a in answers], pairs["text"].tolist()
    judges = {"correct": make_reward(settings, questions)}
    if settings.kind == "llm" and settings.auditor:
        judges["audited"] = auditor(settings)
    for column, judge in judges.items():
        verdicts = judge(*cases)
        pairs[column] = pd.array(
            [None if v is None else v == 1.0 for v in verdicts], dtype="boolean"
        )
        if isinstance(judge, ModelJudge):
            print(f"{len(samples)} samples, {len(pairs)} distinct; {judge.summary()}", flush=True)
    grades = samples.merge(pairs, on=["question_id", "text"], how="left", validate="many_to_one")
    grades = grades.assign(judge=settings.model if settings.kind == "llm" else settings.kind)
    if "audited" in grades:
        print(compare_auditor(grades)["sentence"], flush=True)
    return grades[["question_id", "policy", "sample", "judge", *judges]]


def make_reward(
    settings: Judge, questions: pd.DataFrame | None = None
) -> Callable[[list[str], list[list[str]], list[str]], list[float | None]]:
    """The reward: (questions, gold answers, predictions) -> 1.0, 0.0, or None (judge failed).

    questions: a question frame, whose relations say what else could have been the answer.
    """
    if settings.kind == "llm":
        return ModelJudge(settings)
    catalogue = Catalogue(questions) if questions is not None else lambda question: None

    def reward(questions, answers, predictions):
        cases = zip(questions, answers, predictions, strict=True)
        return [float(judge_answer(p, a, settings.kind, q, catalogue(q))) for q, a, p in cases]

    return reward


def auditor(settings: Judge) -> ModelJudge:
    """The second model as a judge with the same guards: address and key from AUDITOR_…"""
    second = {
        "model": settings.auditor.model,
        "base_url": settings.auditor.base_url,
        "auditor": None,
    }
    return ModelJudge(settings.model_copy(update=second), who="AUDITOR")


def compare_auditor(grades: pd.DataFrame, n_boot: int = 2000, seed: int = 0) -> dict:
    """Agreement of `correct` and `audited`: share and Cohen's kappa with intervals, n, sentence.

    One verdict a question: Wilson for the agreement; several: bootstrap over questions, as for
    kappa.
    """
    both = grades.dropna(subset=["correct", "audited"])
    one, other = (both[c].astype(bool).to_numpy() for c in ("correct", "audited"))
    cells = pd.DataFrame(
        {"yes": one & other, "one": one & ~other, "other": ~one & other, "no": ~one & ~other}
    )
    counts = cells.astype(float).groupby(both["question_id"].to_numpy()).sum().to_numpy()

    agree = np.array([counts[:, [0, 3]].sum(), counts.sum()])
    interval = (
        wilson(*agree)
        if len(counts) == len(both)
        else bootstrap(counts, lambda rows: rows[:, [0, 3]].sum() / rows.sum(), n_boot, seed)
    )
    agreement = {
        "agreement": agree[0] / agree[1] if agree[1] else np.nan,
        "low": interval[0],
        "high": interval[1],
        "kappa": cohen_kappa(counts),
        "n": len(both),
    }
    # a resample in which all verdicts are one has no kappa; bootstrap leaves it out
    agreement["kappa_low"], agreement["kappa_high"] = bootstrap(counts, cohen_kappa, n_boot, seed)
    return agreement | {
        "sentence": "judge and auditor agree on {agreement:.3f} [{low:.3f}, {high:.3f}] of "
        "{n} verdicts, kappa "
        "{kappa:.3f} [{kappa_low:.3f}, {kappa_high:.3f}]".format(**agreement)
    }


def regrade(table: pd.DataFrame, settings: Judge, where="") -> pd.DataFrame:
    """Grade anybody's predictions: `table` with one row for each prediction and the verdicts.

    table: question, answers and prediction, one text or a list. Adds question_id (where missing),
    correct (boolean, NA = the judge failed), judge (its name), kind, raw (a model's reply),
    disputed and fooled; with `judge.auditor` also audited. Raises TableError for a missing
    column and for a row without answers or prediction.
    """
    need(table, ["question", "answers", "prediction"], where)
    answers = [read_answers(value, where, row) for row, value in enumerate(table["answers"])]
    predictions = [_predictions(value, where, row) for row, value in enumerate(table["prediction"])]
    table = table.assign(answers=answers, prediction=predictions)
    if "question_id" not in table:
        table = table.assign(question_id=[f"row{row}" for row in range(len(table))])
    rows = table.explode("prediction", ignore_index=True)
    cases = list(zip(rows["question"].map(str), rows["answers"], rows["prediction"], strict=True))
    keys = [(q, tuple(a), p) for q, a, p in cases]
    once = {
        key: case for key, case in reversed(list(zip(keys, cases, strict=True)))
    }  # equal cases are judged once
    columns = [list(column) for column in zip(*once.values(), strict=True)]
    notes, judge = [], make_reward(settings, table)
    if settings.kind == "llm":
        verdicts = judge(*columns, notes)
        print(f"{len(rows)} predictions, {len(once)} distinct; {judge.summary()}", flush=True)
    else:
        verdicts, notes = (
            judge(*columns),
            [{"raw": None, "disputed": False, "fooled": False} for _ in once],
        )

    def column(values):
        verdict_of = dict(zip(once, values, strict=True))
        return [verdict_of[key] for key in keys]

    def truths(verdicts):
        return pd.array(
            [None if v is None else v == 1.0 for v in column(verdicts)], dtype="boolean"
        )

    rows = rows.assign(
        correct=truths(verdicts),
        judge=settings.model if settings.kind == "llm" else settings.kind,
        kind=settings.kind,
    )
    rows = rows.assign(
        **{name: column([note[name] for note in notes]) for name in ("raw", "disputed", "fooled")}
    )
    if settings.kind == "llm" and settings.auditor:
        second = auditor(settings)
        rows = rows.assign(audited=truths(second(*columns)))
        print(f"{second.summary()}; {compare_auditor(rows)['sentence']}", flush=True)
    return rows


def _predictions(value, where, row) -> list[str]:
    """A row's predictions: a list, a JSON list in a string, or one text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(json.JSONDecodeError):
            value = json.loads(value)
    given = [value] if isinstance(value, str | int | float) or value is None else list(value)
    given = ["" if v is None or v != v else str(v) for v in given]
    if not any(v.strip() for v in given):
        raise TableError(
            f"{where}: row {row}: `prediction` is empty; give the answer to grade or drop the row"
        )
    return given
