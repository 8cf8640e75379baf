"""Profiles: one YAML file holds every setting of a run, and a wrong one is named by its key."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Field, ValidationError, field_validator, model_validator

from lib.sections import (
    SAFE_NAME,
    Ablations,
    Attribution,
    Controls,
    Count,
    Fraction,
    NotNegative,
    Origin,
    Positive,
    ProperFraction,
    Search,
    Section,
    Transfer,
)
from lib.variants import read_profile, with_given

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ROOT / "profiles"
BENCHMARKS = ("nq", "triviaqa", "popqa", "simpleqa")

# What atlas can ask; `lib.questions.atlas` holds the wordings (a test compares the two).
ATLAS_RELATIONS = (
    "city_country", "us_city_state", "country_capital", "capital_country", "country_continent",
    "country_internet_domain", "country_calling_code", "element_symbol", "element_number",
    "element_discoverer", "element_year", "airport_city", "airport_country", "player_birth_year",
)  # fmt: skip


class ProfileError(ValueError):
    """A setting that cannot be used: the message names file, key and allowed values."""


class Data(Section):
    """How many questions each split gets, as counts or as shares, and what atlas asks."""

    train: Count | ProperFraction
    validation: Count | ProperFraction
    test: Count | ProperFraction | Literal["official"]
    relations: dict[str, Positive] = {}
    most_popular: Count | None = None

    @field_validator("relations")
    @classmethod
    def known_relations(cls, relations):
        unknown = sorted(set(relations) - set(ATLAS_RELATIONS))
        if unknown:
            raise ValueError(f"unknown relation {unknown}; allowed: {', '.join(ATLAS_RELATIONS)}")
        return relations


class Dedup(Section):
    """How candidates are found, and who decides whether one is contained."""

    neighbours: Count
    similarity: Fraction
    judge: Literal["rule", "llm"]


class Auditor(Section):
    """A second judge model, asked in evaluation only."""

    model: str
    base_url: str | None = None


class Judge(Section):
    """Who says whether an answer is right.

    Fields with `exclude` change no verdict, so a stage does not record them, and they may differ
    when it goes on. `prompt` and `guards` are recorded only where they are not the defaults: other
    values show what the rules and the guards are for.
    """

    kind: Literal["exact", "alias", "llm"]
    model: str | None = None
    base_url: str | None = None
    concurrency: Count = Field(64, exclude=True)
    max_failed: Fraction = Field(0.05, exclude=True)  # of the calls; more stops the run
    max_disputed: Fraction = Field(0.2, exclude=True)  # of positive verdicts; more raises the alarm
    max_calls: Count | None = Field(None, exclude=True)  # of one notebook, training or command
    max_tokens: Count | None = Field(None, exclude=True)  # the same
    auditor: Auditor | None = Field(None, exclude=True)
    prompt: Literal["rules", "naive", "shots"] = Field("rules", exclude_if=lambda v: v == "rules")
    guards: bool = Field(True, exclude_if=lambda v: v)  # False: no check before or after a verdict
    identity: str | None = Field(None, exclude=True)  # of the server, in place of its address
    # of a reply: a verdict is 1.0 or 0.0; a judge that reasons first needs hundreds
    reply_tokens: Count = Field(8, exclude=True)
    timeout: Positive = Field(60.0, exclude=True)  # seconds of one try; a local model needs more
    # of wrong answers to plain questions; a judge that accepts more stops the run
    max_fooled: Fraction = Field(0.5, exclude=True)
    cards: Count | None = Field(None, exclude=True)  # GPUs for `make judge`; None: all of them

    @model_validator(mode="after")
    def model_named(self):
        if self.kind == "llm" and not self.model:
            raise ValueError("a judge of kind `llm` needs `model`")
        return self


class Sampling(Section):
    """How many answers are drawn, how long they may be, and which backend draws them."""

    max_new_tokens: Count  # of every answer that is compared
    rollout_tokens: Count  # of the answers that are learnt from
    max_cut: Fraction = Field(0.02, exclude=True)  # of base's answers; more stops 03 and 04
    questions: Count | None = None  # test questions that are sampled, drawn at random; None: all
    control_questions: Count | None = None  # of the test questions, for prompts, controls, subsets
    train_samples: Count
    test_samples: Count
    cot_new_tokens: Count
    shots: Count = 4  # examples in the few-shot prompt
    checked: Count = 4  # answers of a question that the policy itself calls true or false
    temperatures: list[Positive] = [0.25, 0.5, 0.75]  # beside 1
    temperature_samples: Count = 8
    rows: Count = Field(256, exclude=True)  # at most; fewer where memory is short
    # on a CPU decoding multiplies in bf16, and so do the log-probabilities that it gives: faster,
    # other samples; what is trained, and scored for given answers, stays in fp32
    bf16_products: bool = Field(False, exclude_if=lambda on: not on)
    likely_questions: Count  # questions whose likeliest answers are enumerated
    likely_nodes: Count  # prefixes that are run for each of them
    backend: Literal["engine", "vllm"] = "engine"
    base_url: str | None = None  # with `backend: vllm`, your server in place of the run's own


class Training(Section):
    """What every training needs."""

    learning_rate: Positive
    questions_per_step: Count
    # answers at once, at most: memory only. What divides the step is taken, with groups whole
    micro_batch: Count = Field(exclude=True)
    # layers are run again for the backward pass: a third more time, a fraction of the memory
    gradient_checkpointing: bool = Field(False, exclude=True)


class Grpo(Training):
    """GRPO; `difficulty_weight` is F-GRPO's gamma (arXiv 2602.06717), 0 in the paper."""

    steps: Count | None = None
    epochs: Positive | None = None
    num_generations: Annotated[int, Field(ge=2)]
    beta: NotNegative
    epsilon: ProperFraction
    loss_type: Literal["grpo", "dapo", "bnpo", "dr_grpo", "cispo", "sapo"]
    scale_rewards: Literal["group", "batch", "none"]
    skip_zero_variance: bool
    difficulty_weight: NotNegative = 0.0
    # who answers in training: the engine, or TRL's vLLM beside the training on the same cards
    rollouts: Literal["engine", "vllm"] = Field("engine", exclude_if=lambda who: who == "engine")
    evaluate_every: Count
    save_every: Count
    bf16: bool = False

    @model_validator(mode="after")
    def one_length(self):
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of `steps` and `epochs`")
        if self.skip_zero_variance and self.beta > 0:
            raise ValueError("`skip_zero_variance` is exact only at `beta: 0`")
        return self


