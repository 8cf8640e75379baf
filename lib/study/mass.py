"""Where the probability mass moved: texts seen before or new, gold or own errors, and their style."""

import re
from functools import cache

import numpy as np
import pandas as pd

from lib.judge.rules import abstains, answer_text, hedges
from lib.metrics import bootstrap, pair, wilson
from lib.text import normalise


def _most_frequent(samples: pd.DataFrame) -> pd.DataFrame:
    """Each question's most frequent verbatim text (question_id, answer, count); a tie goes to the
    earliest.
    """
    groups = samples.groupby(["question_id", "text"], as_index=False)["sample"].agg(["size", "min"])
    groups = groups.sort_values(["question_id", "size", "min"], ascending=[True, False, True])
    return groups.drop_duplicates("question_id")[["question_id", "text", "size"]].set_axis(
        ["question_id", "answer", "count"], axis=1
    )


def rivals(samples: pd.DataFrame, questions: pd.DataFrame) -> pd.Series:
    """The first other answer that each sample's text names, as its display answer; "" where it
    names none.

    Candidates are the answers of all `questions` of the same relation (give the training questions
    too), without the question's own answers, names that stand in the question itself, and names of
    one or two letters, which are also words. Without relations all are "".
    """
    names = {}
    for relation, answers in zip(questions["relation"], questions["answers"], strict=True):
        if pd.notna(relation):
            names.setdefault(relation, {}).update(
                {normalise(a): answers[0] for a in answers if len(normalise(a)) > 2}
            )
    patterns = {
        r: re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(n, key=len, reverse=True)))})\b")
        for r, n in names.items()
        if n
    }
    about = questions.set_index("question_id")

    @cache
    def first(question_id, text):
        row = about.loc[question_id]
        if row["relation"] not in patterns:
            return ""
        asked, own = f" {normalise(row['question'])} ", {normalise(a) for a in row["answers"]}
        found = (name[0] for name in patterns[row["relation"]].finditer(normalise(text)))
        return next(
            (names[row["relation"]][x] for x in found if x not in own and f" {x} " not in asked), ""
        )

    named = [
        first(q, text) for q, text in zip(samples["question_id"], samples["text"], strict=True)
    ]
    return pd.Series(named, index=samples.index, dtype="str")


def answers_to_score(questions, samples_before, grades_before, samples_after=None) -> pd.DataFrame:
    """The texts to compare before and after: frame of question_id, kind, answer (verbatim).

    questions: of all splits, of which those with samples get rows. kind: gold (the display answer),
    rival (as bare a name: what `rivals` finds most often in wrong samples), right and wrong (the
    policy's own most frequent such text before), and, with samples_after, after (the trained
    policy's most frequent text). The own texts are whole ones, not cut; a question without one has
    no row of that kind.
    """
    on, ids = ["question_id", "sample"], set(samples_before["question_id"])
    graded = samples_before.merge(grades_before[[*on, "correct"]].dropna(), on=on).astype(
        {"correct": bool}
    )
    false = graded[~graded["correct"]]
    named = false.assign(text=rivals(false, questions))
    whole = graded[
        graded["finish"] == "stop"
    ]  # a cut text is another event than the text with its end
    asked = questions[questions["question_id"].isin(ids)]
    parts = {
        "gold": asked[["question_id"]].assign(answer=[list(a)[0] for a in asked["answers"]]),
        "rival": _most_frequent(named[named["text"] != ""]),
        "right": _most_frequent(whole[whole["correct"]]),
        "wrong": _most_frequent(whole[~whole["correct"]]),
    }
    if samples_after is not None:
        parts["after"] = _most_frequent(samples_after[samples_after["finish"] == "stop"])
    frame = pd.concat([part.assign(kind=kind) for kind, part in parts.items()], ignore_index=True)
    frame = frame[frame["answer"].str.strip() != ""]
    return frame[["question_id", "kind", "answer"]].reset_index(drop=True)


def to_score(questions: pd.DataFrame, texts: pd.DataFrame) -> pd.DataFrame:
    """The question rows with `answers` replaced by the distinct texts to score, as
    `lib.engine.sampling.score` reads.
    """
    lists = (
        texts.groupby("question_id")["answer"]
        .agg(lambda a: list(dict.fromkeys(a)))
        .rename("answers")
    )
    return questions.drop(columns="answers").merge(lists, on="question_id")


