"""Text comparison: the normal form that compares answers, the key that merges questions."""

import re
import unicodedata
from functools import lru_cache

# letters that no decomposition folds
LETTERS = str.maketrans({
    "ł": "l", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "ŧ": "t", "ŋ": "n", "ĸ": "k",
    "æ": "ae", "œ": "oe", "þ": "th", "ƒ": "f", "ʼ": "'", "ʻ": "'", "ʿ": "'", "ʾ": "'",
})  # fmt: skip
DASHES = re.compile(r"[\u2010-\u2015\u2212\ufe58\ufe63\uff0d]")
MINUS = re.compile(r"(?<![\w.)])-((?:us)?[£€$¥])(?=\d)")  # before the sign of a currency
QUOTATION = re.compile(r"['\"’‘‚‛“”„«»‹›`´′″]")
THOUSANDS = re.compile(
    r"(?<![\d.,/])\d{1,3}(?:(?:,\d{3})+|(?:['’]\d{3})+|(?:[ \u00a0\u202f\u2009]\d{3})+)(?![\d,]|"
    r"\.\d{3})"
)
FOLDED_SCRIPTS = ("LATIN", "GREEK", "CYRILLIC")
LEADING_ARTICLE = re.compile(r"^(?:a|an|the) (?=\S)")
THE = re.compile(r"\bthe (?=\S)")


def normalise(text: str) -> str:
    """The text in the normal form of answers: two that differ only in spelling habits are equal.

    What distinguishes stays: signs, decimals, fractions and ranges of numbers (3.5, -40, 1/2, 2-1),
    `+` and `#` after a letter (C++), a final or only "A" (Vitamin A), marks of scripts other than
    Latin, Greek and Cyrillic. Folded are case, accents (Łódź), quotation marks, hyphens and slashes
    between words, `&`, the dots of initials (J.R.R.), thousands separators, other punctuation,
    "the" and a leading article. A text of nothing but punctuation keeps it. normalise("The
    Café-Bar!") == "cafe bar".
    """
    return _normal_form(str(text))


@lru_cache(maxsize=1 << 18)
def _normal_form(text: str) -> str:
    text = THOUSANDS.sub(lambda m: re.sub(r"\D", "", m[0]), text)
    text = _fold_letters(unicodedata.normalize("NFKC", text).casefold())
    plain = _fold_marks(text)
    if not plain:
        return " ".join(text.split())

    plain = THE.sub("", plain)
    while (shorter := LEADING_ARTICLE.sub("", plain)) != plain:
        plain = shorter
    return plain


def _fold_letters(text: str) -> str:
    """Letters without accents; marks of other scripts stay, invisible characters go."""
    if text.isascii():
        return text
    base, kept = "", []
    for c in unicodedata.normalize("NFKD", text):
        category = unicodedata.category(c)
        if category in ("Cf", "Cc") and not c.isspace():
            continue
        if category == "Mn" and _folds(base):
            continue
        if category != "Mn":
            base = c
        kept.append(c)
    return unicodedata.normalize("NFC", "".join(kept)).translate(LETTERS)


@lru_cache(maxsize=1 << 14)
def _folds(letter: str) -> bool:
    """Whether accents on this letter are a habit of spelling."""
    return not letter.isalpha() or unicodedata.name(letter, "").startswith(FOLDED_SCRIPTS)


def _fold_marks(text: str) -> str:
    """Words and numbers without punctuation, but for the marks that make another word or number."""
    text = DASHES.sub("-", text).replace("⁄", "/").replace("&", " and ").replace("%", " percent ")
    text = MINUS.sub(r"\1-", QUOTATION.sub("", text))
    text = re.sub(
        r"(?<=[^\W\d_])([+#]+)(?![\w])",
        lambda m: m[1].replace("+", "\ue000").replace("#", "\ue001"),
        text,
    )
    text = re.sub(r"(?<=\d)([./])(?=\d)", lambda m: "\ue002" if m[1] == "." else "\ue003", text)
    text = re.sub(r"(?<![\w.])\.(?=\d)", "\ue002", text)  # .5
    text = re.sub(r"(?<=\d)(?:-|\s-\s)(?=\d)", "\ue004", text)  # a range or a score
    text = re.sub(r"(?<![\w)])-\s?(?=[\d\ue002])", "\ue004", text)  # a sign
    text = re.sub(r"\b([^\W\d_])\.(?=\s?[^\W\d_](?:\.|\b))", r"\1", text)  # initials
    text = "".join(
        c if c.isalnum() or c.isspace() or "\ue000" <= c <= "\ue004" or _is_word_mark(c) else " "
        for c in text
    )
    words = " ".join(text.split())
    words = re.sub(
        r"\b(?:[^\W\d_] ){1,}[^\W\d_](?= [^\W\d_]{2})", lambda m: m[0].replace(" ", ""), words
    )
    return words.translate({0xE000: "+", 0xE001: "#", 0xE002: ".", 0xE003: "/", 0xE004: "-"})


def _is_word_mark(c: str) -> bool:
    return unicodedata.category(c) in ("Mn", "Mc", "Sc")


def question_key(text: str) -> str:
    """The form in which questions are one: stricter than `normalise`.

    Two subjects may differ in a mark alone ("Men and Women", "Men & Women").

    Folded are case, spaces, invisible characters, the shape of quotation marks and dashes, and the
    mark at the end.
    """
    text = unicodedata.normalize("NFKC", str(text)).casefold()
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cf", "Cc"))
    text = DASHES.sub("-", re.sub(r"[’‘‛`´′]", "'", re.sub(r"[“”„«»″]", '"', text)))
    text = " ".join(text.split())
    return text.rstrip("?.! ") or text


def holds(text: str, part: str) -> bool:
    """Whether `part` stands in `text` as whole words; both are normalised."""
    part = normalise(part)
    return bool(part) and f" {part} " in f" {normalise(text)} "


def unique(texts) -> list[str]:
    """The non-blank texts in their order, without those that normalise like an earlier one."""
    seen: dict[str, str] = {}
    for text in texts:
        if normalise(text):
            seen.setdefault(normalise(text), str(text).strip())
    return list(seen.values())
