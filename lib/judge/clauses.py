"""The clause of an answer that states it, and what is cut off it: brackets, remarks, sentences."""

import re
from functools import lru_cache

from lib.judge.wrapping import CORRECTED, GOES_ON
from lib.text import normalise

GOLD = "@"  # stands for a gold answer in a text
WITHDRAWN = re.compile(r"\b(not|no|never|wrong|incorrect|mistaken|mistake|instead|rather|answer)\b")
REMARK = re.compile(
    r"\s*(?:[,;–—]|\s-\s)\s*(?:which|who|whose|whom|where|that|a|an|the (?=[a-z])|in|on|near|"
    r"bordering|not|of course|located|formerly|"
    r"also known as|also called|known|by far|(?:the )?(?:largest|smallest|oldest|first|last|"
    r"only))\b[^@]*$",
)
BRACKET = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
# a whole remark that doubts
DOUBT = re.compile(
    r"(?:(?:im|i am|but|its|it is|this is|that is|probably|quite|really|at all) )*"
    r"(?:not(?: (?:so|too|entirely|quite|at all))? (?:sure|certain|correct|right|true|it|really)"
    r"|unsure|uncertain|wrong|no|nope|false|incorrect|untrue|perhaps|maybe|possibly|probably not"
    r"|(?:just )?a guess|guessing)"
)
# what tells a rival that is only mentioned from one that is offered
BESIDE = re.compile(
    r"\b(near|nearby|border\w*|next to|close to|adjacent|neighbou?r\w*|not|former\w*|unlike|from|"
    r"between|than|opposite|across|once|until|before|after|shares?|compare\w*|similar|historic\w*)\b"
)
NAME_WORDS = 3
CONTRAST = re.compile(r"^\W*not (?:the )?[^@,.;?]{1,60}?,? but (?:rather )?(?=.*@)", re.I)
LATER = re.compile(
    r"^(?:this|that|it|he|she|they|these|there|let|i hope|the|in|its|his|her)\b(?=(?:\W+\w+){3})",
    re.I,
)
ASKS_PLACE = re.compile(r"\b(where|city|town|capital|place|village)\b", re.I)


def head_clause(masked: str, question: str, qualified: bool) -> tuple[str, list[str]]:
    """The clause that holds the gold answer; the brackets, remarks and later sentences cut off it.

    qualified: a place may be followed by the place that it lies in ("Lyon, France").
    """
    text = CONTRAST.sub("", masked.strip())
    # a bracket behind the subject is about it, not about the answer
    found = [m for m in BRACKET.finditer(text) if not m.start() or GOLD in text[: m.start()]]
    cut = [match[0].strip("()[]") for match in found]
    text = BRACKET.sub(" ", text)
    paragraphs = [part for part in re.split(r"\n\s*\n", text) if part.strip()]
    text = (
        paragraphs[0] if paragraphs and len(paragraphs) > 1 and _is_note(paragraphs[1:]) else text
    )
    sentences = [
        s.strip()
        for s in re.split(r"(?<=[^.\s]{2}[.!])\s+|(?<=@ [.!])\s+|(?<=@[.!])\s+|\n", text)
        if s.strip()
    ]
    statements = [
        sentence for i, sentence in enumerate(sentences) if i == 0 or not _is_remark(sentence)
    ]
    cut += [sentence for sentence in sentences if sentence not in statements]
    text = " . ".join(statements)
    while (shorter := REMARK.sub("", text)) != text and GOLD in shorter:
        cut.append(text[len(shorter) :])
        text = shorter
    text = re.sub(r"(@\s*) (?:because|since) [^@]*$", r"\1", text)
    if qualified and ASKS_PLACE.search(question):
        text = re.sub(r"@ ?, ?[A-Z][\w.]*(?: [A-Z][\w.]*)?\s*\.?$", GOLD, text)
    place = re.search(r"@ ?, ?([^,@]+?)\s*\.?$", text)
    if place and set(normalise(place[1]).split()) <= set(normalise(question).split()):
        text = text[: place.start()] + GOLD
    return text, cut


def is_doubt(piece: str) -> bool:
    """Whether a bracket or a remark takes back or doubts what stands before it, or adds another."""
    plain = lowered(piece).strip(" .,;:!?-–—")
    return GOLD not in piece and bool(DOUBT.fullmatch(plain) or plain.startswith("or "))


def offers(piece: str) -> bool:
    """Whether a bracket, a remark or a later sentence may give another answer: not a neighbour's,
    a former one or a denied one."""
    return GOLD not in piece and not BESIDE.search(lowered(piece))


def _is_note(paragraphs: list[str]) -> bool:
    return all(
        GOLD not in part
        and (len(part.split()) > NAME_WORDS or ":" in part)  # else it may be another name
        and not GOES_ON.match(part)
        and not CORRECTED.search(part)
        and not WITHDRAWN.search(lowered(part))
        for part in paragraphs
    )


def _is_remark(sentence: str) -> bool:
    """Whether a later sentence comments the answer and offers no other."""
    return (
        bool(LATER.match(sentence))
        and GOLD not in sentence
        and not WITHDRAWN.search(lowered(sentence))
        and not CORRECTED.search(sentence)
    )


@lru_cache(maxsize=1 << 14)
def lowered(text: str) -> str:
    """Lower case without apostrophes, for words of denial and doubt."""
    return re.sub(r"['’]", "", text.lower())
