"""`make fetch` against a hub on this machine: real HTTP, commits, refusals in words."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from lib.config import PROFILES, ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = {"config.json": b"{}", "model.safetensors": b"w" * 1000, "pytorch_model.bin": b"x"}
CODE = """
import sys
from lib.study.fetch import fetch_model
try:
    print(fetch_model(sys.argv[1]))
except ValueError as error:
    sys.exit(str(error))
"""

MAIN = """
import contextlib, io, sys
from pathlib import Path
import lib.config
from lib.study import fetch
lib.config.PROFILES, runs = Path(sys.argv[1]), sys.argv[2:]
told = io.StringIO()
for run in runs:
    sys.argv[1:] = [run]
    with contextlib.redirect_stdout(told):
        fetch.main()
print(" | ".join(told.getvalue().splitlines()))
"""


class Hub(BaseHTTPRequestHandler):
    """A model `some/model` with one commit, a gated one, a benchmark's README; nothing else."""

    def reply(self, status: int, body: bytes = b"", **headers) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if "gated/" in path:
            self.reply(403, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted.")
        elif path.startswith("/api/models/some/model/revision/"):
            if path.rsplit("/", 1)[1] not in ("main", COMMIT):
                self.reply(404, X_Error_Code="RevisionNotFound")
                return
            files = [{"rfilename": name} for name in MODEL]
            about = {"id": "some/model", "sha": COMMIT, "siblings": files}
            self.reply(200, json.dumps(about).encode(), Content_Type="application/json")
        elif path.startswith(f"/api/models/some/model/tree/{COMMIT}"):
            tree = [
                {"type": "file", "path": k, "size": len(v), "oid": hashlib.sha1(v).hexdigest()}
                for k, v in MODEL.items()
            ]
            self.reply(200, json.dumps(tree).encode(), Content_Type="application/json")
        elif "/resolve/" in path and path.rsplit("/", 1)[1] in (*MODEL, "README.md"):
            body = MODEL.get(path.rsplit("/", 1)[1], b"a benchmark")
            tag = hashlib.sha1(body).hexdigest()
            self.reply(200, body, ETag=f'"{tag}"', X_Repo_Commit=COMMIT)
        else:
            self.reply(404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET

    def log_message(self, *arguments) -> None:
        """Nothing: the test reads replies."""


@contextmanager
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@pytest.fixture
def run(tmp_path):
    def run(code, *arguments, endpoint, **more):
        env = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_TOKEN": ""}
        env |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)} | more
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
        return done.returncode, (done.stdout or done.stderr).strip().splitlines()[-1]

    return run


def test_a_model_is_fetched_at_a_commit_and_refusals_say_what_to_do(run, tmp_path):
    with hub() as address:
        code, said = run(CODE, "some/model@main", endpoint=address)
        assert code == 0, said
        assert said.startswith(f"some/model: commit {COMMIT}, 0.0 GB in {tmp_path}"), said
        assert said.endswith(f"to pin it write some/model@{COMMIT}")
        fetched = {path.name for path in tmp_path.rglob("snapshots/*/*")}
        assert fetched == {"config.json", "model.safetensors"}  # no second copy of the weights
        pinned = run(CODE, f"some/model@{COMMIT}", endpoint=address)[1]
        assert "to pin it" not in pinned

        for model, words in (
            ("gated/model@main", "is gated: accept its terms"),
            ("some/model@nowhere", "has no revision 'nowhere'"),
            ("some/other@main", "is not at the hub, or private"),
        ):
            code, said = run(CODE, model, endpoint=address)
            assert code == 1
            assert said.startswith(f"{model.partition('@')[0]} {words}"), said

    # what was fetched is found without the hub; the rest says so
    assert run(CODE, f"some/model@{COMMIT}", endpoint=address)[0] == 0
    code, said = run(CODE, "some/third@main", endpoint=address)
    assert code == 1
    assert said.startswith("some/third cannot be fetched")


def test_a_benchmark_s_commit_is_recorded_and_known_again_without_the_hub(run):
    code = (
        "from lib.config import load_profile; from lib.questions.sources import source_files;"
        "print(source_files(load_profile('benchmark', None, 'popqa')))"
    )
    recorded = f"{{'sources': {{'akariasai/PopQA': 'commit {COMMIT}'}}}}"
    with hub() as address:
        assert run(code, endpoint=address, HUB_MIRROR="") == (0, recorded)
    assert run(code, endpoint=address, HUB_MIRROR="") == (0, recorded)


def test_a_run_s_data_sets_come_first_and_a_judge_only_where_it_is_served_here(run, tmp_path):
    profiles, folder = tmp_path / "profiles", tmp_path / "judge"
    shutil.copytree(PROFILES, profiles)
    folder.mkdir()
    for name, body in MODEL.items():
        (folder / name).write_bytes(body)
    mine = {"extends": "laptop", "model": "m", "models": {"m": f"some/model@{COMMIT}"}}
    mine |= {"dataset": "popqa", "transfer": {"datasets": ["simpleqa", "popqa", "atlas"]}}
    here, there = "http://localhost:8001/v1", "http://node7:8001/v1"
    model = f"some/model: commit {COMMIT}, 0.0 GB in"

    def elsewhere(name: str) -> str:
        return f"judge {name}: served elsewhere, not fetched"

    judges = [
        ({"model": "gpt-4o-mini"}, elsewhere("gpt-4o-mini")),
        ({"model": "qwen2.5:7b", "base_url": here}, elsewhere("qwen2.5:7b")),
        ({"model": "owner/big:7b"}, elsewhere("owner/big:7b")),
        ({"model": "@owner/big"}, elsewhere("@owner/big")),
        ({"model": "some/model", "base_url": there}, elsewhere("some/model")),
        ({"model": str(folder), "base_url": there}, elsewhere(str(folder))),
        ({"model": str(folder)}, f"{folder}: {folder}"),
        ({"model": f"some/model@{COMMIT}"}, model),
        ({"model": "some/model"}, model),
        ({"model": "some/model", "base_url": here}, model),  # as `make judge` serves it
    ]
    for i, (judge, _) in enumerate(judges):
        text = yaml.safe_dump(mine | {"judge": {"kind": "llm"} | judge})
        (profiles / f"mine{i}.yaml").write_text(text)
    names = [f"mine{i}" for i in range(len(judges))]
    with hub() as address:
        code, told = run(MAIN, str(profiles), *names, endpoint=address, HUB_MIRROR="x")
    assert code == 0, told
    lines = told.split(" | ")
    for i, (_, said) in enumerate(judges):
        *sets, trained, judged = lines[5 * i : 5 * i + 5]
        assert sets == [f"{name}: not from the hub" for name in ("popqa", "simpleqa", "atlas")]
        assert trained.startswith(model)
        assert judged.startswith(said), judged
