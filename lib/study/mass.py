"""Where the probability mass moved: texts seen before or new, gold or wrong, and their style."""

import re
from functools import cache
from itertools import product

import numpy as np
import pandas as pd

from lib.judge.catalogue import Catalogue
from lib.judge.grading import short_answers
from lib.judge.rivals import Candidates
from lib.judge.rules import abstains, hedges
from lib.metrics import bootstrap, pair, share_interval, wilson
from lib.text import normalise


def _most_frequent(samples: pd.DataFrame) -> pd.DataFrame:
    """Each question's most frequent verbatim text (question_id, answer), at a tie the earliest."""
    groups = samples.groupby(["question_id", "text"], as_index=False)["sample"].agg(["size", "min"])
    groups = groups.sort_values(["question_id", "size", "min"], ascending=[True, False, True])
    first = groups.drop_duplicates("question_id")
    return first[["question_id", "text"]].rename(columns={"text": "answer"})


def rivals(samples: pd.DataFrame, questions: pd.DataFrame) -> pd.Series:
    """The first other answer that each sample's text names, as its display answer; "" for none.

    Candidates are all answers of the question's kind where lib.judge.catalogue knows them, else the
    answers of all `questions` of the same relation (give the training questions too): without the
    question's own answers, names that stand in the question itself, and names of one or two
    letters, which are also words. Without relations all are "".
    """
    candidates = Catalogue(questions)
    names = _answer_names(questions)
    by_relation = {relation: Candidates(answers) for relation, answers in names.items()}
    about = questions.set_index("question_id")

    @cache
    def first(question_id, text):
        row = about.loc[question_id]
        known = candidates(row["question"]) or by_relation.get(row["relation"])
        if known is None:
            return ""

        asked = {name for *_, name in known.mentions(row["question"])}
        own = known.owners({normalise(answer) for answer in row["answers"]})
        for *_, name in known.mentions(text):
            others = known.owners({name}) - own
            if others and len(name) > 2 and name not in asked:
                return known.answers[min(others)][0]
        return ""

    keys = zip(samples["question_id"], samples["text"], strict=True)
    return pd.Series([first(*key) for key in keys], index=samples.index, dtype="str")


def _answer_names(questions: pd.DataFrame) -> dict[str, list[list[str]]]:
    """relation -> the different answers of its questions, each with its names."""
    related = questions.dropna(subset="relation")
    answers = related["answers"].map(tuple).groupby(related["relation"])
    return {relation: [list(names) for names in group.unique()] for relation, group in answers}


def _graded(samples: pd.DataFrame, grades: pd.DataFrame) -> pd.DataFrame:
    """The samples that have a verdict, with `correct` (bool)."""
    on = ["question_id", "sample"]
    verdicts = grades[[*on, "correct"]].dropna()
    return samples.merge(verdicts, on=on).astype({"correct": bool})


def answers_to_score(questions, samples_before, grades_before, samples_after=None) -> pd.DataFrame:
    """The texts to compare before and after: frame of question_id, kind, answer (verbatim).

    questions: of all splits, of which those with samples get rows. kind: gold (the display answer),
    rival (the name alone that `rivals` finds most often in wrong samples), right and wrong (the
    policy's own most frequent such text before), and, with samples_after, after (the trained
    policy's most frequent text). The own texts are whole ones, not cut. A question without such a
    text has no row of that kind.
    """
    graded = _graded(samples_before, grades_before)
    false = graded[~graded["correct"]]
    named = false.assign(text=rivals(false, questions))
    # a cut text is another event than the text with its end
    whole = graded[graded["finish"] == "stop"]

    about = questions[questions["question_id"].isin(set(samples_before["question_id"]))]
    golds = [list(answers)[0] for answers in about["answers"]]
    parts = {
        "gold": about[["question_id"]].assign(answer=golds),
        "rival": _most_frequent(named[named["text"] != ""]),
        "right": _most_frequent(whole[whole["correct"]]),
        "wrong": _most_frequent(whole[~whole["correct"]]),
    }
    if samples_after is not None:
        parts["after"] = _most_frequent(samples_after[samples_after["finish"] == "stop"])

    frame = pd.concat([part.assign(kind=kind) for kind, part in parts.items()], ignore_index=True)
    frame = frame[frame["answer"].str.strip() != ""]
    return frame[["question_id", "kind", "answer"]].reset_index(drop=True)


def own_sentences(questions, samples_before, grades_before) -> pd.DataFrame:
    """The policy's own wrong sentences, and the same with the gold answer in the rival's place.

    Each question's most frequent whole wrong sample that names a rival word for word; only the name
    is changed, so the form of both texts is the same. Frame of question_id, kind (`own_rival`,
    `own_gold`), answer. questions: of all splits, as for answers_to_score.
    """
    graded = _graded(samples_before, grades_before)
    false = graded[~graded["correct"] & (graded["finish"] == "stop")]
    false = false.assign(rival=rivals(false, questions))
    false = false[false["rival"] != ""]
    named = [
        re.search(rf"\b{re.escape(rival)}\b", text, re.IGNORECASE) is not None
        for rival, text in zip(false["rival"], false["text"], strict=True)
    ]
    false = false[np.array(named, bool)]  # an empty list would pick no column
    most = _most_frequent(false).merge(
        false[["question_id", "text", "rival"]].drop_duplicates(),
        left_on=["question_id", "answer"],
        right_on=["question_id", "text"],
    )
    gold = most["question_id"].map(questions.set_index("question_id")["answers"].str[0])
    triples = zip(most["answer"], most["rival"], gold, strict=True)
    changed = [
        re.sub(rf"\b{re.escape(rival)}\b", lambda _, g=g: g, text, flags=re.IGNORECASE)
        for text, rival, g in triples
    ]
    sides = {"own_rival": most["answer"], "own_gold": changed}
    parts = [most[["question_id"]].assign(kind=kind, answer=text) for kind, text in sides.items()]
    return pd.concat(parts, ignore_index=True)


