"""Faults of calls and their cache: storms, hangs, refusals, kill -9, damage, a full disk."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd

from faults.staging import KEY, QUICK, believer, honest, row, says, scripted_server
from lib.config import ROOT
from lib.judge.cache import ReplyCache
from lib.judge.client import CallsStopped, Client, cache_key
from tests.loopback import failure


def storm():
    """2,000 calls while half of the tries get 429 and a fifth 500: each is answered once."""

    def script(body, attempt):
        text = body["messages"][-1]["content"]
        fate = crc32(f"{text} {attempt}".encode()) % 10
        if fate < 7:
            return failure(
                429 if fate < 5 else 500, **({"retry-after": "0.05"} if fate == 0 else {})
            )
        return f"re {text}"

    with scripted_server(script, concurrency=64) as (server, folder, settings):
        client = Client(settings, cache=folder / "llm.jsonl", **QUICK | {"patience": 300})
        texts = [f"call {i}" for i in range(2000)]
        replies = client.ask([says(t) for t in texts])
        lines = (folder / "llm.jsonl").read_bytes().splitlines()
        right = sum(r == f"re {t}" for r, t in zip(replies, texts, strict=True))
        tries = sum(server.seen.values())
    doubled = len(lines) - 2000
    return row(
        2000,
        right,
        lost=2000 - right,
        ok=right == 2000 and doubled == 0 and len(server.seen) == 2000,
        note=f"{tries} tries, {client.counts['retries']} retries, {doubled} doubled",
    )


def hangs():
    """A server that does not answer 20 calls at first: each times out and is asked again."""

    async def script(body, attempt):
        await asyncio.sleep(30 if attempt == 1 else 0)
        return "1.0"

    with scripted_server(script) as (server, folder, settings):
        client = Client(settings, cache=folder / "llm.jsonl", **QUICK | {"timeout": 0.5})
        began = time.monotonic()
        replies = client.ask([says(str(i)) for i in range(20)])
        spent = time.monotonic() - began
    return row(
        20,
        sum(n == 2 for n in server.seen.values()),
        lost=sum(r != "1.0" for r in replies),
        note=f"{spent:.1f} s at a limit of 0.5 s a try",
        ok=replies == ["1.0"] * 20 and spent < 10,
    )


def refusals():
    """Wrong key, spent quota, unknown model, no server, a spent budget: one line for each.

    Detected: the run stops with a line that says why, at the first refused call; what was answered
    before is kept.
    """
    kinds = {
        "wrong key": (
            failure(401, "invalid_api_key", f"Incorrect API key provided: {KEY}"),
            "check OPENAI_API_KEY",
        ),
        "no quota": (failure(429, "insufficient_quota"), "quota is spent"),
    }
    rows = {}
    for name, (answer, words) in kinds.items():
        with scripted_server(
            lambda b, a, x=answer: "1.0" if says("0") == b["messages"] else x, concurrency=1
        ) as at:
            rows[name] = stopped(at, words, kept=1, most=2)
    rows["refused case"] = refused_case()
    with scripted_server(believer, models=["other"]) as at:
        rows["model that is not served"] = stopped(
            at, "is not served there; it serves other", kept=0, most=0
        )
    with scripted_server(believer, max_calls=7) as at:
        rows["spent budget"] = stopped(
            at, "7 calls used, the most that judge.max_calls = 7 allows", kept=7, most=7
        )
    with scripted_server(believer) as (_, folder, settings):
        gone = settings.model_copy(update={"base_url": "http://127.0.0.1:9/v1"})
        rows["no server"] = stopped((None, folder, gone), "does not answer", kept=0, most=0)
    return rows


def refused_case() -> dict:
    """One of 20 calls is refused by the filter: it fails with its cause, the others go on."""
    answer = failure(400, "content_filter", "The prompt was filtered")
    with scripted_server(lambda b, a: answer if says("7") == b["messages"] else "1.0") as at:
        server, folder, settings = at
        causes: list = []
        client = Client(settings, cache=folder / "llm.jsonl", **QUICK)
        replies = client.ask([says(str(i)) for i in range(20)], causes=causes)
        requests = sum(server.seen.values())
    cause = causes[7] or ""
    return row(
        1,
        "content_filter: The prompt was filtered" in cause,
        lost=19 - replies.count("1.0"),
        false_positives=replies[7] is not None,
        ok=requests == 20 and "content_filter: The prompt was filtered" in cause,
        note=cause,
    )


def stopped(at, words: str, kept: int, most: int) -> dict:
    """The row of a stop: 20 calls end in one line with `words`, after at most `most` requests.

    `kept` of their replies are in the cache afterwards.
    """
    server, folder, settings = at
    client, line, began = (
        Client(settings, cache=folder / "llm.jsonl", **QUICK),
        "",
        time.monotonic(),
    )
    try:
        client.ask([says(str(i)) for i in range(20)])
    except CallsStopped as stop:
        line = str(stop)
    requests = sum(server.seen.values()) if server else 0
    right = (
        words in line
        and "\n" not in line
        and KEY not in line
        and requests <= most
        and time.monotonic() - began < 10
    )
    kept -= len(ReplyCache(folder / "llm.jsonl").replies)
    return row(1, right, lost=kept, note=line.replace(str(server and server.url), "URL"))


def cases_file(path: Path, n: int) -> Path:
    """A file of n cases for the judging command, half of them right; a third needs a control."""
    right = [f"Item {i}" if i % 2 else f"Other {i}" for i in range(n)]
    text = [f"{r} indeed" if i % 3 == 0 else r for i, r in enumerate(right)]
    frame = pd.DataFrame(
        {
            "question": [f"Which is number {i}?" for i in range(n)],
            "answers": [f"Item {i}" for i in range(n)],
            "prediction": text,
        }
    )
    frame.to_csv(path, index=False)
    return path


def grade_command(folder: Path, url: str, before: str = "", output: str = "out.csv"):
    """The judging command on cases.csv as a process; `before` is shell that comes first."""
    line = [
        sys.executable,
        "-m",
        "lib.judge",
        folder / "cases.csv",
        folder / output,
        "--judge",
        "llm",
        "--model",
        "m",
        "--base-url",
        url,
        "--concurrency",
        "8",
    ]
    line = ["bash", "-c", f'{before} exec "$@"', "-", *line] if before else line
    return subprocess.Popen(
        list(map(str, line)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def kills(times: int = 20, n: int = 600):
    """kill -9 of the judging command at random points: the table is an unbroken run's.

    Lost: replies that the server had sent and the cache lacks, beyond the 8 in flight.
    """
    rng, state = np.random.default_rng(0), {"left": None, "process": None}

    async def script(body, attempt):
        await asyncio.sleep(0.005)
        if state["left"] is not None:
            state["left"] -= 1
            if state["left"] == 0:
                state["process"].kill()
        return honest(body, attempt)

    with scripted_server(script) as (server, folder, _):
        cases_file(folder / "cases.csv", n)
        killed = lost = again = 0
        for _ in range(times):
            state["left"], state["process"] = (
                int(rng.integers(5, 35)),
                grade_command(folder, server.url),
            )
            state["process"].communicate()
            killed += state["process"].returncode == -signal.SIGKILL
            replies = len(ReplyCache(folder / "cache" / "llm.jsonl").replies)
            again = sum(server.seen.values()) - replies
            lost = max(lost, again - 8 * killed)
        state["left"] = None
        output, wrong = grade_command(folder, server.url).communicate()
        calls, broken = len(server.seen), (folder / "out.csv").read_bytes()
        (folder / "cache" / "llm.jsonl").unlink()
        grade_command(folder, server.url, output="whole.csv").communicate()
        same = broken == (folder / "whole.csv").read_bytes()
        right = pd.read_csv(folder / "whole.csv")["correct"].sum() == n // 2
    whole = "byte-identical" if same else "DIFFERS"
    note = f"{n} predictions, {calls} calls, {again} sent again; table {whole}"
    ok = killed == times and lost <= 0 and same and right and not wrong
    return row(times, killed, lost=max(lost, 0), ok=ok, note=note)


def damaged_cache():
    """A cache with flipped, zeroed, torn and foreign lines: only these are asked again."""
    with scripted_server(lambda b, a: f"re {b['messages'][-1]['content']}") as (
        server,
        folder,
        settings,
    ):
        path, batch = folder / "llm.jsonl", [says(f"{i}") for i in range(1000)]
        whole = Client(settings, cache=path, **QUICK).ask(batch)
        lines, rng = path.read_bytes().splitlines(keepends=True), np.random.default_rng(0)
        chosen = rng.choice(999, 90, replace=False)
        for k, i in enumerate(chosen):
            line = bytearray(lines[i])
            if k % 3 == 0:
                line[rng.integers(0, len(line) - 1)] ^= 1 << int(rng.integers(0, 7))
            elif k % 3 == 1:
                line[:-1] = bytes(len(line) - 1)
            else:
                line = bytearray(b'{"key": "x", "reply": "1.0"}\n')
            lines[i] = bytes(line)
        lines[-1] = lines[-1][:-7]  # torn by a kill
        path.write_bytes(b"".join(lines))
        cache = ReplyCache(path)
        replies, before = {k: v for k, v in cache.replies.items()}, len(server.order)
        client = Client(settings, cache=path, **QUICK)
        again = client.ask(batch)
        sent = len(server.order) - before
        believed = sum(a != b for a, b in zip(whole, again, strict=True))
    n_kept = len(replies)
    note = f"{n_kept} of 1,000 kept, {sent} asked again"
    return row(91, sent, lost=1000 - 91 - n_kept, false_positives=believed, note=note)


def two_writers():
    """Two processes add 5,000 replies each to one cache: all 10,000 are there, none damaged."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "llm.jsonl"
        code = (
            "import sys; from lib.judge.cache import ReplyCache; cache = ReplyCache(sys.argv[1]); "
            "[cache.add(f'{sys.argv[2]}{i}', 'x' * (i % 99)) for i in range(5000)]; cache.flush()"
        )
        run = [
            subprocess.Popen([sys.executable, "-c", code, str(path), name], cwd=ROOT)
            for name in "ab"
        ]
        codes = [process.wait() for process in run]
        cache = ReplyCache(path)
        names = [name for name in re.findall(r'"key": "([ab])', path.read_text())]
        turns = sum(a != b for a, b in zip(names, names[1:], strict=False))
    return row(
        10_000,
        len(cache.replies),
        lost=10_000 - len(cache.replies),
        note=f"the writers took {turns} turns",
        ok=len(cache.replies) == 10_000 and not cache.damaged and codes == [0, 0] and turns > 1,
    )


