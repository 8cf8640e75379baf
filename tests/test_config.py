"""Profiles: those that are shipped, and what is said about a wrong one."""

import re
import subprocess
import sys

import pytest
import yaml

from lib import config
from lib.config import ATLAS_RELATIONS, PROFILES, ROOT, ProfileError, load_profile
from lib.engine.models import locate
from lib.questions.atlas import WORDINGS

SHIPPED = sorted(path.stem for path in PROFILES.glob("*.yaml"))


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes the laptop profile with changes to dotted keys (None removes one); gives its name."""
    monkeypatch.setattr(config, "PROFILES", tmp_path)

    def write(**changes):
        values = yaml.safe_load((PROFILES / "laptop.yaml").read_text())
        for key, value in changes.items():
            *sections, last = key.split("__")
            place = values
            for section in sections:
                place = place[section]
            place.pop(last, None) if value is None else place.update({last: value})

        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
        return "mine"

    return write


def test_seven_profiles_are_shipped_and_sound():
    assert SHIPPED == ["benchmark", "example", "gpu", "laptop", "lora", "paper", "smoke"]
    for name in SHIPPED:
        profile = load_profile(name)
        for source in profile.models.values():
            assert source == "wheel" or locate(source)[1]
        assert profile.sampling.rollout_tokens <= profile.sampling.max_new_tokens
        assert profile.grpo.steps is None or profile.attribution.steps <= profile.grpo.steps


def test_atlas_has_a_wording_for_each_relation_a_profile_may_name():
    assert list(WORDINGS) == list(ATLAS_RELATIONS)


def test_the_paper_profile_holds_what_the_paper_states():
    paper = load_profile("paper")
    assert {s.split("@")[0] for s in paper.models.values()} == {
        "Qwen/Qwen2.5-7B-Instruct",
        "meta-llama/Llama-3.1-8B-Instruct",
        "allenai/OLMo-2-1124-7B-Instruct",
    }

    grpo = paper.grpo
    assert grpo.learning_rate == 1e-6
    assert grpo.questions_per_step == 128
    assert grpo.epochs == 8
    assert grpo.beta == 0.001
    assert grpo.epsilon == 0.2
    assert grpo.num_generations == 5

    assert paper.judge.kind == "llm"
    assert paper.judge.model == "Qwen/Qwen2.5-72B-Instruct"
    assert paper.data.train == 10_000
    assert paper.data.test == "official"
    assert paper.sampling.train_samples == 128


def test_every_value_of_the_paper_s_protocol_has_its_mark():
    text = (PROFILES / "paper.yaml").read_text()
    for section in ("grpo", "sampling", "data"):
        block = re.search(rf"^{section}:\n((?:  .*\n)+)", text, flags=re.MULTILINE)[1]
        lines = block.splitlines()
        assert [line for line in lines if not re.search(r"#.*(\[[SI?]\]|only)", line)] == []


def test_an_unknown_profile_lists_the_known_ones(written):
    written()
    with pytest.raises(ProfileError, match="unknown profile 'nope'; allowed: mine"):
        load_profile("nope")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"model": "big"}, r"mine.yaml: unknown model 'big'; allowed: smollm2-135m"),
        (
            {"dataset": "sq"},
            r"unknown dataset 'sq'; allowed: atlas, nq, triviaqa, popqa, simpleqa",
        ),
    ],
)
def test_an_unknown_model_or_dataset_lists_the_known_ones(written, chosen, message):
    with pytest.raises(ProfileError, match=message):
        load_profile(written(), **chosen)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grpo__lr": 1}, r"mine.yaml: unknown key `grpo.lr`; allowed: .*learning_rate"),
        (
            {"data__relations": {"city": 1.0}},
            r"unknown relation \['city'\]; allowed: city_country",
        ),
    ],
)
def test_unknown_keys_list_the_allowed_ones(written, changes, message):
    with pytest.raises(ProfileError, match=message):
        load_profile(written(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grpo__learning_rate": "fast"}, "`grpo.learning_rate` = 'fast'"),
        ({"grpo__learning_rate": "1e-6x"}, "`grpo.learning_rate`"),
        ({"grpo__num_generations": 1}, "`grpo.num_generations` = 1: .*greater than or equal to 2"),
        ({"sampling__train_samples": 0}, "`sampling.train_samples` = 0"),
        ({"dedup__similarity": 1.5}, "`dedup.similarity` = 1.5"),
        ({"judge__kind": "magic"}, "`judge.kind` = 'magic': .*'exact', 'alias' or 'llm'"),
        ({"judge__kind": "llm"}, "a judge of kind `llm` needs `model`"),
        ({"grpo__epochs": 1.0}, "exactly one of `steps` and `epochs`"),
        ({"grpo__steps": None}, "exactly one of `steps` and `epochs`"),
        ({"grpo__beta": 0.1}, "exact only at `beta: 0`"),
        ({"models": {"a/b": "wheel"}}, "a name becomes a folder"),
        ({"files": {"nq": "q.csv"}}, "the name of a known data set"),
        ({"dtype": "float16"}, "`dtype` = 'float16'"),
        ({"sft": None}, "`sft` is missing"),
        ({"lora": {"rank": 16, "alpha": float("inf")}}, "`lora.alpha` = inf: .*finite"),
        ({"attribution__strata__low": [0.5, 0.1]}, r"`low` = \[0.5, 0.1\] holds no share"),
        ({"attribution__strata__low": [0.5, 0.5]}, r"`low` = \[0.5, 0.5\] holds no share"),
        (
            {"transfer__sources__x": ["captal"]},
            r"names \['captal'\], no relation of atlas; allowed",
        ),
        (
            {"transfer__sources__first": ["city_country"]},
            r"\['first'\]: a training of the study has",
        ),
        ({"transfer__sources": {"../x": ["city_country"]}}, "String should match pattern"),
        ({"attribution__strata__not_low": [0.5, 0.6]}, r"\['not_low'\]: a training of the study"),
        ({"attribution__strata__x/y": [0.5, 0.6]}, "String should match pattern"),
        ({"ablations__arms__default": {}}, r"\['default'\]: a training of the study has"),
        ({"ablations__arms__coin_reward": {}}, r"\['coin_reward'\]: a training of the study"),
        ({"transfer__halved": ["captal"]}, r"names \['captal'\], no relation of atlas"),
        ({"ablations__arms__a": {"st": 1}}, "unknown key `ablations.arms.a.st`; allowed: .*set"),
        ({"ablations__arms__set": {"st": 1}}, "unknown key `ablations.arms.set.st`; allowed: p"),
        (
            {"ablations__arms__a": {"set": {"grpo.stp": 1}}},
            "arm 'a' .*`grpo.stp`; allowed: b.*steps",
        ),
        ({"ablations__arms__a": {"set": {"grpo.beta": -1}}}, "arm 'a' .*`grpo.beta` = -1: Input"),
        ({"ablations__arms__a": {"set": {"grp.beta": 1}}}, "arm 'a' .*no section `grp`"),
        ({"audit__hacking__judge": {"knd": 1}}, "unknown key `audit.hacking.judge.knd`; allowed: "),
        (
            {"judge__auditor": {"mdl": 1}},
            "unknown key `judge.auditor.mdl`; allowed: base_url, model",
        ),
    ],
)
def test_impossible_values_name_file_and_key(written, changes, message):
    with pytest.raises(ProfileError, match="mine.yaml: .*" + message) as found:
        load_profile(written(**changes))
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 700  # never the profile itself


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a", "expected a mapping"), ("a: [", "not valid YAML"), ("", "expected a mapping")],
)
def test_a_file_that_is_no_mapping(tmp_path, monkeypatch, text, message):
    monkeypatch.setattr(config, "PROFILES", tmp_path)
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(ProfileError, match=message):
        load_profile("odd")


def test_the_mirror_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("HUB_MIRROR", "/somewhere")
    assert load_profile("laptop").hub_mirror == "/somewhere"


def test_the_command_ends_in_one_line():
    command = [sys.executable, "-m", "lib.config", "laptop", "big"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "unknown model 'big'" in done.stderr
