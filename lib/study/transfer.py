"""What a training on some questions does to others: other kinds, other answers, other abilities."""

import pandas as pd

from lib.engine.models import Policy
from lib.engine.sampling import answer_logprobs
from lib.metrics import bootstrap, pair, wilson
from lib.study.attribution import against, chance_of_training

REST = "other relations"


def source_of(questions: pd.DataFrame, sources: dict[str, list[str]]) -> pd.Series:
    """The source that each question belongs to by its relation, REST where there is none."""
    names = {relation: name for name, relations in sources.items() for relation in relations}
    return questions["relation"].map(names).fillna(REST).set_axis(questions["question_id"])


def transfer_matrix(
    base: pd.DataFrame,
    trained: dict[str, pd.DataFrame],
    source: pd.Series,
    n_boot: int = 2000,
    seed: int = 0,
    repeats: list[pd.DataFrame] = (),
) -> pd.DataFrame:
    """The gain on each source's test questions after training on each: one Holm family.

    base, trained: grades of the same test questions; source: of each question id; repeats: as of
    `chance_of_training`. Frame of trained, tested, value, low, high, n, p, holm (see `against`).
    """
    pairs, chance = {}, {}
    for tested, ids in source.groupby(source):
        spread = chance_of_training(repeats, [pd.Series(1.0, ids.index)])
        for name, grades in trained.items():
            sides = (frame[frame["question_id"].isin(ids.index)] for frame in (grades, base))
            pairs[name, tested], chance[name, tested] = tuple(sides), spread
    frame = against(pairs, n_boot, seed, chance)
    if frame.empty:
        return frame.assign(trained=[], tested=[])
    frame["trained"], frame["tested"] = zip(*frame.pop("name"), strict=True)
    return frame[["trained", "tested", "value", "low", "high", "n", "p", "holm"]]


def own_and_other(
    base: pd.DataFrame,
    trained: dict[str, pd.DataFrame],
    source: pd.Series,
    n_boot: int = 2000,
    seed: int = 0,
    repeats: list[pd.DataFrame] = (),
) -> pd.DataFrame:
    """The matrix in three rows, a frame as of `against`: does a training help beyond its kind?

    base, trained, source, repeats: as of `transfer_matrix`; questions of no source are left out.
    The rows are the gain after training on a question's own kind, the mean gain after training on
    each of the other kinds, and the paired difference; none where there are no two kinds.
    """
    if len(trained) < 2:
        return against({}, n_boot, seed)
    asked = source[source.isin(trained)]
    frames = [frame.assign(trained=name) for name, frame in trained.items()]
    answered = pd.concat(frames)[lambda f: f["question_id"].isin(asked.index)]
    answered = answered.dropna(subset="correct").astype({"correct": float})
    own = answered["question_id"].map(asked) == answered["trained"]
    others = answered[~own].groupby("question_id", as_index=False)["correct"].mean()
    pairs = {"own kind": (answered[own], base), "other kinds": (others, base)}
    pairs["own less other"] = (answered[own], others)

    ours = [(asked == name).astype(float) for name in trained]
    theirs = [(1 - part) / (len(trained) - 1) for part in ours]
    less = [one - other for one, other in zip(ours, theirs, strict=True)]
    parts = dict(zip(pairs, (ours, theirs, less), strict=True))
    chance = {name: chance_of_training(repeats, part) for name, part in parts.items()}
    return against(pairs, n_boot, seed, chance)


def crossover(
    base: pd.DataFrame,
    trained: dict[str, pd.DataFrame],
    half: pd.Series,
    n_boot: int = 2000,
    seed: int = 0,
    repeats: list[pd.DataFrame] = (),
) -> pd.DataFrame:
    """Does it help to have met the answer in training? A frame as of `against`, three rows.

    trained: the grades after training on the questions of each half of the answers; half: of each
    question id; repeats: as of `chance_of_training`. Every question is asked of both policies: of
    the one whose training had its answer (as the answer of other questions), and of the other. The
    rows are the gain of each over the base policy and the paired difference between them.
    """
    both = {name: frame[frame["question_id"].isin(half.index)] for name, frame in trained.items()}

    def answered(seen: bool) -> pd.DataFrame:
        parts = [
            frame[(frame["question_id"].map(half) == name) == seen] for name, frame in both.items()
        ]
        return pd.concat(parts)

    seen, unseen = answered(True), answered(False)
    pairs = {"answer seen": (seen, base), "answer not seen": (unseen, base)}
    pairs["seen less not seen"] = (seen, unseen)

    with_it = [(half == name).astype(float) for name in trained]
    parts = (with_it, [1 - part for part in with_it], [2 * part - 1 for part in with_it])
    chance = {
        name: chance_of_training(repeats, part) for name, part in zip(pairs, parts, strict=True)
    }
    return against(pairs, n_boot, seed, chance)


def forgotten(base: pd.DataFrame, after: pd.DataFrame) -> dict:
    """The share of the base policy's right answers that are wrong after: value, low, high, n.

    low, high: Wilson's interval; n: the right answers before. All are None where there is none.
    """
    both = pair(base, after)
    right = both[both["before"].astype(bool)]
    if right.empty:
        return {"value": None, "low": None, "high": None, "n": 0}
    lost = int((~right["after"].astype(bool)).sum())
    low, high = wilson(lost, len(right))
    return {"value": lost / len(right), "low": low, "high": high, "n": len(right)}


def prose_logprobs(policy: Policy, passages: list[str]) -> pd.Series:
    """The mean log-probability of a token (nats) in each passage, after its first token."""
    tokens = [policy.tokenizer(text, add_special_tokens=False)["input_ids"] for text in passages]
    values = []
    for start in range(0, len(tokens), 16):
        pairs = [(ids[:1], ids[1:]) for ids in tokens[start : start + 16]]
        totals = answer_logprobs(policy, pairs)
        values += [total / len(rest) for total, (_, rest) in zip(totals, pairs, strict=True)]
    return pd.Series(values, name="logprob")


def prose_change(before: pd.Series, after: pd.Series, n_boot: int = 2000, seed: int = 0) -> dict:
    """The mean change of `prose_logprobs` over passages: value, low, high (nats), n."""
    change = after - before
    low, high = bootstrap(change, n_boot=n_boot, seed=seed)
    return {"value": float(change.mean()), "low": low, "high": high, "n": len(change)}
