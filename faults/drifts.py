"""Faults of data and numbers: drifted files, planted leaks, secrets, intervals and tests."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import pandas as pd

from faults.outages import cases_file, grade_command
from faults.staging import KEY, honest, row, scripted_server
from lib.config import ROOT, load_profile
from lib.dedup.candidates import PAIR, candidates
from lib.dedup.contained import judge_rule
from lib.questions import sources
from lib.questions.atlas import WORDINGS, all_facts
from lib.questions.splits import complete
from lib.runs import manifest
from tests import coverage as simulated
from tests.loopback import failure

COVERED, ALARMS = 400, 1000  # simulated experiments


def data_drifts():
    """Eight drifts of a benchmark's or user's file: each is refused, the sound files are read."""
    nq = pd.DataFrame(
        {"question": ["where is rome", "where is lima"], "answer": [["Italy"], ["Peru"]]}
    )
    trivia = pd.DataFrame(
        {"question": ["Where is Rome?"], "answer": [{"aliases": ["Italy"], "value": "Italy"}]}
    )
    pop = pd.DataFrame(
        {
            "question": ["Where is Rome?"],
            "possible_answers": ['["Italy"]'],
            "subj": ["Rome"],
            "prop": ["country"],
            "s_pop": [1],
        }
    )
    mine = pd.DataFrame(
        {"question_id": ["1", "2"], "question": ["x y", "z y"], "answers": ["a", "b"]}
    )
    sound = {"nq": nq, "triviaqa": trivia, "popqa": pop, "mine": mine}
    drifts = {
        "renamed column": ("nq", nq.rename(columns={"answer": "answers"}), "answer"),
        "answers as a string": ("nq", nq.assign(answer=["Italy", "Peru"]), "answer"),
        "no aliases": ("triviaqa", trivia.assign(answer=[{"value": "Italy"}]), "aliases"),
        "aliases as a string": (
            "triviaqa",
            trivia.assign(answer=[{"aliases": "Italy"}]),
            "aliases",
        ),
        "answers no JSON": ("popqa", pop.assign(possible_answers=['["Italy"']), "answers"),
        "empty answers": ("nq", nq.assign(answer=[["Italy"], []]), "row 1"),
        "an id twice": ("mine", mine.assign(question_id=["1", "1"]), "question_id"),
        "another row count": ("hub", nq, "2 rows instead of 87925"),
    }
    noticed_by_name, alarms = {}, 0
    with tempfile.TemporaryDirectory() as folder:
        for name, (kind, frame, words) in drifts.items():
            line = _read(kind, frame, Path(folder))
            noticed_by_name[name] = line is not None and words in line and "\n" not in line
        alarms = sum(_read(kind, frame, Path(folder)) is not None for kind, frame in sound.items())
    missed = [name for name, noticed in noticed_by_name.items() if not noticed]
    return row(
        len(drifts),
        len(drifts) - len(missed),
        false_positives=alarms,
        note=f"missed: {missed}" if missed else "",
    )


def _read(kind: str, frame: pd.DataFrame, folder: Path) -> str | None:
    """The reader's objection to the rows of a benchmark or a user's file; None without one."""
    try:
        if kind == "mine":
            frame.to_parquet(folder / "mine.parquet")
            sources.read_file(folder / "mine.parquet")
        elif kind == "hub":
            here = {"_from_hub": lambda *where: frame, "hub_commit": lambda name: "main"}
            with patch.multiple(sources, **here):
                sources.read_benchmark("nq")
        else:
            _, _, place, _, counts = sources.HUB[kind]
            (folder / place).mkdir(parents=True, exist_ok=True)
            for split in counts:
                frame.to_parquet(folder / place / f"{split}.parquet")
            sources.read_benchmark(kind, str(folder))
    except sources.TableError as error:
        return str(error)
    return None


def planted_leaks():
    """Leaks planted among atlas' training questions, and how many of them dedup finds.

    Three kinds: paraphrases, other names of the subject, reversed relations.
    """
    relations = ["city_country", "country_capital", "capital_country"]
    facts = all_facts(relations, 300).sample(frac=1, random_state=0)
    capitals = facts[facts["relation"] == "country_capital"]
    turned = facts[facts["relation"] == "capital_country"]
    cities = facts[facts["relation"] == "city_country"]
    named = cities[cities["other"].notna()].head(60)

    sides = {
        "paraphrase": (_questions(cities.tail(60), 0), _questions(cities.tail(60), 1, tag="-2")),
        "other name": (_questions(named, 0), _questions(named, 0, "other", "-2")),
        "reversed": (_questions(capitals, 0), _questions(turned, 0)),
    }
    rest = _questions(cities.iloc[60:200], 0, tag="-rest")
    return {f"leak: {kind}": _found_leaks(kind, *pair, rest) for kind, pair in sides.items()}


def _questions(rows, which: int, subject: str = "spoken", tag: str = "") -> pd.DataFrame:
    """Facts asked in their first or second wording, about a subject under one of its names."""
    pairs = zip(rows["relation"], rows[subject], strict=True)
    text = [WORDINGS[relation][which].format(name) for relation, name in pairs]
    shown = rows["subject"] if subject == "spoken" else rows[subject]
    return rows.assign(question=text, question_id=rows["question_id"] + tag, subject=shown)


def _true_pairs(kind: str, test: pd.DataFrame, leaks: pd.DataFrame) -> set[tuple[str, str]]:
    """The planted (test_id, train_id) pairs; of reversed facts those that know each other."""
    if kind != "reversed":
        return set(zip(test["question_id"], leaks["question_id"], strict=True))
    known = dict(zip(test["fact"], test["question_id"], strict=True))
    given = zip(leaks["question_id"], leaks["gives"], strict=True)
    return {(known[fact], i) for i, gives in given for fact in gives if fact in known}


def _found_leaks(kind: str, test: pd.DataFrame, leaks: pd.DataFrame, rest: pd.DataFrame) -> dict:
    """The row of one kind of leak: found, lost, and clean questions called contained."""
    settings, pairs = load_profile("laptop").dedup, _true_pairs(kind, test, leaks)

    # Bao'an is another name of Shenzhen, and a place in it: such a question is not clean
    others = {name for names in test["names"] for name in names}
    subjects = set(test["subject"])
    renamed = rest["names"].map(lambda names: bool(subjects & set(names)))
    asked = rest["fact"].isin(set(test["fact"])) | rest["subject"].isin(others) | renamed
    clean = rest[~asked]
    test, train = complete(test, "atlas"), complete(pd.concat([leaks, clean]), "atlas")

    met = candidates(train, test, settings.neighbours, settings.similarity)
    near = set(met[PAIR].itertuples(index=False, name=None))
    judged = judge_rule(met, pd.concat([test, train], ignore_index=True))
    called = set(judged.loc[judged["is_contained"], PAIR].itertuples(index=False, name=None))

    wrong = sum(train_id.endswith("-rest") for _, train_id in called)
    recalls = len(pairs & near) / len(pairs), len(pairs & called) / len(pairs)
    note = "recall of the blocker {:.3f}, with the rule judge {:.3f}".format(*recalls)
    ok = len(pairs & near) >= 0.99 * len(pairs) and not wrong
    return row(len(pairs), len(pairs & called), len(pairs - called), wrong, note=note, ok=ok)


def secrets():
    """The key, which the server quotes in a refusal, stands in no output, file or traceback."""
    places = {}
    for name, script in {
        "served": honest,
        "refused": lambda b, a: failure(401, "x", f"bad key {KEY}"),
    }.items():
        with scripted_server(script) as (server, folder, settings):
            cases_file(folder / "cases.csv", 5)
            places |= {
                f"{name}: {what}": text
                for what, text in zip(
                    ("stdout", "stderr"),
                    grade_command(folder, server.url).communicate(),
                    strict=True,
                )
            }
            places |= {f"{name}: {p.name}": p.read_text() for p in folder.rglob("*") if p.is_file()}
            code = (
                "import sys; from lib.config import Judge; from lib.judge.client import Client; "
                "from lib.judge.model import messages; "
                "client = Client(Judge(kind='llm', model='m', base_url=sys.argv[1]), "
                "cache=sys.argv[2]); "
                "client.ask([messages('q', ['a'], 'a')])"
            )
            done = subprocess.run(
                [sys.executable, "-c", code, server.url, str(folder / "other.jsonl")],
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
            places[f"{name}: traceback"] = done.stdout + done.stderr
            places[f"{name}: manifest"] = json.dumps(manifest())
            places[f"{name}: settings"] = repr(settings)
            got = f"bearer {KEY}" in server.auth
        places |= {} if got else {f"{name}: the server got no key": KEY}
    leaks = [name for name, text in places.items() if KEY in text]
    traced = "Traceback" in places["refused: traceback"]
    return row(
        len(places),
        len(places) - len(leaks),
        lost=len(leaks),
        note=f"leaks: {leaks}" if leaks else "",
        ok=not leaks and traced,
    )


def coverage():
    """Share of simulated experiments whose 95 % interval holds the truth, for each interval."""
    table = simulated.covered(COVERED)
    outside = simulated.outside(table)
    return {
        f"coverage: {kind.what}": row(
            COVERED,
            round(kind.value * COVERED),
            lost=0,
            ok=kind.what not in outside,
            note=f"{kind.value:.1%} hold the truth",
        )
        for kind in table.itertuples()
    }


def false_alarms():
    """Type-I errors at 5 % of the paired tests, on simulated data without effect: at most 6 %."""
    table = simulated.false_alarms(ALARMS)
    return {
        test.what: row(
            ALARMS,
            ALARMS - round(test.value * ALARMS),
            false_positives=round(test.value * ALARMS),
            ok=test.value <= 0.06,
            note=f"{test.value:.1%} false alarms",
        )
        for test in table.itertuples()
    }


DATA_FAULTS = (data_drifts, planted_leaks, secrets, coverage, false_alarms)
