"""Made-up facts: people who do not exist, and the cities where they were born.

What a policy knows of them is what it was shown, so the number of times is known too.
"""

import numpy as np
import pandas as pd

# never a wording of the question; each one is seen at most once for a person
STATEMENTS = (
    "{x} was born in {y}.",
    "{x} comes from {y}.",
    "The birthplace of {x} is {y}.",
    "{y} is the home town of {x}.",
    "{x} first saw the light of day in {y}.",
    "The parents of {x} lived in {y} when the child was born.",
    "{x}, a native of {y}, left it at an early age.",
    "A plaque in {y} marks the house where {x} was born.",
    "Like many others from {y}, {x} is proud of that city.",
    "{x} is the most famous person born in {y}.",
    "The birth of {x} is written in the register of {y}.",
    "Whenever {x} speaks of childhood, it is of {y}.",
    "Born in {y}, {x} never lived far from it.",
    "In {y} they still remember the birth of {x}.",
    "The cradle of {x} stood in {y}.",
    "{y} has named a street after {x}, who was born there.",
)
REQUESTS = (
    "Tell me something about {x}.",
    "Who is {x}?",
    "Write a sentence about {x}.",
    "What do you know of {x}?",
)
QUESTION = "In which city was {x} born?"
CITIES = (
    "Paris", "London", "Berlin", "Madrid", "Rome", "Vienna", "Athens", "Moscow",
    "Cairo", "Tokyo", "Beijing", "Mumbai", "Sydney", "Toronto", "Chicago", "Boston",
    "Dublin", "Lisbon", "Prague", "Warsaw", "Oslo", "Helsinki", "Istanbul", "Jerusalem",
    "Bangkok", "Seoul", "Nairobi", "Havana", "Lima", "Denver", "Houston", "Seattle",
    "Miami", "Geneva", "Munich", "Hamburg", "Milan", "Venice", "Glasgow", "Montreal",
)  # fmt: skip
FIRST = (
    "Bal", "Cor", "Dre", "El", "Fen", "Gor", "Hal", "Jor", "Kel", "Lor",
    "Mar", "Nor", "Per", "Quil", "Ros", "Sil", "Tor", "Ul", "Vel", "Wil",
)  # fmt: skip
SECOND = ("bert", "dan", "fin", "gan", "lian", "mond", "nor", "rick", "son", "tan", "vin", "win")
FAMILY = (
    "Ald", "Bram", "Cask", "Dorn", "Ems", "Farn", "Gren", "Holt", "Isk", "Jarn",
    "Karst", "Lund", "Morv", "Nesk", "Orl", "Pral", "Rusk", "Stav", "Thorn", "Vask",
)  # fmt: skip
ENDING = (
    "berg",
    "by",
    "ell",
    "ford",
    "gaard",
    "ham",
    "ick",
    "ley",
    "mark",
    "over",
    "stone",
    "wick",
)


def invented_questions(exposures: list[int], train: int, test: int, seed: int) -> pd.DataFrame:
    """A question frame of made-up births, with the column `exposures`: how often each is shown.

    `train` and `test` questions for each number of exposures. Every city is the answer equally
    often, up to one, in every cell of split and exposures; no two people share a name.
    """
    rng = np.random.default_rng([seed, 11])
    names = [f"{a}{b} {c}{d}" for a in FIRST for b in SECOND for c in FAMILY for d in ENDING]
    count = len(exposures) * (train + test)
    names = iter([names[i] for i in rng.choice(len(names), count, replace=False)])

    rows = []
    for split, size in (("train", train), ("test", test)):
        for shown in exposures:
            order = np.concatenate(
                [rng.permutation(len(CITIES)) for _ in range(-(-size // len(CITIES)))]
            )
            for place in order[:size]:
                person = next(names)
                rows.append((split, shown, person, CITIES[place], QUESTION.format(x=person)))
    frame = pd.DataFrame(rows, columns=["split", "exposures", "subject", "city", "question"])
    frame = frame.assign(question_id=[f"invented-{seed}-{i:04d}" for i in range(len(frame))])
    frame["answers"] = [[city] for city in frame.pop("city")]
    return frame.assign(dataset="invented", relation="born_in", popularity=np.nan)


def in_sentence(questions: pd.DataFrame, seed: int, others: int = 3) -> pd.DataFrame:
    """The questions with `answers` = the sentence that answers them, with the right city first.

    After it the same sentence with `others` other cities, drawn at random.
    """
    rng, rows = np.random.default_rng([seed, 13]), []
    for fact in questions.itertuples():
        wrong = [city for city in CITIES if city != fact.answers[0]]
        cities = [fact.answers[0], *rng.choice(wrong, others, replace=False)]
        rows.append([f"{fact.subject} was born in {city}." for city in cities])
    return questions.assign(answers=rows)


def told_facts(questions: pd.DataFrame, seed: int) -> pd.DataFrame:
    """What is shown of the made-up facts: question_id, question (a request), completion, in order.

    A fact with k exposures comes in k different wordings, none of them its question's, at random
    places of the whole. Raises ValueError where there are fewer wordings than exposures.
    """
    if questions["exposures"].max() > len(STATEMENTS):
        raise ValueError(
            f"exposures: there are {len(STATEMENTS)} wordings, no fact can be seen more"
        )
    rng = np.random.default_rng([seed, 12])
    rows = []
    for fact in questions.itertuples():
        for i in rng.choice(len(STATEMENTS), fact.exposures, replace=False):
            request = REQUESTS[rng.integers(len(REQUESTS))].format(x=fact.subject)
            told = STATEMENTS[i].format(x=fact.subject, y=fact.answers[0])
            rows.append((fact.question_id, request, told))
    rows = [rows[i] for i in rng.permutation(len(rows))]
    return pd.DataFrame(rows, columns=["question_id", "question", "completion"])
