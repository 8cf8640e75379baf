"""A push arrives: huggingface_hub's own client against a server that speaks the hub's protocol."""

import base64
import hashlib
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from lib.config import ROOT
from tests.test_card import run as run_of_card

TOKEN = "hf_of_the_test"


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that a push takes; what arrives is kept by the server."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            kind = asked.get("type") or "model"
            prefix = "datasets/" if kind == "dataset" else ""
            url = {"url": f"{self.server.url}/{prefix}me/{asked['name']}"}
            if asked["name"] in self.server.public:
                return self.answer(409, url | {"error": "You already created this repo"})
            self.server.private[kind] = asked["visibility"] == "private"
            return self.answer(200, url)
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"warnings": [], "errors": []})
        if "/preupload/" in self.path:
            return self.answer(200, {"files": [self.mode(f) for f in json.loads(body)["files"]]})
        if self.path.endswith("/info/lfs/objects/batch"):
            return self.answer(
                200, {"objects": [self.place(o) for o in json.loads(body)["objects"]]}
            )
        assert self.path.endswith("/commit/main"), self.path
        self.commit(self.path.split("/")[2], [json.loads(line) for line in body.splitlines()])
        url = f"{self.server.url}/me/mine/commit/0"
        return self.answer(200, {"success": True, "commitUrl": url, "commitOid": "0" * 40})

    def do_GET(self):
        name = self.path.split("/")[-1]
        sent = {"id": f"me/{name}", "private": name not in self.server.public}
        self.answer(200, sent)

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.stored[hashlib.sha256(body).hexdigest()] = body
        self.answer(200, {})

    def mode(self, file):
        large = file["path"].endswith((".safetensors", ".parquet"))
        mode = {"uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        return {"path": file["path"]} | mode

    def place(self, file):
        href = f"{self.server.url}/stored/{file['oid']}"
        return file | {"actions": {"upload": {"href": href}}}

    def commit(self, kind, lines):
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.files[kind, value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[kind, value["path"]] = self.server.stored[value["oid"]]

    def answer(self, status, body):
        sent = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.private, server.public, server.stored, server.files = {}, set(), {}, {}
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def push_to(hub, outputs, token):
    command = [sys.executable, "-m", "lib.study.card", "push", "--seed=3", "--repo=me/mine"]
    # without xet, the hub's own storage, files go by plain HTTP
    settings = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    environment = os.environ | settings | {"HF_TOKEN": token, "OUTPUTS": outputs, "REALLY": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


run = run_of_card  # a fixture


@pytest.fixture
def outputs(run, tmp_path):
    folder = tmp_path / "laptop" / "smollm2-135m" / "atlas" / "seed3"
    folder.parent.mkdir(parents=True)
    run.rename(folder)
    return str(tmp_path), folder


def test_a_push_sends_every_byte_to_private_repositories(hub, outputs):
    place, folder = outputs
    done = push_to(hub, place, TOKEN)
    assert done.returncode == 0, done.stderr
    assert "model: 3 files, 1 MB are at me/mine (private)" in done.stdout
    assert "dataset: 2 files, 0 MB are at me/mine-questions (private)" in done.stdout
    assert hub.private == {"model": True, "dataset": True}
    best, questions = folder / "04_grpo" / "grpo" / "best", folder / "02_dedup"
    names = ("README.md", "facts.json", "model.safetensors")
    expected = {("models", name): (best / name).read_bytes() for name in names}
    expected |= {
        ("datasets", name): (questions / name).read_bytes()
        for name in ("README.md", "questions.parquet")
    }
    assert hub.files == expected  # removed.parquet stays at home


def test_a_push_without_rights_is_one_line_and_sends_nothing(hub, outputs):
    done = push_to(hub, outputs[0], "hf_wrong")
    assert done.returncode == 1
    assert done.stderr.startswith("push: ") and done.stderr.count("\n") == 1
    assert "hf_wrong" not in done.stdout + done.stderr
    assert hub.files == {}


@pytest.mark.parametrize(("public", "sent"), [({"mine"}, set()), ({"mine-questions"}, {"models"})])
def test_nothing_is_sent_to_a_repository_that_others_can_read(hub, outputs, public, sent):
    hub.public = public
    done = push_to(hub, outputs[0], TOKEN)
    assert done.returncode == 1
    assert f"me/{public.pop()} is there and public" in done.stderr
    assert {kind for kind, _ in hub.files} == sent


def test_a_hub_that_hangs_up_is_one_line(hub, outputs):
    hub.RequestHandlerClass.answer, answer = lambda self, *_: self.connection.close(), Hub.answer
    try:
        done = push_to(hub, outputs[0], TOKEN)
    finally:
        Hub.answer = answer
    assert done.returncode == 1
    assert done.stderr.startswith("push: ") and done.stderr.count("\n") == 1, done.stderr