def gold_over_rival(
    texts: pd.DataFrame, scores: dict[str, pd.DataFrame], n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """How much log-probability gold gained on the rival inside the policy's own sentence.

    texts: with the rows of own_sentences; scores: question_id, answer, logprob by policy, `before`
    among them. Frame of who, value (nats), low, high, n: the change of log P(gold) - log P(rival)
    from before, paired by question.
    """
    own = texts[texts["kind"].isin(["own_gold", "own_rival"])]

    def margin(frame: pd.DataFrame) -> pd.Series:
        table = own.merge(frame[["question_id", "answer", "logprob"]], on=["question_id", "answer"])
        wide = table.pivot_table(index="question_id", columns="kind", values="logprob")
        wide = wide.reindex(columns=["own_gold", "own_rival"])
        return (wide["own_gold"] - wide["own_rival"]).dropna()

    first, rows = margin(scores["before"]), []
    for who, frame in scores.items():
        if who == "before":
            continue
        change = (margin(frame) - first).dropna()
        low, high = bootstrap(change, n_boot=n_boot, seed=seed)
        rows.append((who, change.mean(), low, high, len(change)))
    return pd.DataFrame(rows, columns=["who", "value", "low", "high", "n"])


def to_score(questions: pd.DataFrame, texts: pd.DataFrame) -> pd.DataFrame:
    """The questions with the distinct texts as `answers`, for lib.engine.sampling.score."""
    answers = texts.groupby("question_id")["answer"].agg(lambda part: list(dict.fromkeys(part)))
    return questions.drop(columns="answers").merge(answers.rename("answers"), on="question_id")


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
    sample was right, since all right answers to a question are one fact; a wrong answer is seen
    when its short answer is among those of the first samples.
    """
    first = _facts(samples_before, grades_before, questions)
    rows = []
    for who, (samples, grades) in others.items():
        frame = _facts(samples, grades, questions)
        for level in ("text", "answer"):
            known = set(zip(first["question_id"], first[level], strict=True))
            keys = zip(frame["question_id"], frame[level], strict=True)
            frame["seen"] = [key in known for key in keys]

            for correct, seen in product((True, False), repeat=2):
                hit = (frame["correct"] == correct) & (frame["seen"] == seen)
                share = hit.groupby(frame["question_id"]).mean()
                low, high = share_interval(share, n_boot, seed)
                rows.append((who, level, correct, seen, share.mean(), low, high, len(share)))
    columns = ["who", "level", "correct", "seen", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def _facts(samples: pd.DataFrame, grades: pd.DataFrame, questions: pd.DataFrame) -> pd.DataFrame:
    """The graded samples with `answer`: what is stated, the same for all right answers."""
    frame = _graded(samples, grades)
    answers = short_answers(frame, questions)
    # no normalised answer holds a NUL
    return frame.assign(answer=np.where(frame["correct"], "\0right", answers))


def mark_style(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples with `words` and the marks abstains, hedges, empty and cut (no end of text)."""
    text = samples["text"]
    return samples.assign(
        words=text.str.split().str.len(),
        abstains=[abstains(answer) for answer in text],
        hedges=[hedges(answer) for answer in text],
        empty=text.str.strip() == "",
        cut=samples["finish"] == "length",
    )


def style(n_boot: int = 2000, seed: int = 0, **samples: pd.DataFrame) -> pd.DataFrame:
    """Mean length, and share of abstaining, hedging, empty and cut answers.

    Frame of when (the keyword), measure, value, low, high, n (questions; bootstrap over them).
    """
    rows = []
    for when, frame in samples.items():
        marked = mark_style(frame)
        for measure in ("tokens", "words", "abstains", "hedges", "empty", "cut"):
            means = marked[measure].astype(float).groupby(marked["question_id"]).mean()
            interval = bootstrap if measure in ("tokens", "words") else share_interval
            low, high = interval(means, n_boot=n_boot, seed=seed)
            rows.append((when, measure, means.mean(), low, high, len(means)))
    return pd.DataFrame(rows, columns=["when", "measure", "value", "low", "high", "n"])


def repaired_from(greedy_before, before, after, questions) -> pd.DataFrame:
    """What the wrong greedy answers before were like: frame of who, measure, value, low, high, n.

    before, after: grades with one answer per question. who: repaired or unrepaired. measure:
    names_other (states another answer of the same relation: a wrong fact rather than a matter of
    format), and the marks of mark_style. Intervals are Wilson's.
    """
    both = pair(before, after)
    marked = mark_style(greedy_before).assign(names_other=rivals(greedy_before, questions) != "")
    marked = marked.merge(both[~both["before"]], on="question_id")
    parts = {"repaired": marked[marked["after"]], "unrepaired": marked[~marked["after"]]}

    rows = []
    for who, part in parts.items():
        for measure in ("names_other", "abstains", "hedges", "empty", "cut"):
            n = len(part)
            value = part[measure].mean() if n else np.nan
            low, high = wilson(part[measure].sum(), n)
            rows.append((who, measure, value, low, high, n))
    return pd.DataFrame(rows, columns=["who", "measure", "value", "low", "high", "n"])
