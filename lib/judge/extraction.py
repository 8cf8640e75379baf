"""The answer that a long text commits itself to, taken out by its form: one answer, never two.

Models answer in forms: \\boxed{Paris}, <answer>Paris</answer>, "**Answer:** Paris", "So the answer
is Paris.", after thoughts, before turns that nobody asked for. What is taken out stands in the text
to the letter, and of several forms the last one counts. Sees no question and no gold answer.
"""

import re
from typing import NamedTuple

from lib.judge.wrapping import CORRECTED, GOES_ON, LATEX

FORMS = ("boxed", "tag", "label", "sentence")
EXTRACTIONS = ("none", "auto", "text", *FORMS)
WHOLE, NOTHING, BLANK = "whole text", "nothing", "blank"
FIRST_TURN, PAST_THOUGHTS, BEFORE_NOTES = "first turn", "past thoughts", "before notes"
UNFINISHED = ("unfinished thoughts", "unfinished box")  # the limit cut them: no answer

# the last of each is gpt-oss' where its tokens were dropped
THOUGHTS = re.compile(
    r"<(?:think(?:ing)?|thoughts?|reasoning)>|\[THINK\]|<\|channel\|>analysis<\|message\|>"
    r"|\A(?-i:analysis(?=[A-Z]))",
    re.I,
)
THOUGHTS_END = re.compile(
    r"</(?:think(?:ing)?|thoughts?|reasoning)>|\[/THINK\]|<\|channel\|>final<\|message\|>"
    r"|(?<=\S)(?-i:assistantfinal(?=[^a-z\s]))",
    re.I,
)
# what a chat template writes before an answer, and what ends a turn or begins another one
TURN_BEGINS = re.compile(
    r"\s*(?:<s>|<bos>|<\|begin_of_text\|>|<\|im_start\|>assistant\b|<\|assistant\|>"
    r"|<start_of_turn>model\b|<\|start_header_id\|>assistant<\|end_header_id\|>"
    r"|<\|start\|>assistant(?=<\|channel\|>)|<｜(?:begin▁of▁sentence|Assistant)｜>)\s*",
    re.I,
)
TURN = re.compile(
    r"<｜[^｜]{1,30}｜>"
    r"|<\|(?:im_end|im_start|eot_id|eom_id|start_header_id|endoftext|end_of_text|end|return|user"
    r"|assistant|system)\|>|</s>|<eos>|<end_of_turn>|<start_of_turn>|\[/?INST\]"
    r"|\n[ \t]*(?:\#{1,6}[ ]*|\*\*)?(?:user|human|assistant|system|question|q|instruction|input)"
    r"(?:[ ]\d{1,3})?(?:\*\*)?[ ]*:",
    re.I,
)
BRACE = re.compile(r"\\(?:f?boxed|fbox)\s*\{|[{}]")
TAG = re.compile(r"<(answer|final_answer)>(.*?)(?:</\1>|(?=<\1>)|\Z)", re.I | re.S)
# {"answer": "Paris"}
FIELD = re.compile(
    r"\{[^{}]*?\"(?:final_|short_)?answer\"\s*:\s*(?:\"([^\"\\\n]*)\"|(-?\d[\d.,]*?))(?=\s*[,}])",
    re.I,
)
MARK = r"[*_`#>]"
THE_ANSWER = (
    r"(?:the[ ]|my[ ])?(?:(?:final|correct|short|best|exact|most[ ]likely)[ ]){0,2}answer"
    r"(?:[ ]to[ ](?:the|this|your)[ ]question)?"
)
START = r"(?:^[ \t]*|(?<=[.!?;])[ ]+)"
# "Final answer: Paris" at the beginning of a line or sentence, and a heading with a line of its own
LABELLED = re.compile(
    rf"{START}{MARK}*[ ]*{THE_ANSWER}[ ]*"
    rf"(?:{MARK}*[ ]*:(?:\*\*|__|\*|_)?|{MARK}+[ ]*\n|(?<=answer)[ ]*\n)\s*",
    re.I | re.M,
)
LEAD = (
    r"(?:(?:so|therefore|thus|hence|finally|in[ ]conclusion|in[ ]summary|in[ ]short|overall|and"
    r"|then)[ ]*,?[ ]+){0,2}"
)
# "So the answer is Paris.", but not "The answer is clear."
SAID = re.compile(
    rf"{START}(?:\*\*)?{LEAD}{THE_ANSWER}[ ](?:is|was|would[ ]be|should[ ]be"
    rf"|must[ ]be)(?![ ](?:not|no|clear|obvious|simple|easy|well|known|unknown|uncertain|unclear"
    rf"|as[ ]follows|below|above|given|found|in[ ]the)\b)(?:[ ](?:that|therefore|thus|indeed))?"
    rf"[ ]*:?\s*",
    re.I | re.M,
)
# where the passage that begins with an answer ends: a blank line, a remark with a label, a tag
NOTE = (
    r"\n[ \t]*(?:{mark}*(?:explanation|reasoning|reason|rationale|justification|confidence|sources?"
    r"|notes?){mark}*[ ]*(?:\([^()\n]*\)[ ]*)?:|\#+[ ]*(?:explanation|reasoning|rationale|sources?"
    r"|notes?)[ \t]*\n)"
).replace("{mark}", MARK)
PASSAGE_END = re.compile(rf"\n[ \t]*\n|</(?:final_)?answer>|{NOTE}", re.I)
NOTES = re.compile(NOTE, re.I)
ROUNDS = 32  # forms inside forms; a text with more is a loop and no answer
LONGEST_BEFORE_NOTES = 100  # characters of an answer that has no form of its own
WRAPPERS = ("**", "__", "*", "_", "`", "$", '"', "'")
OPEN_WRAPPERS = (("“", "”"), ("„", "“"), ("«", "»"), (r"\(", r"\)"), (r"\[", r"\]"))
# a sentence's, not that of initials ("D.C.")
FULL_STOP = re.compile(r"(?<!\.[^\W\d_])(?<!\.[ ][^\W\d_])(?<!\.)\.$")


