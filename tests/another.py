"""Another process, which holds a folder or does what else a test gives it."""

import subprocess
import sys

from lib.config import ROOT

HOLDER = """
import sys, time
from pathlib import Path
from lib.processes import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def start(code: str, *arguments) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline()
    return process
