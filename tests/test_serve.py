"""A judge of one's own: its note, the server's command, and what stops it early."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lib.config import ROOT, Judge
from lib.judge import serve as local_judge
from lib.judge.address import note, running, served
from lib.judge.client import Client
from lib.judge.serve import JudgeError, vllm_command

SERVER = """
import http.server, json, sys
model, port = sys.argv[sys.argv.index("--served-model-name") + 1], int(sys.argv[sys.argv.index("--port") + 1])
class Handler(http.server.BaseHTTPRequestHandler):
    def send(self, body):
        body = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.send({"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": "x"}]})
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "1.0"}}
        self.send({"id": "x", "object": "chat.completion", "created": 0, "model": model, "choices": [choice]})
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
ABOUT = {"vllm": True, "cards": 6, "cpu": False}


def interpreter(folder, about, server=SERVER):
    """A stand-in for an interpreter with vllm: records its command and serves the protocol."""
    (folder / "server.py").write_text(server)
    path = folder / "python"
    path.write_text(f"""#!/bin/sh
if [ "$1" = -c ]; then echo '{json.dumps(about)}'; else shift 2; exec {sys.executable} {folder}/server.py "$@"; fi
""")
    path.chmod(0o755)
    return str(path)


def start(outputs, python, *options):
    arguments = [sys.executable, "-m", "lib.judge.serve", "gpu", "--python", python, *options]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_")} | {
        "OUTPUTS": str(outputs)
    }
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def until(what, seconds=30.0):
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.05)
    return what()


def taken(port):
    with pytest.raises(JudgeError, match=f"port {port} is taken"):
        local_judge.free(port)
    return True


def test_weights_are_divided_over_a_power_of_two_of_the_cards(tmp_path):
    python = interpreter(tmp_path, ABOUT)
    line = " ".join(vllm_command(python, "owner/name@abc", 8001, None, ["--dtype", "float32"]))
    assert "--model owner/name --served-model-name owner/name --revision abc" in line
    assert "--tensor-parallel-size 4 --host 127.0.0.1 --port 8001" in line
    assert line.endswith("--dtype float32")
    assert "--tensor-parallel-size 2 " in " ".join(vllm_command(python, "owner/name", 8001, 2, []))
    with pytest.raises(JudgeError, match="asks for 8 GPUs and 6 are visible"):
        vllm_command(python, "owner/name", 8001, 8, [])


@pytest.mark.parametrize(
    "about, said",
    [
        ({"vllm": False}, "vllm is not installed"),
        (ABOUT | {"cards": 0}, "no GPU is visible"),
        (None, "does not run"),
    ],
)
def test_what_is_missing_is_said(about, said, tmp_path):
    python = interpreter(tmp_path, about) if about else str(tmp_path / "nowhere")
    with pytest.raises(JudgeError, match=said):
        vllm_command(python, "owner/name", 8001, None, [])


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"pid": "x"}', '{"base_url": "u", "model": "m", "pid": 1}']
)
def test_a_note_without_its_process_is_none(text, outputs):
    note().write_text(text)  # process 1 lives and is no judge
    assert running() is None
    assert served("m") is None
    assert local_judge.stop_running() == "no judge runs; the note of one that was killed is removed"
    assert local_judge.stop_running() == "no judge runs"
    assert not note().exists()


def test_served_found_asked_and_stopped(outputs, monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    python, port = interpreter(tmp_path, ABOUT), 18431
    judge = start(outputs, python, "--model", "some/judge@abc", "--port", str(port))
    assert until(note().exists), judge.communicate(timeout=5)
    assert served("some/judge") == f"http://127.0.0.1:{port}/v1"
    assert served("other/judge") is None
    client = Client(
        Judge(kind="llm", model="some/judge@abc")
    )  # no address and no key: the note is enough
    assert client.ask([[{"role": "user", "content": "?"}]]) == ["1.0"]
    second = start(outputs, python, "--model", "some/judge", "--port", str(port + 1))
    assert "is served at" in second.communicate(timeout=30)[1]
    assert second.returncode != 0
    assert local_judge.stop_running() == "the judge some/judge is stopped"
    assert judge.wait(30) == 0
    assert not note().exists()
    local_judge.free(port)  # the server went with it


def test_killed_for_good_its_server_ends_and_the_note_is_stale(outputs, tmp_path):
    python, port = interpreter(tmp_path, ABOUT), 18433
    judge = start(outputs, python, "--model", "some/judge", "--port", str(port))
    assert until(note().exists), judge.communicate(timeout=5)
    assert taken(port)
    judge.send_signal(signal.SIGKILL)
    judge.wait(10)
    assert note().exists()
    assert served("some/judge") is None

    def closed():
        try:
            return local_judge.free(port) is None
        except JudgeError:
            return False

    assert until(closed)


@pytest.mark.parametrize(
    "server, options, said",
    [
        (
            "raise ValueError('Error: out of memory')",
            ["--model", "m"],
            "before it answered; .* out of memory",
        ),
        (SERVER, [], ""),
    ],
)
def test_a_server_that_ends_and_a_profile_without_a_judge(server, options, said, outputs, tmp_path):
    python = interpreter(tmp_path, ABOUT, server)
    if options:
        judge = start(outputs, python, *options, "--port", "18435")
    else:
        arguments = [sys.executable, "-m", "lib.judge.serve", "laptop", "--python", python]
        judge, said = (
            subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True),
            "names no `judge.model`",
        )
    told = judge.communicate(timeout=30)[1]
    assert judge.returncode != 0
    assert told.count("\n") == 1
    assert told.startswith("judge: ")
    assert all(part in told for part in said.split(" .* "))
    assert not note().exists()


SLOW_END = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(2), os._exit(0)))
"""


def test_a_second_sigterm_leaves_neither_note_nor_server(outputs, tmp_path):
    python, port = interpreter(tmp_path, ABOUT, SLOW_END + SERVER), 18437
    judge = start(outputs, python, "--model", "some/judge", "--port", str(port))
    assert until(note().exists), judge.communicate(timeout=5)
    judge.terminate()
    assert until(lambda: not note().exists(), 1.0)  # while the server still ends
    assert taken(port)
    judge.terminate()
    assert judge.wait(30) == 0
    assert not note().exists()
    local_judge.free(port)


def test_a_judge_of_another_machine_is_left_to_it(outputs, tmp_path):
    python, port = interpreter(tmp_path, ABOUT), 18439
    judge = start(outputs, python, "--model", "some/judge", "--port", str(port))
    assert until(note().exists), judge.communicate(timeout=5)
    theirs = json.dumps({"base_url": "u", "model": "some/judge", "pid": judge.pid, "host": "node7"})
    note().write_text(theirs)
    assert running() is served("some/judge") is None
    with pytest.raises(JudgeError, match="it runs on node7"):
        local_judge.stop_running()
    second = start(outputs, python, "--model", "some/judge", "--port", str(port + 1))
    assert second.communicate(timeout=30)[1].startswith("judge: it runs on node7")
    judge.terminate()
    assert judge.wait(30) == 0
    assert note().read_text() == theirs
