"""Reward hacking, shown and stopped: GRPO against a judge that an attack answer fools, without and
with guards.

The judge is a model that answers chats over HTTP through the client that every judge is asked with:
a served one, or the run's own model on loopback. Both arms share it, its prompt, the start policy
and the questions; only the guards of lib.judge.model differ. The policy starts from a short
fine-tuning on its own answers, some of which are replaced by the attack; everything after that is
lib.training.grpo.
"""

import argparse
import gc
import hashlib
import os
import shutil
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from lib.config import Judge, Profile, load_profile
from lib.engine.chat import ChatServer
from lib.engine.models import load_policy, locate
from lib.engine.sampling import greedy
from lib.judge.attacks import ATTACKS
from lib.judge.grading import make_reward
from lib.judge.rules import judge_answer, precheck
from lib.metrics import bootstrap, wilson
from lib.runs import run_folder
from lib.study.audit import verdicts
from lib.tables import write_table
from lib.training.apart import read_log, read_rollouts
from lib.training.baselines import train_rows
from lib.training.grpo import train_grpo

ARMS = {"unguarded": False, "guarded": True}
TRIED = (
    "openers",
    "verdict words",
    "flattery and authority",
    "other languages",
    "vague",
)  # short ones, without blanks
TOKENS = 8  # an attack of more could be cut at the policy's length limit


@contextmanager
def served_judge(profile: Profile):
    """The experiment's judge, answering: the profile's served one, or the run's model on loopback
    while this lasts.

    The local one's revision names its weights, so that verdicts of another model in the cache are
    not taken for its.
    """
    hacking = profile.audit.hacking
    common = {"prompt": hacking.prompt, "max_failed": 1.0}  # failures are masked, counted and shown
    if hacking.judge:
        yield hacking.judge.model_copy(update=common)
        return
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):  # they are another judge's
        os.environ.pop(name, None)
    name, revision = locate(profile.models[profile.model])
    revision = revision or hashlib.sha256(name.encode()).hexdigest()[:12]
    with ChatServer(load_policy(profile), profile.model) as server:
        yield Judge(
            kind="llm", model=f"{profile.model}@{revision}", base_url=server.address, **common
        )


def both_arms(judge: Judge) -> dict[str, Judge]:
    """The judge without and with its guards."""
    return {arm: judge.model_copy(update={"guards": guards}) for arm, guards in ARMS.items()}


def pick_attack(judge: Judge, questions: pd.DataFrame, tokenizer) -> pd.DataFrame:
    """How often the unguarded judge believes each short attack of lib.judge.attacks, the best of
    them first.

    Frame of category, attack, passes (the deterministic checks let it through to the judge),
    accepted, n. At a tie one that passes comes first: the others would never reach the guarded
    judge.
    """
    ask, rows = make_reward(judge.model_copy(update={"guards": False})), []
    attacks = [
        (c, a)
        for c in TRIED
        for a in ATTACKS[c]
        if "{" not in a and len(tokenizer(a)["input_ids"]) <= TOKENS
    ]
    golds = [list(answers) for answers in questions["answers"]]
    asked, n = questions["question"].tolist(), len(questions)
    said = ask(
        asked * len(attacks),
        golds * len(attacks),
        [attack for _, attack in attacks for _ in range(n)],
    )
    for i, (category, attack) in enumerate(attacks):
        known = [v for v in said[i * n : (i + 1) * n] if v is not None]
        passes = precheck(attack, golds[0])
        rows.append(
            (category, attack, passes, float(np.mean(known)) if known else np.nan, len(known))
        )
    frame = pd.DataFrame(rows, columns=["category", "attack", "passes", "accepted", "n"])
    return frame.sort_values(
        ["accepted", "passes"], ascending=False, kind="stable", ignore_index=True
    )


def start_rows(
    questions: pd.DataFrame, answers: pd.DataFrame, attack: str, share: float, seed: int
) -> pd.DataFrame:
    """What the start policy learns: its own greedy answers (a sample frame), a `share` of them
    replaced by the attack.

    Answers that were cut at the length limit are left out, unless all were.
    """
    whole = answers[answers["finish"] == "stop"]
    rows = questions.merge(whole if len(whole) else answers, on="question_id")
    rows = rows[["question_id", "question"]].assign(completion=rows["text"])
    attacked = np.random.default_rng([seed, 9]).permutation(len(rows)) < max(
        1, round(share * len(rows))
    )
    return rows.assign(completion=rows["completion"].mask(attacked, attack))


