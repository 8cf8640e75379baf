"""Stated, not contained: does an answer commit itself to one candidate, a gold answer?

What the answer says beside the gold answer decides. Where the candidates of a question are known,
any other one is a second answer. Where they are not, a word that is neither a function word nor in
the question may be another name.
"""

import re
from functools import lru_cache

from lib.judge.clauses import (
    BESIDE,
    GOLD,
    LYING,
    OFFERING,
    head_clause,
    is_doubt,
    is_told_apart,
    lowered,
)
from lib.judge.rivals import Candidates
from lib.judge.values import MONTHS, spelt_word, value_form
from lib.judge.wholes import of_the_whole
from lib.judge.wrapping import (
    has_value,
    is_short_name,
    said_last,
    same,
    unwrap,
)
from lib.text import holds, normalise

# words of a sentence around an answer, in normal form
FILLER = frozenset(
    re.findall(
        r"\S+",
        """
    a an the this that these those it its is are was were be been being am im i my me we our
    he she his her they their there here of in on at by to for from with as and so yes well
    ok okay answer answers final correct right true result would will should must can has
    have had do does did think believe guess say know sure confident certain certainly
    definitely indeed course probably simply just really actual called named known titled
    name number term word language capital city town country nation state province region
    continent place area river planet element animal person man woman president king queen
    pope author writer poet director singer actor actress composer band group team company
    film movie book novel play song album show series game year date day time month about
    around circa approximately roughly exactly z symbol code value amount total located
    situated lies found made built born died written wrote composed directed painted
    invented discovered founded opened opens open released produced created recorded
    published played plays sung sings sing held took takes place happened occurred began
    started ended costs cost stands stand which who whom whose what when where how many much
    kingdom republic federal commonwealth solid liquid pure modern sir mr mrs ms dr saint st
    lake mount mt operating system score grade his holiness please thanks thank hi hello
    sincerely one only also-known です でした だ である 입니다 이다 是
    """,
    )
)
SIDE_NAMES = frozenset(
    re.findall(r"\S+", "north south east west northeast northwest southeast southwest midwest")
)
NAME_MAKERS = frozenset(
    re.findall(
        r"\S+",
        """
    west western east eastern north northern south southern southeast northwest northeast
    southwest new old upper lower central equatorial papua great greater little saint st san
    santa port fort mount lake cape el la los las
    """,
    )
)
DENIED = re.compile(
    r"\b(not|no|nor|never|neither|none|cannot|without|except|excluding|isnt|wasnt|arent|werent|dont|doesnt|didnt|wont|wouldnt|cant|"
    r"couldnt|shouldnt|hardly|false|wrong|incorrect|untrue|mistaken|mistake|misconception|myth|rather|instead|unlike|opposite|deny|denied|"
    r"unknown|unsure|doubt|whether|if|unless|until|ruled|rejected|excluded?|worst|discarded|"
    r"eliminated|(?:any|every)thing but|all but)\b"
)
HEDGED = re.compile(
    r"\b(or|either|perhaps|maybe|possibly|might|could|may be|alternatively|both|some|others|oder|"
    r"ou|ó|och|eller)\b|或|または|また|и/или|或者|\bили\b|\by\b|\bo\b|\bu\b|\be\b"
)
FIRST_GUESS = re.compile(
    r"\b(?:first|initial|1st) (?:guess|thought|instinct|answer)\b.*"
    r"\b(?:but|final|finally|then|now)\b",
    re.I,
)
AMERICAS = re.compile(r"\b(?:south|north|central|latin)(?:ern)? america\b", re.I)
SUBJECT = re.compile(r"^[^@,;:]*?\b(?:is|was|are|were|lies)\b(?=[^@,;:]*@)")
SENTENCE = re.compile(
    r"^(?:[A-Z][^@]*|\W*)\b(?:is|was|are|were|won|married|weighs?|[a-z]{3,}ed)\b[^@]*@|^\W*@\s+(?:is|was|are|were)\b"
)
MENTIONS = re.compile(
    r"\b(similar|like|opposite|another|other|others|compare|compared|option|options|discuss|depends|topic|history|question|"
    r"rival|successor|father|son|brother|tributary|near|nearby|neighbour|borders?|bordering|between|after|before|almost|nearly|"
    r"over|under|than|until|since|guess|thought|say|said|claim|claims|considered|sometimes|often|both|also|list|following|"
    r"answered|marked|withheld|replaced|former|formerly|once|believed|supposedly|outside|far|error|"
    r"spelling|equal|same|see|as well|one of|some|most|many)\b"
)
# gold is what something else is not, or lies by, or is told from
APART = re.compile(
    r"\b(?:from|outside|beyond|past|off|than|like|against|behind|opposite|suburbs? of|"
    r"(?:close|next|second|similar|compared|opposed) to)(?: the)?\s+@"
)
SAID_OF_GOLD = re.compile(r"^\W*@\s+(?:is|was|are|were)\b")
LEAST_LETTERS = 4  # of a word of the question that a sentence about gold must take up
SIMILAR = re.compile(
    r"\b(something like|similar to|akin to|(?:another|different|other) question)\b"
)
# a plain word: in lower case, not a second answer in a list or after "and"
SENTENCE_WORD = re.compile(r"(?<![,;/&|+>] )(?<!\band )(?<!@ )\b[a-z]+\b(?! @ ?,)(?!,)")
# what may join an answer of another kind to the gold answer
JOINTS = frozenset({"and", "or", "also", "the", "then"})
# between the items of a list; the second where there are two items only
LIST_SEPARATOR = re.compile(
    r"\s*(?:[,;/|&+>•·、，；\n]|\s[-–—]\s|\)\s*\(|\b(?:and|or|also|then|as well as|y|et|und)\b)\s*"
)
PAIR_SEPARATOR = re.compile(r"[;/|&+>•·、，；\n]|\s[-–—]\s|\)\s*\(|\b(?:and|or|also|as well as)\b")
SHARES = re.compile(r"\d ?%\s.*\d ?%\s")
LIST_LABEL = re.compile(r"(?<!\w)(?:(?:[A-Ha-h]|\d{1,2})[:.)]|\d{1,3} ?%)\s+")
LIST_WORD = re.compile(
    r"^(?:the )?(?:candidates|options|answers|possibilities|choices)(?: are| include|:)? "
    r"|^(?:i hope|let me|hope|thanks?|please)\b.*$",
    re.I,
)
MONTH_AND_DAY = r"(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12]\d|3[01]))?"  # "1914-18" are years
IN_A_DATE = frozenset([*MONTHS, *(month[:3] for month in MONTHS), "sept", "ad", "ce", "c", "ca"])
DATED = re.compile(r"\d{4}-\d\d|^--\d\d")
DAY = re.compile(r"--\d\d(-\d\d)?")


