"""Where the probability mass moved: texts seen before or new, gold or own errors, and their style."""

import re
from functools import lru_cache

import numpy as np
import pandas as pd

from lib.judging import abstains, answer_text, hedges
from lib.metrics import bootstrap, pair, wilson
from lib.text import normalise


def _most_frequent(samples: pd.DataFrame) -> pd.DataFrame:
    """Each question's most frequent verbatim text (question_id, answer, count); a tie goes to the earliest."""
    groups = samples.groupby(["question_id", "text"], as_index=False)["sample"].agg(["size", "min"])
    groups = groups.sort_values(["question_id", "size", "min"], ascending=[True, False, True])
    return groups.drop_duplicates("question_id")[["question_id", "text", "size"]].set_axis(
        ["question_id", "answer", "count"], axis=1
    )


def rivals(samples: pd.DataFrame, questions: pd.DataFrame) -> pd.Series:
    """The first other answer that each sample's text names, as its display answer; "" where it names none.

    Candidates are the answers of all `questions` of the same relation (give the training questions too), without
    the question's own answers and names that stand in the question itself. Without relations all are "".
    """
    names = {}
    for relation, answers in zip(questions["relation"], questions["answers"], strict=True):
        if pd.notna(relation):
            names.setdefault(relation, {}).update({normalise(a): answers[0] for a in answers if normalise(a)})
    patterns = {r: re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(n, key=len, reverse=True)))})\b")
                for r, n in names.items()}  # fmt: skip
    about = questions.set_index("question_id")

    @lru_cache(maxsize=None)
    def first(question_id, text):
        row = about.loc[question_id]
        if pd.isna(row["relation"]):
            return ""
        asked, own = f" {normalise(row['question'])} ", {normalise(a) for a in row["answers"]}
        found = (name[0] for name in patterns[row["relation"]].finditer(normalise(text)))
        return next((names[row["relation"]][x] for x in found if x not in own and f" {x} " not in asked), "")

    named = [first(q, text) for q, text in zip(samples["question_id"], samples["text"], strict=True)]
    return pd.Series(named, index=samples.index, dtype="str")


def answers_to_score(questions, samples_before, grades_before, samples_after=None) -> pd.DataFrame:
    """The texts to compare before and after: frame of question_id, kind, answer (verbatim).

    kind: gold (the display answer), rival (as bare a name: the other answer of the same relation that wrong samples
    before named most often), right and wrong (the policy's own most frequent such text before), and, with samples_after, after (the trained policy's most frequent text). Only whole texts count, not cut ones; a
    question without one has no row.
    """
    on = ["question_id", "sample"]
    whole = samples_before[samples_before["finish"] == "stop"]  # a cut text is another event
    graded = whole.merge(grades_before[[*on, "correct"]].dropna(), on=on)
    correct = graded["correct"].astype(bool)
    parts = {
        "gold": questions[["question_id"]].assign(answer=[list(a)[0] for a in questions["answers"]]),
        "rival": _most_frequent(graded[~correct].assign(text=rivals(graded[~correct], questions))),
        "right": _most_frequent(graded[correct]),
        "wrong": _most_frequent(graded[~correct]),
    }
    if samples_after is not None:
        parts["after"] = _most_frequent(samples_after[samples_after["finish"] == "stop"])
    frame = pd.concat([part.assign(kind=kind) for kind, part in parts.items()], ignore_index=True)
    frame = frame[frame["answer"].str.strip() != ""]
    return frame[["question_id", "kind", "answer"]].reset_index(drop=True)


def to_score(questions: pd.DataFrame, texts: pd.DataFrame) -> pd.DataFrame:
    """The question rows with `answers` replaced by the distinct texts to score, as `lib.sampling.score` reads."""
    lists = texts.groupby("question_id")["answer"].agg(lambda a: list(dict.fromkeys(a))).rename("answers")
    return questions.drop(columns="answers").merge(lists, on="question_id")


