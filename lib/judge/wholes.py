"""A part of a place lies in the place: "in Japan's Kansai region", "in East Africa"."""

import re
from functools import lru_cache

from lib.judge.rivals import Candidates
from lib.text import normalise

PLACE = (
    r"(?:country|state|continent|province|prefecture|nation|region|county|city|part of the world)"
)
ASKS_WHOLE = re.compile(rf"\b(?:which|what)\b[^?]{{0,12}}\b{PLACE}\b", re.I)
# behind "in Japan's": up to three words and a word for a part
OF_A_PLACE = (
    r"(?:[^\s,.;]+ ){0,3}(?:region|province|prefecture|state|island|coast|ward|county|district|"
    r"department|territory|city|capital|part|archipelago|peninsula|municipality|area|valley|"
    r"highland|north|south|east|west)s?(?:ern)?\b(?! (?:of|ally|enemy|partner|rival|neighbou?r))"
)
# words that make something else of it, or of the whole answer
UNDONE = re.compile(
    r"\b(?:former|neighbou?r\w*|rival|border\w*|overseas|colon\w+|claim\w*|all(?:y|ies)|enem\w+|"
    r"partner\w*|lost|occupied|disputed|trading|or|and|not|no|never|perhaps|maybe|possibly)\b",
    re.I,
)
SIDE = r"(?<![\w-])((?:north|south|east|west|central|mid)(?:[-\s]?(?:east|west|central))?(?:ern)?)"
CONTINENTS_WITH_SIDES = frozenset({"africa", "asia", "europe"})  # the Americas are two by name


def of_the_whole(text: str, answers: list[str], question: str, rivals: Candidates) -> str:
    """The text with a gold place in the stead of a part of it that is said to hold what is asked.

    Only where the question asks for a place that something lies in, and other places are known:
    there a name that is another place ("South Africa") is told from a part ("East Africa"), and
    a part that is named after another place ("China's Taiwan province") is left as it is.
    """
    if not ASKS_WHOLE.search(question):
        return text
    possessive, side = _place_patterns(tuple(answers))
    known = [places for places in (rivals, rivals.elsewhere) if places]
    golds = set(map(normalise, answers))
    continent = not CONTINENTS_WITH_SIDES.isdisjoint(golds)

    def lying_in(match) -> str:
        part = match[0][len(match[1]) :]
        named = {name for places in known for _, _, name in places.mentions(part)}
        return match[0] if named - golds or UNDONE.search(part) else f"{match[1]} {match[2]}"

    def whole(match) -> str:
        direction = normalise(match[1])
        names = (f"{direction} {gold}" for gold in golds)
        shorter = (f"{direction.removesuffix('ern')} {gold}" for gold in golds)
        other = any(name in places.owner for name in (*names, *shorter) for places in known)
        described = match[1].endswith("ern") and match[1].islower()
        return match[2] if not other and (described or continent) else match[0]

    return side.sub(whole, possessive.sub(lying_in, text))


@lru_cache(maxsize=1 << 12)
def _place_patterns(answers: tuple[str, ...]) -> tuple[re.Pattern, re.Pattern]:
    """Patterns of "in @'s … region" (the preposition, the place) and "East @" (side, place)."""
    names = "|".join(re.escape(answer) for answer in sorted(answers, key=len, reverse=True))
    inside = r"(?:in|within|part of|in the (?:north|south|east|west|cent(?:re|er)|heart) of)"
    possessive = rf"\b({inside})\s+(?:the\s+)?({names})['’]s\s+{OF_A_PLACE}"
    return re.compile(possessive, re.I), re.compile(rf"{SIDE}\s+({names})\b", re.I)
