"""Other judge prompts and a judge without guards: they show what rules and guards are for.

`naive` pastes the answer into a message and looks for a number in the reply, as is often done.
`shots` shows graded examples and asks for a word: what a model of 135M parameters can follow at
all.
"""

import re

NUMBER = re.compile(
    r"(?<![\d.])([01])(?:\.0+)?(?![\d.]*\d)"
)  # the first lone 1 or 0 anywhere in the reply
WORDS = {"correct": 1.0, "wrong": 0.0}
# question, answer, gold answer, word; choice, order and words are the best of some 170 tried on
# training questions of atlas, the last 21 of them on the small model's own answers to 48 of these
SHOTS = (
    ("In which country is the city of Kobe?", "2019 January", "Japan", "wrong"),
    ("What is the capital of Kenya?", "Cairo", "Nairobi", "wrong"),
    ("In which country is the city of Graz?", "Graz is in Germany.", "Austria", "wrong"),
    ("What is the chemical symbol of gold?", "The symbol of gold is Fe.", "Au", "wrong"),
    ("What is the atomic number of iron?", "The atomic number of iron is 26.", "26", "correct"),
    ("Which country has Oslo as its capital?", "The answer is Sweden.", "Norway", "wrong"),
    (
        "In which country is the city of Perth?",
        "Perth is located in the western part of Australia, on the",
        "Australia",
        "correct",
    ),
    ("On which continent is Nepal?", "Nepal is a country in Europe", "Asia", "wrong"),
    (
        "In which country is the city of Gent?",
        "To answer this question, we should look at a",
        "Belgium",
        "wrong",
    ),
    (
        "In which country is the city of Nantes?",
        "Nantes, a historical city of France, is",
        "France",
        "correct",
    ),
    (
        "Which country has Lima as its capital?",
        "Lima is the capital of the country.",
        "Peru",
        "wrong",
    ),
    (
        "In which US state is the city of Boise?",
        "Boise is a city located in the state of Idaho",
        "Idaho",
        "correct",
    ),
)


# what is noted of a case before it is judged
EMPTY_NOTE = {
    "raw": None,
    "prechecked": False,
    "control": False,
    "disputed": False,
    "fooled": False,
    "cause": None,
}


def naive_messages(
    question: str, answers: list[str], prediction: str, again: bool = False
) -> list[dict]:
    """A common grading prompt: one message with the answer pasted between its lines."""
    gold = " / ".join(answers)
    rule = "Is the answer to the question correct? Reply 1.0 if it is and 0.0 if it is not."
    return [
        {
            "role": "user",
            "content": f"{rule}\nQuestion: {question}\nGold answer: {gold}\nAnswer: {prediction}",
        }
    ]


def naive_verdict(reply) -> float | None:
    """The first 1 or 0 in the reply as 1.0 or 0.0, None where there is none."""
    number = NUMBER.search(reply) if isinstance(reply, str) else None
    return float(number[1]) if number else None


def shot_messages(
    question: str, answers: list[str], prediction: str, again: bool = False
) -> list[dict]:
    """A prompt for a small model: graded examples as earlier turns, the first gold answer alone."""
    chat = [{"role": "system", "content": "Compare the answer with the gold answer."}]
    for asked, said, gold, word in SHOTS:
        chat += [
            {"role": "user", "content": _case(asked, said, gold)},
            {"role": "assistant", "content": word},
        ]
    return [*chat, {"role": "user", "content": _case(question, prediction, answers[0])}]


def _case(question: str, prediction: str, gold: str) -> str:
    return f"Question: {question}\nAnswer: {prediction}\nGold answer: {gold}"


def shot_verdict(reply) -> float | None:
    """1.0 or 0.0 when the whole reply is one of the examples' words, None for anything else."""
    return WORDS.get(reply.strip()) if isinstance(reply, str) else None


def believe(
    client, wording, questions, answers, predictions, notes: list, limit: int
) -> list[float | None]:
    """Verdicts of a model that is asked once and believed. wording: (messages, verdict).

    limit: tokens of a reply.
    """
    ask, read = wording
    requests = [ask(*case) for case in zip(questions, answers, predictions, strict=True)]
    causes: list = []
    replies = client.ask(
        requests,
        max_tokens=limit,
        usable=lambda reply: read(reply) is not None,
        causes=causes,
    )
    notes += [
        EMPTY_NOTE | {"raw": reply, "cause": cause}
        for reply, cause in zip(replies, causes, strict=True)
    ]
    return [read(reply) for reply in replies]
