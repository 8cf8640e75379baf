"""How fast the client and its cache are: calls a second, hits, and opening a file."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from faults.staging import KEY
from lib.config import ROOT, Judge
from lib.judge.cache import ReplyCache, _line
from lib.judge.client import Client, cache_key
from lib.judge.model import ask_judge, messages

DELAY, CALLS = 0.05, 5000


def speed_table() -> list[dict]:
    """Rows of what, value, unit, target, seconds, note, printed as they come."""
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(os.environ, {"OPENAI_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}),
    ):
        os.environ.pop("OPENAI_BASE_URL", None)
        for made in (throughput(Path(folder)), hits(Path(folder)), million(Path(folder))):
            for results in made:
                rows.append(results)
                print(
                    "{what:44} {value:10.2f} {unit:18} target {target:8} {note}".format(**results),
                    flush=True,
                )
    return rows


def throughput(folder: Path):
    """Share of the calls a second that the concurrency allows of a judge that answers in 50 ms."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.loopback", str(DELAY)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = server.stdout.readline().strip()
        for concurrency in (16, 32, 64):
            settings = Judge(kind="llm", model="m", base_url=url, concurrency=concurrency)
            client = Client(settings, cache=folder / f"{concurrency}.jsonl")
            batch = [messages(f"Which is number {i}?", [f"Item {i}"], "x") for i in range(CALLS)]
            began, cpu = time.monotonic(), time.process_time()
            replies = client.ask(batch)
            spent, cpu = time.monotonic() - began, time.process_time() - cpu
            assert replies == ["1.0"] * CALLS
            share = CALLS / spent / (concurrency / DELAY)
            yield {
                "what": f"share of the limit, {concurrency} at a time",
                "value": share,
                "unit": "of 1",
                "target": ">= 0.85",
                "seconds": round(spent, 2),
                "note": f"{CALLS / spent:.0f} calls/s, {1e6 * cpu / CALLS:.0f} us of a core a call",
            }
    finally:
        server.kill()
        server.wait()


def hits(folder: Path):
    """Replies and whole verdicts a second out of the cache."""
    settings = Judge(kind="llm", model="m", base_url="http://127.0.0.1:9/v1")
    cases = [
        [f"Which is number {i}?" for i in range(20_000)],
        [[f"Item {i}"] for i in range(20_000)],
        [f"Item {i}" for i in range(20_000)],
    ]
    batch = [messages(*case) for case in zip(*cases, strict=True)]
    sent = [messages(q, a, p.replace("Item", "item")) for q, a, p in zip(*cases, strict=True)]
    server = settings.base_url
    sizes = [256] * len(batch) + [settings.reply_tokens] * len(sent)
    keys = [
        cache_key(server, "m", "", m, {"temperature": 0.0, "max_tokens": size}, "1", 0)
        for m, size in zip(batch + sent, sizes, strict=True)
    ]
    (folder / "hits.jsonl").write_bytes(b"".join(_line(key, "1.0") for key in keys))
    client = Client(settings, cache=folder / "hits.jsonl")
    for what, work in (
        ("cached replies", lambda: client.ask(batch)),
        ("cached verdicts, with checks and rules", lambda: ask_judge(client, settings, *cases)),
    ):
        began = time.monotonic()
        assert len(work()) == 20_000
        spent = time.monotonic() - began
        yield {
            "what": what,
            "value": 20_000 / spent,
            "unit": "a second",
            "target": "> 20000",
            "seconds": round(spent, 2),
            "note": "nothing was asked: no server is there",
        }
    assert client.counts["calls"] == 0


def million(folder: Path):
    """Seconds and memory of opening a file of a million verdicts, in a process of its own."""
    path = folder / "million.jsonl"
    with open(path, "wb") as file:
        for i in range(1_000_000):
            file.write(
                _line(cache_key("s", "m", "", str(i), {}, "1", 0), "1.0" if i % 3 else "0.0")
            )
    done = subprocess.run(
        [sys.executable, "-m", "faults.speed", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    results = json.loads(done.stdout)
    assert results["replies"] == 1_000_000 and not results["damaged"]
    size = f"{path.stat().st_size / 2**20:.0f} MB on disk"
    path.unlink()
    for what, unit, target in (("seconds", "s", "< 5"), ("memory", "GB", "< 1")):
        yield {
            "what": f"a million verdicts opened, {what}",
            "value": results[what],
            "unit": unit,
            "target": target,
            "seconds": results["seconds"],
            "note": size,
        }


if __name__ == "__main__":  # the process of `million`: open the file it is given
    began = time.monotonic()
    cache = ReplyCache(Path(sys.argv[1]))
    seconds = time.monotonic() - began
    # kilobytes on Linux, bytes on a Mac
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (
        30 if sys.platform == "darwin" else 20
    )
    print(
        json.dumps(
            {
                "seconds": seconds,
                "memory": memory,
                "replies": len(cache.replies),
                "damaged": cache.damaged,
            }
        )
    )