def explain_statement(
    text: str, answers: list[str], question: str = "", rivals: Candidates | None = None
) -> tuple[bool, str]:
    """(whether the text states a gold answer and no other, why): one word or two for people."""
    if any(same(text, answer) for answer in answers):
        name = normalise(text)
        if rivals and name in rivals.ambiguous and name in rivals.owner:
            return False, "ambiguous name"
        return True, "stated"
    whole = unwrap(text, question)
    text = said_last(whole)
    if not text:
        return False, "corrected"
    if any(same(text, answer) for answer in answers) or is_short_name(text, answers, question):
        return True, "stated"
    if "?" in text.rstrip("?!. )\"'") or text.endswith("?"):
        return False, "a question"

    if rivals is not None:
        text = of_the_whole(text, answers, question, rivals)
    masked, count = mask(text, answers)
    if not count:
        taken_back = text != whole and mask(whole, answers)[1]
        return False, "corrected" if taken_back else "not stated"
    numeric = all(normalise(answer).isdigit() for answer in answers)
    head, cut = head_clause(masked, question, rivals is None, numeric)
    if GOLD not in head or is_told_apart(masked, question):
        return False, "only mentioned"
    plain = lowered(head)
    if FIRST_GUESS.search(head):
        return False, "corrected"
    if DENIED.search(plain):
        return False, "denied"
    if HEDGED.search(plain) or any(map(is_doubt, cut)):
        return False, "hedged"
    year = any(re.fullmatch(r"\d{3,4}", answer) for answer in answers)
    if _extended(head, question, IN_A_DATE if year else frozenset()):
        return False, "another name"
    if rivals is not None:
        if SIMILAR.search(plain):
            return False, "only mentioned"
        if is_listed(text, answers, question):
            return False, "a list"
        other = _rival(text, head, cut, answers, question, rivals)
        return (False, f"another candidate: {other}") if other else (True, "stated")
    words = [w for w in _unexplained(head, question, answers) if not (year and w in IN_A_DATE)]
    return (False, "another word: " + words[0]) if words else (True, "stated")