def mass_shift(
    texts, scores_before, scores_after, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Change of log-probability (nats, after minus before) of each kind of text.

    texts: from answers_to_score; scores: question_id, answer, logprob. Frame of kind, value, low,
    high, n, and before, after: the mean log-probability of a text of that kind.
    """
    on = ["question_id", "answer"]
    table = texts.merge(scores_before[[*on, "logprob"]], on=on)
    table = table.merge(scores_after[[*on, "logprob"]], on=on, suffixes=("_before", "_after"))
    table["change"] = table["logprob_after"] - table["logprob_before"]
    rows = []
    for kind, part in table.groupby("kind", sort=False):
        low, high = bootstrap(part["change"], n_boot=n_boot, seed=seed)
        ends = part[["logprob_before", "logprob_after"]].mean()
        rows.append((kind, part["change"].mean(), low, high, len(part), *ends))
    return pd.DataFrame(rows, columns=["kind", "value", "low", "high", "n", "before", "after"])


def seen_mass(
    questions, samples_before, grades_before, n_boot: int = 2000, seed: int = 0, **others
) -> pd.DataFrame:
    """How much of a policy's mass lies on what the first samples already held.

    others: name -> (samples, grades) of the policy looked at. Frame of who, level, correct, seen,
    value, low, high, n: the share of its samples that are right or wrong and were seen or not.
    Level `text`: seen means the exact text. Level `answer`: a right answer is seen when any first
    sample was right, since all right answers to a question are one fact; a wrong one when its
    answer_text is among the first samples'.
    """
    on, asked = ["question_id", "sample"], questions.set_index("question_id")["question"]

    def keyed(samples, grades):
        frame = samples.merge(grades[[*on, "correct"]].dropna(), on=on).astype({"correct": bool})
        answer = [
            answer_text(t, asked[q])
            for t, q in zip(frame["text"], frame["question_id"], strict=True)
        ]
        fact = np.where(frame["correct"], "\0right", answer)  # no normalised answer holds a NUL
        return frame.assign(answer=fact)

    first, rows = keyed(samples_before, grades_before), []
    for who, (samples, grades) in others.items():
        frame = keyed(samples, grades)
        for level in ("text", "answer"):
            known = set(zip(first["question_id"], first[level], strict=True))
            frame["seen"] = [
                key in known for key in zip(frame["question_id"], frame[level], strict=True)
            ]
            for correct, seen in ((True, True), (True, False), (False, True), (False, False)):
                hit = (frame["correct"] == correct) & (frame["seen"] == seen)
                share = hit.groupby(frame["question_id"]).mean()
                low, high = bootstrap(share, n_boot=n_boot, seed=seed)
                rows.append((who, level, correct, seen, share.mean(), low, high, len(share)))
    return pd.DataFrame(
        rows, columns=["who", "level", "correct", "seen", "value", "low", "high", "n"]
    )


def mark_style(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples with words (count) and the marks abstains, hedges, empty and cut (no end of
    text).
    """
    text = samples["text"]
    return samples.assign(
        words=text.str.split().str.len(),
        abstains=[bool(abstains(t)) for t in text],
        hedges=[bool(hedges(t)) for t in text],
        empty=text.str.strip() == "",
        cut=samples["finish"] == "length",
    )


def style(n_boot: int = 2000, seed: int = 0, **samples: pd.DataFrame) -> pd.DataFrame:
    """Mean length and share of abstaining, hedging, empty and cut answers: frame of when, measure,
    value, low, high, n (questions; bootstrap over them).
    """
    rows = []
    for when, frame in samples.items():
        marked = mark_style(frame)
        for measure in ("tokens", "words", "abstains", "hedges", "empty", "cut"):
            each = marked[measure].astype(float).groupby(marked["question_id"]).mean()
            rows.append(
                (when, measure, each.mean(), *bootstrap(each, n_boot=n_boot, seed=seed), len(each))
            )
    return pd.DataFrame(rows, columns=["when", "measure", "value", "low", "high", "n"])


def repaired_from(greedy_before, before, after, questions) -> pd.DataFrame:
    """What the wrong greedy answers before were like: frame of who, measure, value, low, high, n
    (Wilson).

    who: repaired or unrepaired; before, after: grades with one answer a question. measure:
    names_other (states another answer of the same relation: a wrong fact rather than a matter of
    format), and the marks of mark_style.
    """
    both = pair(before, after)
    marked = mark_style(greedy_before).assign(names_other=rivals(greedy_before, questions) != "")
    marked = marked.merge(both[~both["before"]], on="question_id")
    rows = []
    for who, part in (
        ("repaired", marked[marked["after"]]),
        ("unrepaired", marked[~marked["after"]]),
    ):
        for measure in ("names_other", "abstains", "hedges", "empty", "cut"):
            value = part[measure].mean() if len(part) else np.nan
            rows.append((who, measure, value, *wilson(part[measure].sum(), len(part)), len(part)))
    return pd.DataFrame(rows, columns=["who", "measure", "value", "low", "high", "n"])
