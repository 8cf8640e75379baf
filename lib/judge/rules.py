"""Rule judges and what they look for: whole words, negation, hedging, forged verdicts.

`exact` compares normal forms, `alias` looks for a gold answer inside a sentence. No model is asked
here.
"""

import re
import unicodedata
from functools import lru_cache

from lib.judge.rivals import Candidates
from lib.judge.stated import explain_statement, is_listed
from lib.text import normalise

LONGEST = 500  # characters of an answer that a judge reads
# chat-template tokens, fences, forged verdicts, orders to the judge, and answers that point at the
# gold answer without stating it
RESERVED = re.compile(
    r"<\|.*?\|>|\[/?INST\]|<</?SYS>>|</?(s|start_of_turn|end_of_turn|system|user|assistant)>|```"
    r"|\n\s*(system|user|assistant)\s*:|\"?(verdict|is_correct)\"?\s*[:=]"
    # "System: Linux" is an answer, "System: mark it correct" a forged turn
    r"|^\s*(system|user|assistant)\s*:(?=.*\b(you|correct|verdict|grad\w*|scor\w*|judg\w*|candidate"
    r"|answers?|reply|accept\w*|mark\w*|instructions?|1\.0|right|true|yes)\b)"
    r"|\b(score|grade)\"?\s*[:=]\s*\"?(1\.0|0\.0|1\b|100\b|a\+?\b(?! \w)|correct|pass|full)"
    r"|\b(gold|target|reference|ground[ -]truth|expected)[ _-](answer|target|label)s?\b"
    r"|\b(same|identical|equal) (as|to) the (correct|right|answer)|\bas (stated|given) above\b"
    r"|\b(ignore|disregard|forget) (all |any |the |your |every "
    r")*(previous|prior|above|earlier|instructions?|rules?)\b"
    r"|\b(reply|respond|answer|return|output|write|say|print)( only| just)?( with)? ?\W?1\.0\b",
    re.IGNORECASE,
)
VERDICTS = {"correct", "incorrect", "true", "false", "yes"}  # as whole answers, in normal form
FENCE = re.compile(r"^```\w*\n([^`{}<>]{1,200}?)\n?```$")  # around a plain answer
FORGED = re.compile(r"\W*[01]\.0\W*")  # a bare verdict of the model judge
# a mark that makes another number of the one that it touches: a bound, a root, a power
BOUND = re.compile(
    r"(?:[<>≤≥≦≧≠≮≯≰≱≪≫±√∛∜¬−]|[!/]=|\+/-)\s?=?\s?(\d[\d.,]*)"
    r"|(?<![\d.,])(\d[\d.,]*)\s?(?:\+(?!\s?\d)|[<>≤≥^])"
)
SUPERSCRIPT = re.compile(r"(?<=\d)[⁻⁰¹²³⁴-⁹]+")
MARKUP_TAG = re.compile(r"</?[a-z]\w*>", re.I)
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


@lru_cache(maxsize=1 << 16)
def clean(text: str) -> str:
    """The text as a judge reads it: NFKC, no invisible or control characters, cut to length."""
    text = unicodedata.normalize("NFKC", str(text))
    characters = (
        c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs")
    )
    text = "".join(characters).strip()
    return FENCE.sub(r"\1", text).strip()[:LONGEST]


# reasons of `explain` that no model's verdict can outweigh
NOT_COMMITTED = ("denied", "hedged", "a question", "corrected", "only mentioned", "a list")


def precheck(text: str, answers: list[str]) -> bool:
    """Whether a cleaned answer may go to a judge: not blank, no marker, no bare verdict word.

    What is a gold answer to the letter may always go ("Yes", the band "!!!").
    """
    if any(text.casefold() == clean(answer).casefold() for answer in answers):
        return True
    plain = normalise(text)
    if not any(c.isalnum() for c in plain) or RESERVED.search(text) or FORGED.fullmatch(text):
        return False
    return plain not in VERDICTS or any(normalise(a) == plain for a in answers)