class Tuning(Training):
    """SFT, RFT and DPO, which take as many steps as GRPO; only DPO has a `beta`."""

    samples_per_question: Count = 1
    beta: Positive | None = None


class Lora(Section):
    """Train small matrices beside the frozen weights; None in a profile trains all weights."""

    rank: Count
    alpha: Positive  # the update counts alpha / rank
    targets: str | list[str] = "all-linear"


class Hacking(Section):
    """A short GRPO run against a judge that can be fooled, and the same run with the guards."""

    judge: Judge | None = None  # served; None: the run's model, behind a server on loopback
    prompt: Literal["naive", "shots"]
    cases: Count  # of each source, on which the judge is audited first
    start_questions: Count  # whose answers teach the policy to say the attack now and then
    start_share: ProperFraction  # of these answers that are the attack
    start_learning_rate: Positive
    start_epochs: Count
    steps: Count
    questions_per_step: Count
    num_generations: Annotated[int, Field(ge=2)]
    learning_rate: Positive


class Audit(Section):
    """Cases on which the judges are measured."""

    known: Count  # atlas facts, each with a right and a wrong answer made by rule
    attacks: Count  # attack answers judged, at most
    judge: Judge | None = None  # a model beside the rules; None: the run's judge if it is a model
    hacking: Hacking | None  # None leaves it out


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
    report_to: Literal["none", "trackio", "wandb", "tensorboard"] = "none"  # who draws trainings
    data: Data
    dedup: Dedup
    judge: Judge
    sampling: Sampling
    sft: Tuning
    rft: Tuning
    dpo: Tuning
    grpo: Grpo
    lora: Lora | None = Field(None, exclude_if=lambda value: value is None)
    search: Search | None = None  # None: each section's own learning rate
    controls: Controls | None = None  # None leaves them out
    training_seeds: Count = 1  # of GRPO, SFT and RFT, on the same questions
    attribution: Attribution
    audit: Audit
    ablations: Ablations | None = None  # None leaves the notebook's trainings out
    transfer: Transfer | None = None  # the same
    origin: Origin | None = None  # the same
    bootstrap: Annotated[int, Field(ge=100)] = 2000

    @field_validator("files", "models")
    @classmethod
    def plain_names(cls, names):
        bad = [name for name in names if not re.fullmatch(SAFE_NAME, name)]
        if bad:
            rule = "a name becomes a folder; use letters, digits, dot, dash, underscore"
            raise ValueError(f"{bad}: {rule}")
        return names

    @field_validator("files")
    @classmethod
    def new_names(cls, files):
        taken = sorted({"atlas", *BENCHMARKS} & set(files))
        if taken:
            raise ValueError(f"{taken}: the name of a known data set; give your file another one")
        return files

    @model_validator(mode="after")
    def arms_fit(self):
        for name, arm in (self.ablations.arms if self.ablations else {}).items():
            try:
                changed(self, arm.set | {"ablations": None})
            except ValidationError as error:
                said = "; ".join(_explain(e, Profile) for e in error.errors())
                raise ValueError(f"the arm {name!r} cannot be: {said}") from None
            except ProfileError as error:
                raise ValueError(f"the arm {name!r} cannot be: {error}") from None
        return self

    @model_validator(mode="after")
    def sources_are_relations(self):
        """Of atlas; a data set that is read knows its own (lib.questions.splits)."""
        if self.dataset == "atlas" and self.transfer:
            unknown = sorted(self.transfer.named() - set(ATLAS_RELATIONS))
            if unknown:
                said = f"`transfer` names {unknown}, no relation of atlas"
                raise ValueError(f"{said}; allowed: {', '.join(ATLAS_RELATIONS)}")
        return self


