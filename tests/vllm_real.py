"""vLLM itself, beside everything of the project in one environment (make test-vllm)."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from lib.config import load_profile
from lib.engine import vllm as serving
from lib.engine.models import load_policy, wheel_weights
from lib.engine.sampling import greedy, sample
from lib.engine.vllm import open_vllm
from lib.processes import ServerError
from lib.training.grpo import train_grpo

QUESTIONS = pd.DataFrame({
    "question_id": [f"q{i}" for i in range(4)],
    "question": ["What is the capital of France?", "In which country is the city of Milan?",
                 "What is the chemical symbol of iron?", "In which country is the city of Osaka?"],
})  # fmt: skip
PORT = 8765
os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB: two engines at once


@pytest.fixture(scope="module")
def policy():
    return load_policy(load_profile("laptop"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A vLLM server of the same weights on loopback."""
    folder = str(wheel_weights())
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder,
        "--dtype", "float32", "--max-model-len", "256",
        "--enforce-eager", "--no-enable-chunked-prefill",
        "--port", str(PORT), "--host", "127.0.0.1",
    ]  # fmt: skip
    log = tmp_path_factory.mktemp("server") / "log"
    with open(log, "w") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            for _ in range(300):
                assert process.poll() is None, log.read_text()[-3000:]
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=2)
                    break
                except OSError:
                    time.sleep(1)
            yield open_vllm(folder, base_url=f"http://127.0.0.1:{PORT}/v1")
        finally:
            process.terminate()


def check(other, policy, tmp_path):
    """Greedy answers are the engine's; samples have its log-probabilities and frequencies."""
    ours, theirs = (greedy(p, QUESTIONS, max_new_tokens=16) for p in (policy, other))
    assert theirs["text"].tolist() == ours["text"].tolist()
    assert np.allclose(theirs["logprob"], ours["logprob"], atol=1e-2)

    settings = dict(seed=0, max_new_tokens=16)
    path = tmp_path / "samples.parquet"
    theirs = sample(other, QUESTIONS, 64, **settings, path=path, name="vllm")
    assert theirs.groupby("question_id").size().eq(64).all()
    assert theirs.groupby("question_id")["text"].nunique().gt(1).all()
    assert (theirs["logprob"] < 0).all()
    ended = theirs[theirs["finish"] == "stop"]
    assert len(ended)
    assert (ended["tokens"] <= 16).all()

    # the same distribution: the mean log-probabilities agree
    ours = sample(policy, QUESTIONS, 64, **settings)
    spread = np.sqrt(theirs["logprob"].var() / 256 + ours["logprob"].var() / 256)
    assert abs(theirs["logprob"].mean() - ours["logprob"].mean()) < 4 * spread

    again = sample(other, QUESTIONS, 64, **settings, path=path)
    pd.testing.assert_frame_equal(again, theirs)


def test_a_server_of_its_own_that_ends_with_its_policy(policy, tmp_path):
    folder = tmp_path / "model"  # one that proposes a penalty, which is none of the policy's
    shutil.copytree(wheel_weights(), folder)
    proposed = json.loads((folder / "generation_config.json").read_text())
    proposed |= {"repetition_penalty": 1.9, "temperature": 0.1, "top_k": 1, "min_p": 0.5}
    (folder / "generation_config.json").write_text(json.dumps(proposed))
    own = open_vllm(str(folder), dtype="float32", options=["--enforce-eager"])
    check(own, policy, tmp_path)
    [server] = [p for p in psutil.Process().children() if "api_server" in " ".join(p.cmdline())]
    family = [server, *server.children(recursive=True)]
    own = None
    assert psutil.wait_procs(family, timeout=40)[1] == []


def test_a_server_that_cannot_start_says_why(tmp_path):
    with pytest.raises(ServerError, match=r"vllm ended with status [12] .*server.log says why"):
        open_vllm(str(wheel_weights()), options=["--no-such-option"])


def test_a_server(server, policy, tmp_path, monkeypatch):
    check(server, policy, tmp_path)

    config = policy.model.generation_config
    monkeypatch.setattr(serving.AutoTokenizer, "from_pretrained", lambda *a, **k: policy.tokenizer)
    monkeypatch.setattr(serving.GenerationConfig, "from_pretrained", lambda *a, **k: config)
    with pytest.raises(LookupError, match="serves .*, not some/model"):
        open_vllm("some/model", base_url=f"http://127.0.0.1:{PORT}/v1")
    with pytest.raises(ConnectionError, match="no server answers"):
        open_vllm("some/model", base_url="http://127.0.0.1:9/v1")


def test_grpo_with_trl_s_vllm_rollouts(tmp_path, monkeypatch):
    """Two steps; TRL's vLLM takes the weights of the step, so its log-probabilities are ours.

    On a CPU vLLM packs the weights when it loads them and cannot take others; without that it is
    as on a card.
    """

    def unpacked(layer, remove_weight):
        layer.cpu_linear = torch.nn.functional.linear

    utils = "vllm.model_executor.layers.utils"
    monkeypatch.setattr(f"{utils}.dispatch_cpu_unquantized_gemm", unpacked)
    monkeypatch.setattr("lib.training.grpo.check_vllm", lambda: None)
    profile = load_profile("smoke")
    grpo = profile.grpo.model_copy(
        update={
            "rollouts": "vllm",
            "learning_rate": 2e-4,
            "questions_per_step": 4,
            "num_generations": 5,
            "micro_batch": 20,
        }
    )
    judge = profile.judge.model_copy(update={"kind": "alias"})
    profile = profile.model_copy(update={"grpo": grpo, "judge": judge})
    answers = (["France"], ["Italy"], ["Fe"], ["Japan"])
    train = QUESTIONS.assign(answers=list(answers))
    train_grpo(profile, train, train.iloc[:0], tmp_path / "vllm", seed=0, steps=2)

    log = pd.read_json(tmp_path / "vllm" / "log.jsonl", lines=True)
    assert log["step"].tolist() == [1, 2]
    assert (log["vllm_difference"] < 0.2).all()  # in bf16; 1 and more with the weights of before
    assert (log["vllm_difference"] > 0).all()
    rollouts = pd.read_json(tmp_path / "vllm" / "rollouts.jsonl", lines=True)
    assert rollouts["n"].eq(5).all()
    assert len(rollouts) == 8
