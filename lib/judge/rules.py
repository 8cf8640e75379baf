"""Rule judges and what they look for in a text: normal forms, whole words, negation, hedging,
forged verdicts.

`exact` compares normal forms, `alias` looks for a gold answer inside a sentence. No model is asked
here.
"""

import re
import unicodedata
from functools import lru_cache

from lib.text import holds, normalise

LONGEST = 500  # characters of an answer that a judge reads
# chat-template tokens, fences, forged verdicts, orders to the judge, and answers that point at the
# gold answer without stating it
RESERVED = re.compile(
    r"<\|.*?\|>|\[/?INST\]|<</?SYS>>|</?(s|start_of_turn|end_of_turn|system|user|assistant)>|```"
    r"|\b(system|user|assistant)\s*:|\"?(verdict|is_correct|score|grade)\"?\s*[:=]"
    r"|\b(gold|target|reference|ground[ -]truth|expected)[ _-](answer|target|label)s?\b"
    r"|\b(same|identical|equal) (as|to) the (correct|right|answer)|\bas (stated|given) above\b"
    r"|\b(ignore|disregard|forget) (all |any |the |your |every "
    r")*(previous|prior|above|earlier|instructions?|rules?)\b"
    r"|\b(reply|respond|answer|return|output|write|say|print)( only| just)?( with)? ?\W?1\.0\b",
    re.IGNORECASE,
)
VERDICTS = {"correct", "incorrect", "true", "false", "yes"}  # as whole answers, in normal form
FORGED = re.compile(r"\W*[01]\.0\W*")  # a bare verdict of the model judge
NEGATED = re.compile(
    r"\b(not|isnt|never|neither|nor|except|outside|instead of|rather than)( \w+){0,2} $"
)
# another candidate beside the gold answer (written @): "@ or Spain", "Spain and @", "either",
# "Spain, Italy, @"
OTHERS = re.compile(
    r"\beither\b|\bor\b|@\s*(?:,\s*)?(?:\band|/|&)\s*(?:in |the "
    r")*[A-Z0-9]|[A-Z0-9]\w*\s*(?:\band|/|&)\s*(?:in |the )*@"
    r"|(?:[A-Z]\w+, ){2}(?:and )?@|@, [A-Z]\w+, |[A-Z]\w*, @, [A-Z]|@(?: [A-Z]\w+){3}"
)
APART = re.compile(r"[;|/\n•]|(?:^|\s)\d+[.)]\s|\.\s")  # between the members of a list
HEDGE = re.compile(
    r"\b(or|either|perhaps|maybe|possibly|might be|could be|may be)\b", re.IGNORECASE
)
ABSTAIN = re.compile(
    r"\b(i (do not|don.?t|cannot|can.?t) (know|say|answer|provide)|not sure|unable to|no "
    r"information"
    r"|as an ai|is unknown|not (specified|known|available|provided))\b",
    re.IGNORECASE,
)
# words of a sentence that are not its answer
SCAFFOLD = frozenset(
    re.findall(
        r"\w+",
        "a an the is are was were in on at by and of located situated found city state country "
        "capital part",
    )
)


def clean(text: str) -> str:
    """The text as a judge reads it: NFKC, without zero-width, bidirectional and control characters,
    cut to length.
    """
    text = unicodedata.normalize("NFKC", str(text))
    kept = (
        c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs")
    )
    return "".join(kept).strip()[:LONGEST]


def precheck(text: str, answers: list[str]) -> bool:
    """Whether a cleaned answer may go to a judge: not blank, no reserved marker, not a bare verdict
    word.

    What is a gold answer to the letter may always go ("Yes", the band "!!!").
    """
    if any(text.casefold() == clean(answer).casefold() for answer in answers):
        return True
    plain = normalise(text)
    if not any(c.isalnum() for c in plain) or RESERVED.search(text) or FORGED.fullmatch(text):
        return False
    return plain not in VERDICTS or any(normalise(a) == plain for a in answers)