def is_listed(text: str, answers: list[str], question: str = "") -> bool:
    """Whether the text is a list of short items, one of them a gold answer.

    Three items in any separator, or two that no single answer is written with: "Paris, France" may
    be one, "Paris / Lyon" is not. What the question names is no item.
    """
    text = unwrap(text, question)
    masked, count = mask(LIST_LABEL.sub("", text), answers)
    if not count:
        return False
    items = [LIST_WORD.sub("", item).strip(" .()'\"") for item in LIST_SEPARATOR.split(masked)]
    items = [item for item in items if item and not holds(question, item)]
    if GOLD not in items or any(len(item.split()) > 4 for item in items):
        return False
    return len(items) > 2 or (
        len(items) == 2 and bool(PAIR_SEPARATOR.search(masked) or SHARES.search(text))
    )


def mask(text: str, answers: list[str]) -> tuple[str, int]:
    """(the text with GOLD for every gold answer in it, how many there were)."""
    text = text.replace(GOLD, " ")
    count, plain = 0, f" {normalise(text)} "
    valued = any(map(has_value, answers))
    for answer in sorted(answers, key=len, reverse=True):
        name = normalise(answer)
        if len(name) > 2 and f" {name} " not in plain and not valued:
            continue
        pattern = _pattern(answer)
        if pattern:
            text, hits = pattern.subn(f" {GOLD} ", text)
            count += hits
    if count or not (valued or any(f" {normalise(answer)} " in plain for answer in answers)):
        return text, count
    return _mask_values(text, answers)


def _mask_values(text: str, answers: list[str]) -> tuple[str, int]:
    """The same in normal form: dates, numbers in words, accents, and finer dates of a gold year."""
    form = f" {value_form(text)} "
    for answer in sorted(map(value_form, answers), key=len, reverse=True):
        if len(answer) < 2 and not answer.isdigit():
            continue
        form, hits = re.subn(rf"(?<= ){re.escape(answer)}(?= )", GOLD, form)
        if not hits and re.fullmatch(r"\d{4}", answer):
            form, hits = re.subn(rf"(?<= ){answer}-{MONTH_AND_DAY}(?= )", GOLD, form)
        if hits:
            return form.strip(), hits
    return text, 0


@lru_cache(maxsize=1 << 16)
def _pattern(answer: str) -> re.Pattern | None:
    """How an answer stands in a text: as it is written, or with folded spelling when it is longer.

    A domain, and an answer of one or two letters, must be written as such, and the latter not as a
    sentence's first word.
    """
    answer = answer.strip()
    if answer.startswith("."):
        return re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)", re.IGNORECASE)
    plain = normalise(answer)
    if len(plain) <= 2 and plain.isalpha() and plain.isascii():
        dotted = r"\.?".join(map(re.escape, answer.replace(".", "")))
        return re.compile(rf"(?<=[\s(])(?<!^){dotted}(?![\w+#])")
    bare = answer.strip(" .!?,;:")
    parts = [bare] if any(c.isdigit() for c in bare) else re.split(r"[\s\-/]+", bare)
    words = [re.escape(word) for word in parts if word]
    if not words:
        return None
    tail = r"(?![\w+#]|[.,]\d|-\w|/\w)" if answer[-1:].isalnum() else r"(?!\w)"
    return re.compile(r"(?<![\w.\-−/£$€])" + r"[\s\-/]+".join(words) + tail, re.IGNORECASE)


def _extended(head: str, question: str, harmless: frozenset[str]) -> bool:
    """Whether a neighbour makes another name of the gold answer: "West @", "@ Minor", "@ 96".

    harmless: words beside those of the question that do not.
    """
    question_words = set(normalise(question).split()) | harmless
    for match in re.finditer(r"(?:(\S+)\s+)?@(?:\s+(\S+))?", head):
        before, after = match[1] or "", match[2] or ""
        word = normalise(before)
        if before.endswith(("-", "/")) or after.startswith(("-", "/", "+", "#")):
            return True
        if word in NAME_MAKERS and not (before.endswith(",") and word in SIDE_NAMES):
            return True
        first = match.start() == 0 or head[: match.start()].rstrip().endswith((".", ":"))
        if _is_name(before) and not first and word not in question_words and word not in FILLER:
            return True
        if (
            _is_name(before)
            and first
            and word not in question_words | FILLER
            and not before.endswith((",", ":", "."))
        ):
            return True
        if _is_name(after) and normalise(after) not in question_words | FILLER:
            return True
        if after.startswith(("'s", "’s")):
            return True
    return False


def _is_name(word: str) -> bool:
    bare = word.strip("\"'“”‘’")
    return (
        bool(bare)
        and (bare[0].isupper() or bare[0].isdigit())
        and not bare.endswith((",", ";", ":"))
    )


