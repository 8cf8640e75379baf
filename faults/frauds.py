"""Faults of judges: no verdict, answers that seek one, refused aliases, failing judges."""

import json

import numpy as np

from faults.staging import believer, case_of, judged, row, scripted_server
from lib.config import Judge, load_profile
from lib.judge.attacks import attack_cases
from lib.judge.model import JudgeFailed, ask_judge, canonical, verdict
from lib.judge.rules import clean, judge_answer, precheck
from lib.questions.sources import read_benchmark
from lib.text import normalise
from tests.loopback import completion

SHAPES = {
    "not JSON": (200, {}, b"<html>busy</html>"),
    "null": (200, {}, b"null"),
    "a list": (200, {}, b"[]"),
    "no body": (200, {}, b""),
    "no choices": (200, {}, {"choices": []}),
    "an error as 200": (200, {}, {"error": "x"}),
    "no content": (200, {}, {"choices": [{"message": {"content": None}}]}),
    "a number": (200, {}, {"choices": [{"message": {"content": 1.0}}]}),
    "filtered": (
        200,
        {},
        {"choices": [{"message": {"content": "1.0"}, "finish_reason": "content_filter"}]},
    ),
    "cut JSON": (200, {}, json.dumps(completion("1.0")).encode()[:-9]),
    "a blank": "  ",
    **{
        text: text
        for text in (
            "1",
            "1.00",
            "1.0.",
            "10",
            "0.5",
            "1.0 0.0",
            "Verdict: 1.0",
            "yes",
            "correct",
            "true",
            '{"verdict": 1.0}',
            "```1.0```",
        )
    },
    "prose": "The candidate states the gold answer, so 1.0",
}


def malformed_verdicts():
    """24 kinds of reply that are no verdict: each case fails, the sound case after it is judged."""

    def script(body, attempt):
        case = case_of(body)
        return "1.0" if case["candidate"] == "kigali" else SHAPES[case["question"]]

    questions = [question for kind in SHAPES for question in (kind, f"after {kind}")]
    texts = ["the Rwandan seat", "Kigali"] * len(SHAPES)
    with scripted_server(script, concurrency=1) as (_, folder, settings):
        verdicts, _ = judged(settings, folder, (questions, [["Kigali"]] * len(texts), texts))
    failed, believed = (sum(v == value for v in verdicts[::2]) for value in (None, 1.0))
    lost = sum(v != 1.0 for v in verdicts[1::2])
    return row(len(SHAPES), failed, lost, believed, ok=len(SHAPES) == 24 == failed and not lost)


def random_replies():
    """10,000 random strings as replies: none crashes, none is a verdict."""
    rng = np.random.default_rng(0)
    alphabet = [
        *'01.0 \n\t{}[]":`',
        "1.0",
        "true",
        "verdict",
        "\0",
        "\u200b",
        "é",
        "中",
        "\ud800",
        "💯",
    ]
    texts = [
        "".join(alphabet[i] for i in rng.integers(0, len(alphabet), n))
        for n in rng.integers(1, 30, 10_000)
    ]
    texts = [t if t.strip() not in ("1.0", "0.0") else "x" + t for t in texts]
    believed = sum(verdict(text) is not None for text in texts)

    class Replay:
        replies = iter(texts)

        def ask(self, batch, causes, **options):
            causes += [None] * len(batch)
            return [next(self.replies) for _ in batch]

    settings = Judge(kind="llm", model="m", max_failed=1.0)
    found = ask_judge(Replay(), settings, ["q"] * 5000, [["Kigali"]] * 5000, ["Kigali"] * 5000)
    return row(10_000, 10_000 - believed, false_positives=sum(v is not None for v in found))