def judge_answer(prediction: str, answers: list[str], kind: str) -> bool:
    """Whether the prediction is correct by rule: `exact` or `alias`. Answers are the gold answers
    in any spelling.

    `alias` accepts a sentence in which a gold answer stands as whole words, neither negated nor one
    of several candidates ("France or Spain"). Answers of one or two letters, such as element
    symbols, and internet domains must be written as such, and not as a sentence's first word.
    """
    text = clean(prediction)
    if not precheck(text, answers):
        return False
    if any(normalise(text) == normalise(answer) for answer in answers):
        return True
    if kind == "exact":
        return False
    if kind != "alias":
        raise ValueError(f"unknown rule judge {kind!r}; allowed: exact, alias")
    return any(_stated(text, answer, answers) for answer in answers) and not _lists(text, answers)


def _lists(text: str, answers: list[str]) -> bool:
    """Whether the text doubts twice, or is a list in which other names or numbers stand as members
    of their own.
    """
    text = _without(text, answers)
    members = [part.strip(" -*,.\t") for part in APART.split(text)]
    names = [
        m
        for m in members
        if all(not w[0].islower() or w in ("of", "the", "and") for w in m.split())
    ]
    others = [name for name in names if name and "@" not in name]
    marked = re.search(r"[;|/•]|(?:^|\s)\d+[.)]\s", text)
    return len(HEDGE.findall(text)) > 1 or len(others) > 1 or bool(others and marked)


def _stated(text: str, answer: str, answers: list[str]) -> bool:
    """Whether some clause of the text states the answer, and offers no other beside it."""
    for clause in re.split(r"[;!?\n]|\.(?:\s|$)", text):
        at = _position(clause, answer)
        if at is not None and not NEGATED.search(normalise(clause[:at]) + " "):
            return not OTHERS.search(_without(clause, answers))
    return False


def _without(clause: str, answers: list[str]) -> str:
    """The clause with "@" for every gold answer: what stands beside it may be another candidate."""
    for answer in sorted(answers, key=len, reverse=True):
        clause = re.sub(rf"(?<!\w){re.escape(answer)}(?!\w)", "@", clause, flags=re.IGNORECASE)
    return clause


@lru_cache(maxsize=1 << 16)
def _pattern(answer: str) -> re.Pattern | None:
    """How a short answer must be written, or None for one long enough to be looked for in normal
    form.
    """
    if answer.startswith("."):  # an internet domain
        return re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)", re.IGNORECASE)
    if len(normalise(answer)) <= 2 and normalise(answer).isalpha():
        dotted = r"\.?".join(map(re.escape, answer.replace(".", "")))
        return re.compile(
            rf"(?<=\W){dotted}(?!\w)"
        )  # something stands before it: not a sentence's first word
    return None


def _position(clause: str, answer: str) -> int | None:
    """Where the answer begins in the clause (in characters; 0 when only its normal form is there),
    or None.
    """
    pattern = _pattern(answer)
    if pattern:
        found = pattern.search(clause)
        return found.start() if found else None
    if not holds(clause, answer):
        return None
    found = re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", clause, re.IGNORECASE)
    return found.start() if found else 0


def hedges(text: str) -> bool:
    """Whether the answer offers several candidates or doubts itself."""
    return bool(HEDGE.search(text))


def abstains(text: str) -> bool:
    """Whether the answer declines to answer; blank text does."""
    return not text.strip() or bool(ABSTAIN.search(text))


def answer_text(text: str, question: str = "") -> str:
    """What a majority vote counts: the answer's names and numbers, without the question's own
    words.

    "The city of Lyon is in France." asked about Lyon votes "france". Sees no gold answer.
    """
    asked = set(normalise(question).split())
    words = re.findall(r"[\w'’.-]+", clean(text).split("\n")[0])
    named = [
        w
        for w in words
        if (w[:1].isupper() or w[:1].isdigit()) and normalise(w) not in asked | SCAFFOLD
    ]
    kept = named or [w for w in words if normalise(w) not in asked | SCAFFOLD]
    return " ".join(dict.fromkeys(normalise(w) for w in kept if normalise(w))) or normalise(text)
