"""What a run will cost: counts and memory from the profile and the model's shape alone.

With MEASURE in the environment the minutes too, from a short measurement here.
"""

import copy
import os
import sys
import time

import pandas as pd
import torch

from lib.config import Profile, load_profile
from lib.engine.decoding import decode, uniform_draws
from lib.engine.models import check_template, load_policy
from lib.engine.trie import share_prefixes
from lib.prompts import direct, render
from lib.questions.sources import HUB
from lib.questions.splits import SPLITS, load_questions, one_set
from lib.runs import run_folder
from lib.study.memory import GB, Shape, adapter_parameters, check_memory, memory_need, read_shape
from lib.tables import load_json
from lib.training.apart import METHODS, training_steps

# share of the groups with both right and wrong answers, which alone are trained on; measured: 0.4
# in the default run
SIGNAL = 0.5


def work(profile: Profile, sizes: dict[str, int]) -> pd.DataFrame:
    """Counts of each stage: samples, groups trained on, prefixes enumerated.

    sizes: questions of train, validation and test. Frame of stage, what, samples (each of up to
    max_new_tokens tokens), groups, prefixes.
    """
    test = sizes["test"]
    sampling = profile.sampling
    part = min(sampling.questions or test, test)
    likely = min(part, sampling.likely_questions) * sampling.likely_nodes
    after = 3 * part * sampling.test_samples
    rows = [
        *_baselines(profile, sizes, part),
        *_grpo(profile, sizes),
        *_more_seeds(profile, sizes),
        _stage_row("05_redistribution", "samples of GRPO, SFT and RFT", samples=after),
        _stage_row("05_redistribution", "likeliest answers", prefixes=likely),
        *_subsets(profile, controls_of(profile, test)),
        *_hacking(profile),
        *_experiments(profile, sizes),
    ]
    return pd.DataFrame(rows)


def planned_sizes(profile: Profile) -> dict[str, int]:
    """Questions of train, validation and test, from the profile alone where it gives counts.

    A benchmark's shares are of its published size; for others the questions are read.
    """
    data = profile.data
    if all(isinstance(size, int) for size in (data.train, data.validation, data.test)):
        return {"train": data.train, "validation": data.validation, "test": data.test}
    if profile.dataset not in HUB:
        return load_questions(profile, 0)["split"].value_counts().to_dict()
    counts = HUB[profile.dataset][4]
    pool = counts.get("train", sum(counts.values()))
    if data.test == "official" and "train" in counts:
        data = data.model_copy(update={"test": counts["validation"]})
    elif data.test == "official":
        data = one_set(data, pool)
    sizes = {split: getattr(data, split) for split in SPLITS}
    return {k: n if isinstance(n, int) else round(n * pool) for k, n in sizes.items()}


def _experiments(profile: Profile, sizes: dict[str, int]) -> list[dict]:
    """The work of `make experiments`: ablations, transfer, made-up facts."""
    rows, asked = [], controls_of(profile, sizes["test"])
    if profile.ablations:
        settings = profile.ablations
        arms, steps = len(settings.arms) + settings.repeats, settings.steps
        training = _training(profile, arms * steps)
        rows.append(_stage_row("08_ablations", f"{arms} arms, {steps} steps each", **training))
        rows.append(_stage_row("08_ablations", "greedy answers", samples=asked * (arms + 3)))
    if transfer := profile.transfer:
        trained = len(transfer.sources) + (2 if transfer.halved else 0)
        training = _training(profile, trained * transfer.steps)
        what = f"{trained} sources, {transfer.steps} steps each"
        rows.append(_stage_row("09_transfer", what, **training))
        other = 3 * (2 + len(transfer.datasets)) * transfer.questions
        rows.append(_stage_row("09_transfer", "greedy answers", samples=asked * trained + other))
    if origin := profile.origin:
        facts, levels = origin.seeds * origin.test, len(origin.exposures)
        training = _training(profile, origin.seeds * origin.steps)
        told = origin.seeds * sum(origin.exposures) * (origin.train + origin.test)
        training["groups"] += 0.5 * told * origin.teach_epochs  # an example is half a group
        rows.append(_stage_row("10_origin", f"{origin.seeds} seeds", **training))
        answers = 2 * facts * levels * (origin.samples + 1)
        rows.append(_stage_row("10_origin", "samples before and after", samples=answers))
    return rows