def changed(section: Section, settings: dict[str, Any]):
    """The section, such as a whole profile, with some settings replaced and checked again.

    settings: values by their path, such as {"grpo.beta": 0.04}. Raises ProfileError for a path that
    leads nowhere, ValidationError for an unknown key or an impossible value.
    """
    return type(section)(**_replaced(section, settings))


def _replaced(section: Section, settings: dict[str, Any]) -> dict[str, Any]:
    """The section's values, those of sections in which something is replaced as a mapping.

    Checked as a whole, so that an error knows its path. Raises ProfileError.
    """
    values, inner = dict(section), {}
    for path, value in settings.items():
        name, _, rest = path.partition(".")
        if not rest:
            values[name] = value
            continue
        if not isinstance(values.get(name), Section):
            known = ", ".join(k for k, v in values.items() if isinstance(v, Section))
            raise ProfileError(f"`{path}`: there is no section `{name}`; sections: {known}")
        inner.setdefault(name, {})[rest] = value

    return values | {name: _replaced(values[name], new) for name, new in inner.items()}


def load_profile(run: str, model: str | None = None, dataset: str | None = None) -> Profile:
    """The checked settings of `profiles/<run>.yaml`; `model` and `dataset` replace its own.

    Raises ProfileError with file, key and allowed values for an unknown run, key, model or dataset,
    a value of the wrong type or an impossible one. The environment variables HUB_MIRROR and SEEDS
    override `hub_mirror` and `training_seeds`, SET any single setting (lib.variants).
    """
    path = PROFILES / f"{run}.yaml"
    if not re.fullmatch(SAFE_NAME, run) or not path.is_file():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yaml")))
        raise ProfileError(f"unknown profile {run!r}; allowed: {known} (files in {PROFILES})")

    try:
        values = with_given(read_profile(path))
    except ValueError as error:
        raise ProfileError(str(error)) from None
    values |= {k: v for k, v in (("model", model), ("dataset", dataset)) if v is not None}
    if os.environ.get("HUB_MIRROR"):
        values["hub_mirror"] = os.environ["HUB_MIRROR"]
    if os.environ.get("SEEDS"):
        values["training_seeds"] = os.environ["SEEDS"]

    profile = checked(Profile, values, path)
    datasets = ("atlas", *BENCHMARKS, *profile.files)
    for key, allowed in (("model", profile.models), ("dataset", datasets)):
        name = getattr(profile, key)
        if name not in allowed:
            raise ProfileError(f"{path}: unknown {key} {name!r}; allowed: {', '.join(allowed)}")
    return profile


def checked(kind: type[Section], values: dict, path: Path):
    """The values of a file as the section `kind`; raises ProfileError with file, key and values."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        told = "; ".join(f"{path}: {_explain(e, kind)}" for e in error.errors())
        raise ProfileError(told) from None


def read_yaml(path: Path) -> dict:
    """The mapping in a YAML file; raises ProfileError for anything else."""
    try:
        return read_profile(path)
    except ValueError as error:
        raise ProfileError(str(error)) from None


def _explain(error: dict, kind: type[Section]) -> str:
    """One pydantic error as `key: what is wrong (allowed …)`, without the section around it."""
    key = ".".join(str(part) for part in error["loc"])
    where, said = f"`{key}`" if key else "", error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] != "extra_forbidden":
        given = "" if isinstance(error["input"], dict | Section) else f" = {error['input']!r:.80}"
        return f"{where}{given}: {said}" if key else said

    section = kind
    for part in error["loc"][:-1]:
        section = _inside(section, part)
    fields = getattr(section, "model_fields", None)
    return f"unknown key {where}" + (f"; allowed: {', '.join(sorted(fields))}" if fields else "")


def _inside(kind, part):
    """The section, or the mapping or list, that lies under a key; None where none is known."""
    if get_origin(kind) in (dict, list):
        found = get_args(kind)[-1]
    elif part in getattr(kind, "model_fields", ()):
        found = kind.model_fields[part].annotation
    else:
        return None
    options = (found, *get_args(found))  # of `Judge | None` the section
    kinds = (x for x in options if get_origin(x) in (dict, list) or hasattr(x, "model_fields"))
    return next(kinds, None)


if __name__ == "__main__":  # make asks before it starts: run, model, dataset
    try:
        load_profile(*sys.argv[1:])
    except ProfileError as error:
        sys.exit(str(error))
