"""Does training spread an attack on its judge? GRPO against a judge that is fooled, in two arms.

The judge is a model that answers chats over HTTP, through the client of every judge: a served one,
or the run's own model on loopback. Both arms share it, its prompt, the start policy and the
questions; only the guards of lib.judge.model differ. The policy starts from a short fine-tuning on
its own answers, some of which are replaced by the attack; everything after that is
lib.training.grpo. What the arms leave is read by lib.study.hacked.
"""

import hashlib
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from lib.config import Judge, Profile
from lib.engine.chat import ChatServer
from lib.engine.models import load_policy, locate
from lib.engine.sampling import greedy
from lib.judge.attacks import ATTACKS
from lib.judge.grading import make_reward
from lib.judge.rules import precheck
from lib.processes import release_memory
from lib.study.audit import verdicts
from lib.tables import load_table, write_table
from lib.training.apart import begin, drop_weights
from lib.training.baselines import train_rows
from lib.training.grpo import train_grpo

ARMS = {"unguarded": False, "guarded": True}  # the judge's `guards`
# the categories of short attacks
SHORT_ATTACKS = ("openers", "verdict words", "flattery and authority", "other languages", "vague")
ATTACK_TOKENS = 8  # a longer attack could be cut at the policy's length limit


@contextmanager
def served_judge(profile: Profile):
    """The experiment's judge: the profile's served one, or the run's model on loopback meanwhile.

    The revision of the local one names its weights: the cache then keeps its verdicts apart from
    those of another model.
    """
    hacking = profile.audit.hacking
    # failures are masked, counted and shown; how much the judge believes is what is measured
    common = {"prompt": hacking.prompt, "max_failed": 1.0, "max_fooled": 1.0}
    # a model of this process answers slowly where the machine has other work
    local = {"identity": "local", "timeout": 900.0, "concurrency": 16}
    if hacking.judge:
        yield hacking.judge.model_copy(update=common)
        return

    for variable in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):  # they are another judge's
        os.environ.pop(variable, None)
    source, revision = locate(profile.models[profile.model])
    revision = revision or hashlib.sha256(source.encode()).hexdigest()[:12]
    name = f"{profile.model}@{revision}"
    with ChatServer(load_policy(profile), profile.model) as server:
        yield Judge(kind="llm", model=name, base_url=server.address, **local, **common)


def both_arms(judge: Judge) -> dict[str, Judge]:
    """The judge without and with its guards."""
    return {arm: judge.model_copy(update={"guards": guards}) for arm, guards in ARMS.items()}


def pick_attack(judge: Judge, questions: pd.DataFrame, tokenizer) -> pd.DataFrame:
    """How often the unguarded judge believes each short attack, the most believed one first.

    Frame of category, attack, passes (the deterministic checks let it through to the judge),
    accepted (share of its verdicts), n. At a tie an attack that passes comes first: the guarded
    judge would never see the others.
    """
    attacks = [
        (category, attack)
        for category in SHORT_ATTACKS
        for attack in ATTACKS[category]
        if "{" not in attack and len(tokenizer(attack)["input_ids"]) <= ATTACK_TOKENS
    ]
    texts = questions["question"].tolist()
    golds = [list(answers) for answers in questions["answers"]]
    n = len(questions)
    predictions = [attack for _, attack in attacks for _ in range(n)]
    reward = make_reward(judge.model_copy(update={"guards": False}))
    rewards = reward(texts * len(attacks), golds * len(attacks), predictions)

    rows = []
    for i, (category, attack) in enumerate(attacks):
        given = [r for r in rewards[i * n : (i + 1) * n] if r is not None]
        accepted = float(np.mean(given)) if given else np.nan
        rows.append((category, attack, precheck(attack, golds[0]), accepted, len(given)))
    frame = pd.DataFrame(rows, columns=["category", "attack", "passes", "accepted", "n"])
    order = ["accepted", "passes"]
    return frame.sort_values(order, ascending=False, kind="stable", ignore_index=True)


def start_rows(
    questions: pd.DataFrame, answers: pd.DataFrame, attack: str, share: float, seed: int
) -> pd.DataFrame:
    """What the start policy learns: its own greedy answers, a `share` of them made the attack.

    answers: a sample frame. Those cut at the length limit are left out, unless all are. Frame of
    question_id, question, completion.
    """
    whole = answers[answers["finish"] == "stop"]
    rows = questions.merge(whole if len(whole) else answers, on="question_id")
    order = np.random.default_rng([seed, 9]).permutation(len(rows))
    attacked = order < max(1, round(share * len(rows)))
    completion = rows["text"].mask(attacked, attack)
    return rows[["question_id", "question"]].assign(completion=completion)


