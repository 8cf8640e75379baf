"""Processes: one writer for each folder, no child that outlives its parent, the memory in use."""

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
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import psutil

PARENT = "TRAINING_PARENT"  # environment: the process that a training or a notebook works for
_held: dict[Path, int] = {}  # folder -> open file of the lock, as long as this process holds it


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
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    for _ in range(5):  # a look at the lock, `held`, takes it for a moment
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        time.sleep(0.02)
    else:
        os.close(file)
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
        if psutil.pid_exists(parent) and psutil.Process(parent).status() != psutil.STATUS_ZOMBIE:
            return
        if group:
            os.killpg(os.getpid(), signal.SIGTERM)
        os._exit(1)

    _repeat(look, every)


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
    """Give memory that is not used back to the system; the allocator keeps it for the next step.

    collect: also what refers to itself, such as a trainer and its model; this takes longer.
    """
    if collect:
        gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc's
        libc.malloc_trim(0)


class PeakMemory:
    """The most memory that this process and its children have held together since it began."""

    def __init__(self, every: float = 1.0):
        self.bytes = 0
        _repeat(self.look, every)

    def look(self) -> float:
        """Take a look now; the peak so far in GB (2**30 bytes)."""
        me, total = psutil.Process(), 0
        for process in (me, *me.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.Error:  # it has ended meanwhile
                continue
        self.bytes = max(self.bytes, total)
        return self.bytes / 2**30


@functools.cache
def peak_memory() -> PeakMemory:
    """The one that every stage of this process reads."""
    return PeakMemory()
