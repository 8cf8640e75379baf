"""The clause of an answer that states it, and what is cut off it: brackets, remarks, sentences."""

import re
from functools import lru_cache

from lib.judge.values import value_form
from lib.judge.wrapping import CORRECTED, GOES_ON, LABEL
from lib.text import holds, normalise

GOLD = "@"  # stands for a gold answer in a text
WITHDRAWN = re.compile(r"\b(not|no|never|wrong|incorrect|mistaken|mistake|instead|rather|answer)\b")
REMARK = re.compile(
    r"\s*(?:[,;–—]|\s-\s)\s*(?:which|who|whose|whom|where|that|a|an|the (?=[a-z])|in|on|near|"
    r"bordering|not|of course|located|formerly|close to|next to|"
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
# a word of doubt in a short remark that names nobody
DOUBTING = re.compile(
    r"\b(?:un(?:sure|certain|likely|confirmed|verified)|guess\w*|perhaps|maybe|possibly|mistaken|"
    r"(?<!no )(?<!without )(?<!without a )doubt\w*|(?:wrong|incorrect|false|untrue)(?! to)|"
    r"rejected|excluded|discarded|made (?:it|this|that) up|invented|joking|kidding|"
    r"not (?:\w+ )?(?:sure|certain|correct|right|true|it))\b"
)
ALTERNATIVE = re.compile(r"^\W*(?i:or)\b|^\W*(?:[A-Z]\S*\s+){1,3}or (?:in |the )*[A-Z]")
DOUBT_WORDS = 8
# what tells a rival that is only mentioned from one that is offered, when it stands before it
BESIDE = re.compile(
    r"\b(near|nearby|border\w*|next to|close to|adjacent|neighbou?r\w*|not|former\w*|unlike|from|"
    r"between|than|opposite|across|once|until|before|after|shares?|compare\w*|similar|historic\w*|behind)\b"
)
# words that may stand before an answer that is offered beside another one
OFFERING = frozenset(
    re.findall(
        r"\S+",
        """
    or because since as now also currently today actually rather namely ie instead often northern
    southern eastern western central north south east west european african asian american
    """,
    )
)
LYING = re.compile(
    r"\b(?:located|situated|nested|lies|lying|found|city|town|village|part|province|region|country|"
    r"nation|state)(?: and \w+)? (?:in|of|within)(?: \w+ern)?(?: (?:country|nation|state|part|"
    r"continent)(?: of)?)?$|\b(?:known as|called|answer is(?: \w+)?)$"
)
# a label in front of what is no answer, or not the one that counts
LABELS_ANOTHER = re.compile(
    r"\b(?:other|another|old|past|second|runner|nearest|closest|alternatives?|decoys?|trap|worst|"
    r"bad|guess|rivals?|options?|hint|example|unless|ignore|similar|opposite|ex)\b"
)
NAME_WORDS = 3
WITHDRAWS = re.compile(r"\b(?:answer|instead|rather|wrong|actually|correct)\b")
REASON = re.compile(r"(?<=@)\s+(?:because|since|as) (?:it|he|she|they|this|that|the|its)\b[^@]*$")
CONTRAST = re.compile(r"^\W*not (?:the )?[^@,.;?]{1,60}?,? but (?:rather )?(?=.*@)", re.I)
LATER = re.compile(
    r"^(?:this|that|it|he|she|they|these|there|let|i hope|the|in|its|his|her)\b(?=(?:\W+\w+){3})",
    re.I,
)
ASKS_PLACE = re.compile(r"\b(where|city|town|capital|place|village)\b", re.I)


def head_clause(
    masked: str, question: str, qualified: bool, numeric: bool = False
) -> tuple[str, list[str]]:
    """The clause that holds the gold answer; the brackets, remarks and later sentences cut off it.

    qualified: a place may be followed by the place that it lies in ("Lyon, France"); numeric: gold
    is a number, and no name behind it is another answer.
    """
    text = CONTRAST.sub("", masked.strip())
    # a bracket behind the subject is about it, not about the answer
    found = [m for m in BRACKET.finditer(text) if not m.start() or GOLD in text[: m.start()]]
    found = [m for m in found if not _explains_another(text[: m.start()], question)]
    cut = [match[0].strip("()[]") for match in found]
    text = BRACKET.sub(" ", text)
    paragraphs = [part for part in re.split(r"\n\s*\n", text) if part.strip()]
    if len(paragraphs) > 1 and _is_note(paragraphs, numeric):
        text = paragraphs[0]
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
    because = REASON.search(text)
    if because and not WITHDRAWS.search(lowered(because[0])):
        cut.append(because[0])
        text = text[: because.start()]
    if qualified and ASKS_PLACE.search(question):
        text = re.sub(r"@ ?, ?[A-Z][\w.]*(?: [A-Z][\w.]*)?\s*\.?$", GOLD, text)
    place = re.search(r"@ ?, ?([^,@]+?)\s*\.?$", text)
    if place and set(normalise(place[1]).split()) <= set(normalise(question).split()):
        text = text[: place.start()] + GOLD
    return text, cut


def is_doubt(piece: str) -> bool:
    """Whether a bracket or a remark takes back or doubts what stands before it, or adds another."""
    plain = lowered(piece).strip(" .,;:!-–—")
    if GOLD in piece or not plain:
        return False
    if ALTERNATIVE.search(piece) or set(plain) <= set("? ") or DOUBT.fullmatch(plain.strip("?")):
        return True
    names = re.search(r"(?<!^)\b(?!I\b)[A-Z]", piece.strip(" .,;:!-–—"))
    return not names and len(plain.split()) <= DOUBT_WORDS and bool(DOUBTING.search(plain))


def is_told_apart(masked: str, question: str) -> bool:
    """Whether a gold answer stands behind a label that makes it no answer ("Neighbour: France")."""
    label = LABEL.match(masked)
    words = lowered(label[1]) if label and masked[label.end() :].lstrip().startswith(GOLD) else ""
    found = BESIDE.search(words) or LABELS_ANOTHER.search(words)
    return bool(found) and not holds(question, found[0])


def _explains_another(before: str, question: str) -> bool:
    """Whether what stands before a bracket ends in another name than gold ("by Turin (Italy)")."""
    word = before.split()[-1] if before.split() else ""
    return word[:1].isupper() and word[-1:].isalnum() and not holds(question, word)


def _is_note(paragraphs: list[str], numeric: bool) -> bool:
    """Whether all that follows the first paragraph comments it and gives no other answer."""
    stated = len(paragraphs[0].split()) > NAME_WORDS and paragraphs[0].rstrip().endswith(".")
    return all(
        GOLD not in part
        and (
            len(part.split()) > NAME_WORDS  # else it may be another name
            or ":" in part
            or (stated and i < len(paragraphs) - 1)  # a heading
            or (numeric and not any(c.isdigit() for c in value_form(part)))
        )
        and not GOES_ON.match(part)
        and not CORRECTED.search(part)
        and not WITHDRAWN.search(lowered(part))
        for i, part in enumerate(paragraphs[1:], 1)
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
