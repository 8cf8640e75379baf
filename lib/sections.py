"""What a profile's sections are made of, and those of short trainings beside the main one."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

SAFE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # of a run, a model or a data set: it becomes a folder

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
ProperFraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(pattern=f"^{SAFE_NAME}$")]


def unlike(names: dict, taken: str) -> dict:
    """The names, which the caller's own trainings must not have. Raises ValueError."""
    if bad := [name for name in names if re.fullmatch(taken, name)]:
        raise ValueError(f"{bad}: a training of the study has this name; choose another one")
    return names


class Section(BaseModel):
    """A group of settings; unknown keys are errors, values never change after loading.

    A number is finite: what is infinite or no number would only be found in a training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Search(Section):
    """Learning rates that every trained method tries; the best one on validation is taken."""

    learning_rates: Annotated[list[Positive], Field(min_length=1)]
    steps: Count  # of each trial


class Controls(Section):
    """Short trainings that tell form, contrast and fresh samples apart."""

    steps: Count  # of each; compared with GRPO at the same step
    start_questions: Count  # of relations that the run does not ask: they teach bare answers


class Attribution(Section):
    """Training on subsets by accessibility: bounds of each stratum as (low, high)."""

    steps: Count
    strata: dict[Name, tuple[Fraction, Fraction]]
    random_subsets: Count = 3

    @field_validator("strata")
    @classmethod
    def names_are_free(cls, strata):
        return unlike(strata, r"full|masked(_random)?|random(_\d+)?|not_.*|.*_matched")

    @field_validator("strata")
    @classmethod
    def bounds_in_order(cls, strata):
        for name, (low, high) in strata.items():
            if low >= high and (low, high) != (0, 0):
                said = f"`{name}` = [{low}, {high}] holds no share"
                raise ValueError(f"{said}; low is below high, or both are 0")
        return strata


class Arm(Section):
    """One short GRPO training that changes something; what is not named stays the profile's."""

    set: dict[str, Any] = {}  # settings by their path, such as {"grpo.beta": 0.04}
    prompt: Literal["direct", "plain", "exam"] = "direct"  # lib.prompts.WORDING
    questions: Literal["all", "mixed"] = "all"  # mixed: with right and wrong samples before RL
    reward: Literal["binary", "ternary"] = "binary"  # ternary: -1 for wrong, 0 for abstaining


class Ablations(Section):
    """Short trainings of one length, compared with GRPO at the same step."""

    steps: Count
    repeats: Annotated[int, Field(ge=0)] = 0  # of GRPO as it is, with other seeds: what chance does
    arms: dict[Name, Arm]

    @field_validator("arms")
    @classmethod
    def names_are_free(cls, arms):
        return unlike(
            arms,
            r"grpo_matched|default(_seed\d+)?|base_.*|(form|coin|majority)_reward"
            r"|on_policy_rft|offline(_rft)?",
        )  # GRPO as it is, the base policy, the controls of 04


class Transfer(Section):
    """GRPO on one kind of questions, asked on others, and what a training forgets."""

    steps: Count
    sources: dict[Name, list[str]] = {}  # name -> the relations of its questions
    halved: list[str] = []  # relations, trained on one half of their answers at a time
    datasets: list[str] = []  # other data sets that the trained policies are asked about
    questions: Count  # of each of them, and of each ability that no training asks for

    @field_validator("sources")
    @classmethod
    def names_are_free(cls, sources):
        return unlike(sources, "first|second")  # the halves of the answers

    def named(self) -> set[str]:
        """Every relation that a source or a half takes its questions from."""
        return {*self.halved, *(name for names in self.sources.values() for name in names)}


class Origin(Section):
    """Facts that a policy has seen a known number of times, and GRPO on others of the same kind."""

    exposures: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2)]
    train: Count  # facts of each number of exposures that GRPO asks
    test: Count  # and that are asked before and after
    teach_learning_rate: Positive
    teach_epochs: Count = 1
    steps: Count  # of GRPO
    learning_rate: Positive  # of GRPO
    samples: Count  # of each test fact, before and after
    seeds: Count  # each with facts of its own
