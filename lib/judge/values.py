"""Values with many spellings: dates, numbers in words, Roman numerals, units, money.

`value_form` rewrites them in one way each, and leaves alone what could mean two things
(10/11/1904).
"""

import re
from functools import lru_cache

from lib.text import normalise

MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
MONTH = "|".join(f"{name}|{name[:3]}" for name in MONTHS) + "|sept"
DAY, YEAR = r"(?P<d>[0-3]?\d)(?:st|nd|rd|th)?", r"(?P<y>\d{3,4})"
DATES = [
    re.compile(r"\b(?P<y>\d{4})-(?P<n>[01]?\d)-(?P<d>[0-3]?\d)\b"),
    re.compile(r"\b(?P<n>[0-3]?\d)/(?P<d>[0-3]?\d)/(?P<y>\d{4})\b"),
    re.compile(r"\b(?P<d>[0-3]?\d)\.(?P<n>[01]?\d)\.(?P<y>\d{4})\b"),
    re.compile(rf"\b(?:the )?{DAY}(?: day)?(?: of)?,? (?P<m>{MONTH})\.?(?:,| of)? {YEAR}\b"),
    re.compile(rf"\b(?P<m>{MONTH})\.? (?:the )?{DAY}(?:,| of|,? in)? {YEAR}\b"),
    re.compile(rf"\b(?P<m>{MONTH})\.?(?:,| of| in)? (?P<y>\d{{4}})\b"),
    re.compile(rf"\b(?P<y>\d{{4}}),? \(?(?P<m>{MONTH})\)?(?!\w)"),
    re.compile(rf"\b(?P<m>{MONTH})\.? (?:the )?{DAY}\b"),
    re.compile(rf"\b(?:the )?{DAY}(?: of)? (?P<m>{MONTH})\b"),
]
UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
WORD_VALUES = {word: i for i, word in enumerate(UNITS)} | {
    w: 20 + 10 * i for i, w in enumerate(TENS)
}
ORDINALS = {"first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12}
ORDINALS |= {
    f"{w}th": i
    for i, w in enumerate(UNITS)
    if w not in ("one", "two", "three", "five", "eight", "nine", "twelve", "zero")
}
ORDINALS |= {f"{w[:-1]}ieth": 20 + 10 * i for i, w in enumerate(TENS)}
ORDINALS |= {f"{w}th": value for w, value in SCALES.items()}
NUMBER_WORD = "|".join(sorted([*WORD_VALUES, *SCALES], key=len, reverse=True))
SPELT = re.compile(rf"\b(?:{NUMBER_WORD})(?:(?:[ -]|,? and )(?:{NUMBER_WORD}))*\b")
SPELT_ORDINAL = re.compile(rf"\b({'|'.join(TENS)})[- ]({'|'.join(ORDINALS)})\b")
# what stands for a unit or an era of several words
SYNONYMS = {
    r"\bbce\b|\bb\.\s?c\.\s?e\b": "bc",
    r"\b(miles|kilomet(?:re|er)s) an hour\b": r"\1 per hour",
    r"\bper cent\b": "percent",
    r"\bmph\b": "miles per hour",
    r"\bkm/h\b|\bkph\b": "kilometres per hour",
    r"°\s?c\b|\bdegrees? c(?:elsius|entigrade)?\b": "celsius",
    r"°\s?f\b|\bdegrees? f(?:ahrenheit)?\b": "fahrenheit",
    r"\$?\s?(\d[\d.]*) (million|billion|trillion) (?:u\.?s\.? )?dollars\b": r"$\1 \2",
    r"(?<![\w.])[-−](?:us)?([£€$¥])\s?(?=\d)": r"\1-",  # minus before the sign
    r"([£€$¥])\s?(-?\d[\d.]*) (million|billion|trillion)\b": lambda m: (
        f"{m[1]}{float(m[2].rstrip('.')) * SCALES[m[3]]:.0f}"
    ),
}
SCALED = re.compile(r"\b(\d+(?:\.\d+)?) (thousand|million|billion|trillion)\b")
ROMAN = re.compile(
    r"(?<=[^\W\d_]) (?=[IVXL]+\b)(?:I(?=$|[,.;:!?)])|(?!I\b)(X{0,3}L?X{0,3}(?:IX|IV|"
    r"V?I{0,3}))(?=$|[\s,.;:!?)'’]))"
)
UNIT_NAMES = {
    "km": "kilometre kilometres kilometer kilometers km kms",
    "m": "metre metres meter meters",
    "cm": "centimetre centimetres centimeter centimeters cm",
    "mm": "millimetre millimetres millimeter millimeters mm",
    "mile": "mile miles mi",
    "foot": "foot feet ft",
    "inch": "inch inches",
    "kg": "kilogram kilograms kilo kilos kg",
    "gram": "gram grams gramme grammes",
    "tonne": "tonne tonnes",
    "litre": "litre litres liter liters",
    "percent": "percent pct",
    "year": "year years yr yrs",
    "day": "day days",
    "hour": "hour hours hr hrs",
    "minute": "minute minutes min mins",
    "usd": "usd dollar dollars",
    "gbp": "gbp",
    "eur": "eur euro euros",
}
UNIT = {name: unit for unit, names in UNIT_NAMES.items() for name in names.split()}
CURRENCY = {"£": "gbp", "€": "eur", "$": "usd", "¥": "jpy"}
AMOUNT = re.compile(
    r"(?:us)?([£€$¥])\s?(-?\d[\d.]*)|(\d[\d.]*)\s?([£€$¥])|\b(gbp|eur|usd) (\d[\d.]*)"
)


@lru_cache(maxsize=1 << 16)
def value_form(text: str) -> str:
    """The normal form with every value written in one way: "27th of October, 1904" -> "1904-10-27".

    A date is y-m-d, y-m or --m-d; numbers are digits; a Roman numeral or an ordinal after a name is
    a number ("Benedict the Sixteenth" -> "benedict 16"); a unit after a number has one name.
    """
    text = ROMAN.sub(lambda m: f" {_roman(m[0].strip())}" if m[0].strip() else m[0], text)
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.replace("\u2044", "/").lower())
    plain = re.sub(r"\bst\.? (?=[^\W\d_])", "saint ", plain)

    dates = []

    def keep_date(match):
        value = _date(match.groupdict(), slashed="/" in match[0])
        if value is None:
            return match[0]
        dates.append(value)
        return f" qdate{chr(97 + len(dates) - 1)} "

    for pattern in DATES:
        plain = pattern.sub(keep_date, plain)

    for pattern, word in SYNONYMS.items():
        plain = re.sub(pattern, word, plain)
    plain = AMOUNT.sub(_amount, plain)
    plain = SCALED.sub(lambda m: f"{float(m[1]) * SCALES[m[2]]:.0f}", plain)
    plain = SPELT_ORDINAL.sub(lambda m: f"{WORD_VALUES[m[1]] + ORDINALS[m[2]]}th", plain)
    plain = SPELT.sub(lambda m: str(_spelt(m[0])), plain)
    plain = re.sub(r"(?<=[^\W\d_]) the (\w+)\b", _ordinal, plain)
    words = [spelt_word(word) for word in normalise(plain).split()]
    words = [
        UNIT.get(w, w) if i and re.fullmatch(r"-?[\d.]+", words[i - 1]) else w
        for i, w in enumerate(words)
    ]
    joined = " ".join(words)
    for i, value in enumerate(dates):
        joined = joined.replace(f"qdate{chr(97 + i)}", value)
    return joined