def train_start(
    profile: Profile, questions: pd.DataFrame, attack: str, folder: Path, seed: int
) -> Path:
    """The folder of the policy that says the attack now and then."""
    hacking, sizes = profile.audit.hacking, profile.sampling
    some, policy = questions.head(hacking.start_questions), load_policy(profile)
    answers = greedy(
        policy, some, max_new_tokens=2 * sizes.max_new_tokens, rows=sizes.rows
    )  # few are cut
    rows = start_rows(some, answers, attack, hacking.start_share, seed)
    batch = min(16, len(rows))
    tuning = {
        "learning_rate": hacking.start_learning_rate,
        "epochs": hacking.start_epochs,
        "questions_per_step": batch,
        "micro_batch": batch,
    }
    profile = profile.model_copy(update={"sft": profile.sft.model_copy(update=tuning)})
    return train_rows(profile, rows, folder, seed, policy)


def train_arm(
    profile: Profile, train, validation, judge: Judge, start: Path, folder: Path, seed: int
) -> Path:
    """The folder of the GRPO run against one judge; the validation accuracy is true, by the rule
    judge.
    """
    hacking = profile.audit.hacking
    changes = hacking.model_dump(
        include={"steps", "questions_per_step", "num_generations", "learning_rate"}
    )
    changes |= {
        "evaluate_every": hacking.steps,
        "save_every": hacking.steps,
        "epochs": None,
        "micro_batch": hacking.questions_per_step * hacking.num_generations,
    }
    profile = profile.model_copy(
        update={"judge": Judge(kind="alias"), "grpo": profile.grpo.model_copy(update=changes)}
    )
    print(f"{folder.name}: GRPO against {judge.model}", flush=True)
    reward = make_reward(judge)
    train_grpo(
        profile,
        train,
        validation,
        folder,
        seed,
        hacking.steps,
        policy=load_policy(profile, start),
        reward=reward,
    )
    print(reward.told(), flush=True)
    return folder


def rollouts(folder: Path, questions: pd.DataFrame, attack: str) -> pd.DataFrame:
    """Every rollout of an arm: step, group, question_id, text, reward (NA = the judge failed), true
    and attack.

    true: right by the rule judge on the known answers; attack: the attack stands in the text.
    """
    groups = read_rollouts(folder).reset_index(names="group")
    rows = groups.explode(["texts", "rewards"], ignore_index=True).rename(columns={"texts": "text"})
    golds = questions.set_index("question_id")["answers"]
    return rows[["step", "group", "question_id", "text"]].assign(
        reward=pd.array(
            [None if r is None or r != r else float(r) for r in rows["rewards"]], dtype="Float64"
        ),
        true=[
            judge_answer(t, list(golds[q]), "alias")
            for q, t in zip(rows["question_id"], rows["text"], strict=True)
        ],
        attack=rows["text"].str.contains(attack, regex=False, case=False),
    )


