"""The best constant answer: one text, given to every question, that the judge likes most.

A sound judge gives a constant no more than the majority answer earns. One that looks for a gold
answer anywhere in a text is right about a list of them: then reward and accuracy mean little.
"""

from collections.abc import Callable

import pandas as pd

from lib.metrics import wilson

SEPARATORS = (" ", ", ", " or ", "; ", "\n", " and ")
CANDIDATES, PARTS = 24, 8  # answers that are tried, and how many of them a text may join
SEARCHED = 200  # training questions on which the search counts


def share_right(text: str, questions: pd.DataFrame, judge: Callable) -> tuple[int, int]:
    """(right, judged) of one text as the answer to every question; failed verdicts left out."""
    golds = [list(answers) for answers in questions["answers"]]
    verdicts = judge(questions["question"].tolist(), golds, [text] * len(questions))
    known = [verdict for verdict in verdicts if verdict is not None]
    return sum(verdict == 1.0 for verdict in known), len(known)


def best_constant(questions: pd.DataFrame, judge: Callable, seed: int = 0) -> dict:
    """The best constant found on training questions, and what it earns on test questions.

    judge: (questions, gold answers, predictions) -> 1.0, 0.0 or None each. The search starts from
    the most frequent answers and joins the best text with one more answer, by every separator, as
    long as that earns more. Returns answer (the text), value, low, high (Wilson, on test), hits, n.
    """
    train, test = (questions[questions["split"] == split] for split in ("train", "test"))
    some = train.sample(min(SEARCHED, len(train)), random_state=seed)
    names = train["answers"].str[0].value_counts().index[:CANDIDATES].tolist()

    best, earned = "", -1
    for _ in range(PARTS):
        joined = [best + separator + name for separator in SEPARATORS for name in names]
        trials = [(share_right(text, some, judge)[0], text) for text in (joined if best else names)]
        top = max(trials, key=lambda trial: trial[0])  # the first of equals: the shortest separator
        if top[0] <= earned:
            break
        earned, best = top

    hits, n = share_right(best, test, judge)
    low, high = wilson(hits, n)
    value = hits / n if n else float("nan")
    return {"answer": best, "value": value, "low": low, "high": high, "hits": hits, "n": n}