def _stage_row(stage: str, what: str, samples=0, groups=0, prefixes=0) -> dict:
    """One row of the work."""
    counts = {"samples": samples, "groups": groups, "prefixes": prefixes}
    return {"stage": stage, "what": what} | counts


def _baselines(profile: Profile, sizes: dict[str, int], part: int) -> list[dict]:
    """The work before RL: samples, greedy answers, chain of thought, SFT, RFT and DPO."""
    sampling = profile.sampling
    samples = sizes["train"] * sampling.train_samples + 2 * part * sampling.test_samples
    samples += part * sampling.temperature_samples * len(sampling.temperatures)
    cot = -(-sampling.cot_new_tokens // sampling.max_new_tokens)  # a thought, in samples

    # one example costs about half a group of five
    steps, evaluations = _search(profile, sizes["train"])
    examples = sum(steps * getattr(profile, m).questions_per_step * 0.5 for m in METHODS)
    # the base policy, SFT, RFT and DPO; few-shot and chain of thought
    greedy = sizes["test"] * 4 + controls_of(profile, sizes["test"]) * (1 + cot)
    greedy += len(METHODS) * evaluations * sizes["validation"]
    return [
        _stage_row("03_baselines", "samples before RL", samples=samples),
        _stage_row("03_baselines", "greedy answers and chain of thought", samples=greedy),
        _stage_row("03_baselines", "SFT, RFT and DPO", groups=examples),
    ]


def controls_of(profile: Profile, test: int) -> int:
    """How many test questions are asked in other ways, and after short trainings."""
    return min(profile.sampling.control_questions or test, test)


def _search(profile: Profile, train: int) -> tuple[int, int]:
    """Steps and evaluations of one method, with the trials of its learning rate."""
    steps = training_steps(profile, train)
    evaluations = -(-steps // profile.grpo.evaluate_every)
    trials = len(profile.search.learning_rates) if profile.search else 0
    return steps + trials * (profile.search.steps if trials else 0), evaluations + trials


def _grpo(profile: Profile, sizes: dict[str, int]) -> list[dict]:
    """The work of the GRPO run and its controls: their steps and evaluations."""
    steps, evaluations = _search(profile, sizes["train"])
    answers = (1 + evaluations) * sizes["validation"] + sizes["test"]
    what = f"{steps} steps with the search" if profile.search else f"{steps} steps"
    rows = [
        _stage_row("04_grpo", what, **_training(profile, steps)),
        _stage_row("04_grpo", f"{evaluations + 1} evaluations", samples=answers),
    ]
    if profile.controls:
        part = controls_of(profile, sizes["test"])
        # six short trainings; GRPO and SFT of full length from a start that is taught first
        steps = training_steps(profile, sizes["train"])
        spent = _training(profile, 6 * profile.controls.steps + steps)
        told = profile.controls.start_questions + steps * profile.sft.questions_per_step
        spent["groups"] += 0.5 * told
        rows.append(_stage_row("04_grpo", "controls", **spent))
        rows.append(_stage_row("04_grpo", "their greedy answers", samples=10 * part))
    return rows


def _more_seeds(profile: Profile, sizes: dict[str, int]) -> list[dict]:
    """The work of the training seeds after the first, whose learning rates they take."""
    more = profile.training_seeds - 1
    if not more:
        return []
    steps = training_steps(profile, sizes["train"])
    evaluations = -(-steps // profile.grpo.evaluate_every)
    answers = more * (evaluations * sizes["validation"] + sizes["test"])
    examples = sum(more * steps * getattr(profile, m).questions_per_step for m in ("sft", "rft"))
    what = f"{more} more training seeds"
    return [
        _stage_row("03_baselines", f"{what}: SFT, RFT", groups=0.5 * examples),
        _stage_row("03_baselines", f"{what}: greedy answers", samples=2 * answers),
        _stage_row("04_grpo", f"{what}: GRPO", **_training(profile, more * steps)),
        _stage_row("04_grpo", f"{what}: evaluations", samples=answers),
    ]


def _training(profile: Profile, steps: int) -> dict:
    """Samples and groups of so many GRPO steps."""
    grpo = profile.grpo
    groups = steps * grpo.questions_per_step
    return {"samples": groups * grpo.num_generations, "groups": _live(profile) * groups}


def _live(profile: Profile) -> float:
    """The share of the groups that cost a backward pass."""
    return SIGNAL if profile.grpo.skip_zero_variance else 1.0


def _subsets(profile: Profile, asked: int) -> list[dict]:
    """The work of the trainings on subsets, and the greedy answers of their policies."""
    attribution = profile.attribution
    # each stratum whole, matched and left out, the smallest being its own match; two masks
    subsets = 3 * len(attribution.strata) - 1 + attribution.random_subsets + 2
    steps = attribution.steps
    training = _training(profile, subsets * steps)
    return [
        _stage_row("06_attribution", f"{subsets} subsets, {steps} steps each", **training),
        _stage_row("06_attribution", "greedy answers", samples=asked * (subsets + 1)),
    ]


def _hacking(profile: Profile) -> list[dict]:
    """The work of both arms against the fooled judge; none where the profile leaves them out."""
    hacking = profile.audit.hacking
    if not hacking:
        return []
    groups = 2 * hacking.steps * hacking.questions_per_step
    samples = groups * hacking.num_generations
    what = f"{hacking.steps} steps without and with guards"
    return [_stage_row("07_judge", what, samples=samples, groups=_live(profile) * groups)]


def measure_rates(profile: Profile) -> dict[str, float]:
    """The seconds of the units of work here.

    Of a `sample` (64 per question), a `rollout` (as many per question as in training) and a trained
    `group`.
    """
    policy = load_policy(profile)
    questions = load_questions(profile, 0)
    texts = questions["question"].head(12)
    prompts = [render(policy.tokenizer, direct(text)) for text in texts]
    length = profile.sampling.max_new_tokens

    _time_sampling(policy, prompts[:2], 2, length)  # the first products are slow
    rollout, rows = _time_sampling(policy, prompts, profile.grpo.num_generations, length)
    sample, _ = _time_sampling(policy, prompts[:2], 64, length)
    group = _time_training(policy, rows, prompts)
    return {"rollout": rollout, "sample": sample, "group": group}


def _time_sampling(policy, prompts: list, n: int, length: int) -> tuple[float, list[list[int]]]:
    """Seconds per sample when `n` answers are drawn to each prompt; prompts with their answers."""

    def draws(i):
        return uniform_draws(0, str(i), n, length)

    began = time.perf_counter()
    answers = list(decode(policy, prompts, draws, length))
    seconds = (time.perf_counter() - began) / (len(prompts) * n)
    return seconds, [prompts[answer["index"]] + ids for answer in answers for ids in answer["ids"]]


def _time_training(policy, rows: list[list[int]], prompts: list) -> float:
    """Seconds per group of a backward pass over `rows`.

    rows: token ids of the prompts with their answers, one group per prompt. The tokens that the
    shortest prompt takes carry no loss.
    """
    model = share_prefixes(copy.deepcopy(policy.model).float())
    width = max(map(len, rows))
    padded = [row + [0] * (width - len(row)) for row in rows]
    present = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    ids = torch.tensor(padded, device=policy.device)  # (rows, width)
    mask = torch.tensor(present, device=policy.device)  # (rows, width)
    labels = ids.masked_fill(mask == 0, -100)  # (rows, width)
    labels[:, : min(map(len, prompts))] = -100

    began = time.perf_counter()
    model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True).loss.backward()
    return (time.perf_counter() - began) / len(prompts)


def timed(profile: Profile, table: pd.DataFrame) -> pd.DataFrame:
    """The work with its minutes on this machine, measured for some seconds."""
    seconds = measure_rates(profile)
    many = table["what"].str.startswith("samples")
    each = table["samples"] * many.map({True: seconds["sample"], False: seconds["rollout"]})
    trained = table["groups"] * seconds["group"]
    enumerated = table["prefixes"] * seconds["rollout"] / 10
    return table.assign(minutes=(each + trained + enumerated) / 60)


def kept_weights(profile: Profile) -> int:
    """How many times the weights lie on the disk at most.

    The best, the last and the kept ones of the main trainings; those of a stage's arms until their
    answers are stored.
    """
    kept = 2 * (4 + 3 * (profile.training_seeds - 1)) + 3 + (5 if profile.controls else 0)
    subsets = 3 * len(profile.attribution.strata) + 1 + profile.attribution.random_subsets
    ablations = profile.ablations
    arms = len(ablations.arms) + ablations.repeats if ablations else 0
    sources = len(profile.transfer.sources) + 2 if profile.transfer else 0
    seeds = 2 * profile.origin.seeds if profile.origin else 0
    return kept + max(subsets, arms, sources, seeds)


def remarks(profile: Profile, table: pd.DataFrame, shape: Shape) -> list[str]:
    """What is not a row: disk and the judge's calls."""
    adapters = profile.lora and adapter_parameters(profile.lora.rank, shape)  # all that is saved
    # trained weights are float32, and while a checkpoint is written, the one before is there too
    copies = 4 * kept_weights(profile) + 2 * 12
    disk = (adapters or shape.parameters) * copies / GB
    said = [f"disk: some {disk:,.0f} GB of weights and checkpoints"]
    if profile.judge.kind == "llm":
        calls = int(table["samples"].sum())
        said.append(
            f"judge: at most {calls:,} calls of {profile.judge.model}, fewer as answers repeat"
        )
    return said


def fits(profile: Profile, shape) -> str:
    """What the run holds at its height, and whether this machine has it."""
    try:
        return check_memory(profile, shape)
    except MemoryError as error:
        return f"not here: {error}"


def took(profile: Profile, run: str) -> pd.Series:
    """The minutes that each finished stage of the run took (seed 0); empty before there is one."""
    path = run_folder(run, profile.model, profile.dataset, 0) / "summary.json"
    rows = load_json(path) if path.exists() else []
    seconds = {
        row["stage"]: row["value"] / 60
        for row in rows
        if row["name"] == f"seconds_{row['stage']}" and row["value"] is not None
    }
    return pd.Series(seconds, name="took", dtype=float)


def main() -> None:
    measure = os.environ.get("MEASURE") == "1"
    try:
        profile = load_profile(*sys.argv[1:])
        shape = read_shape(profile.models[profile.model])
        need = memory_need(profile, shape).pivot(index="part", columns="phase", values="gb")
        print(f"GB for one process of {profile.model}, {shape.parameters / 1e6:,.0f} M parameters:")
        print(need.to_string(na_rep="", float_format="{:.1f}".format))
        print(fits(profile, shape))
        table = work(profile, planned_sizes(profile))
        if measure:
            print(f"{profile.model}: {check_template(profile)}")
            print(f"measuring {profile.model} for some seconds", flush=True)
            table = timed(profile, table)
    except (ValueError, OSError, MemoryError) as error:
        sys.exit(f"plan: {error}")

    print(table.to_string(index=False, float_format=lambda x: f"{x:,.1f}"))
    print("\n".join(remarks(profile, table, shape)))
    if not measure:
        print("minutes: `make plan MEASURE=1` measures this machine for some seconds")
        return
    total = table["minutes"].sum()
    print(f"all stages: about {total:.0f} minutes on this machine (half to twice as much)")
    past = took(profile, sys.argv[1])
    if len(past):
        planned = table.groupby("stage")["minutes"].sum().rename("planned")
        both = pd.concat([planned, past], axis=1).rename_axis("minutes")
        print(both.to_string(na_rep="-", float_format="{:.1f}".format))


if __name__ == "__main__":
    main()
