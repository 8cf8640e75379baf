"""What faults share: a row of the table, a scripted server with its surroundings, judges."""

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from lib.config import Judge
from lib.judge.client import Client
from lib.judge.model import ModelJudge, canonical
from lib.judge.rules import clean
from tests.loopback import loopback

KEY = "sk-faults-0123456789abcdef"
QUICK = {"timeout": 5, "patience": 60, "first_wait": 0.01}


def row(n, detected, lost=0, false_positives=0, ok=None, note="") -> dict:
    """A row of the table; by default all faults were noticed, nothing lost, nothing believed."""
    ok = (detected == n and not lost and not false_positives) if ok is None else ok
    return {
        "n": int(n),
        "detected": int(detected),
        "lost": int(lost),
        "false_positives": int(false_positives),
        "ok": bool(ok),
        "note": note,
    }


@contextmanager
def scripted_server(script, models=None, key=KEY, **settings):
    """(server, folder, judge settings) with a key and no other address in the environment."""
    with loopback(script, models) as server, tempfile.TemporaryDirectory() as folder:
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "AUDITOR_"))
        }
        environment |= {"OPENAI_API_KEY": key, "NO_PROXY": "127.0.0.1", "OUTPUTS": folder}
        given = {"concurrency": 32, "max_failed": 1.0, "max_fooled": 1.0, **settings}
        with patch.dict(os.environ, environment, clear=True):
            yield server, Path(folder), Judge(kind="llm", model="m", base_url=server.url, **given)


def judged(settings, folder: Path, cases, **options) -> tuple[list, ModelJudge]:
    """Verdicts of cases (questions, answers, texts) with a fresh cache."""
    judge = ModelJudge(settings, Client(settings, cache=folder / "llm.jsonl", **QUICK | options))
    return judge(*cases), judge


def says(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def case_of(body: dict) -> dict:
    """The case that a request of the judge asks about."""
    return json.loads(body["messages"][-1]["content"].split("\n")[0])


def believer(body, attempt):
    return "1.0"


def honest(body, attempt):
    """A judge that accepts a candidate which holds a gold answer."""
    case = case_of(body)
    return (
        "1.0"
        if any(canonical(clean(a)) in case["candidate"] for a in case["gold_answers"])
        else "0.0"
    )
