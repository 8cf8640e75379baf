"""Profiles: one YAML file holds a run's every setting; pydantic checks it and says what is wrong
where.
"""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ROOT / "profiles"
BENCHMARKS = ("nq", "triviaqa", "popqa", "simpleqa")

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]


class ProfileError(ValueError):
    """A setting that cannot be used: the message names file, key and allowed values."""


class Section(BaseModel):
    """A group of settings; unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    train: Count | Annotated[float, Field(gt=0, lt=1)]
    validation: Count | Annotated[float, Field(gt=0, lt=1)]
    test: Count | Annotated[float, Field(gt=0, lt=1)] | Literal["official"]
    relations: dict[str, Annotated[float, Field(gt=0)]] = {}
    most_popular: Count | None = None

    @field_validator("relations")
    @classmethod
    def known_relations(cls, relations):
        known = (
            "city_country",
            "us_city_state",
            "country_capital",
            "capital_country",
            "country_continent",
            "country_internet_domain",
            "country_calling_code",
            "element_symbol",
            "element_number",
            "element_discoverer",
            "element_year",
            "airport_city",
            "airport_country",
            "player_birth_year",
        )
        unknown = sorted(set(relations) - set(known))
        if unknown:
            raise ValueError(f"unknown relation {unknown}; allowed: {', '.join(known)}")
        return relations


class Dedup(Section):
    neighbours: Count
    similarity: Share
    judge: Literal["rule", "llm"]


class Auditor(Section):
    model: str
    base_url: str | None = None


class Judge(Section):
    kind: Literal["exact", "alias", "llm"]
    model: str | None = None
    base_url: str | None = None
    concurrency: Count = 64
    max_failed: Share = 0.05
    # what changes no verdict is no setting of a stage: it may differ when a run goes on
    max_disputed: Share = Field(
        default=0.2, exclude=True
    )  # share of disputed positives that raises the alarm
    max_calls: Count | None = Field(
        default=None, exclude=True
    )  # of one notebook, training or command
    max_tokens: Count | None = Field(default=None, exclude=True)
    auditor: Auditor | None = Field(
        default=None, exclude=True
    )  # a second model, asked in evaluation only
    # for showing what rules and guards are for; written down only where they are not the usual ones
    prompt: Literal["rules", "naive", "shots"] = Field(
        default="rules", exclude_if=lambda value: value == "rules"
    )
    guards: bool = Field(
        default=True, exclude_if=lambda value: value
    )  # False: no check before or after a verdict
    cards: Count | None = Field(
        default=None, exclude=True
    )  # GPUs over which `make judge` divides it; None: all

    @model_validator(mode="after")
    def model_named(self):
        if self.kind == "llm" and not self.model:
            raise ValueError("a judge of kind `llm` needs `model`")
        return self


class Sampling(Section):
    max_new_tokens: Count
    train_samples: Count
    test_samples: Count
    votes: Count
    cot_new_tokens: Count
    rows: Count
    likely_questions: Count  # whose likeliest answers are enumerated
    likely_nodes: Count  # prefixes that are run for each
    backend: Literal["engine", "vllm"] = "engine"
    base_url: str | None = None  # with `backend: vllm`, a server in place of this process


class Training(Section):
    learning_rate: Annotated[float, Field(gt=0)]
    questions_per_step: Count
    micro_batch: Count


class Grpo(Training):
    steps: Count | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    num_generations: Annotated[int, Field(ge=2)]
    beta: Annotated[float, Field(ge=0)]
    epsilon: Rate
    loss_type: Literal["grpo", "dapo", "bnpo", "dr_grpo"]
    scale_rewards: Literal["group", "batch", "none"]
    skip_zero_variance: bool
    difficulty_weight: Annotated[float, Field(ge=0)] = 0.0
    evaluate_every: Count
    save_every: Count
    bf16: bool = False

    @model_validator(mode="after")
    def one_length(self):
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of `steps` and `epochs`")
        if self.micro_batch % self.num_generations:
            raise ValueError("`micro_batch` counts completions: a multiple of `num_generations`")
        if (self.questions_per_step * self.num_generations) % self.micro_batch:
            raise ValueError("`micro_batch` must divide questions_per_step * num_generations")
        if self.skip_zero_variance and self.beta > 0:
            raise ValueError("`skip_zero_variance` is exact only at `beta: 0`")
        return self


class Tuning(Training):
    epochs: Annotated[float, Field(gt=0)]
    samples_per_question: Count = 1
    beta: Annotated[float, Field(gt=0)] | None = None


class Attribution(Section):
    steps: Count
    strata: dict[str, tuple[Share, Share]]
    random_subsets: Count = 1
    leave_out: bool = False


class Hacking(Section):
    """A short GRPO run against a judge that can be fooled, and the same run with the guards."""

    judge: Judge | None = (
        None  # a served one; without it the run's model itself, behind a server on loopback
    )
    prompt: Literal["naive", "shots"]
    cases: Count  # of each source, on which it is audited first
    start_questions: Count  # whose answers teach the policy to say the attack now and then
    start_share: Rate  # of them that are the attack
    start_learning_rate: Annotated[float, Field(gt=0)]
    start_epochs: Count
    steps: Count
    questions_per_step: Count
    num_generations: Annotated[int, Field(ge=2)]
    learning_rate: Annotated[float, Field(gt=0)]


class Audit(Section):
    known: Count  # atlas facts, each with a right and a wrong answer made by rule
    attacks: Count  # attack answers judged, at most
    judge: Judge | None = (
        None  # a model to audit beside the rules; without it the run's judge, when that is a model
    )
    hacking: Hacking | None  # null leaves it out


class Profile(Section):
    """Every setting of a run, as written in `profiles/<run>.yaml`."""

    model: str
    models: dict[str, str]
    dataset: str
    files: dict[str, str] = {}
    hub_mirror: str | None = None
    threads: Count | None = None
    dtype: Literal["float32", "bfloat16"]
    launch: str | None = None
    data: Data
    dedup: Dedup
    judge: Judge
    sampling: Sampling
    sft: Tuning
    rft: Tuning
    dpo: Tuning
    grpo: Grpo
    attribution: Attribution
    audit: Audit
    bootstrap: Annotated[int, Field(ge=100)] = 2000

    @field_validator("files", "models")
    @classmethod
    def plain_names(cls, names):
        bad = [n for n in names if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", n)]
        if bad:
            raise ValueError(
                f"{bad}: a name becomes a folder; use letters, digits, dot, dash, underscore"
            )
        return names


def load_profile(run: str, model: str | None = None, dataset: str | None = None) -> Profile:
    """The checked settings of `profiles/<run>.yaml`, with `model` and `dataset` replaced where
    given.

    Raises ProfileError with file, key and allowed values for an unknown run, key, model or dataset,
    a value of the wrong type or an impossible one. The environment variable HUB_MIRROR overrides
    `hub_mirror`.
    """
    path = PROFILES / f"{run}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yaml")))
        raise ProfileError(f"unknown profile {run!r}; allowed: {known} (files in {PROFILES})")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ProfileError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ProfileError(f"{path}: expected a mapping of settings")
    values |= {k: v for k, v in (("model", model), ("dataset", dataset)) if v is not None}
    if os.environ.get("HUB_MIRROR"):
        values["hub_mirror"] = os.environ["HUB_MIRROR"]
    try:
        profile = Profile(**values)
    except ValidationError as error:
        raise ProfileError("; ".join(f"{path}: {_explain(e)}" for e in error.errors())) from None
    if profile.model not in profile.models:
        raise ProfileError(
            f"{path}: unknown model {profile.model!r}; allowed: {', '.join(profile.models)}"
        )
    datasets = ("atlas", *BENCHMARKS, *profile.files)
    if profile.dataset not in datasets:
        raise ProfileError(
            f"{path}: unknown dataset {profile.dataset!r}; allowed: {', '.join(datasets)}"
        )
    return profile


def _explain(error: dict) -> str:
    """One pydantic error as `key: what is wrong (allowed …)`."""
    key = ".".join(str(part) for part in error["loc"]) or "profile"
    if error["type"] == "extra_forbidden":
        section, allowed = Profile, ()
        for part in error["loc"][:-1]:
            section = section.model_fields[part].annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            allowed = sorted(section.model_fields)
        return f"unknown key `{key}`; allowed: {', '.join(allowed)}"
    return f"`{key}` = {error['input']!r}: {error['msg']}"


if __name__ == "__main__":  # make asks before it starts: run, model, dataset
    try:
        load_profile(*sys.argv[1:])
    except ProfileError as error:
        sys.exit(str(error))
