"""Profiles that extend another one, single settings, and what differs between two."""

import pytest

from lib.config import PROFILES, ProfileError, load_profile
from lib.runs import run_folder
from lib.variants import differing, given, read_profile, with_given


def test_a_profile_extends_another_section_by_section(tmp_path):
    (tmp_path / "base.yaml").write_text("a: {x: 1, y: {p: 1, q: 2}}\nb: 3\n")
    (tmp_path / "child.yaml").write_text("extends: base\na: {y: {p: 5}}\nc: 4\n")
    values = read_profile(tmp_path / "child.yaml")
    assert values == {"a": {"x": 1, "y": {"p": 5}}, "b": 3, "c": 4}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("extends: nobody\n", "extends 'nobody', which is not there; profiles: base, middle, odd"),
        ("extends: middle\n", "'middle' extends another profile itself"),
        ("- a\n", "expected a mapping"),
        ("a: [\n", "not valid YAML"),
        ("extends: ../base\n", "extends '../base', which is not there"),
        ("a: {x: 1}\nb: 2\na:\n  y: 2\n", "odd.yaml: line 3: `a` is there twice, first in line 1"),
        (
            "a:\n  x: 1\n  y: {z: 1, z: 2}\n",
            "odd.yaml: line 3: `z` is there twice, first in line 3",
        ),
        ("a: {x: 010}\n", "odd.yaml: line 1: 010 would be read as another number; write it"),
        ("a: 1:30\n", "1:30 would be read as another number"),
        ("1: a\n", "the key 1 is no word"),
        ("a: caf\xe9\n".encode("latin-1"), "odd.yaml: byte 6 is no UTF-8; save it as UTF-8"),
    ],
)
def test_a_profile_that_cannot_extend_is_refused(tmp_path, text, words):
    (tmp_path / "base.yaml").write_text("a: 1\n")
    (tmp_path / "middle.yaml").write_text("extends: base\n")
    (tmp_path / "odd.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=words):
        read_profile(tmp_path / "odd.yaml")


def test_single_settings_are_checked_and_stand_in_the_path(monkeypatch):
    plain = load_profile("smoke")
    monkeypatch.setenv("SET", "grpo.steps=7 data.test=20  judge.kind=exact")
    profile = load_profile("smoke")
    assert (profile.grpo.steps, profile.data.test, profile.judge.kind) == (7, 20, "exact")
    assert profile.grpo.beta == plain.grpo.beta
    folder = run_folder("smoke", "m", "d", 0)
    assert folder.parts[-4] == "smoke+data.test=20+grpo.steps=7+judge.kind=exact"
    monkeypatch.setenv("SET", "search.learning_rates=1 grpo.steps=7")
    with pytest.raises(ProfileError, match="search.learning_rates"):
        load_profile("smoke")


def test_plain_yaml_is_read_as_it_looks(tmp_path):
    text = "\ufeffa: {x: 0, y: -0.5, z: 10_000}\nb: &b {k: 1}\nc: {<<: *b, k: 2}\nd: 2024-01-01\n"
    (tmp_path / "plain.yaml").write_text(text)
    values = {"a": {"x": 0, "y": -0.5, "z": 10_000}, "b": {"k": 1}, "c": {"k": 2}}
    assert read_profile(tmp_path / "plain.yaml") == values | {"d": "2024-01-01"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("grpo.steps=50 grpo.steps=60", "grpo.steps=50 and grpo.steps=60 are two values of one"),
        ("grpo.steps=010", "SET: grpo.steps=010: 010 would be read as another number"),
        ("grpo.learning_rate=.inf", "`grpo.learning_rate` = inf: .*finite"),
        ("grpo.learning_rate=.nan", "`grpo.learning_rate` = nan: .*finite"),
        ("grpo.steps==", "is not section.key=value"),
    ],
)
def test_a_single_setting_that_would_be_lost_or_misread_is_refused(monkeypatch, words, said):
    monkeypatch.setenv("SET", words)
    with pytest.raises(ProfileError, match=said):
        load_profile("smoke")
    monkeypatch.setenv("SET", "grpo.steps=9 grpo.steps=9")
    assert load_profile("smoke").grpo.steps == 9


@pytest.mark.parametrize("words", ["grpo.steps", "../x=1", "a b=2", "grpo.steps=1;id", "x=1+y=2"])
def test_single_settings_of_another_form_are_refused(monkeypatch, words):
    monkeypatch.setenv("SET", words)
    with pytest.raises(ValueError, match="is not section.key=value"):
        given()


def test_a_setting_of_no_section_is_refused(monkeypatch):
    monkeypatch.setenv("SET", "nobody.steps=1")
    with pytest.raises(ValueError, match="no section `nobody`"):
        with_given({"grpo": {"steps": 2}})


def test_setting_leaves_the_given_mapping_alone(monkeypatch):
    monkeypatch.setenv("SET", "grpo.steps=1")
    values = {"grpo": {"steps": 2}}
    assert with_given(values) == {"grpo": {"steps": 1}}
    assert values == {"grpo": {"steps": 2}}


def test_differences_are_named_by_their_path():
    old = {"data": {"test": 128, "train": 5}, "seed": 0, "gone": 1}
    new = {"data": {"test": 100, "train": 5}, "seed": 0, "come": [1]}
    assert differing(old, new) == ["come: None -> [1]", "data.test: 128 -> 100", "gone: 1 -> None"]
    assert differing(old, old) == []
    assert differing({"grpo": {"micro_batch": 40}}, {"grpo": {}}) == []  # once it was one


def test_every_profile_can_be_read():
    for path in PROFILES.glob("*.yaml"):
        assert load_profile(path.stem)