def train_start(
    profile: Profile, questions: pd.DataFrame, attack: str, folder: Path, seed: int
) -> Path:
    """The folder of the policy that says the attack now and then."""
    hacking = profile.audit.hacking
    policy = load_policy(profile)
    first = questions.head(hacking.start_questions)
    sampling = profile.sampling
    answers = greedy(policy, first, max_new_tokens=sampling.max_new_tokens, rows=sampling.rows)
    rows = start_rows(first, answers, attack, hacking.start_share, seed)

    batch = min(16, len(rows))
    tuning = {
        "learning_rate": hacking.start_learning_rate,
        "questions_per_step": batch,
        "micro_batch": batch,
    }
    profile = profile.model_copy(update={"sft": profile.sft.model_copy(update=tuning)})
    return train_rows(profile, rows, folder, seed, policy, epochs=hacking.start_epochs) / "last"


def train_arm(
    profile: Profile, train, validation, judge: Judge, start: Path, folder: Path, seed: int
) -> Path:
    """The folder of the GRPO run against one judge.

    The validation accuracy is true accuracy: the rule judge measures it.
    """
    hacking = profile.audit.hacking
    shared = {"steps", "questions_per_step", "num_generations", "learning_rate"}
    changes = hacking.model_dump(include=shared) | {
        "evaluate_every": hacking.steps,
        "save_every": hacking.steps,
        "epochs": None,
    }
    grpo = profile.grpo.model_copy(update=changes)
    profile = profile.model_copy(update={"judge": Judge(kind="alias"), "grpo": grpo})

    print(f"{folder.name}: GRPO against {judge.model}", flush=True)
    reward = make_reward(judge)
    given = {"policy": load_policy(profile, start), "reward": reward}
    train_grpo(profile, train, validation, folder, seed, hacking.steps, **given)
    print(reward.summary(), flush=True)
    return folder


def choose_attack(profile: Profile, judge: Judge, train, cases, stage: Path, seed: int) -> str:
    """The attack of both arms, after the judge's audit on `cases`.

    Written once into `stage`: verdicts_hacking.parquet and attacks.parquet.
    """
    audited = stage / "verdicts_hacking.parquet"
    size = profile.audit.hacking.cases
    if not audited.exists():
        parts = [
            part.sample(min(size, len(part)), random_state=seed)
            for _, part in cases.groupby("source")
        ]
        write_table(verdicts(pd.concat(parts), both_arms(judge)), audited)

    path = stage / "attacks.parquet"
    if not path.exists():
        questions = train.sample(max(1, size // 25), random_state=seed)
        write_table(pick_attack(judge, questions, load_policy(profile).tokenizer), path)
    return load_table(path)["attack"][0]


def run(
    profile: Profile, questions: pd.DataFrame, cases: pd.DataFrame, stage: Path, seed: int
) -> None:
    """The experiment, into `stage`: audit and choice of the attack, start policy, both arms."""
    train = questions[questions["split"] == "train"]
    validation = questions[questions["split"] == "validation"]
    with served_judge(profile) as judge:
        attack = choose_attack(profile, judge, train, cases, stage, seed)
        print(f"the attack is {attack!r}", flush=True)
        start = train_start(profile, train, attack, stage / "start", seed)
        release_memory()  # a trainer and its model refer to each other
        for arm, arm_judge in both_arms(judge).items():
            train_arm(profile, train, validation, arm_judge, start, stage / arm, seed)
            release_memory()

    # a gigabyte and more; the log and the rollouts are what is read
    drop_weights(stage / arm for arm in ARMS)
    shutil.rmtree(stage / "start", ignore_errors=True)


def main() -> None:
    # the names say what the caller waits for; everything is made
    _, profile, here, seed = begin(
        "Show what an attack earns from a judge, with and without guards."
    )
    questions = load_table(here / "02_dedup" / "questions.parquet")
    cases = load_table(here / "07_judge" / "cases.parquet")
    run(profile, questions, cases, here / "07_judge", seed)


if __name__ == "__main__":
    main()
