"""Replies of a model kept on disk, so that no call is paid for twice and a kill loses a few at most."""

import json
import os
import zlib
from fcntl import LOCK_EX, LOCK_SH, flock
from pathlib import Path

BATCH = 64  # records between two fsyncs: what a kill can lose


class Cache:
    """Replies on disk: append-only JSON lines of key, reply and checksum; several processes may share the file.

    `damaged` counts lines that fail their checksum; their calls are simply asked again.
    """

    def __init__(self, path: Path):
        self.path, self.replies, self.damaged = Path(path), {}, 0
        self.waiting, self.read_to = [], 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.read()

    def read(self) -> None:
        """Take in what this or another process appended since the last look."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            flock(file, LOCK_SH)
            file.seek(self.read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # torn by a kill; the next append puts a newline after it
                self.read_to += len(line)
                record = _record(line)
                if record:
                    self.replies[record[0]] = record[1]
                else:
                    self.damaged += 1

    def add(self, key: str, reply: str) -> None:
        """Keep a reply; every BATCH of them goes to disk."""
        self.replies[key] = reply
        self.waiting.append((key, reply))
        if len(self.waiting) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Append the waiting replies and fsync; one writer at a time, others wait."""
        if not self.waiting:
            return
        lines = b"".join(_line(key, reply) for key, reply in self.waiting)
        with open(self.path, "ab+") as file:
            flock(file, LOCK_EX)
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    lines = b"\n" + lines
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        self.waiting = []


def _checksum(key: str, reply: str) -> int:
    return zlib.crc32(f"{key}\n{reply}".encode("utf-8", "surrogatepass"))


def _line(key: str, reply: str) -> bytes:
    record = {"key": key, "reply": reply, "crc": _checksum(key, reply)}
    return json.dumps(record).encode() + b"\n"  # ASCII, so a reply's own line breaks are escaped


def _record(line: bytes) -> tuple[str, str] | None:
    """(key, reply) of a whole line, None for a damaged one."""
    try:
        record = json.loads(line)
        key, reply = record["key"], record["reply"]
        if isinstance(key, str) and isinstance(reply, str) and record["crc"] == _checksum(key, reply):
            return key, reply
    except (ValueError, KeyError, TypeError):
        pass
    return None