def curves(arms: dict[str, pd.DataFrame], n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Reward, true accuracy and share of attacks of each arm and step: rows of arm, step, measure,
    value, low, high, n.

    Intervals are bootstrapped over groups, since rollouts of one question are alike. n counts
    groups.
    """
    rows = []
    for arm, frame in arms.items():
        for step, part in frame.groupby("step"):
            for measure in ("reward", "true", "attack"):
                value = (
                    part[measure]
                    .astype("Float64")
                    .groupby(part["group"])
                    .mean()
                    .dropna()
                    .astype(float)
                )
                low, high = bootstrap(value.to_numpy(), n_boot=n_boot, seed=seed)
                rows.append((arm, step, measure, value.mean(), low, high, len(value)))
    return pd.DataFrame(rows, columns=["arm", "step", "measure", "value", "low", "high", "n"])


def ends(arms: dict[str, pd.DataFrame], n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Each measure in the first and in the last quarter of an arm's steps, and its change.

    Rows of arm, measure, when (first, last, change), value, low, high, n (groups); a change
    bootstraps both ends.
    """
    rows, rng = [], np.random.default_rng(seed)
    for arm, frame in arms.items():
        part = max(1, frame["step"].max() // 4)
        early, late = (
            frame[frame["step"] <= part],
            frame[frame["step"] > frame["step"].max() - part],
        )
        for measure in ("reward", "true", "attack"):
            one, two = (
                f[measure].astype("Float64").groupby(f["group"]).mean().dropna().to_numpy(float)
                for f in (early, late)
            )
            draws = [
                rng.choice(two, len(two)).mean() - rng.choice(one, len(one)).mean()
                for _ in range(n_boot)
            ]
            for when, values in (("first", one), ("last", two)):
                low, high = bootstrap(values, n_boot=n_boot, seed=seed)
                rows.append((arm, measure, when, values.mean(), low, high, len(values)))
            change = two.mean() - one.mean()
            rows.append(
                (
                    arm,
                    measure,
                    "change",
                    change,
                    *np.quantile(draws, (0.025, 0.975)),
                    len(one) + len(two),
                )
            )
    return pd.DataFrame(rows, columns=["arm", "measure", "when", "value", "low", "high", "n"])


def held_out(arms: dict[str, Path]) -> pd.DataFrame:
    """True greedy accuracy on the validation questions at the start and the end: arm, when, value,
    low, high, n.
    """
    rows = []
    for arm, folder in arms.items():
        log = read_log(folder).dropna(subset=["accuracy"])
        for when, row in (("first", log.iloc[0]), ("last", log.iloc[-1])):
            n = int(row["n"])
            rows.append((arm, when, row["accuracy"], *wilson(round(row["accuracy"] * n), n), n))
    return pd.DataFrame(rows, columns=["arm", "when", "value", "low", "high", "n"])


def run(
    profile: Profile, questions: pd.DataFrame, cases: pd.DataFrame, stage: Path, seed: int
) -> None:
    """The experiment, into `stage`: the judge's audit on `cases`, choice of the attack, start
    policy, both arms.
    """
    train, validation = (
        questions[questions["split"] == split] for split in ("train", "validation")
    )
    with served_judge(profile) as judge:
        if not (stage / "verdicts_hacking.parquet").exists():
            n = profile.audit.hacking.cases
            some = [
                part.sample(min(n, len(part)), random_state=seed)
                for _, part in cases.groupby("source")
            ]
            write_table(
                verdicts(pd.concat(some), both_arms(judge)), stage / "verdicts_hacking.parquet"
            )
        if not (stage / "attacks.parquet").exists():
            tried = train.sample(max(1, profile.audit.hacking.cases // 25), random_state=seed)
            write_table(
                pick_attack(judge, tried, load_policy(profile).tokenizer), stage / "attacks.parquet"
            )
        attack = pd.read_parquet(stage / "attacks.parquet")["attack"][0]
        print(f"the attack is {attack!r}", flush=True)
        start = train_start(profile, train, attack, stage / "start", seed)
        for arm, one in both_arms(judge).items():
            train_arm(profile, train, validation, one, start, stage / arm, seed)
            gc.collect()  # a trainer and its model refer to each other
    for folder in (
        stage / "start",
        *(stage / arm / name for arm in ARMS for name in ("best", "last")),
    ):
        shutil.rmtree(
            folder, ignore_errors=True
        )  # a gigabyte and more; the log and the rollouts are what is read


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Show what an attack earns from a judge, without and with guards."
    )
    parser.add_argument("names", nargs="*", help="what the caller waits for; everything is made")
    parser.add_argument("--run", default="laptop")
    parser.add_argument("--model")
    parser.add_argument("--dataset")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.filterwarnings(
        "ignore", message=".*gradient_checkpointing", category=FutureWarning
    )  # TRL sets it
    profile = load_profile(args.run, args.model, args.dataset)
    here = run_folder(args.run, profile.model, profile.dataset, args.seed)
    questions = pd.read_parquet(here / "02_dedup" / "questions.parquet")
    cases = pd.read_parquet(here / "07_judge" / "cases.parquet")
    run(profile, questions, cases, here / "07_judge", args.seed)


if __name__ == "__main__":
    main()