def _rival(
    text: str, head: str, cut: list[str], answers, question: str, rivals: Candidates
) -> str | None:
    """A candidate other than gold that a text names in its head, or offers in what was cut off it.

    None without one.
    """
    golds = {normalise(answer) for answer in answers}
    own = rivals.owners(golds - rivals.ambiguous)
    about = f" {normalise(question)} "
    named = [name for _, _, name in rivals.mentions(_of_the_world(head, rivals))]
    for part in cut:
        named += _offered(_of_the_world(part, rivals), question, rivals)
    for name in named:
        if name not in golds and not rivals.owner[name] & own and f" {name} " not in about:
            return name
    # an answer of another kind right in front of the gold answer: a list over several relations;
    # behind it may stand the wider place, as in "Paris, France"
    if rivals.elsewhere:
        name = _neighbour(head.split(GOLD)[0], golds, rivals.elsewhere)
        if name and not rivals.elsewhere.named_in(question, name):
            return name
    # a longer candidate that holds the gold answer: South Korea, Democratic Republic of the Congo
    for _, _, name in rivals.mentions(text):
        longer = any(f" {gold} " in f" {name} " for gold in golds) and name not in golds
        if longer and not rivals.owner[name] & own:
            return name
    return None


def _of_the_world(part: str, rivals: Candidates) -> str:
    """A part without gold and, where it is no answer, "South America", which names no country."""
    part = part.replace(GOLD, " | ")
    return part if "south america" in rivals.owner else AMERICAS.sub(" ", part)


def _offered(piece: str, question: str, rivals: Candidates) -> list[str]:
    """The candidates that a bracket, a remark or a later sentence offers as the answer.

    Nothing but plain words before it, or words that say where the subject lies ("a fine city in
    Italy"). One that is only mentioned is none: a neighbour, a former one, "where Italy plays",
    "references to Italy", "the capital of Italy is Rome".
    """
    words, offered = normalise(piece).split(), []
    plain = FILLER | OFFERING | set(normalise(question).split())
    for start, end, name in rivals.mentions(piece):
        before, after = " ".join(words[:start]), words[end:]
        elsewhere = after[:1] in (["is"], ["was"]) and not set(after[1:3]) <= plain
        lies = LYING.search(before)
        names = set(" ".join(offered).split())
        elsewhere = (elsewhere and not lies) or "".join(after[:1]).startswith("border")
        if BESIDE.search(before) or words[:start][-1:] == ["where"] or elsewhere:
            continue
        if lies or set(words[:start]) <= plain | names:
            offered.append(name)
    return offered


def _neighbour(before: str, golds: set[str], elsewhere: Candidates) -> str | None:
    """The answer of another kind that ends `before`, joined to what follows; None without one.

    A narrower place before its wider one is no second answer ("Texas, USA").
    """
    mentions = elsewhere.mentions(before)
    if not mentions:
        return None
    _, end, name = mentions[-1]
    between = set(normalise(before).split()[end:])
    same_answer = name in golds or elsewhere.owner[name] & elsewhere.owners(golds)
    if not between <= JOINTS or same_answer or golds & elsewhere.wider.get(name, set()):
        return None
    return name


def _unexplained(head: str, question: str, answers: list[str]) -> list[str]:
    """Words beside the gold answer that are neither function words nor in the question.

    The day of a gold year explains itself, unless a gold answer names another day.
    """
    days = {value_form(answer)[4:] for answer in answers if DATED.search(value_form(answer))}
    if not question:  # what is said of the subject before "is" is taken for a part of the question
        head = SUBJECT.sub("", head)
    known = [*normalise(question).split(), *value_form(question).split()]
    stems = {_stem(word) for word in [*known, *map(spelt_word, known)]}
    if _is_sentence(head, question):
        head = SENTENCE_WORD.sub(" ", head)
    words = value_form(head.replace(GOLD, " ")).split()
    return [
        word
        for word in words
        if word not in FILLER
        and _stem(word) not in stems
        and any(c.isalnum() for c in word)
        and not (DAY.fullmatch(word) and (not days or word[1:] in days))
    ]


def _is_sentence(head: str, question: str) -> bool:
    """Whether a gold answer is said of something in a whole sentence, where plain words explain it.

    It follows a verb, or begins a sentence that takes up the question; words that mention rather
    than state are not plain.
    """
    plain = lowered(head)
    if not SENTENCE.search(head) or MENTIONS.search(plain) or APART.search(plain):
        return False
    asked = {_stem(word) for word in normalise(question).split() if len(word) >= LEAST_LETTERS}
    return not SAID_OF_GOLD.match(head) or not asked.isdisjoint(map(_stem, normalise(head).split()))


def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) > 3:
            return word[: -len(ending)]
    return word
