"""What a run will cost before it starts: counts from the profile, seconds from a short measurement
on this machine.
"""

import copy
import sys
import time

import pandas as pd
import torch

from lib.config import Profile, ProfileError, load_profile
from lib.engine.decoding import decode, uniform_draws
from lib.engine.models import load_policy, locate
from lib.engine.trie import share_prefixes
from lib.prompts import direct, render
from lib.questions.splits import load_questions
from lib.training.apart import training_steps

SIGNAL = 0.5  # of the groups have both right and wrong answers, and are trained on; measured 0.4 in the default run


def work(profile: Profile, sizes: dict[str, int]) -> pd.DataFrame:
    """Counts of each stage: samples (up to max_new_tokens each), groups trained on, prefixes
    enumerated.

    sizes: questions of train, validation and test. Frame of stage, what, samples, groups, prefixes.
    """
    train, validation, test = (sizes[split] for split in ("train", "validation", "test"))
    sampling, grpo, attribution = profile.sampling, profile.grpo, profile.attribution
    steps = training_steps(profile, train)
    longer = -(-sampling.cot_new_tokens // sampling.max_new_tokens)
    subsets = (
        len(attribution.strata) * (2 if attribution.leave_out else 1) + attribution.random_subsets
    )
    live = SIGNAL if grpo.skip_zero_variance else 1.0
    step = {
        "samples": grpo.questions_per_step * grpo.num_generations,
        "groups": live * grpo.questions_per_step,
    }
    evaluations = 1 + -(-steps // grpo.evaluate_every)
    tuned = {name: getattr(profile, name) for name in ("sft", "rft", "dpo")}
    # one example costs about half a group of five; at most half of the questions have right and
    # wrong samples
    examples = sum(
        train * t.epochs * (0.5 if name == "sft" else 0.25 * t.samples_per_question)
        for name, t in tuned.items()
    )
    likely = 2 * min(test, sampling.likely_questions) * sampling.likely_nodes
    rows = [
        (
            "03_baselines",
            "samples before RL",
            train * sampling.train_samples + 2 * test * sampling.test_samples,
            0,
            0,
        ),
        ("03_baselines", "greedy answers and chain of thought", test * (4 + longer), 0, 0),
        ("03_baselines", "SFT, RFT and DPO", 0, examples, 0),
        ("04_grpo", f"{steps} steps", steps * step["samples"], steps * step["groups"], 0),
        ("04_grpo", f"{evaluations} evaluations", evaluations * validation + test, 0, 0),
        ("05_redistribution", "samples after RL", test * sampling.test_samples, 0, 0),
        ("05_redistribution", "likeliest answers", 0, 0, likely),
        (
            "06_attribution",
            f"{subsets} subsets, {attribution.steps} steps each",
            subsets * attribution.steps * step["samples"],
            subsets * attribution.steps * step["groups"],
            0,
        ),
        ("06_attribution", "greedy answers", test * (subsets + 1), 0, 0),
    ]
    if hacking := profile.audit.hacking:
        groups = 2 * hacking.steps * hacking.questions_per_step
        told = f"{hacking.steps} steps without and with guards"
        rows.append(("07_judge", told, groups * hacking.num_generations, live * groups, 0))
    return pd.DataFrame(rows, columns=["stage", "what", "samples", "groups", "prefixes"])


def measure_rates(profile: Profile) -> tuple[dict[str, float], dict[str, int], int]:
    """Seconds a sample (n=64), a rollout (n=5) and a trained group here; the splits' sizes; the
    model's parameters.
    """
    policy, questions = load_policy(profile), load_questions(profile, 0)
    sizes = questions["split"].value_counts().to_dict()
    prompts = [render(policy.tokenizer, direct(q)) for q in questions["question"].head(12)]
    length, seconds = profile.sampling.max_new_tokens, {}
    for name, count, n in (("rollout", 12, profile.grpo.num_generations), ("sample", 2, 64)):
        began = time.perf_counter()
        done = list(
            decode(
                policy, prompts[:count], lambda i, n=n: uniform_draws(0, str(i), n, length), length
            )
        )
        seconds[name] = (time.perf_counter() - began) / (count * n)
        if name == "rollout":
            rows = [prompts[d["index"]] + ids for d in done for ids in d["ids"]]
    width, model = max(map(len, rows)), share_prefixes(copy.deepcopy(policy.model).float())
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=policy.device)
    mask = torch.tensor(
        [[1] * len(row) + [0] * (width - len(row)) for row in rows], device=policy.device
    )
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, : min(map(len, prompts))] = -100
    began = time.perf_counter()
    model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True).loss.backward()
    seconds["group"] = (time.perf_counter() - began) / 12
    return seconds, sizes, sum(p.numel() for p in model.parameters())


def plan(profile: Profile) -> tuple[pd.DataFrame, list[str]]:
    """The stages with their seconds, and sentences about memory, disk and judge calls."""
    seconds, sizes, parameters = measure_rates(profile)
    table = work(profile, sizes)
    many = table["what"].str.startswith("samples")
    each = table["samples"] * many.map({True: seconds["sample"], False: seconds["rollout"]})
    table["seconds"] = (
        each + table["groups"] * seconds["group"] + table["prefixes"] * seconds["rollout"] / 10
    )
    references = 1 if profile.grpo.beta else 0
    told = [
        f"memory of the training: {parameters * 16 / 2**30:.1f} GB for weights, gradients and Adam"
        + f", {parameters * 4 / 2**30:.1f} GB for the reference" * references
        + "; activations come on top",
        f"disk: some {parameters * 4 * (6 + 3) / 2**30:.1f} GB of weights and checkpoints",
    ]
    if profile.judge.kind == "llm":
        told.append(
            f"judge: at most {int(table['samples'].sum()):,} calls of {profile.judge.model}, fewer as answers repeat"
        )
    return table, told


def main() -> None:
    try:
        profile = load_profile(*sys.argv[1:])
        print(
            f"measuring {profile.model} ({locate(profile.models[profile.model])[0]}) for some seconds",
            flush=True,
        )
        table, told = plan(profile)
    except (ProfileError, ValueError, OSError) as error:
        sys.exit(f"plan: {error}")
    shown = table.assign(minutes=table["seconds"] / 60)[
        ["stage", "what", "samples", "groups", "prefixes", "minutes"]
    ]
    print(shown.to_string(index=False, float_format=lambda x: f"{x:,.1f}"))
    print(
        f"all stages: about {table['seconds'].sum() / 60:.0f} minutes on this machine (half to twice as much)"
    )
    print("\n".join(told))


if __name__ == "__main__":
    main()
