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


def train(folder: Path, launch: list[str], **settings) -> Path:
    """Run train_tiny.py under a launcher; the folder that it trained into."""
    script = Path(__file__).with_name("train_tiny.py")
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(script.parents[1]),
        "HF_HUB_OFFLINE": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    command = [*launch, str(script), str(folder), json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train(tmp_path_factory.mktemp("alone") / "run", [sys.executable])


def test_two_processes_give_the_update_of_one(alone, tmp_path):
    together = train(tmp_path / "run", LAUNCH)
    assert (together / "processes").read_text() == "2"

    for name in ("step2", "last", "best"):
        one, two = (load_file(folder / name / "model.safetensors") for folder in (alone, together))
        assert one.keys() == two.keys()
        for key in one:
            assert (one[key] - two[key]).abs().max() <= 2e-4, (name, key)  # Adam at 0.01 a step

    keys = ["step", "question_id"]
    rollouts = [read_rollouts(folder) for folder in (alone, together)]
    pd.testing.assert_frame_equal(*(r.sort_values(keys, ignore_index=True) for r in rollouts))
    columns = ["step", "reward", "accuracy", "kl"]
    logs = [read_log(folder)[columns] for folder in (alone, together)]
    pd.testing.assert_frame_equal(*logs, atol=1e-3)


def one_of_two(rank: int, address: str) -> None:
    """One process of the FSDP2 test: both hold half of the weights."""
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    plain, model = (share_prefixes(tiny_model(spread=0.2)) for _ in range(2))
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    assert sharded(model)
    assert not sharded(plain)

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
