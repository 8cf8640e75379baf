"""Several processes give what one gives, over gloo on the CPU.

A whole training runs under accelerate's DDP. The engine's forward, gradients and gathered weights
run under FSDP2, which accelerate itself does not have for the CPU.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from torch.distributed.fsdp import fully_shard

from lib.config import PROFILES, load_profile
from lib.engine.trie import share_prefixes
from lib.training.apart import read_log, read_rollouts
from lib.training.trainer import SharedPrefixGRPO
from lib.training.weights import sharded, whole_model
from tests.tiny import tiny_model

OPTIONS = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", *OPTIONS.split()]


def train(folder: Path, launch: list[str], kind="llama", code=0, settings=None, **more) -> Path:
    """Run train_tiny.py under a launcher until it ends with `code`; the folder it trained into."""
    script = Path(__file__).with_name("train_tiny.py")
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(script.parents[1]),
        "HF_HUB_OFFLINE": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    command = [*launch, str(script), str(folder), json.dumps(settings or {}), kind]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment | more, timeout=300
    )
    assert done.returncode == code, done.stderr[-3000:]
    return folder


def weights(folder: Path, name: str) -> dict:
    return load_file(folder / name / "model.safetensors")


@pytest.mark.parametrize("kind", ["llama", "qwen2", "olmo2"])
def test_two_processes_give_the_update_of_one(kind, tmp_path):
    alone = train(tmp_path / "alone", [sys.executable], kind)
    together = train(tmp_path / "together", LAUNCH, kind)
    assert (together / "processes").read_text() == "2"

    for name in ("step2", "last", "best"):
        one, two = (weights(folder, name) for folder in (alone, together))
        assert one.keys() == two.keys()
        for key in one:
            assert (one[key] - two[key]).abs().max() <= 2e-4, (name, key)  # Adam at 0.01 a step

    keys = ["step", "question_id"]
    rollouts = [read_rollouts(folder) for folder in (alone, together)]
    pd.testing.assert_frame_equal(*(r.sort_values(keys, ignore_index=True) for r in rollouts))
    columns = ["step", "reward", "accuracy", "kl"]
    logs = [read_log(folder)[columns] for folder in (alone, together)]
    pd.testing.assert_frame_equal(*logs, atol=1e-3)


def test_two_processes_share_the_reference_of_dpo(tmp_path):
    alone = train(tmp_path / "alone", [sys.executable], DPO="1")
    together = train(tmp_path / "together", LAUNCH, DPO="1")
    one, two = (weights(folder, "last") for folder in (alone, together))
    assert all((one[key] - two[key]).abs().max() <= 2e-4 for key in one)


def test_two_killed_processes_go_on_to_the_same_weights(tmp_path):
    whole = train(tmp_path / "whole", LAUNCH)
    killed = train(tmp_path / "killed", LAUNCH, code=1, KILL="3")
    assert not (killed / "budget.json").exists()
    assert train(killed, LAUNCH) == killed
    for name in ("step2", "last", "best"):
        one, two = (weights(folder, name) for folder in (whole, killed))
        assert all(torch.equal(one[key], two[key]) for key in one), name
    columns = ["step", "reward", "accuracy", "kl"]
    logs = [read_log(folder)[columns] for folder in (whole, killed)]
    pd.testing.assert_frame_equal(*logs)


def test_processes_whose_judges_differ_do_as_the_first_says(tmp_path):
    folder = train(tmp_path / "run", LAUNCH, settings={"evaluate_every": 1}, FLAKY="1")
    log = read_log(folder)
    assert log["step"].tolist() == [0, 1, 2, 3]
    assert (6 * log["accuracy"]).round().tolist() == [6, 2, 5, 5]
    assert json.loads((folder / "best" / "facts.json").read_text())["step"] == 2


def one_of_two(rank: int, address: str) -> None:
    """One process of the FSDP2 test: both hold half of the weights."""
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    plain, model = (share_prefixes(tiny_model(spread=0.2)) for _ in range(2))
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    assert sharded(model)
    assert not sharded(plain)
    model.generation_config.eos_token_id = [2, 5]

    # the gradients: FSDP gives the mean over the processes
    ids = torch.randint(3, 97, (4, 9), generator=torch.Generator().manual_seed(rank))
    ids[1:, :5] = ids[0, :5]  # a prefix that the rows share
    labels = ids.masked_fill(torch.arange(9) < 5, -100)
    for one in (plain, model):
        one(input_ids=ids, labels=labels, fused_lm_head=True).loss.backward()
    for (name, part), whole in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.distributed.all_reduce(whole.grad)
        assert torch.allclose(part.grad.full_tensor(), whole.grad / 2, atol=1e-5), name

    # the gathered weights
    trainer = SharedPrefixGRPO.__new__(SharedPrefixGRPO)
    trainer.model = model
    trainer.args = SimpleNamespace(bf16=False)
    trainer.accelerator = SimpleNamespace(unwrap_model=lambda m: m, device=torch.device("cpu"))
    whole = whole_model(trainer)
    for (name, mine), theirs in zip(whole.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, theirs), name
    assert whole.generation_config.eos_token_id == [2, 5]
    trainer.args.bf16, trainer._whole = True, None
    half = whole_model(trainer)
    assert half.dtype == torch.bfloat16
    frequencies = (one.model.rotary_emb.inv_freq for one in (half, plain))
    assert torch.equal(*frequencies)  # a rounded one turns late tokens by the wrong angle

    torch.distributed.barrier()
    # gloo's threads may still hold tensors, and abort an interpreter that is shutting down
    os._exit(0)


def test_the_engine_under_fsdp2(tmp_path):
    torch.multiprocessing.spawn(one_of_two, (f"file://{tmp_path}/meet",), nprocs=2)


def test_shipped_configurations_are_what_accelerate_reads():
    kinds = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED"}
    files = {
        path.stem: load_config_from_file(str(path))
        for path in (PROFILES / "accelerate").glob("*.yaml")
    }
    assert {name: str(file.distributed_type.value) for name, file in files.items()} == kinds
    assert files["fsdp2"].fsdp_config["fsdp_version"] == 2
    assert files["zero2"].deepspeed_config["zero_stage"] == 2

    launch = load_profile("paper").launch.format(profiles=PROFILES).split()
    assert Path(launch[launch.index("--config_file") + 1]).is_file()
