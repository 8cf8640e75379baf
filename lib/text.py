"""Text comparison: the one normal form in which questions and answers are compared."""

import re
import string
import unicodedata
from functools import lru_cache

ARTICLES = re.compile(r"\b(a|an|the)\b")
ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """The text in its normal form: NFKC, case folded, without accents, punctuation, articles and
    extra spaces.

    The rules are those of the official SQuAD and NQ-open evaluation, with accents stripped and
    Unicode punctuation treated as ASCII's. A text of nothing but articles or punctuation keeps them
    ("A", "?"), so only blank text becomes empty. normalise("The  Café-Bar!") == "cafebar".
    """
    return _normal_form(str(text))


@lru_cache(maxsize=1 << 18)
def _normal_form(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    if not text.isascii() or not text.isprintable():
        text = unicodedata.normalize("NFKD", text)
        text = "".join(
            c for c in text if unicodedata.category(c) not in ("Mn", "Cf", "Cc") or c.isspace()
        )
    bare = text.translate(ASCII_PUNCTUATION)
    if not bare.isascii():
        bare = "".join(c for c in bare if unicodedata.category(c)[0] != "P")
    bare = bare if bare.strip() else text
    return " ".join(ARTICLES.sub(" ", bare).split()) or " ".join(bare.split())


def holds(text: str, part: str) -> bool:
    """Whether `part` stands in `text` as whole words, both normalised: "Mexico City" holds
    "Mexico".
    """
    part = normalise(part)
    return bool(part) and f" {part} " in f" {normalise(text)} "


def unique(texts) -> list[str]:
    """The non-blank texts in their order, without those that normalise like an earlier one."""
    seen: dict[str, str] = {}
    for text in texts:
        if normalise(text):
            seen.setdefault(normalise(text), str(text).strip())
    return list(seen.values())