def mass_shift(texts, scores_before, scores_after, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Change of log-probability (nats, after minus before) of each kind of text.

    texts: from answers_to_score; scores: question_id, answer, logprob. Frame of kind, value, low, high, n,
    and before, after: the geometric mean probability of a text of that kind.
    """
    on = ["question_id", "answer"]
    table = texts.merge(scores_before[[*on, "logprob"]], on=on)
    table = table.merge(scores_after[[*on, "logprob"]], on=on, suffixes=("_before", "_after"))
    table["change"] = table["logprob_after"] - table["logprob_before"]
    rows = []
    for kind, part in table.groupby("kind", sort=False):
        low, high = bootstrap(part["change"], n_boot=n_boot, seed=seed)
        ends = np.exp(part[["logprob_before", "logprob_after"]].mean())
        rows.append((kind, part["change"].mean(), low, high, len(part), *ends))
    return pd.DataFrame(rows, columns=["kind", "value", "low", "high", "n", "before", "after"])


def seen_mass(questions, samples_before, grades_before, n_boot: int = 2000, seed: int = 0, **others) -> pd.DataFrame:
    """How much of a policy's mass lies on what the first samples already held.

    others: name -> (samples, grades) of the policy looked at. Frame of who, level, correct, seen, value, low,
    high, n: the share of its samples that are right or wrong and were seen or not. Level `text`: seen means
    the exact text. Level `answer`: a right answer is seen when any first sample was right, since all right
    answers to a question are one fact; a wrong one when its answer_text is among the first samples'.
    """
    on, asked = ["question_id", "sample"], questions.set_index("question_id")["question"]

    def keyed(samples, grades):
        frame = samples.merge(grades[[*on, "correct"]].dropna(), on=on).astype({"correct": bool})
        answer = [answer_text(t, asked[q]) for t, q in zip(frame["text"], frame["question_id"], strict=True)]
        fact = np.where(frame["correct"], "\0right", answer)  # no normalised answer holds a NUL
        return frame.assign(answer=fact)

    first, rows = keyed(samples_before, grades_before), []
    for who, (samples, grades) in others.items():
        frame = keyed(samples, grades)
        for level in ("text", "answer"):
            known = set(zip(first["question_id"], first[level], strict=True))
            frame["seen"] = [key in known for key in zip(frame["question_id"], frame[level], strict=True)]
            for correct, seen in ((True, True), (True, False), (False, True), (False, False)):
                hit = (frame["correct"] == correct) & (frame["seen"] == seen)
                share = hit.groupby(frame["question_id"]).mean()
                low, high = bootstrap(share, n_boot=n_boot, seed=seed)
                rows.append((who, level, correct, seen, share.mean(), low, high, len(share)))
    return pd.DataFrame(rows, columns=["who", "level", "correct", "seen", "value", "low", "high", "n"])


def mark_style(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples with words (count) and the marks abstains, hedges, empty and cut (no end of text)."""
    text = samples["text"]
    return samples.assign(
        words=text.str.split().str.len(),
        abstains=[bool(abstains(t)) for t in text],
        hedges=[bool(hedges(t)) for t in text],
        empty=text.str.strip() == "",
        cut=samples["finish"] == "length",
    )


def style(n_boot: int = 2000, seed: int = 0, **samples: pd.DataFrame) -> pd.DataFrame:
    """Mean length and share of abstaining, hedging, empty and cut answers: frame of when, measure, value,
    low, high, n (questions; bootstrap over them).
    """
    rows = []
    for when, frame in samples.items():
        marked = mark_style(frame)
        for measure in ("tokens", "words", "abstains", "hedges", "empty", "cut"):
            each = marked[measure].astype(float).groupby(marked["question_id"]).mean()
            rows.append((when, measure, each.mean(), *bootstrap(each, n_boot=n_boot, seed=seed), len(each)))
    return pd.DataFrame(rows, columns=["when", "measure", "value", "low", "high", "n"])


def style_repairs(greedy_before: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame) -> dict:
    """Share of the repaired questions whose answer before was a matter of format: value, low, high, n.

    Format: the answer abstained, hedged, was empty or was cut. The rest gave a whole, single, wrong answer.
    """
    both = pair(before, after)
    repaired = both.loc[~both["before"] & both["after"], "question_id"]
    marked = mark_style(greedy_before[greedy_before["question_id"].isin(repaired)])
    count = int(marked[["abstains", "hedges", "empty", "cut"]].any(axis=1).sum())
    low, high = wilson(count, len(marked))
    value = count / len(marked) if len(marked) else np.nan
    return {"value": value, "low": low, "high": high, "n": len(marked)}
