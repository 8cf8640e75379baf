"""Why a verdict is what it is, in a few words for people who read the rows."""

from collections import Counter

from lib.judge.catalogue import Catalogue
from lib.judge.extraction import BLANK, NOTHING, UNFINISHED
from lib.judge.rules import abstains, clean, explain

# the rules' words; what follows a colon stays
RULE_WORDS = {
    "stated": "states a gold answer",
    "not stated": "states no gold answer",
    "denied": "denies a gold answer",
    "hedged": "hedges",
    "a question": "asks",
    "corrected": "takes a gold answer back",
    "only mentioned": "only mentions a gold answer",
    "a list": "lists several answers",
    "ambiguous name": "a name of several answers",
    "another name": "a gold answer inside another name",
    "another word": "says more than a gold answer",
    "another candidate": "names another candidate",
    "forged or blank": "speaks to the judge",
}


def reason_of(case: tuple, kind: str, verdict: float | None, note: dict, rivals=None) -> str:
    """Why the verdict on (question, gold answers, text); a name may follow a colon.

    kind: of the judge; note: what a model judge noted of the case; rivals: the other answers that
    the question could have, where they are known.
    """
    question, answers, text = case
    if verdict is None:
        return f"judge failed: {note['cause'] or 'no verdict'}"
    if not clean(text):
        return BLANK
    if note["fooled"]:
        return "talked the judge into it"

    rule = "exact" if kind == "exact" else "alias"
    correct, words = explain(text, answers, rule, question, rivals)
    if kind == "llm" and not note["prechecked"] and verdict != float(correct):
        return "the judge accepts it" if verdict else _unstated("the judge refuses it", text)
    key, colon, name = words.partition(": ")
    said = RULE_WORDS.get(key, key) + colon + name
    return _unstated(said, text) if key == "not stated" else said


def _unstated(said: str, text: str) -> str:
    return "abstains" if abstains(clean(text)) else said


def reasons(cases: list[tuple], kind: str, verdicts, notes, table) -> list[str]:
    """`reason_of` each case; table: the questions, whose relations say what else they could be."""
    catalogue, rows = Catalogue(table), zip(cases, verdicts, notes, strict=True)
    return [reason_of(case, kind, v, note, catalogue(case[0])) for case, v, note in rows]


def reason_missing(form: str) -> str | None:
    """Why a text has no answer, from how it was taken out (lib.judge.extraction); None if it has.

    Such an answer is blank, and a blank one is wrong.
    """
    last = form.split(" > ")[-1]
    if last in UNFINISHED:
        return f"no answer ({last})"
    return "nothing to extract" if last == NOTHING else None


def tally(texts, most: int = 12) -> str:
    """How often each text is there without what follows its colon: "12 blank; 3 hedges"."""
    counts = Counter(text.split(": ")[0] for text in texts).most_common()
    more = sum(n for _, n in counts[most:])
    parts = [f"{n} {text}" for text, n in counts[:most]]
    return "; ".join([*parts, f"{more} others"] if more else parts)
