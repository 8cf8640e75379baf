"""An answer out of its wrapping, and short answers that say the same in another form."""

import re
from functools import lru_cache

from lib.judge.values import value_form
from lib.text import normalise

CORRECTED = re.compile(
    r"(?:\b(?:actually|correction|scratch that|wait|sorry|i mean|i meant|on second thought|no,|"
    r"nope|rather|edit:|update:|in fact)\b|</del>|~~)",
    re.I,
)
# the first words of a paragraph that adds another answer to the one before
GOES_ON = re.compile(
    r"\W*(?:or|and|also|alternatively|alternative|possibly|maybe|perhaps|but)\b", re.I
)
UNSURE = re.compile(
    r"^(?:i'?m|i am|not) (?:not )?(?:entirely |completely |fully |100% )?(?:sure|certain)[, "
    r"]+but\s+",
    re.I,
)
CERTAIN = re.compile(r"^(?:without|beyond) (?:a |any )?doubt[,:]? |^no doubt[,:]? ", re.I)
LABEL = re.compile(r"^\W*((?:[^\W\d_]+[ -]){0,3}[^\W\d_]+):\s+(?=\S)")
# what a label in front of an answer is made of, beside words of the question
LABEL_WORDS = frozenset(
    re.findall(
        r"\S+",
        """
    a an the this that is it its my our your of to in for and here so final short brief direct
    correct right true best exact actual full official likely most answer answers ans reply
    response result solution conclusion output prediction assistant a1 name title country nation
    city town state province capital continent region place location birthplace river mountain
    island language currency symbol number atomic element year date day month time age person
    author writer director actor actress singer composer artist band president leader king queen
    team club company film movie book novel song album show series game value amount total
    """,
    )
)
PROFESSIONS = frozenset({"professor", "prof", "dr", "mr", "mrs", "ms", "sir", "dame"})
TITLES = PROFESSIONS | {
    "lord",
    "lady",
    "king",
    "queen",
    "president",
    "pope",
    "emperor",
    "prince",
    "princess",
}
UMLAUTS = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss"}
)
PARTICLES = frozenset(
    {"van", "von", "de", "da", "del", "della", "di", "le", "la", "bin", "al", "ten"}
)
AND = " and "
LATEX = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|emph|textrm|texttt)\s*\{([^{}]*)\}")
COPULA = re.compile(r"(?:でした|です|である|だ|입니다|이다)$")
# a bullet or the number of a list's only item, not a sign ("- 5") nor initials ("C. Monet")
ITEM = re.compile(
    r"^\s*(?:[-•*–—]\s+(?=[^\s\d]|[12]\d{3}\b)|\(?\d{1,2}[.)]\s+(?=[^\s\d]))(?!.*\n)", re.S
)
SHORT = 60  # characters of an answer that may be a short name
ASKS_PERSON = re.compile(
    r"\b(who|whose|whom|president|author|composer|director|singer|actor|actress|leader)\b", re.I
)


def unwrap(text: str, question: str = "") -> str:
    """The answer inside its wrapping: a box, bold, a label, a think block, a first note.

    A label has words of LABEL_WORDS or of the question alone: any other may be an answer, or say
    that what follows is none ("Italy: France", "Rejected: France").
    """
    text = re.sub(r"^\s*<think>.*?</think>\s*", "", text, flags=re.S)
    text = LATEX.sub(r"\1", text)
    boxed = re.findall(r"\\boxed\s*\{([^{}]*)\}", text)
    tagged = re.findall(r"<answer>(.*?)</answer>", text, flags=re.S | re.I)
    if boxed or tagged:
        text = (boxed or tagged)[-1]
    text = re.sub(r"(\*\*|__|\*|`)(.+?)\1", r"\2", text)
    text = re.sub(r"</?(?:b|i|u|em|strong|p|span|code)>", "", text, flags=re.I)
    text = CERTAIN.sub("", UNSURE.sub("", ITEM.sub("", text.strip())))
    label = LABEL.match(text)
    if label and set(normalise(label[1]).split()) <= LABEL_WORDS | set(normalise(question).split()):
        text = text[label.end() :]
    return text.strip()