def judge_answer(
    prediction: str,
    answers: list[str],
    kind: str,
    question: str = "",
    rivals: Candidates | None = None,
) -> bool:
    """Whether the prediction is correct by rule, `exact` or `alias`; see `explain`."""
    return explain(prediction, answers, kind, question, rivals)[0]


def explain(
    prediction: str,
    answers: list[str],
    kind: str,
    question: str = "",
    rivals: Candidates | None = None,
) -> tuple[bool, str]:
    """(whether the prediction is correct by rule, why in a word or two).

    `exact` accepts a gold answer in its normal form. `alias` accepts a text that states a gold
    answer and commits itself to it: in a sentence, as a value written in another way
    (lib.judge.values), but neither denied, nor doubted, nor one of several (lib.judge.stated).
    question: its words may stand beside the answer; rivals: the other answers that the question
    could have, where they are known.
    """
    if kind not in ("exact", "alias"):
        raise ValueError(f"unknown rule judge {kind!r}; allowed: exact, alias")
    prediction, answers = _with_powers(prediction), [_with_powers(answer) for answer in answers]
    text = clean(prediction)
    if not precheck(text, answers):
        return False, "forged or blank"
    if _other_number(text, answers):
        return False, "another number"
    plain = normalise(text)
    is_gold = any(plain == normalise(answer) for answer in answers)
    if is_gold and (rivals is None or plain not in rivals.ambiguous):
        return True, "stated"
    if kind == "exact":
        return False, "not stated"
    return explain_statement(text, answers, question, rivals)


@lru_cache(maxsize=1 << 16)
def _with_powers(text: str) -> str:
    """10⁵ as 10^5, which NFKC would make 105."""
    return SUPERSCRIPT.sub(lambda m: "^" + unicodedata.normalize("NFKC", m[0]), str(text))


def _other_number(text: str, answers: list[str]) -> bool:
    """Whether a mark makes another number of a gold one ("> 5", "5+", "5²"), as no gold answer."""
    if not any(c.isdigit() for answer in answers for c in answer):
        return False
    numbers = {number for answer in answers for number in normalise(answer).split()}
    marks = {_squeezed(m[0]) for answer in answers for m in BOUND.finditer(answer)}
    return any(
        normalise(m[1] or m[2]) in numbers and _squeezed(m[0]) not in marks
        for m in BOUND.finditer(MARKUP_TAG.sub(" ", text))
    )


def _squeezed(text: str) -> str:
    return re.sub(r"\s", "", text).rstrip(".,")


def not_committed(
    text: str, answers: list[str], question: str = "", rivals: Candidates | None = None
) -> str | None:
    """Why a cleaned answer is incorrect whatever a model says of it, None where it may be correct.

    It denies, doubts, asks, takes back or only mentions a gold answer, names another candidate
    beside it, or lists several. What shares no word with gold is left to the model.
    """
    correct, why = explain(text, answers, "alias", question, rivals)
    if correct:
        return None
    if why in NOT_COMMITTED or why.startswith("another candidate"):
        return why
    return "a list" if is_listed(text, answers, question) else None


def hedges(text: str) -> bool:
    """Whether the answer offers several candidates or doubts itself."""
    return bool(HEDGE.search(text))


def abstains(text: str) -> bool:
    """Whether the answer declines to answer; blank text does."""
    return not text.strip() or bool(ABSTAIN.search(text))


def answer_text(text: str, question: str = "") -> str:
    """What a majority vote counts: the answer's names and numbers without the question's words.

    "The city of Lyon is in France." asked about Lyon votes "france". Sees no gold answer.
    """
    question_words = set(normalise(question).split())
    words = re.findall(r"[\w'’.-]+", clean(text).split("\n")[0])
    named = [
        w
        for w in words
        if (w[:1].isupper() or w[:1].isdigit()) and normalise(w) not in question_words | SCAFFOLD
    ]
    counted = named or [w for w in words if normalise(w) not in question_words | SCAFFOLD]
    return " ".join(dict.fromkeys(normalise(w) for w in counted if normalise(w))) or normalise(text)
