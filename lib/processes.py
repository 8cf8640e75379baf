"""Processes: one writer for each folder, children and servers that end in time, memory in use."""

import atexit
import contextlib
import ctypes
import fcntl
import functools
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import psutil

PARENT = "TRAINING_PARENT"  # environment: the process that a training or a notebook works for
LIBC = ctypes.CDLL(None)
PATIENCE = 3600  # seconds a server may take to load: 72B from a network disk needs many minutes
SIGN_OF_LIFE = 15.0  # seconds between two signs of life while it loads
_held: dict[Path, int] = {}  # folder -> open file of the lock, as long as this process holds it


def process_count() -> int:
    """How many processes a launcher started for this training, over all nodes; else 1."""
    return int(os.environ.get("WORLD_SIZE", 1))


class FolderInUse(RuntimeError):
    """Another process writes into the folder: the message says which one, and since when."""


def hold(folder: Path) -> int:
    """Lock a folder for this process; again by the same process it does nothing.

    Returns the lock's open file: a child that inherits it holds the folder as well. The operating
    system lets go of the lock of a process that has ended, however it ended. Raises FolderInUse
    when a living process holds it.
    """
    folder = folder.resolve()
    if folder in _held:
        return _held[folder]
    path = folder / "lock.json"
    for _ in range(5):  # a look at the lock, `held`, takes it for a moment
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file).st_ino == path.stat().st_ino:
                break  # else its last owner has removed it meanwhile
        os.close(file)
        time.sleep(0.02)
    else:
        raise FolderInUse(
            f"{folder} is written by {_owner(path)}; wait, stop it, or use another OUTPUTS"
        ) from None
    owner = {"process": os.getpid(), "host": socket.gethostname()}
    owner["since"] = datetime.now().isoformat(sep=" ", timespec="seconds")
    os.ftruncate(file, 0)
    os.pwrite(file, (json.dumps(owner) + "\n").encode(), 0)
    _held[folder] = file
    return file


def held(folder: Path) -> bool:
    """Whether a living process holds the lock of a folder; a lock that the dead left is none."""
    try:
        file = os.open(folder / "lock.json", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(file)


def let_go(folder: Path) -> None:
    """Give the lock back, and remove its file."""
    file = _held.pop(folder.resolve(), None)
    if file is not None:
        (folder / "lock.json").unlink(missing_ok=True)
        os.close(file)


def _owner(path: Path) -> str:
    """Who holds a lock, in words."""
    try:
        owner = json.loads(path.read_text())
        return f"process {owner['process']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"


def end_with_parent(every: float = 1.0, group: bool = False) -> None:
    """Let this process end soon after the one that it works for, if that one is named.

    A kernel that is killed, or whose terminal closes, would leave its training behind. group: end
    the whole process group, which this process must lead.
    """
    parent = int(os.environ.get(PARENT, 0))
    if not parent:
        return

    def look() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(parent).status() != psutil.STATUS_ZOMBIE:
                return
        if group:
            os.killpg(os.getpid(), signal.SIGTERM)
        os._exit(1)

    _repeat(look, every)


class ServerError(RuntimeError):
    """A server does not come up: the message says why and what to do."""


def start_server(command: list[str], log: Path) -> subprocess.Popen:
    """A process that leads a group of its own, ends with this one, and writes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=file, start_new_session=True, preexec_fn=_dies_with_parent
        )


def _dies_with_parent() -> None:
    """In the child: end when its parent ends, even by kill -9 (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def wait_for_server(
    process: subprocess.Popen, answers: Callable[[], bool], log: Path, name: str
) -> float:
    """Wait until `answers()`; the seconds that it took. Raises ServerError where it ended."""
    began = last_sign = time.monotonic()
    while not answers():
        if process.poll() is not None:
            lines = log.read_text(errors="replace").splitlines()
            why = " ".join([line for line in lines if "error" in line.lower()][-1:])[-300:]
            raise ServerError(
                f"vllm ended with status {process.returncode} before it answered; {log} says why: "
                f"{why}"
            )
        now = time.monotonic()
        if now - began > PATIENCE:
            raise ServerError(f"no answer within {PATIENCE} s; see {log}")
        if now - last_sign > SIGN_OF_LIFE:
            print(f"{name} loads, {now - began:.0f} s so far (log: {log})", flush=True)
            last_sign = now
        time.sleep(1)
    return time.monotonic() - began


def stop_server(process: subprocess.Popen) -> None:
    """End a server and everything it started: asked first, killed after half a minute."""
    for number, wait in ((signal.SIGTERM, 30), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
            break
    with contextlib.suppress(ProcessLookupError):  # what outlived its parent
        os.killpg(process.pid, signal.SIGKILL)


def _repeat(work: Callable[[], object], every: float) -> None:
    """Call `work` now and every so many seconds, in a thread of its own, until this process ends.

    The thread is over before the interpreter takes itself apart: Python 3.11 crashes at times
    when a thread wakes up in the middle of that.
    """
    ending = threading.Event()

    def run() -> None:
        work()
        while not ending.wait(every):
            work()

    thread = threading.Thread(target=run, daemon=True)

    def end() -> None:
        ending.set()
        thread.join()

    atexit.register(end)
    thread.start()


def release_memory(collect: bool = True) -> None:
    """Give memory that is not used back to the system and its cards; allocators keep it else.

    collect: also what refers to itself, such as a trainer and its model; this takes longer.
    """
    if collect:
        gc.collect()
    if hasattr(LIBC, "malloc_trim"):  # glibc's
        LIBC.malloc_trim(0)
    torch = sys.modules.get("torch")  # not loaded where nobody needs it
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class PeakMemory:
    """The most memory that this process and its children have held together since it began.

    Where the system tells (Linux), what they share counts once: weights and libraries that several
    have mapped.
    """

    def __init__(self, every: float = 1.0):
        self.bytes = 0
        _repeat(self.look, every)

    def look(self) -> float:
        """Take a look now; the peak so far in GB (2**30 bytes)."""
        me = psutil.Process()
        family = (me, *me.children(recursive=True))
        if _memory_of(family, "memory_info", "rss") > self.bytes:  # the finer look takes longer
            self.bytes = max(self.bytes, _memory_of(family, "memory_full_info", "pss"))
        return self.bytes / 2**30


def _memory_of(processes, look: str, kind: str) -> int:
    """Bytes of the processes together; resident ones where the system has not this kind."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            found = getattr(process, look)()
            total += getattr(found, kind, found.rss)
    return total


@functools.cache
def peak_memory() -> PeakMemory:
    """The one that every stage of this process reads."""
    return PeakMemory()