class Extraction(NamedTuple):
    """An answer taken out of a text: "" where there is none, and how, outermost form first."""

    text: str
    form: str


class Span(NamedTuple):
    """Where a form ends, and where its content begins and stops; a cut one never stops."""

    end: int
    start: int
    stop: int | None


def extract(text: str, extraction: str = "auto") -> Extraction:
    """The answer of a text: what the last form holds, or the text without thoughts and turns.

    extraction: `none` leaves the text as it is; `text` drops thoughts and turns; `auto` takes the
    last of FORMS, and where there is none the whole text without an explanation with a label; one
    of FORMS takes that one alone. Raises ValueError for another one.
    """
    if extraction not in EXTRACTIONS:
        raise ValueError(f"unknown extraction {extraction!r}; allowed: {', '.join(EXTRACTIONS)}")
    if extraction == "none":
        return Extraction(text, WHOLE)

    forms = {"auto": FORMS, "text": ()}.get(extraction, (extraction,))
    steps, inside = [], text.strip()
    notes = _before_notes if extraction == "auto" else lambda text: None
    while (
        inside
        and len(steps) < ROUNDS
        and (taken := _without_turns(inside) or _last_form(inside, forms) or notes(inside))
    ):
        steps.append(taken.form)
        inside = taken.text

    if not steps or steps[-1] not in UNFINISHED:
        if not inside:
            steps.append(BLANK)
        elif not any(step.startswith(FORMS) for step in steps):
            steps.append(NOTHING if extraction in FORMS else WHOLE)
    return Extraction("" if steps[-1:] == [NOTHING] else inside, " > ".join(dict.fromkeys(steps)))


def _without_turns(text: str) -> Extraction | None:
    """The text without its first thoughts, or before another turn; None where it has neither."""
    begins = TURN_BEGINS.match(text)
    if begins:
        return Extraction(text[begins.end() :].strip(), FIRST_TURN)
    turn = next((m.start() for m in TURN.finditer(text) if text[: m.start()].strip()), len(text))
    thoughts, end = THOUGHTS.search(text), THOUGHTS_END.search(text)
    began = thoughts.start() if thoughts else len(text)

    # an end without a beginning: the template began the thoughts, which may hold turns
    if end and (end.start() < began or began < turn):
        return Extraction(text[end.end() :].strip(), PAST_THOUGHTS)
    if began < turn:
        return Extraction("", UNFINISHED[0])
    return Extraction(text[:turn].strip(), FIRST_TURN) if turn < len(text) else None