def spelt_word(word: str) -> str:
    """A word of the normal form: ordinals as 16th, whole decimals without their zeros."""
    if word in ORDINALS and word not in ("second",):
        return f"{ORDINALS[word]}th"
    word = re.sub(r"^(\d+)(?:st|nd|rd|th)$", r"\1th", word)
    return re.sub(r"^(-?\d+)\.0+$", r"\1", word)


def _ordinal(match) -> str:
    word = match[1]
    if word in ORDINALS:
        return f" {ORDINALS[word]}"
    number = re.fullmatch(r"(\d+)(?:st|nd|rd|th)", word)
    return f" {number[1]}" if number else match[0]


def _date(parts: dict, slashed: bool = False) -> str | None:
    """y-m-d, y-m or --m-d; None where day and month could be exchanged, or there is no such day."""
    month = int(parts["n"]) if parts.get("n") else None
    if parts.get("m"):
        month = next(i for i, name in enumerate(MONTHS, 1) if name.startswith(parts["m"][:3]))
    day = int(parts["d"]) if parts.get("d") else None
    if slashed and month > 12 >= day:
        month, day = day, month
    elif slashed and month != day and max(month, day) <= 12:
        return None
    if month is None or not 1 <= month <= 12 or (day is not None and not 1 <= day <= 31):
        return None
    year = parts.get("y")
    head = f"{int(year)}-{month:02}" if year else f"--{month:02}"
    return head if day is None else f"{head}-{day:02}"


def _amount(match) -> str:
    symbol, amount = match[1] or match[4], match[2] or match[3]
    if match[5]:
        return f"{_plain_number(match[6])} {match[5]}"
    return f"{_plain_number(amount)} {CURRENCY[symbol]}"


def _plain_number(text: str) -> str:
    return re.sub(r"\.0*$", "", text) if re.fullmatch(r"\d+\.0*", text) else text


def _spelt(text: str) -> int | str:
    """The value of a number in words, or the text where it is none ("hundred one two")."""
    total, part, last = 0, 0, None
    for word in re.findall(r"[a-z]+", text):
        if word == "and":
            continue
        if word in SCALES:
            scale = SCALES[word]
            if scale == 100:
                part = max(part, 1) * 100
            else:
                total, part = total + max(part, 1) * scale, 0
        else:
            value = WORD_VALUES[word]
            if last in WORD_VALUES and not (WORD_VALUES[last] >= 20 > value > 0 and value < 10):
                return text
            part += value
        last = word
    return total + part


def _roman(text: str) -> int:
    values = {"I": 1, "V": 5, "X": 10, "L": 50}
    digits = [values[c] for c in text]
    after = [*digits[1:], 0]
    return sum(-d if d < nxt else d for d, nxt in zip(digits, after, strict=True))
