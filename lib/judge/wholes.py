"""A part of a place lies in the place: "in Japan's Kansai region", "in East Africa"."""

import re
from functools import lru_cache

from lib.judge.rivals import Candidates
from lib.text import normalise

ASKS_WHOLE = re.compile(r"\b(?:in|on|to|within) (?:which|what)\b|\bcontinent\b", re.I)
# behind "in Japan's": up to three words and a word for a part, but no other country's
OF_A_PLACE = (
    r"(?!(?:\S+ ){0,3}(?:former|neighbou?r|rival|border|overseas|colony|colonies|claim))"
    r"(?:\S+ ){0,3}(?:region|province|prefecture|state|island|coast|ward|county|district|"
    r"department|territory|city|capital|part|archipelago|peninsula|municipality|area|valley|"
    r"highlands|north|south|east|west)\w*\b"
)
SIDE = r"(?:north|south|east|west|central|mid)(?:east|west)?(?:ern)?"
CONTINENTS_WITH_SIDES = frozenset({"africa", "asia", "europe"})  # the Americas are two by name


def of_the_whole(text: str, answers: list[str], question: str, rivals: Candidates) -> str:
    """The text with a gold place in the stead of a part of it that is said to hold what is asked.

    Only where the question asks which place something lies in, and other places are known: there
    a name that is another place ("South Africa") is told from a part ("East Africa").
    """
    if not ASKS_WHOLE.search(question):
        return text
    possessive, side = _place_patterns(tuple(answers))
    known = [places.owner for places in (rivals, rivals.elsewhere) if places]
    continent = not CONTINENTS_WITH_SIDES.isdisjoint(map(normalise, answers))

    def whole(match) -> str:
        other = any(normalise(match[0]) in owner for owner in known)
        described = match[1].endswith("ern") and match[1].islower()
        return match[2] if not other and (described or continent) else match[0]

    return side.sub(whole, possessive.sub(r"\1 \2", text))


@lru_cache(maxsize=1 << 12)
def _place_patterns(answers: tuple[str, ...]) -> tuple[re.Pattern, re.Pattern]:
    """Patterns of "in @'s … region" (the preposition, the place) and "East @" (side, place)."""
    names = "|".join(re.escape(answer) for answer in sorted(answers, key=len, reverse=True))
    possessive = rf"\b(in|within|of|on)\s+(?:the\s+)?({names})['’]s\s+{OF_A_PLACE}"
    return re.compile(possessive, re.I), re.compile(rf"\b({SIDE})\s+({names})\b", re.I)