def _last_form(text: str, forms: tuple[str, ...]) -> Extraction | None:
    """What the form that ends last holds, of `forms`; None where there is none.

    Looks from the end on, and no further than it needs to: a text that repeats itself has thousands
    of sentences that go on to its end.
    """
    found = [(span, form) for form in forms for span in SPANS[form](text)]
    content, last = "", None
    for span, form in sorted(found, reverse=True):
        if last is None and span.stop is None:
            return Extraction("", UNFINISHED[1])
        if span.stop is None or (last and form != last):
            continue
        held = _held(text, span)
        if last is None and held:
            content, last = held, form
        elif held and held != content:
            return Extraction(content, f"{last}, last of several")
    return Extraction(content, last) if last else None


def _before_notes(text: str) -> Extraction | None:
    """The one short line in front of an explanation with a label; None where it is taken back."""
    note = NOTES.search(text)
    line = text[: note.start()].strip() if note else ""
    if not line or "\n" in line or len(line) > LONGEST_BEFORE_NOTES or CORRECTED.search(text):
        return None
    return Extraction(line, BEFORE_NOTES)


def _held(text: str, span: Span) -> str:
    return _trim(text[span.start : span.stop])


def _boxes(text: str) -> list[Span]:
    """The contents of LaTeX boxes with balanced braces; one that is cut has no stop."""
    spans, opened = [], []
    for brace in BRACE.finditer(text):
        if brace[0] != "}":
            opened.append(brace.end() if brace[0] != "{" else None)
            continue
        start = opened.pop() if opened else None
        if start is not None:
            spans.append(Span(brace.end(), start, brace.start()))
    return spans + [Span(len(text), start, None) for start in opened if start is not None]


def _tags(text: str) -> list[Span]:
    """The contents of answer tags and of the field `answer` of a JSON object.

    A tag without its end, which a stop word cuts, goes to the end.
    """
    fields = [Span(m.end(), *m.span(m.lastindex)) for m in FIELD.finditer(text)]
    return fields + [Span(m.end(), *m.span(2)) for m in TAG.finditer(text)]


def _labels(text: str) -> list[Span]:
    return _passages(text, LABELLED)


def _sentences(text: str) -> list[Span]:
    return _passages(text, SAID)


def _passages(text: str, begins: re.Pattern) -> list[Span]:
    """From each match to the end of the passage, and of the text where it goes on or takes back.

    So "Answer: Paris", a blank line, and "or Lyon" or "Wait, it is Lyon" are read as one. Each part
    of the text is searched once.
    """
    starts = [match.end() for match in begins.finditer(text)]
    if not starts:
        return []
    corrected = max((match.start() for match in CORRECTED.finditer(text)), default=-1)
    spans, end, past = [], None, -1
    for start in starts:
        if start > past:
            end = PASSAGE_END.search(text, start)
            past = end.start() if end else len(text)
        stop = past
        tag_closes = end is not None and end[0].startswith("</")
        if not tag_closes and (corrected >= stop or GOES_ON.match(text, stop)):
            stop = len(text)
        spans.append(Span(stop, start, stop))
    return spans


SPANS = {"boxed": _boxes, "tag": _tags, "label": _labels, "sentence": _sentences}


def _trim(text: str) -> str:
    """A form's content without the marks around the whole of it and without its full stop."""
    while True:
        bare = text.strip()
        bare = FULL_STOP.sub("", bare)
        for opening, closing in (*zip(WRAPPERS, WRAPPERS, strict=True), *OPEN_WRAPPERS):
            inner = bare[len(opening) : len(bare) - len(closing)]
            wrapped = bare.startswith(opening) and bare.endswith(closing) and inner.strip()
            if wrapped and opening not in inner and closing not in inner:
                bare = inner
        latex = LATEX.fullmatch(bare)
        bare = latex[1] if latex else bare
        if bare == text:
            return text
        text = bare
