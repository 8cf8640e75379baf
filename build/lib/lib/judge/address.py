"""Where a served judge left its address, so that runs find it; and which addresses stay here."""

import ipaddress
import json
import os
from pathlib import Path
from urllib.parse import urlsplit

from lib.config import ROOT


def note() -> Path:
    """The path of `judge.json`, in which a served judge leaves base_url, model and pid."""
    return ROOT / os.environ.get("OUTPUTS", "outputs") / "judge.json"


def running() -> dict | None:
    """The note's base_url, model and pid; None without a note or when its process has ended."""
    try:
        served_note = json.loads(note().read_text())
        command = Path(f"/proc/{int(served_note['pid'])}/cmdline")
        if command.parent.parent.exists():  # Linux: the number may belong to another process by now
            return served_note if b"lib.judge.serve" in command.read_bytes() else None
        os.kill(served_note["pid"], 0)
        return served_note
    except (OSError, ValueError, KeyError, TypeError):
        return None


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