def full_disk():
    """A file limit stops the judging command as a full disk does; so does a read-only folder.

    One line, an exit code, and a second run with room asks only for the rest.
    """
    rows = {}
    with scripted_server(honest) as (server, folder, _):
        cases_file(folder / "cases.csv", 300)
        process = grade_command(folder, server.url, "ulimit -f 16;")
        _, line = process.communicate()
        replies, sent = (
            len(ReplyCache(folder / "cache" / "llm.jsonl").replies),
            sum(server.seen.values()),
        )
        clear = process.returncode != 0 and "make room" in line and line.count("\n") == 1
        grade_command(folder, server.url).communicate()
        right = pd.read_csv(folder / "out.csv")["correct"].sum() == 150
        again = sum(server.seen.values()) - len(server.seen)
    rows["full disk"] = row(
        1,
        clear,
        lost=max(0, sent - replies - 8),
        ok=clear and right and replies > 0 and again <= 8,
        note=f"{replies} replies kept, {again} sent again; {line.strip()[-110:]}",
    )
    with scripted_server(honest) as (server, folder, _):
        folder.chmod(0o755)
        cases_file(folder / "cases.csv", 10)
        closed = folder / "closed"
        closed.mkdir(mode=0o555)
        # root may write
        code = "import os; from lib.judge.__main__ import main; "
        code += "os.geteuid() or os.seteuid(65534); main()"
        line = [
            sys.executable,
            "-c",
            code,
            folder / "cases.csv",
            closed / "out.csv",
            "--judge",
            "llm",
            "--model",
            "m",
            "--base-url",
            server.url,
        ]
        done = subprocess.run(
            list(map(str, line)),
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=os.environ | {"OUTPUTS": str(closed)},
        )
        clear = (
            done.returncode != 0
            and "cannot be kept" in done.stderr
            and done.stderr.count("\n") == 1
        )
        rows["read-only folder"] = row(
            1, clear and not server.seen, note=f"no call made; {done.stderr.strip()[-90:]}"
        )
    return rows


def cache_keys():
    """Every changed field of a request gives another key; the same request, the same key."""
    first, other = {"temperature": 0.0, "max_tokens": 8}, {"temperature": 0.1, "max_tokens": 8}
    base = ("url", "m", "r", says("a"), first, "1", 0)
    changes = [
        (0, "other url"),
        (1, "n"),
        (2, "s"),
        (3, says("b")),
        (3, [{"role": "system", "content": "a"}]),
        (3, says("a") * 2),
        (4, other),
        (4, first | {"max_tokens": 9}),
        (5, "2"),
        (6, 1),
    ]
    changed = [(*base[:i], value, *base[i + 1 :]) for i, value in changes]
    keys = {cache_key(*fields) for fields in changed}
    same = cache_key(*base) == cache_key(
        *base[:4], {"max_tokens": 8, "temperature": 0.0}, *base[5:]
    )
    return row(
        len(changed),
        len(keys - {cache_key(*base)}),
        ok=same and len(keys - {cache_key(*base)}) == len(changed),
    )


CALL_FAULTS = (storm, hangs, refusals, kills, damaged_cache, two_writers, full_disk, cache_keys)