def attacks():
    """Attack answers by category, before a judge that believes everything: share refused early."""
    from lib.questions.atlas import atlas

    cases = attack_cases(atlas(120, {}, None, 0))
    with scripted_server(believer) as (_, folder, settings):
        verdicts, judge = judged(
            settings, folder, [cases[c] for c in ("question", "answers", "text")]
        )
    cases = cases.assign(believed=[v == 1.0 for v in verdicts], wrong=[v == 0.0 for v in verdicts])
    cases["early"] = [
        not precheck(clean(t), a) for t, a in zip(cases["text"], cases["answers"], strict=True)
    ]
    cases["alias"] = [
        judge_answer(t, a, "alias") for t, a in zip(cases["text"], cases["answers"], strict=True)
    ]
    rows = {}
    for name, part in cases.groupby("category", sort=False):
        note = f"{part['attack'].nunique()} texts; {part['early'].sum()} refused without a call"
        note += (
            f"; the rule judge `alias` believes {part['alias'].sum()}"
            if part["alias"].any()
            else ""
        )
        rows[f"attack: {name}"] = row(
            len(part), part["wrong"].sum(), false_positives=part["believed"].sum(), note=note
        )
    sizes = cases["attack"].nunique(), cases["question"].nunique()
    total = row(
        len(cases),
        cases["wrong"].sum(),
        false_positives=cases["believed"].sum(),
        note=f"{sizes[0]} texts, {sizes[1]} questions; {judge.counts['fooled']} by control",
    )
    total["ok"] &= sizes[0] >= 100 and sizes[1] >= 50
    return {"attacks, all": total} | rows


def true_aliases():
    """True aliases as answers: judged by rules, and left out of gold before a truthful judge.

    From TriviaQA and PopQA where a mirror of the hub is given, else from atlas; n: answers, lost:
    refused.
    """
    mirror = load_profile("laptop").hub_mirror
    frames = (
        {name: read_benchmark(name, mirror) for name in ("triviaqa", "popqa")} if mirror else {}
    )
    if not frames:
        from lib.questions.atlas import atlas

        frames = {"atlas": atlas(None, {}, 2000, 0)}
    rows = {}
    for name, questions in frames.items():
        united = questions.groupby(questions["question"].map(normalise))[
            "answers"
        ].sum()  # one text, several subjects
        united = united.map(lambda a: [*dict.fromkeys(a)])
        every = [(a, x) for a in united for x in a]
        refused = sum(not judge_answer(x, a, "alias") for a, x in every)
        rows[f"true aliases of {name}, given"] = row(
            len(every), len(every) - refused, refused, ok=refused <= 0.02 * len(every)
        )
        rng, several = np.random.default_rng(0), united[united.map(len) > 1]
        some = several.iloc[rng.permutation(len(several))[:1000]]
        golds = {q: {canonical(clean(x)) for x in a} for q, a in some.items()}

        def truthful(body, attempt, golds=golds):
            case = case_of(body)
            shown = {canonical(clean(a)) for a in case["gold_answers"]}
            return "1.0" if {case["candidate"], *shown} <= golds[case["question"]] else "0.0"

        cases = [
            (q, [y for y in a if normalise(y) != normalise(x)], x)
            for q, a in some.items()
            for x in a[:3]
        ]
        cases = [case for case in cases if case[1]]
        with scripted_server(truthful, max_disputed=1.0) as (_, folder, settings):
            verdicts, judge = judged(settings, folder, list(zip(*cases, strict=True)))
        right = sum(v == 1.0 for v in verdicts)
        counts = judge.counts
        note = f"{counts['disputed']} disputed, {counts['fooled']} fooled"
        note += f", {counts['prechecked']} early"
        rows[f"true aliases of {name}, left out"] = row(
            len(verdicts), right, len(verdicts) - right, note=note, ok=right >= 0.98 * len(verdicts)
        )
    return rows


def failing_judge():
    """A judge without a verdict on 5, 20 or 100 % of the answers: masked or stopped, never 0."""
    rows, texts = {}, [f"answer {i:03d}" for i in range(400)]
    for share in (5, 20, 100):
        broken = set(texts[:: 100 // share])
        with scripted_server(
            lambda b, a, bad=broken: "I cannot tell" if case_of(b)["candidate"] in bad else "0.0",
            max_failed=0.05,
        ) as (_, folder, settings):
            try:
                verdicts, _ = judged(settings, folder, (["q"] * 400, [["Kigali"]] * 400, texts))
                masked = sum(v is None for v in verdicts)
                zeros = sum(
                    v is not None and t in broken for v, t in zip(verdicts, texts, strict=True)
                )
                rows[f"judge fails {share} %"] = row(
                    len(broken),
                    masked,
                    false_positives=zeros,
                    note="masked",
                    ok=share == 5 and masked == len(broken) and not zeros,
                )
            except JudgeFailed as stop:
                rows[f"judge fails {share} %"] = row(
                    len(broken), len(broken), ok=share > 5, note=f"stops: {stop}"[:90]
                )
    return rows


JUDGE_FAULTS = (malformed_verdicts, random_replies, attacks, true_aliases, failing_judge)
