"""What a policy can do besides the facts of a run: sums, facts of other relations, plain prose."""

import re
from pydoc_data.topics import topics

import numpy as np
import pandas as pd

from lib.questions.atlas import WORDINGS, atlas

NUMERAL = re.compile(r"(?<![\d.])-?\d+(?:\.\d+)?")


def sum_questions(count: int, seed: int) -> pd.DataFrame:
    """A question frame of `count` different sums of two numbers from 1 to 40."""
    rng = np.random.default_rng([seed, 21])
    pairs = [(a, b) for a in range(1, 41) for b in range(a, 41)]
    drawn = [pairs[i] for i in rng.choice(len(pairs), min(count, len(pairs)), replace=False)]
    rows = {
        "question_id": [f"sum-{a}-{b}" for a, b in drawn],
        "question": [f"What is {a} plus {b}?" for a, b in drawn],
        "answers": [[str(a + b)] for a, b in drawn],
    }
    return pd.DataFrame(rows).assign(dataset="sums", split="test", relation="sum")


def grade_sums(answers: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Grades of answers to `sum_questions`: right where the first new number is the sum.

    New: not one that the question names, so that "8 + 10 equals 18", "18" and "that is 18" count
    alike. A sentence's rules for names would take the numbers that are added for other answers.
    """
    rows = answers.join(asked.set_index("question_id")[["question", "answers"]], on="question_id")
    right = []
    for row in rows.itertuples():
        given = set(NUMERAL.findall(row.question))
        new = [number for number in NUMERAL.findall(row.text) if number not in given]
        right.append(new[:1] == list(row.answers))
    grades = rows[["question_id", "policy", "sample"]]
    return grades.assign(judge="sum", correct=pd.array(right, "boolean"))


def other_facts(asked, count: int, seed: int) -> pd.DataFrame:
    """A question frame of `count` atlas facts of relations that are not among those `asked`."""
    shares = {relation: 1.0 for relation in WORDINGS if relation not in asked}
    return atlas(count, shares, 2000, seed).assign(dataset="other facts", split="test")


def prose(count: int, seed: int, words: int = 60) -> list[str]:
    """`count` passages of `words` words from Python's language reference: plain technical English.

    It comes with every Python, so nothing is downloaded. Headings, code and tables are left out.
    """
    passages = []
    for _, text in sorted(topics.items()):
        for paragraph in text.split("\n\n"):
            plain = not paragraph.startswith((" ", "*", "+", "|", ">", "-"))
            found = paragraph.split()
            if plain and len(found) >= words:
                passages.append(" ".join(found[:words]))
    passages = list(dict.fromkeys(passages))
    order = np.random.default_rng([seed, 22]).permutation(len(passages))
    return [passages[i] for i in order[:count]]
