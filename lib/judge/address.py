"""Where a served judge left its address, so that runs find it; and which addresses stay here."""

import ipaddress
import json
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from lib.config import ROOT


def note() -> Path:
    """The path of `judge.json`, in which a served judge leaves base_url, model, pid and host."""
    return ROOT / os.environ.get("OUTPUTS", "outputs") / "judge.json"


def read_note() -> dict:
    """What the note says; {} without one that can be read."""
    try:
        told = json.loads(note().read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def elsewhere() -> str | None:
    """The machine that the note names, where it is another one: only there its process is seen."""
    host = read_note().get("host")
    return None if host == socket.gethostname() else host


def lives(judge: dict) -> bool:
    """Whether the process that a note of this machine names serves a judge."""
    try:
        command = Path(f"/proc/{int(judge['pid'])}/cmdline")
        if command.parent.parent.exists():  # Linux: the number may belong to another process by now
            return b"lib.judge.serve" in command.read_bytes()
        os.kill(judge["pid"], 0)
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def running() -> dict | None:
    """The note; None without one, of another machine, or when its process has ended."""
    judge = read_note()
    return judge if not elsewhere() and lives(judge) else None


def served(model: str | None) -> str | None:
    """The address at which `make judge` serves this model now, None where it does not."""
    served_note = running()
    return served_note["base_url"] if served_note and served_note.get("model") == model else None


def is_loopback(url: str) -> bool:
    """Whether an address is of this machine: no proxy of the environment may see its traffic."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False
