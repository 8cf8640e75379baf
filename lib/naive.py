"""A judge without guards, to show what they are for: text pasted into a prompt, a number looked for in the reply."""

import re

VERDICT = re.compile(r"(?<![\d.])([01])(?:\.0+)?(?![\d.]*\d)")  # the first lone 1 or 0 anywhere in the reply


def naive_messages(question: str, answers: list[str], prediction: str) -> list[dict]:
    """A grading prompt as it is often written: one message, with the answer pasted between its lines."""
    gold = " / ".join(answers)
    rule = "Is the answer to the question correct? Reply 1.0 if it is and 0.0 if it is not."
    return [{"role": "user", "content": f"{rule}\nQuestion: {question}\nGold answer: {gold}\nAnswer: {prediction}"}]


def naive_verdict(reply: str | None) -> float | None:
    """The first 1 or 0 in the reply as 1.0 or 0.0, None where there is none."""
    found = VERDICT.search(reply or "")
    return float(found[1]) if found else None


def ask_naive(client, questions, answers, predictions, notes: list | None = None) -> list[float | None]:
    """Verdicts of a model that is asked once and believed; `notes` as in judging.ask_judge."""
    cases = zip(questions, answers, predictions, strict=True)
    replies = client.ask([naive_messages(*case) for case in cases], version="naive-1")
    if notes is not None:
        notes += [{"raw": reply, "disputed": False} for reply in replies]
    return [naive_verdict(reply) for reply in replies]
