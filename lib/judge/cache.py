"""Replies of a model kept on disk: no call is paid for twice, a kill loses only open calls."""

import json
import os
import sys
import time
import zlib
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_UN, flock
from pathlib import Path

EVERY = 1.0  # seconds between two fsyncs: what a power cut can lose; a killed process loses nothing


class ReplyCache:
    """Append-only JSON lines of key, reply and checksum; several processes may share the file.

    `damaged` counts lines that fail their checksum; their calls are simply asked again.
    """

    def __init__(self, path: Path):
        self.path, self.replies, self.damaged = Path(path), {}, 0
        self.file, self.read_to, self.synced = None, 0, 0.0
        self.read()

    def read(self) -> None:
        """Take in what this or another process appended since the last look."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:  # without a lock: writers would wait for minutes
            file.seek(self.read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # half written, or torn by a kill: then the next append ends it
                self.read_to += len(line)
                record = _record(line)
                if record:
                    self.replies[record[0]] = record[1]
                else:
                    self.damaged += 1

    def open(self) -> None:
        """Make sure that replies can be written before one is paid for; raises OSError."""
        if self.file is None:
            with explained(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.file = open(self.path, "ab+", buffering=0)  # noqa: SIM115  closed with the cache

    def add(self, key: str, reply: str) -> None:
        """Keep a reply: written at once, one writer at a time, fsynced each second."""
        self.open()
        line = _line(key, reply)
        with explained(self.path), locked(self.file):
            size = os.fstat(self.file.fileno()).st_size
            if size and os.pread(self.file.fileno(), 1, size - 1) != b"\n":
                line = b"\n" + line
            while line:  # a disk that fills up takes a part, then raises
                line = line[self.file.write(line) :]
        self.replies[key] = reply
        if time.monotonic() - self.synced > EVERY:
            self.flush()

    def flush(self) -> None:
        """See that what was added is on the disk itself."""
        if self.file is not None:
            with explained(self.path):
                os.fsync(self.file.fileno())
            self.synced = time.monotonic()


@contextmanager
def locked(file):
    """The file locked for this process alone, as long as the block runs."""
    flock(file, LOCK_EX)
    try:
        yield
    finally:
        flock(file, LOCK_UN)


@contextmanager
def explained(path: Path):
    """A failure to write as one line that says what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path}: replies cannot be kept there ({error.strerror}); what was kept stays; make "
            "room "
            "or set OUTPUTS to another folder, then run again",
        ) from None


def _checksum(key: str, reply: str) -> int:
    return zlib.crc32(f"{key}\n{reply}".encode("utf-8", "surrogatepass"))


def _line(key: str, reply: str) -> bytes:
    record = {"key": key, "reply": reply, "crc": _checksum(key, reply)}
    return json.dumps(record).encode() + b"\n"  # ASCII, so a reply's own line breaks are escaped


def _record(line: bytes) -> tuple[str, str] | None:
    """(key, reply) of a whole line, None for a damaged one."""
    # nearly every line is a verdict in the shape that _line writes; read by hand, a million open in
    # two seconds
    head, _, crc = line.rpartition(b'", "crc": ')
    key, _, reply = head[9:].partition(b'", "reply": "')
    if (
        line.startswith(b'{"key": "')
        and head.count(b'"') == 7
        and b"\\" not in head
        and line.isascii()
    ):
        if crc == b"%d}\n" % zlib.crc32(key + b"\n" + reply):
            return key.decode(), sys.intern(reply.decode()) if len(reply) < 16 else reply.decode()
        return None
    try:
        record = json.loads(line)
        key, reply = record["key"], record["reply"]
        if (
            isinstance(key, str)
            and isinstance(reply, str)
            and record["crc"] == _checksum(key, reply)
        ):
            return key, reply
    except (ValueError, KeyError, TypeError):
        pass
    return None
