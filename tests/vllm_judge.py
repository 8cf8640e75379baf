"""make judge with vLLM itself: served, asked through the client, stopped, killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lib.config import ROOT, Judge
from lib.engine.models import wheel_weights
from lib.judge import serve as local_judge
from lib.judge.address import served
from lib.judge.client import Client

PORT = 8767
OPTIONS = ["--dtype", "float32", "--enforce-eager", "--no-enable-chunked-prefill"]


def start():
    """The small model as a judge; returns once it answers."""
    arguments = [
        sys.executable,
        "-m",
        "lib.judge.serve",
        "smoke",
        "--model",
        str(wheel_weights()),
        "--port",
        str(PORT),
    ]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"}
    judge = subprocess.Popen(
        [*arguments, *OPTIONS], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    while not local_judge.note().exists():
        assert judge.poll() is None, judge.communicate()[1]
        time.sleep(0.5)
    return judge


def ended(seconds=60):
    """Whether nothing listens on the port any more, within the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            return local_judge.free(PORT) is None
        except local_judge.JudgeError:
            time.sleep(0.5)
    return False


@pytest.fixture
def no_address(monkeypatch, outputs):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_served_found_asked_stopped_and_killed(no_address):
    model, judge = str(wheel_weights()), start()
    try:
        client = Client(Judge(kind="llm", model=model))
        asked = [
            [{"role": "user", "content": f"Which is the capital of {country}? One word."}]
            for country in ("France", "Italy", "Japan")
        ]
        replies = client.ask(asked, max_tokens=12)
        assert "Paris" in replies[0]
        assert "Rome" in replies[1]
        assert "Tokyo" in replies[2]
        assert local_judge.stop_running().endswith("is stopped")
    except BaseException:
        judge.terminate()
        raise
    assert judge.wait(60) == 0
    assert ended()
    assert not local_judge.note().exists()
    judge = start()
    judge.send_signal(signal.SIGKILL)
    judge.wait(10)
    assert served(model) is None and ended(), "vLLM outlived a killed make judge"
