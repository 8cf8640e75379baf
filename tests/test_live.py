"""The page of curves, served for real: what a log says is there, fresh, and is no markup."""

import json
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from lib.config import ROOT
from lib.figures.live import live_page


def write_log(folder, steps):
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"step": s, "loss": 2.0 / (s + 1), "reward": 0.125 * s} for s in range(steps)]
    rows[0] |= {"accuracy": 0.25, "accuracy_low": 0.2, "accuracy_high": 0.3}
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def address(tmp_path):
    command = [sys.executable, "-m", "lib.figures.live", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        yield server.stdout.readline().split()[1]
        server.terminate()


def look(address):
    # a proxy in the environment is not asked
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(address, timeout=60).read().decode()


def test_the_page_follows_the_trainings(tmp_path, address):
    assert address.startswith("http://127.0.0.1:")
    assert "No training has begun" in look(address)

    write_log(tmp_path / "04_grpo" / "grpo", 3)
    first = look(address)
    assert "04_grpo/grpo: written" in first
    assert "step 2: loss 0.667, reward 0.25, validation accuracy 0.25" in first
    assert first.count("data:image/svg+xml") == 1

    write_log(tmp_path / "04_grpo" / "grpo", 5)
    with (tmp_path / "04_grpo" / "grpo" / "log.jsonl").open("a") as log:
        log.write('{"step": 5, "lo')  # a row that is being written
    (tmp_path / "04_grpo" / "grpo" / "budget.json").write_text("{}")
    write_log(tmp_path / "03_baselines" / "sft" / "search" / "1e-05", 2)
    again = look(address)
    assert "step 4: loss 0.4, reward 0.5" in again
    assert "04_grpo/grpo: finished" in again
    assert again.index("03_baselines/sft/search/1e-05") < again.index("04_grpo/grpo")

    with pytest.raises(urllib.error.HTTPError, match="404"):
        look(address + "etc")


def test_a_damaged_log_is_said_and_nothing_is_markup(tmp_path):
    write_log(tmp_path / "04_grpo" / "<b>x", 2)
    write_log(tmp_path / "04_grpo" / "torn", 2)
    (tmp_path / "04_grpo" / "torn" / "log.jsonl").write_text('{"step"\n{"step": 1}\n')
    page = live_page(tmp_path)
    assert "&lt;b&gt;x" in page and "<b>" not in page
    assert "log.jsonl is damaged at line 1" in page
    assert "http" not in page.replace("http-equiv", "")  # nothing is loaded


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_port_that_is_none_ends_in_one_line(tmp_path, port):
    command = [sys.executable, "-m", "lib.figures.live", str(tmp_path), f"--port={port}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and f"port {port} cannot be used" in done.stderr