def untitled(name: str) -> tuple[str, str]:
    """(title, the rest) of a name in normal form, the title "" where it has none.

    "King Lear" and "Prince of Persia" are whole names.
    """
    title, _, rest = name.partition(" ")
    one = " " not in rest
    if title not in TITLES or not rest or rest.startswith("of ") or rest.isdigit():
        return "", name
    return ("", name) if one and title not in PROFESSIONS else (title, rest)


def same_person(one: str, other: str) -> bool:
    """Whether a text and an answer in normal form differ in a title at most, not in two of them.

    An answer of a title and one word is a whole name ("Mr. Bean").
    """
    title, name = untitled(one)
    given, called = untitled(other)
    if name != called:
        return False
    if given and not title:
        return " " in called
    return not title or not given or {title, given} <= PROFESSIONS or title == given


def same_names(one: str, other: str) -> bool:
    """Whether two texts in normal form join the same names by "and", in any order."""
    return sorted(one.split(AND)) == sorted(other.split(AND))


def said_last(text: str) -> str:
    """What stands after the last correction ("Actually …"); the text where there is none."""
    parts = CORRECTED.split(text)
    last = parts[-1].strip(" ,.:;-—")
    return text if len(parts) == 1 else last


def same(text: str, answer: str) -> bool:
    """Whether two short texts say the same: equal normal forms, equal values, or joined words.

    A title in front of a name, the order of full names joined by "and", and ae for ä change
    nothing.
    """
    one, other = normalise(text), normalise(answer)
    if not one.isascii():
        one = COPULA.sub("", one)
    if not one or not other:
        return one == other
    if one in (other, normalise(answer.translate(UMLAUTS))) or same_person(one, other):
        return True
    if normalise(text.translate(UMLAUTS)) == other:
        return True
    if all(" " in name for name in other.split(AND)) and same_names(one, other):
        return True
    if has_value(answer) and value_form(text) == value_form(answer):
        return True
    joined = one.replace(" ", ""), other.replace(" ", "")
    return joined[0] == joined[1] and len(joined[0]) > 4 and joined[0].isalpha()


@lru_cache(maxsize=1 << 16)
def has_value(answer: str) -> bool:
    """Whether an answer holds a value that can be written in another way."""
    plain = normalise(answer)
    return (
        any(c.isdigit() for c in answer) or value_form(answer) != plain or "saint" in plain.split()
    )


def is_short_name(text: str, answers: list[str], question: str) -> bool:
    """A last name, initials, or an inverted name of a person; a day in a known year."""
    if len(text) > SHORT:
        return False
    form = normalise(text)
    if "," in text:
        parts = [part.strip() for part in text.split(",")]
        if len(parts) == 2 and any(same(f"{parts[1]} {parts[0]}", answer) for answer in answers):
            return True
    date = value_form(text)
    if date.startswith("--"):
        years = re.findall(r"\b\d{4}\b", question)
        return any(
            value_form(answer) == f"{year}{date[1:]}" for answer in answers for year in years
        )
    if not ASKS_PERSON.search(question) and question:
        return False
    words = form.split()
    for answer in answers:
        name = normalise(answer).split()
        if "and" in name and same_names(form, " ".join(name)):
            return True
        if not 2 <= len(name) <= 4 or not all(part.isalpha() for part in name):
            continue
        if len(words) == 1 and words[0] == name[-1] and len(name[-1]) > 3:
            return True
        if len(words) == 2 and words == name[-2:] and words[0] in PARTICLES:
            return True
        full = [word for word in words if len(word) > 1]
        if len(words) > 1 and words[-1] == name[-1] and words[0][0] == name[0][0]:
            initials = all(len(w) == 1 or w in name for w in words)
            if initials and (full[0] == name[0] or len(words) <= len(name) and len(full) == 1):
                return True
    return False
