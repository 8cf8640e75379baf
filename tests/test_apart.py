"""The plan of a training's steps, by hand, and the processes that train."""

import sys
from pathlib import Path

import pytest

from lib.config import load_profile
from lib.training.apart import advantages, schedule, train_apart, training_steps
from tests.tiny import tiny_profile, with_grpo


def test_every_pass_asks_every_question_once():
    ids = [f"q{i}" for i in range(10)]
    order = schedule(ids, 7, 4, seed=0)
    assert len(order) == 28
    assert sorted(order[:10]) == ids
    assert sorted(order[10:20]) == ids
    assert order[:10] != order[10:20]
    assert schedule(["a"], 1, 3, seed=0) == ["a"] * 3


def test_the_seed_decides_the_order():
    ids = [f"q{i}" for i in range(10)]
    order = schedule(ids, 7, 4, seed=0)
    assert order == schedule(ids, 7, 4, seed=0)
    assert order != schedule(ids, 7, 4, seed=1)


def test_advantages_by_hand():
    # 1 of 4: mean 1/4, standard deviation sqrt(((3/4)^2 + 3 (1/4)^2) / 3) = 1/2
    assert advantages([1, 0, 0, 0]) == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-3)
    assert advantages([0, 0]) == [0, 0]
    assert advantages([1, 1]) == [0, 0]


def test_steps_come_from_epochs():
    profile = tiny_profile(load_profile("laptop"))
    paper = with_grpo(profile, steps=None, epochs=8.0, questions_per_step=128)
    assert training_steps(profile, 100) == 4
    assert training_steps(paper, 10_000) == 625
    assert training_steps(with_grpo(profile, steps=None, epochs=1.0), 3) == 1


def test_the_launcher_is_honoured_and_failure_is_told(tmp_path, capsys):
    module = "lib.training.arms"
    sft, rft = {"sft": tmp_path / "sft"}, {"rft": tmp_path / "rft"}
    asked = f"{tmp_path.name}/sft --run tiny --seed 3"
    told = rf"code 0, \['sft'\] not whole: launched -m {module} {asked}"
    with pytest.raises(RuntimeError, match=told):
        train_apart(sft, "tiny", seed=3, launch="echo launched")
    assert "launched" in capsys.readouterr().out

    (tmp_path / "rft").mkdir()
    (tmp_path / "rft" / "budget.json").write_text('{"steps": 2}')
    # nothing is started where all is finished
    left = tmp_path / "rft" / "work" / "checkpoint-2"  # a kill came before it was dropped
    left.mkdir(parents=True)
    assert train_apart(rft, "tiny", launch="false") == [{"steps": 2}]
    assert not left.parent.exists()
    with pytest.raises(RuntimeError, match="code 1"):
        train_apart(rft | sft, "tiny", launch="false")


@pytest.mark.parametrize(
    "options",
    [
        "--num_processes 1",
        "--multi_gpu --num_processes 2 --main_process_port 18441",
    ],
)
def test_a_failure_under_a_launcher_is_told_in_the_training_s_words(options, tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text(
        "class SettingsDiffer(ValueError): pass\nraise SettingsDiffer('grpo.steps: 1 -> 2')\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parent.parent}")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    plain = "--mixed_precision no --dynamo_backend no --num_machines 1"
    launch = f"{sys.executable} -m accelerate.commands.launch {plain} {options}"
    with pytest.raises(RuntimeError) as error:
        train_apart({"sft": tmp_path / "sft"}, "tiny", launch=launch, module="failing")
    said = str(error.value)
    assert said.startswith("failing ended with code 1, ['sft'] not whole: ")
    assert said.endswith("SettingsDiffer: grpo.steps: 1 -> 2")
    assert said.count("|") == 0
