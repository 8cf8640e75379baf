"""Is an answer correct? True, False, or None when the judge failed, never a wrong answer.

`exact` compares normal forms, `alias` looks for a gold answer inside a sentence (lib.judge.rules),
`llm` asks a model as the paper does, behind guards (lib.judge.model); a second model may audit its
verdicts in evaluation.
"""

import json
import os
import re
from collections.abc import Callable
from numbers import Number

import numpy as np
import pandas as pd

from lib.cells import cell_texts, doubtful_answers, read_answers, read_list
from lib.config import Judge
from lib.judge.address import served
from lib.judge.catalogue import Catalogue
from lib.judge.extraction import extract
from lib.judge.model import ModelJudge
from lib.judge.reasons import reason_missing, reasons
from lib.judge.rules import answer_text, judge_answer
from lib.judge.wordings import EMPTY_NOTE
from lib.metrics import bootstrap, cohen_kappa, wilson
from lib.tables import (
    TableError,
    is_missing,
    key_text,
    named_rows,
    need,
    refuse_missing_ids,
)
from lib.text import question_key

MESSAGES = re.compile(r"\s*\[?\s*\{\s*[\"'](?:role|from)[\"']\s*:")
GRADED = ("correct", "why", "judge", "kind", "raw", "disputed", "fooled", "cause")


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
        pairs[column] = _truths(verdicts)
        if isinstance(judge, ModelJudge):
            print(f"{len(samples)} samples, {len(pairs)} distinct; {judge.summary()}", flush=True)
    grades = samples.merge(pairs, on=["question_id", "text"], how="left", validate="many_to_one")
    grades = grades.assign(judge=settings.model if settings.kind == "llm" else settings.kind)
    if "audited" in grades:
        print(compare_auditor(grades)["sentence"], flush=True)
    return grades[["question_id", "policy", "sample", "judge", *judges]]


def short_answers(samples: pd.DataFrame, questions: pd.DataFrame) -> list[str]:
    """What each sample says without the question's words, the key of votes; "" for nothing."""
    texts = samples["question_id"].map(questions.set_index("question_id")["question"])
    return [answer_text(*pair) for pair in zip(samples["text"], texts, strict=True)]


def make_reward(
    settings: Judge, questions: pd.DataFrame | None = None
) -> Callable[[list[str], list[list[str]], list[str]], list[float | None]]:
    """The reward: (questions, gold answers, predictions) -> 1.0, 0.0, or None (judge failed).

    questions: a question frame, whose relations say what else could have been the answer.
    """
    catalogue = Catalogue(questions) if questions is not None else lambda question: None
    if settings.kind == "llm":
        return ModelJudge(settings, catalogue=catalogue)

    def reward(questions, answers, predictions):
        cases = zip(questions, answers, predictions, strict=True)
        return [float(judge_answer(p, a, settings.kind, q, catalogue(q))) for q, a, p in cases]

    return reward


