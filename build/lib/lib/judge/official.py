"""Graders of others, to set ours beside: official exact matches, and SimpleQA's three grades."""

import json
import re
import string
import unicodedata

import pandas as pd

from lib.judge.rules import clean, judge_answer

QUOTES = "\u2018\u2019\u00b4\u0060"  # punctuation to TriviaQA, beside ASCII's
GRADES = ("CORRECT", "INCORRECT", "NOT_ATTEMPTED")
# SimpleQA's rules (arXiv 2411.04368; openai/simple-evals, MIT), in words of our own
THREE_GRADES = (
    "You grade an answer to a factual question against its gold answers. Reply with one word. "
    "CORRECT: the answer "
    "holds everything that a gold answer says and contradicts none of it; case, spelling, word "
    "order, doubt and "
    "further true detail do not matter. INCORRECT: some statement in it contradicts the gold "
    "answers, even if hedged. "
    "NOT_ATTEMPTED: the gold answer is not given in full and nothing contradicts it, as when the "
    "answer says that it "
    "does not know."
)


def squad_normal(text: str) -> str:
    """SQuAD's normal form (evaluate-v1.1): lower case, no ASCII punctuation, no articles."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def nq_normal(text: str) -> str:
    """NQ-open's normal form (google-research/language, orqa): SQuAD's after NFD."""
    return squad_normal(unicodedata.normalize("NFD", text))


def triviaqa_normal(text: str) -> str:
    """TriviaQA's normal form (triviaqa_evaluation): punctuation and underscores become spaces."""
    bare = "".join(" " if c in string.punctuation + QUOTES else c for c in text.lower())
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


NORMALS = {"squad": squad_normal, "nq": nq_normal, "triviaqa": triviaqa_normal}


def exact_match(prediction: str, answers: list[str], normal) -> bool:
    """Whether the prediction equals a gold answer in the normal form `normal`."""
    return any(normal(prediction) == normal(answer) for answer in answers)


def beside_official(cases: pd.DataFrame) -> pd.DataFrame:
    """Our exact judge beside the official ones: question, answers, prediction, ours, theirs.

    cases: question, answers, prediction. Columns `squad`, `nq` and `triviaqa` hold the official
    verdicts.
    """
    rows = list(zip(cases["prediction"], cases["answers"], strict=True))
    frame = cases[["question", "answers", "prediction"]].reset_index(drop=True)
    frame = frame.assign(ours=[judge_answer(p, list(a), "exact") for p, a in rows])
    return frame.assign(
        **{name: [exact_match(p, a, f) for p, a in rows] for name, f in NORMALS.items()}
    )


def three_grades(client, cases: pd.DataFrame) -> list[str | None]:
    """SimpleQA's grade of each case (question, answers, prediction); None where there is none."""

    def messages(question, answers, prediction):
        case = {"question": question, "gold_answers": list(answers), "answer": clean(prediction)}
        return [
            {"role": "system", "content": THREE_GRADES},
            {"role": "user", "content": json.dumps(case)},
        ]

    rows = zip(cases["question"], cases["answers"], cases["prediction"], strict=True)

    def read(reply):
        letter = reply.strip().strip(".").upper() if reply else None
        return letter if letter in GRADES else None

    replies = client.ask(
        [messages(*row) for row in rows],
        max_tokens=8,
        version="simpleqa-1",
        usable=lambda reply: read(reply) is not None,
    )
    return [read(reply) for reply in replies]
