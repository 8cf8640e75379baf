"""JupyterLab on the sources: a save with outputs changes neither text nor time of a file."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import httpx2
import pytest

from lib.config import ROOT

TOKEN = "a-token-of-the-test"


@pytest.fixture(scope="module")
def server():
    """`make lab` on a free port; its address."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    options = f"--no-browser --port={port} --IdentityProvider.token={TOKEN}"
    command = ["make", "lab", f"PY={sys.executable}", f"LAB={options}"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    with subprocess.Popen(
        command, cwd=ROOT, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        address = f"http://127.0.0.1:{port}/api"
        try:
            for _ in range(240):
                try:
                    httpx2.get(address, timeout=2)
                    break
                except httpx2.TransportError:
                    assert process.poll() is None, process.stdout.read()
                    time.sleep(0.5)
            yield address
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_a_save_in_the_lab_leaves_the_source_as_it_was(server):
    path = ROOT / "notebooks" / "01_data.ipynb"
    text, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    head = {"Authorization": f"token {TOKEN}"}
    where = f"{server}/contents/notebooks/01_data.ipynb"
    model = httpx2.get(where, headers=head, timeout=30).json()
    assert model["type"] == "notebook"

    notebook = model["content"]
    notebook["metadata"]["language_info"] = {"name": "python", "version": "3.11.7"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            output = {"output_type": "stream", "name": "stdout", "text": "12345\n"}
            cell |= {"outputs": [output], "execution_count": 7}
            cell["metadata"]["execution"] = {"iopub.execute_input": "now"}
    try:
        saved = {"type": "notebook", "format": "json", "content": notebook}
        assert httpx2.put(where, headers=head, json=saved, timeout=30).status_code == 200
        assert path.read_bytes() == text
        assert path.stat().st_mtime_ns == times[1]

        notebook["cells"][0]["source"] += "\n\nAnother sentence."  # an edit is kept
        assert httpx2.put(where, headers=head, json=saved, timeout=30).status_code == 200
        changed = json.loads(path.read_text())
        assert "Another sentence." in "".join(changed["cells"][0]["source"])
        assert "12345" not in path.read_text()
        assert path.stat().st_mtime_ns != times[1]
    finally:
        path.write_bytes(text)
        os.utime(path, ns=times)
