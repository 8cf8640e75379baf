"""One writer for a folder, children that end with their parents, safe names, damaged files."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch

from lib.config import ROOT, ProfileError, load_profile
from lib.engine.models import load_policy, this_device
from lib.processes import PARENT, FolderInUse, PeakMemory, held, hold, let_go
from lib.questions.sources import source_files
from lib.report import finding
from lib.runs import SettingsDiffer, Stage, forget, open_stage
from lib.tables import DamagedFile, load_json
from lib.training.apart import read_lines, run_and_print
from tests.another import HOLDER, start
from tests.tiny import WORDS, tiny_policy, word_tokenizer


def test_a_second_writer_is_told_who_the_first_is(tmp_path):
    owner = start(HOLDER, tmp_path)
    with pytest.raises(
        FolderInUse, match=rf"process {owner.pid} on .* since 20\d\d-.*; wait, stop"
    ):
        hold(tmp_path)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    hold(tmp_path)  # the lock of the dead is free
    hold(tmp_path)
    assert json.loads((tmp_path / "lock.json").read_text())["process"] == os.getpid()
    let_go(tmp_path)
    assert not (tmp_path / "lock.json").exists()


def test_a_lock_that_its_owner_removes_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    opened, paths = os.open, []

    def opening(path, *how):
        file = opened(path, *how)
        if not paths:  # between our look and our lock the owner lets go
            os.unlink(path)
        paths.append(path)
        return file

    monkeypatch.setattr(os, "open", opening)
    hold(tmp_path)
    monkeypatch.undo()
    assert len(paths) == 2 and held(tmp_path)
    let_go(tmp_path)


def test_an_unfinished_stage_is_locked_and_a_finished_one_is_not(tmp_path):
    stage = Stage(tmp_path, "04_grpo", {})
    assert (stage.folder / "lock.json").exists()
    stage.finish([])
    assert not (stage.folder / "lock.json").exists()
    Stage(tmp_path, "04_grpo", {})
    assert not (stage.folder / "lock.json").exists()
    rows = {row["name"]: row["value"] for row in json.loads(stage.path("summary.json").read_text())}
    assert 0.01 < rows["peak_gb_04_grpo"] < 100


GRANDCHILD = """
import sys, time
from lib.processes import end_with_parent
end_with_parent(0.1)
open(sys.argv[1], "w").write(str(__import__("os").getpid()))
time.sleep(60)
"""
PARENT_CODE = """
import sys
from lib.training.apart import run_and_print
print("up", flush=True)
run_and_print([sys.executable, "-c", sys.argv[1], sys.argv[2]])
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_training_ends_with_the_process_that_it_works_for(how, tmp_path):
    note = tmp_path / "pid"
    parent = start(PARENT_CODE, GRANDCHILD, note)
    end = time.monotonic() + 30
    while not (note.exists() and note.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    child = psutil.Process(int(note.read_text()))
    parent.send_signal(how)
    parent.wait()
    gone, alive = psutil.wait_procs([child], timeout=10)
    assert not alive


def test_a_training_without_such_a_process_goes_on(tmp_path):
    code, lines = run_and_print([sys.executable, "-c", "print('fine')"])
    assert (code, lines) == (0, ["fine"])


def test_peak_memory_counts_children():
    watch = PeakMemory(every=60)
    before = watch.look()
    held = "x = bytearray(600 << 20)\nx[::4096] = b'x' * 153600\nprint('up', flush=True)\n"
    child = start(held + "while True: x[::4096] = b'y' * 153600")  # what lies idle is swapped out
    assert watch.look() > before + 0.25
    child.kill()
    child.wait()
    assert watch.look() > before + 0.25  # a peak stays


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux's accounts")
def test_what_processes_share_counts_once(tmp_path):
    (path := tmp_path / "weights").write_bytes(bytes(300 << 20))
    mapped = (
        f"import mmap\nfile = open({str(path)!r}, 'rb')\n"
        "x = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n"
        "sum(x[::4096])\nprint('up', flush=True)\nwhile True: sum(x[::4096])"
    )
    watch = PeakMemory(every=60)
    before = watch.look()
    children = [start(mapped) for _ in range(3)]
    together = watch.look() - before
    for child in children:
        child.kill()
        child.wait()
    assert 0.2 < together < 0.6  # 0.3 GB once, not thrice


def test_no_thread_is_left_when_the_interpreter_ends():
    code = """
import atexit, threading
atexit.register(lambda: print(threading.active_count(), flush=True))  # the last to be called
from lib.processes import PeakMemory, end_with_parent
PeakMemory(0.01)
end_with_parent(0.01)
assert threading.active_count() == 3
"""
    env = os.environ | {PARENT: str(os.getpid())}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


@pytest.mark.parametrize("run", ["../laptop", "laptop/../laptop", "", ".laptop"])
def test_a_run_s_name_leads_nowhere_else(run):
    with pytest.raises(ProfileError, match="unknown profile"):
        load_profile(run)


def made(folder: Path) -> Path:
    stage = folder / "m" / "d" / "seed0" / "01_data"
    stage.mkdir(parents=True)
    (stage / "settings.json").write_text("{}")
    return folder


def test_only_what_a_run_has_made_is_removed(tmp_path):
    forget(tmp_path / "nothing")
    forget(made(tmp_path / "smoke"))
    assert not (tmp_path / "smoke").exists()
    for strange in ("note.txt", "m/note.txt", "m/d/other/x", "m/d/seed0/thesis.tex"):
        folder = made(tmp_path / "mine")
        (folder / strange).parent.mkdir(parents=True, exist_ok=True)
        (folder / strange).write_text("mine")
        with pytest.raises(ValueError, match="is not removed: no run has made"):
            forget(folder)
        assert (folder / strange).read_text() == "mine"
        (folder / strange).unlink()
        if strange == "m/d/other/x":
            (folder / "m/d/other").rmdir()
        forget(folder)


BAD = ["OUTPUTS=/x/my out", "OUTPUTS=", "OUTPUTS=a'b", "OUTPUTS=a;touch pwned", "RUN=../laptop",
       "MODEL=a b", "DATASET=../../x", "SEED=1x", "SEED=-1", "SEEDS="]  # fmt: skip


@pytest.mark.parametrize("word", BAD)
def test_make_refuses_what_no_shell_should_see(word, tmp_path):
    command = ["make", "-f", str(ROOT / "Makefile"), "smoke", word, f"PY={sys.executable}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    name = word.partition("=")[0]
    assert done.stderr.count("\n") == 1
    assert f"{name}='" in done.stderr
    assert "cannot be used" in done.stderr
    assert not (ROOT / "pwned").exists()


@pytest.mark.parametrize("name", ["settings.json", "seconds.json", "summary.json", "t.parquet"])
def test_a_damaged_file_is_named_with_what_to_do(name, tmp_path):
    stage = Stage(tmp_path, "04_grpo", {"seed": 0})
    stage.table("t", lambda: pd.DataFrame({"a": [1, 2]}))
    stage.finish([])
    path = stage.path(name)
    path.write_bytes(path.read_bytes()[:-4])  # torn
    said = rf"{name} is damaged \(.*\); remove "
    with pytest.raises(DamagedFile, match=said):
        again = Stage(tmp_path, "04_grpo", {"seed": 0})
        again.seconds("total")
        again.table("t", lambda: pd.DataFrame())
        load_json(path)


def test_infinity_is_no_number_of_a_run(tmp_path):
    (tmp_path / "x.json").write_text('{"a": Infinity}')
    with pytest.raises(DamagedFile, match="Infinity is no number"):
        load_json(tmp_path / "x.json")


def test_a_damaged_log_is_named_by_its_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n{"ste')
    with pytest.raises(DamagedFile, match="log.jsonl is damaged at line 2"):
        read_lines(path)
    path.write_text('{"step": 1}\n{"ste')  # a torn last line is what a kill leaves
    assert read_lines(path) == [{"step": 1}]


def test_weights_that_are_torn_or_not_finite_are_refused(tmp_path):
    policy, folder = tiny_policy(word_tokenizer(WORDS)), tmp_path / "sft" / "best"
    profile = load_profile("laptop")
    policy.tokenizer.save_pretrained(folder)
    policy.model.model.norm.weight.data[0] = float("nan")
    policy.model.save_pretrained(folder)
    with pytest.raises(DamagedFile, match="damaged weights .some are not finite.; remove .*sft to"):
        load_policy(profile, folder)

    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DamagedFile, match="damaged weights"):
        load_policy(profile, folder)


def test_a_passing_error_is_no_damage(tmp_path, monkeypatch):
    """Memory that is short, or a network disk that is away, must not advise to train again."""
    profile = load_profile("laptop")
    (folder := tmp_path / "sft" / "best").mkdir(parents=True)
    for error in (
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        OSError(116, "stale"),
    ):

        def fail(*args, error=error, **kwargs):
            raise error

        monkeypatch.setattr("lib.engine.models.AutoModelForCausalLM.from_pretrained", fail)
        with pytest.raises(type(error)) as raised:
            load_policy(profile, folder)
        assert raised.value is error


def test_each_process_has_a_card_of_its_own(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert this_device() == torch.device("cuda:3") == chosen[0]
    monkeypatch.delenv("LOCAL_RANK")
    assert this_device() == torch.device("cuda:0")


def test_stages_of_other_code_are_told(tmp_path, monkeypatch):
    Stage(tmp_path, "04_grpo", {}).finish([])
    assert "other code" not in finding(tmp_path)
    monkeypatch.setattr("lib.report.code_digest", lambda: "another")
    assert f"{tmp_path / '04_grpo'} was made by other code; remove it" in finding(tmp_path)


RELEASE = """
import numpy as np, psutil
from lib.processes import release_memory
arrays = [np.ones(2**17) for _ in range(300)]  # a megabyte each, from the heap
last = np.ones(2**17)  # so that the top of the heap stays in use
arrays = None
kept = psutil.Process().memory_info().rss
release_memory()
print((kept - psutil.Process().memory_info().rss) / 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_memory_that_the_allocator_keeps_is_given_back():
    tunables = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=8589934592"
    done = subprocess.run(
        [sys.executable, "-c", RELEASE],
        env=os.environ | {"GLIBC_TUNABLES": tunables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) > 250  # MB of 300


def test_an_edited_file_of_questions_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "mine.csv"
    path.write_text("question,answers\nwhere is Rome,Italy\n")
    base = load_profile("smoke")
    profile = base.model_copy(update={"dataset": "mine", "files": {"mine": str(path)}})
    monkeypatch.setattr("lib.runs.load_profile", lambda *given: profile)
    monkeypatch.setenv("OUTPUTS", str(tmp_path / "out"))
    opened = ("01_data", "smoke", None, "mine", 0, ("data",))
    open_stage(*opened, more=source_files)
    open_stage(*opened, more=source_files)
    path.write_text("question,answers\nwhere is Rome,France\n")
    with pytest.raises(SettingsDiffer, match="sources"):
        open_stage(*opened, more=source_files)


def test_a_notebook_ends_with_its_make(tmp_path):
    words = ["01_data", "RUN=smoke", f"OUTPUTS={tmp_path}", f"PY={sys.executable}"]
    begun = tmp_path / "smoke" / "smollm2-135m" / "atlas" / "seed0" / "01_data" / "settings.json"
    log, below = tmp_path / "make.log", []
    with log.open("w") as out:  # in this session: nobody hangs up when make is gone
        make = subprocess.Popen(["make", *words], cwd=ROOT, stdout=out, stderr=out)
    try:
        end = time.monotonic() + 60
        while not begun.exists() and make.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        below = psutil.Process(make.pid).children(recursive=True)
        assert any("ipykernel_launcher" in p.cmdline() for p in below), log.read_text()
        make.terminate()
        make.wait(10)
        assert psutil.wait_procs(below, timeout=10)[1] == []
        assert not begun.with_name("done.json").exists()  # it was ended, not waited for
    finally:
        for process in below:
            if process.is_running():
                process.kill()
