"""Extraction: one answer out of a long text, standing in it to the letter, never two."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.judge import extraction
from lib.judge.extraction import EXTRACTIONS, extract
from lib.judge.rules import explain

# an answer without markup: letters, digits and a few marks inside, no word of a form
ANSWERS = (
    st.text("ABcdéßŁ東19 ,'&-", min_size=1, max_size=30)
    .map(lambda text: text.strip(" ,'&-"))
    .filter(bool)
)
WRAPPED = [
    "\\boxed{%s}",
    "Thus $\\boxed{\\text{%s}}$.",
    "Long reasoning about Lyon.\n\n\\[\\boxed{ %s }\\]",
    "<answer>%s</answer>",
    "Lyon is large. <answer>\n%s\n</answer>",
    "It is <answer>%s",
    "**Answer:** %s",
    "**Answer**: %s",
    "Answer: **%s**",
    "Lyon, perhaps?\nFinal answer: %s",
    "Hmm. Answer: %s",
    "**Final Answer**\n\n%s",
    "### Final answer\n%s",
    "Lyon is in France.\n\nSo the answer is %s.",
    "Therefore, the correct answer is: %s",
    "The answer is **%s**.",
    "Final answer: \\boxed{%s}",
    "<answer>Final answer: %s</answer>",
    '{"answer": "%s"}',
    '```json\n{"reasoning": "Lyon?", "answer": "%s"}\n```',
    "Answer: %s\n## Explanation\nLyon is not.",
]
AROUND = [
    "%s",
    "<think>Is it Lyon? The answer is Lyon.</think>\n\n%s",
    "hidden thoughts, \\boxed{Lyon}\n</think>%s",
    "%s<|im_end|>\n<|im_start|>user\nThe answer is Lyon.",
    "%s\nUser: Sure?\nAssistant: The answer is Lyon.",
    "<|im_start|>assistant\n%s<|im_end|>",
    "<|channel|>analysis<|message|>Lyon?<|end|><|start|>assistant<|channel|>final<|message|>"
    "%s<|return|>",
    "<reasoning>Lyon?</reasoning>%s",
    "[THINK]Lyon?[/THINK]%s",
    "%s<｜end▁of▁sentence｜>",
    "%s\n\n### Instruction:\nThe answer is Lyon.",
]
PIECES = [
    "<think>", "</think>", "\\boxed{", "}", "{", "<answer>", "</answer>", "Answer:", "**", "*",
    "\n", "\n\n", "the answer is ", "So ", "Paris", "London", " or ", ". ", "</s>", "<|im_end|>",
    "\nUser:", "\nQ:", "$", '"', "Wait, ", "\\text{", "Explanation:", " ", "<|im_start|>assistant",
    "analysisWe", "assistantfinal", '{"answer": ', '"', "\n## Reasoning\n", "[THINK]",
    "Confidence: 95%",
]  # fmt: skip
PILES = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@settings(deadline=None)  # a busy machine is no failure
@given(ANSWERS, st.sampled_from(WRAPPED), st.sampled_from(AROUND))
def test_an_answer_comes_out_of_each_form_as_it_went_in(answer, form, around):
    assert extract(around % form % answer).text == answer


@settings(deadline=None)  # a busy machine is no failure
@given(ANSWERS, st.sampled_from(AROUND))
def test_an_answer_without_a_form_is_the_whole_text(answer, around):
    taken = extract(around % answer)
    assert taken.text == answer
    assert taken.form.endswith("whole text")


@settings(deadline=None)  # a busy machine is no failure
@given(st.one_of(PILES, st.text(max_size=60)), st.sampled_from(EXTRACTIONS))
def test_what_is_taken_out_stands_in_the_text(text, extraction):
    assert extract(text, extraction).text in text


@settings(deadline=None)  # a busy machine is no failure
@given(st.one_of(PILES, st.text(max_size=60)), st.sampled_from(["auto", "text", "none"]))
def test_taking_out_twice_is_taking_out_once(text, extraction):
    once = extract(text, extraction).text
    assert extract(once, extraction).text == once


@pytest.mark.parametrize(
    ("text", "answer", "form"),
    [
        ("Paris", "Paris", "whole text"),
        ("  ", "", "blank"),
        ("<think>Paris, or Lyon", "", "unfinished thoughts"),
        ("<think>Paris</think> ", "", "past thoughts > blank"),
        ("Paris <think>or", "", "unfinished thoughts"),
        ("I say \\boxed{Par", "", "unfinished box"),
        ("\\boxed{Paris} or \\boxed{Lyon}", "Lyon", "boxed, last of several"),
        ("\\boxed{Paris}, so \\boxed{Paris}", "Paris", "boxed"),
        ("<answer>Paris</answer><answer>Lyon</answer>", "Lyon", "tag, last of several"),
        ("\\boxed{Paris}\n\nFinal answer: Lyon", "Lyon", "label"),
        ("Answer: Lyon\n\n\\boxed{Paris}", "Paris", "boxed"),
        ("In \\boxed{}: \\boxed{Paris}", "Paris", "boxed"),
        ("\\boxed{a {b} c}", "a {b} c", "boxed"),
        ("Paris</s>", "Paris", "first turn > whole text"),
        ("Paris\n\nQ: And Spain?\nA: Madrid", "Paris", "first turn > whole text"),
        ("The answer is not Paris.", "The answer is not Paris.", "whole text"),
        ("It is Paris. The answer is clear.", "It is Paris. The answer is clear.", "whole text"),
        ("Answer: Paris\nExplanation: as said", "Paris", "label"),
        ("So the answer is Washington D.C.", "Washington D.C.", "sentence"),
        ("Answer: M*A*S*H", "M*A*S*H", "label"),
        ('Answer: "Heroes"', "Heroes", "label"),
        ("analysisIs it Lyon?assistantfinalParis", "Paris", "past thoughts > whole text"),
        ("analysisIs it Lyon? It", "", "unfinished thoughts"),
        ("[THINK]Is it Paris", "", "unfinished thoughts"),
        ("<｜Assistant｜>Paris", "Paris", "first turn > whole text"),
        ("Paris\nQuestion 2: Spain?\nAnswer: Madrid", "Paris", "first turn > whole text"),
        ("Paris\nConfidence: 95%", "Paris", "before notes > whole text"),
        ("Paris\n\nExplanation: not Lyon", "Paris", "before notes > whole text"),
        ("Paris\n\nNote: actually, Lyon", "Paris\n\nNote: actually, Lyon", "whole text"),
        ("Lyon?\nNo.\nReason: it is", "Lyon?\nNo.\nReason: it is", "whole text"),
        ('{"answer": 12, "unit": "km"}', "12", "tag"),
        ('{"answer": "Paris"}{"answer": "Lyon"}', "Lyon", "tag, last of several"),
        ("\\boxed{\\textrm{Paris}}", "Paris", "boxed"),
    ],
)
def test_by_hand(text, answer, form):
    assert extract(text) == (answer, form)


@pytest.mark.parametrize(
    ("extraction", "answer", "form"),
    [
        ("none", "<think>x</think>Answer: A\n<answer>B</answer> \\boxed{C}</s>", "whole text"),
        (
            "text",
            "Answer: A\n<answer>B</answer> \\boxed{C}",
            "past thoughts > first turn > whole text",
        ),
        ("boxed", "C", "past thoughts > first turn > boxed"),
        ("tag", "B", "past thoughts > first turn > tag"),
        ("label", "A\n<answer>B", "past thoughts > first turn > label"),
        ("sentence", "", "past thoughts > first turn > nothing"),
    ],
)
def test_a_single_form_is_taken_alone(extraction, answer, form):
    text = "<think>x</think>Answer: A\n<answer>B</answer> \\boxed{C}</s>"
    assert extract(text, extraction) == (answer, form)


@pytest.mark.parametrize(
    "text",
    [
        "The answer is Paris or London.",
        "Answer: Paris\nor London",
        "Answer: Paris\n\nor London",
        "Answer: Paris\n\nWait, actually London.",
        "\\boxed{Paris or London}",
        "<answer>Paris, London, Berlin</answer>",
        "\\boxed{Paris} no, \\boxed{London}",
        "Final answer: Paris\nFinal answer: London",
        "Paris\nor London\nConfidence: 95%",
        "Paris\n\nNote: wait, it is London",
        "analysisParisassistantfinalLondon",
        '{"answer": "Paris or London"}',
        '{"answer": "London", "other": "Paris"}',
    ],
)
def test_two_answers_are_never_one(text):
    assert not explain(extract(text).text, ["Paris"], "alias", "What is the capital of France?")[0]


def test_an_unknown_extraction_names_the_known_ones():
    with pytest.raises(ValueError, match="allowed: none, auto, text, boxed"):
        extract("Paris", "regex")


class Counted:
    """A pattern that counts the characters that it looks at."""

    def __init__(self, pattern, seen: list[int]):
        self.pattern, self.seen = pattern, seen

    def search(self, text, start=0):
        found = self.pattern.search(text, start)
        self.seen.append((found.start() if found else len(text)) - start + 1)
        return found

    def finditer(self, text):
        self.seen.append(len(text))
        return self.pattern.finditer(text)


@pytest.mark.parametrize(
    ("piece", "answer", "form"),
    [
        ("So the answer is Paris. ", "Paris", "sentence, last of several"),
        ("The answer is Paris.\n", "Paris", "sentence, last of several"),
        ("Answer: Paris\n", "Paris", "label, last of several"),
        ("Answer: Paris\n\n", "Paris", "label"),
        ("Answer: Paris\n\nWait, no\n", "Paris\n\nWait, no", "label, last of several"),
        ("\\boxed{Paris} ", "Paris", "boxed"),
        ('{"answer": "Paris"} ', "Paris", "tag"),
        ("<answer>Paris</answer>\n", "Paris", "tag"),
    ],
)
def test_a_text_that_repeats_itself_is_looked_at_a_few_times(piece, answer, form, monkeypatch):
    seen, trim = [], extraction._trim
    monkeypatch.setattr(extraction, "_trim", lambda text: (seen.append(len(text)), trim(text))[1])
    for name in ("PASSAGE_END", "CORRECTED"):
        monkeypatch.setattr(extraction, name, Counted(getattr(extraction, name), seen))
    for times in (100, 1000):
        seen.clear()
        text = piece * times
        taken = extract(text)
        assert taken == (answer, form)
        assert sum(seen) < 8 * len(text)


@pytest.mark.parametrize(
    "loop", ["Answer: ", "The answer is ", "\\boxed{", "Answer: The answer is "]
)
def test_a_loop_of_forms_is_given_up(loop, monkeypatch):
    """Each round searches the text once: their number, not the clock, says that it ends soon."""
    rounds = []
    last = extraction._last_form
    monkeypatch.setattr(extraction, "_last_form", lambda *a: rounds.append(1) or last(*a))
    extraction.extract(loop * 500 + "Paris" + "}" * 500)
    assert len(rounds) <= extraction.ROUNDS
    assert extraction.extract("Answer: **The answer is \\boxed{Paris}.**").text == "Paris"
