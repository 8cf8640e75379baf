"""Cards are filled from a run's files; a push says first what would go."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from huggingface_hub import DatasetCard, ModelCard

from lib.config import ROOT, load_profile
from lib.study.card import dataset_card, model_card, push


@pytest.fixture
def run(tmp_path):
    run = tmp_path / "seed3"
    best = run / "04_grpo" / "grpo" / "best"
    best.mkdir(parents=True)
    (run / "02_dedup").mkdir()
    rows = [
        {"stage": "03_baselines", "name": "accuracy_base", "value": 0.4, "low": 0.3, "high": 0.5},
        {"stage": "04_grpo", "name": "accuracy_grpo", "value": 0.6, "low": 0.5, "high": 0.7},
        {"stage": "04_grpo", "name": "gain_grpo", "value": 0.2, "low": 0.1, "high": 0.3},
    ]
    (run / "summary.json").write_text(json.dumps([row | {"n": 100} for row in rows]))
    (best.parents[1] / "summary.json").write_text("[]")
    made = {"commit": "abc1234", "versions": {"torch": "2.13.0", "trl": "1.16.0"}}
    (best.parents[1] / "manifest.json").write_text(json.dumps(made))
    (best / "facts.json").write_text('{"step": 12, "accuracy": 0.61}')
    (best / "model.safetensors").write_bytes(b"w" * 2**20)
    splits = ["train"] * 7 + ["validation"] * 2 + ["test"] * 5
    pd.DataFrame({"split": splits}).to_parquet(run / "02_dedup" / "questions.parquet")
    pd.DataFrame({"train_id": ["a", "a"]}).to_parquet(run / "02_dedup" / "removed.parquet")
    return run


def test_the_model_s_card_has_the_run_s_numbers(run):
    text = model_card(load_profile("laptop"), run)
    card = ModelCard(text)
    assert card.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert card.data.license == "apache-2.0"
    for said in (
        "| greedy accuracy after | 60.0% [50.0%, 70.0%] (n=100) |",
        "| gain, in pairs | +20.0% [+10.0%, +30.0%] (n=100) |",
        "on 7 closed-book questions",
        "Seed 3, step 12",
        "commit abc1234",
        "**Limits.**",
    ):
        assert said in text
    assert "repaired" not in text  # 05 has not run
    (run / "04_grpo" / "summary.json").unlink()
    with pytest.raises(FileNotFoundError, match="run `make 04_grpo` first"):
        model_card(load_profile("laptop"), run)


def test_the_data_set_s_card_counts_its_splits_and_names_its_sources(run):
    text = dataset_card(load_profile("laptop"), run)
    assert DatasetCard(text).data.license == "cc-by-sa-3.0"
    assert "training (7), validation (2) and the test (5). 1 training questions" in text
    assert "GeoNames" in text
    other = dataset_card(load_profile("benchmark", None, "popqa"), run)
    assert DatasetCard(other).data.license == "other"
    assert "GeoNames" not in other


def test_a_push_says_first_what_would_go(run):
    said = push("model", run / "04_grpo" / "grpo" / "best", "me/mine", really=False)
    assert said.startswith("model: 2 files, 1 MB would go to me/mine (private): facts.json, model")
    said = push("dataset", run / "02_dedup", "me/mine-questions", really=False)
    assert said.endswith("(private): questions.parquet")


@pytest.mark.parametrize("really", ["", "0", "no", "false"])
def test_only_one_sends(run, tmp_path, really):
    """A hub on a dead port: what would be sent fails."""
    folder = tmp_path / "laptop" / "smollm2-135m" / "atlas" / "seed3"
    folder.parent.mkdir(parents=True)
    run.rename(folder)
    command = [sys.executable, "-m", "lib.study.card", "push", "--seed=3", "--repo=me/mine"]
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "none"}
    environment = os.environ | hub | {"OUTPUTS": str(tmp_path), "REALLY": really}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("nothing was sent; REALLY=1 sends it\n")
    assert done.stdout.count("would go to me/mine") == 2


def test_no_path_of_this_machine_is_published(run, tmp_path):
    best = run / "04_grpo" / "grpo" / "best"
    profile = load_profile("laptop")
    models = {profile.model: "/home/someone/models/qwen"}
    text = model_card(profile.model_copy(update={"models": models}), run)
    assert "`qwen` (a local folder) trained by GRPO" in text
    assert "someone" not in text
    (best / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/someone/qwen"}')
    with pytest.raises(ValueError, match="names a folder of this machine as its base"):
        push("model", best, "me/mine", really=True)