def auditor(settings: Judge) -> ModelJudge:
    """The second model as a judge with the same guards: address and key from AUDITOR_…

    Without a key of its own it takes the judge's, and then, without an address, the judge's too.
    """
    own = os.environ.get("AUDITOR_API_KEY") or served(settings.auditor.model.partition("@")[0])
    beside = None if own else os.environ.get("OPENAI_BASE_URL") or settings.base_url
    second = {
        "model": settings.auditor.model,
        "base_url": settings.auditor.base_url or beside,
        "identity": None,
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


def regrade(
    table: pd.DataFrame,
    settings: Judge,
    where="",
    texts: bool = False,
    extraction: str = "none",
    no_reply=None,
) -> pd.DataFrame:
    """Grade anybody's predictions: `table` with one row for each prediction and the verdicts.

    table: question, answers and prediction, one text or a list; texts: a prediction is one text
    even where it reads as a list; extraction: the answer is taken out of a longer text
    (lib.judge.extraction) and stands in `extracted`, how it was in `form`; no_reply: for each row
    why it has no prediction, or a list for each of its predictions. A blank prediction is wrong,
    one that is absent has no verdict. The index is the row of `table`. Adds correct (boolean, NA
    without a verdict), why (lib.judge.reasons), judge (its name), kind, raw (a model's reply),
    disputed, fooled and cause (why a verdict failed); with `judge.auditor` also audited. The
    table's own columns of these names are kept as `<name>_given`. Raises TableError for a missing
    column, for a row without answers or with an empty question_id, and where `<name>_given` is
    taken, for a question that is no text, and for a blank one where a model judges.
    """
    need(table, ["question", "answers", "prediction"], where)
    refuse_missing_ids(table, where)
    table = table.assign(question=_question_texts(table["question"], settings, where))
    table = _keep_given(table, settings, extraction, where)
    answers = [read_answers(value, where, row) for row, value in enumerate(table["answers"])]
    predictions = [
        _predictions(value, where, row, texts) for row, value in enumerate(table["prediction"])
    ]
    for line in doubtful_answers(table["answers"], where):
        print(line, flush=True)
    table = table.assign(answers=answers, prediction=predictions).reset_index(drop=True)
    if note := _shared_id(table):
        print(f"{where}: note: {note}", flush=True)
    rows = table.explode("prediction")
    taken = [extract(text, extraction) for text in rows["prediction"]]
    if extraction != "none":
        rows = rows.assign(extracted=[t.text for t in taken], form=[t.form for t in taken])

    judged = zip(rows["question"], rows["answers"], taken, strict=True)
    absent = _causes(no_reply, predictions)
    cases = [
        (q, answers, t.text, cause) for (q, answers, t), cause in zip(judged, absent, strict=True)
    ]
    graded = _judge_once(cases, asked_of(rows), table, settings)
    why = [
        f"no reply: {cause}" if cause else reason_missing(t.form) or why
        for t, cause, why in zip(taken, absent, graded["why"], strict=True)
    ]
    return rows.assign(**{name: graded[name] for name in graded} | {"why": why})


def asked_of(graded: pd.DataFrame) -> pd.Series:
    """What stands for each row's question: its id and text, without ids its text and answers.

    So rows of one question are one question, and one id at two questions is two. Without an id and
    a text it is the row in the file.
    """
    texts = graded["question"].map(question_key)
    if "question_id" in graded:
        return graded["question_id"].map(key_text) + "\n" + texts
    rows = graded.index.to_series().map(str)
    answers = graded["answers"].map(lambda names: json.dumps(list(names)))
    return (texts + "\n" + answers).where(texts.ne(""), rows)


def _question_texts(cells: pd.Series, settings: Judge, where) -> list[str]:
    """The questions as texts, a missing one as ""; raises TableError as said in `regrade`."""
    other = ~cells.map(lambda cell: is_missing(cell) or isinstance(cell, str | Number))
    if other.any():
        shown = str(cells[other].iloc[0])[:60]
        raise TableError(f"{where}: {named_rows(other)}: `question` {shown!r} is no text; give one")
    texts = cells.map(key_text)
    blank = texts.str.strip().eq("")
    if blank.any() and settings.kind == "llm":
        raise TableError(
            f"{where}: {named_rows(blank)}: empty `question`; a model judges by it: fill it or "
            "drop the rows"
        )
    return texts.tolist()


def _shared_id(table: pd.DataFrame) -> str | None:
    """A line on the first id that stands at several questions, if there is one."""
    if "question_id" not in table:
        return None
    texts = table["question"].map(question_key)
    several = texts.groupby(table["question_id"].map(key_text)).transform("nunique").gt(1)
    if not several.any():
        return None
    row = several.idxmax()
    return f"an id such as {table['question_id'][row]!r} stands at several questions, each counts"


def _causes(no_reply, predictions: list[list[str]]) -> list[str | None]:
    """For each prediction why there is none, None where there is one."""
    if no_reply is None:
        return [None] * sum(map(len, predictions))
    rows = [cause if isinstance(cause, list) else [cause] for cause in no_reply]
    pairs = [pair for row in zip(rows, predictions, strict=True) for pair in zip(*row, strict=True)]
    return [cause if isinstance(cause, str) else None for cause, _ in pairs]


def _judge_once(cases: list[tuple], ids: pd.Series, table: pd.DataFrame, settings: Judge) -> dict:
    """The columns that grade cases (question, answers, text, why there is none or None).

    Equal cases are judged once. One without a text has no verdict.
    """
    keys = [(q, tuple(a), p, cause) for q, a, p, cause in cases]
    once = {key: case for key, case in reversed(list(zip(keys, cases, strict=True)))}
    *columns, absent = (list(column) for column in zip(*once.values(), strict=True))
    verdicts, notes, line = _judge_columns(settings, table, columns)
    verdicts = _without(verdicts, absent)
    notes = [
        n | {"cause": f"no reply: {c}"} if c else n for n, c in zip(notes, absent, strict=True)
    ]
    if line:
        print(f"{len(cases)} predictions, {len(once)} distinct; {line}", flush=True)

    def column(values):
        value_of = dict(zip(once, values, strict=True))
        return [value_of[key] for key in keys]

    failed = [v is None for v in verdicts]
    graded = {
        "correct": _truths(column(verdicts)),
        "why": column(
            reasons([case[:3] for case in once.values()], settings.kind, verdicts, notes, table)
        ),
        "judge": settings.model if settings.kind == "llm" else settings.kind,
        "kind": settings.kind,
        **{name: column([n[name] for n in notes]) for name in ("raw", "disputed", "fooled")},
        "cause": column([n["cause"] if f else None for n, f in zip(notes, failed, strict=True)]),
    }
    if settings.kind == "llm" and settings.auditor:
        second = auditor(settings)
        graded["audited"] = _truths(column(_without(second(*columns), absent)))
        both = pd.DataFrame({c: graded[c] for c in ("correct", "audited")})
        print(
            f"{second.summary()}; "
            f"{compare_auditor(both.assign(question_id=ids.to_numpy()))['sentence']}",
            flush=True,
        )
    return graded


def _without(verdicts: list[float | None], absent: list[str | None]) -> list[float | None]:
    """The verdicts but for answers that are absent."""
    return [None if cause else verdict for verdict, cause in zip(verdicts, absent, strict=True)]


def _keep_given(table: pd.DataFrame, settings: Judge, extraction: str, where) -> pd.DataFrame:
    """The table with its own columns of the verdicts' names under `<name>_given`, said in a line.

    Raises TableError where such a name is taken, too.
    """
    audited = settings.kind == "llm" and settings.auditor
    names = [*GRADED, *(["audited"] if audited else [])]
    names += ["extracted", "form"] if extraction != "none" else []
    given = {name: f"{name}_given" for name in names if name in table}
    taken = [new for new in given.values() if new in table]
    if taken:
        raise TableError(
            f"{where}: its columns {taken} are from an earlier grading, whose verdicts would be "
            "lost; rename or drop them, or grade the file without verdicts"
        )
    if given:
        kept = ", ".join(f"{name} as {new}" for name, new in given.items())
        print(f"{where}: columns of your own are kept: {kept}", flush=True)
    return table.rename(columns=given)


def _judge_columns(settings: Judge, table: pd.DataFrame, columns: list[list]):
    """(verdicts, notes, what a model judge says it took) on questions, answers, predictions."""
    judge = make_reward(settings, table)
    if not isinstance(judge, ModelJudge):
        return judge(*columns), [EMPTY_NOTE] * len(columns[0]), ""
    notes: list = []
    return judge(*columns, notes), notes, judge.summary()


def _truths(verdicts: list[float | None]):
    """Verdicts as nullable booleans: a failed one is missing."""
    return pd.array([None if v is None else v == 1.0 for v in verdicts], dtype="boolean")


def _predictions(value, where="", row=0, texts: bool = False) -> list[str]:
    """A row's predictions: a list, a JSON list in a string, or one text; missing ones are "".

    texts: a string is always one text. Raises TableError as lib.cells does, and for the messages of
    a chat.
    """
    mend = ", or give --texts: every prediction is one text"
    if not texts:
        if isinstance(value, str) and MESSAGES.match(value):
            raise TableError(
                f"{where}: row {row}: `prediction` {value[:60]!r} are messages of a chat; give the "
                f"text of the reply{mend}"
            )
        value = read_list(value, "prediction", where, row, mend)
    found = cell_texts(value, "prediction", where, row, truths=True)
    return [text or "" for text in found] or [""]
