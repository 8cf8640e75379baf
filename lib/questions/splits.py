"""Questions of a run and their splits: atlas, a benchmark, or the user's own file."""

from zlib import crc32

import numpy as np
import pandas as pd

from lib.config import ATLAS_RELATIONS, BENCHMARKS, Profile
from lib.questions.sources import own_path, read_benchmark, read_file
from lib.tables import TableError
from lib.text import normalise, question_key, unique

QUESTION_COLUMNS = [
    "question_id",
    "dataset",
    "split",
    "question",
    "answers",
    "subject",
    "relation",
    "popularity",
]
MORE = [
    "fact",
    "gives",
    "names",
]  # atlas: what is asked, what question and answer give away, the subject's names
HALVES = ("first", "second")
SPLITS = ("train", "validation", "test")
ONE_SET_TEST = 0.2  # of PopQA and SimpleQA: fits the published scores [I]


def load_questions(profile: Profile, seed: int = 0) -> pd.DataFrame:
    """The run's questions with their splits, the same for the same profile and seed.

    Columns question_id, dataset, split, question, answers (first = the one shown), subject,
    relation, popularity, then fact, gives and names (see `lib.questions.atlas`; for other data fact
    = the normalised question). Questions with the same normalised text are one, with their answers
    united. Raises TableError for unusable data.
    """
    data, name = profile.data, profile.dataset
    if name == "atlas":
        from lib.questions.atlas import atlas

        counts = [data.train, data.validation, data.test]
        total = sum(counts) if all(isinstance(c, int) for c in counts) else None
        questions = atlas(total, data.relations, data.most_popular, seed)
    elif name in BENCHMARKS:
        questions = read_benchmark(name, profile.hub_mirror)
    else:
        questions = read_file(own_path(profile))
    questions = group(complete(questions, name))
    _check_sources(questions, profile)
    return assign_splits(questions, data, seed)


def _check_sources(questions: pd.DataFrame, profile: Profile) -> None:
    """Raise TableError where `transfer` names a relation that these questions do not have.

    Sources of atlas's relations, as in the laptop's profile, are left out for other data. A
    benchmark that knows no relations says nothing about those of another one.
    """
    there = set(questions["relation"].dropna())
    named = profile.transfer.named() if profile.transfer else set()
    unknown = sorted(named - there - set(ATLAS_RELATIONS))
    if unknown and (there or profile.dataset in profile.files):
        known = f"it has {', '.join(sorted(there)[:20])}" if there else "it has none"
        mend = "mend the profile's `transfer`"
        raise TableError(f"{profile.dataset}: no relation {unknown}; {known}; {mend}")


def complete(questions: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The questions with every column; raises TableError for an empty question or answer."""
    questions = questions.assign(dataset=dataset).reset_index(drop=True)
    for column in ("subject", "relation", "popularity"):
        if column not in questions:
            questions[column] = None
    questions["popularity"] = questions["popularity"].astype(float)
    empty = [not isinstance(q, str) or not normalise(q) for q in questions["question"]]
    if any(empty):
        raise TableError(
            f"{dataset}: row {empty.index(True)}: `question` is empty; fill it or drop the row"
        )
    empty = [not answers for answers in questions["answers"]]
    if any(empty):
        raise TableError(
            f"{dataset}: row {empty.index(True)}: `answers` is empty; give one or drop the row"
        )
    if "fact" not in questions:
        questions["fact"] = questions["question"].map(question_key)
        questions["gives"] = [[fact] for fact in questions["fact"]]
    if "names" not in questions:
        questions["names"] = [[] for _ in range(len(questions))]
    return questions


def group(questions: pd.DataFrame) -> pd.DataFrame:
    """One row per question (within an official split), with the answers of all its rows united.

    Texts are one by `question_key`, which is stricter than the normal form of answers.

    The first row's other values stay, the popularity is the highest. A training question that is
    also an official test question is left out, whose answers stay as they are.
    """
    key = questions["question"].map(question_key)
    official = questions.get("official", pd.Series("", index=questions.index))
    if (official == "train").any():
        keep = (official == "train") & key.isin(key[official != "train"])
        questions, key, official = questions[~keep], key[~keep], official[~keep]
    grouped = questions.groupby([official, key], sort=False)
    first = questions[~pd.DataFrame({"o": official, "k": key}).duplicated()].copy()
    for column in ("answers", "gives", "names"):
        first[column] = (
            grouped[column].agg(lambda lists: unique(x for one in lists for x in one)).to_list()
        )
    first["popularity"] = grouped["popularity"].max().to_list()
    return first.reset_index(drop=True)


def assign_splits(questions: pd.DataFrame, data, seed: int) -> pd.DataFrame:
    """The drawn questions with their split: random, or the official test set where there is one.

    Sizes are counts or shares of the questions to draw from. `official` takes a random ONE_SET_TEST
    of a benchmark that is published as one set, and trains on at most the rest. Raises
    TableError when there are too few.
    """
    rng = np.random.default_rng([seed, 2])
    official = "official" in questions and (questions["official"] == "train").any()
    if data.test == "official" and not official:
        if questions["dataset"][0] not in BENCHMARKS:
            raise TableError(
                f"{questions['dataset'][0]} has no official test split; set `data.test` to a "
                "count or share"
            )
        data = one_set(data, len(questions))
    pools = {"train": questions, "test": questions.iloc[:0]}
    if official:
        pools = {"train": questions[questions["official"] == "train"]}
        pools["test"] = questions[questions["official"] != "train"]
    order = {name: pool.iloc[rng.permutation(len(pool))] for name, pool in pools.items()}
    take, parts = {"train": 0, "test": 0}, []
    shares = [getattr(data, split) for split in SPLITS if not (split == "test" and official)]
    sum_of_shares = sum(share for share in shares if isinstance(share, float))
    for split in ("test", "validation", "train"):
        pool = "test" if split == "test" and official else "train"
        size, there = getattr(data, split), len(order[pool])
        count = (
            there if size == "official" else size if isinstance(size, int) else round(size * there)
        )
        if not isinstance(size, int | str) and sum_of_shares <= 1 + 1e-9:
            count = min(count, there - take[pool])  # shares of the whole may round up twice
        if take[pool] + count > there or count == 0:
            raise TableError(_too_few(questions["dataset"][0], data, len(questions), official))
        parts.append(order[pool].iloc[take[pool] : take[pool] + count].assign(split=split))
        take[pool] += count
    drawn = pd.concat(parts, ignore_index=True)
    return drawn[[*QUESTION_COLUMNS, *MORE]].sort_values(
        ["split", "question_id"], ignore_index=True
    )


def _too_few(dataset: str, data, there: int, official: bool) -> str:
    """What to write in the profile, where the sizes ask for more questions than there are."""
    asked = {split: getattr(data, split) for split in SPLITS}
    sizes = ", ".join(f"data.{split} = {size}" for split, size in asked.items())
    said = f"{dataset}: {there} different questions do not suffice for {sizes}; "
    if official or there < len(SPLITS):
        return said + "lower the counts in the profile, or take a larger file"

    counts = {s: n if isinstance(n, int) else n * there for s, n in asked.items()}
    share = (there - len(SPLITS)) / sum(counts.values())
    fits = {s: 1 + int(n * share) for s, n in counts.items()}
    mend = ", ".join(f"data.{split} to {size}" for split, size in fits.items())
    return said + f"set {mend}, or to shares that sum to 1 at most"


def one_set(data, there: int):
    """Sizes for a benchmark of one set of `there` questions: test is a random share of it."""
    test = round(ONE_SET_TEST * there)
    validation, train = (
        x if isinstance(x, int) else round(x * there) for x in (data.validation, data.train)
    )
    return data.model_copy(update={"test": test, "train": min(train, there - test - validation)})


def answer_half(questions: pd.DataFrame, seed: int) -> pd.Series:
    """`first` or `second` for each question: its answer's half, drawn for each answer at random.

    Questions with the same first answer are in the same half, in every split.
    """
    names = questions["answers"].str[0].map(normalise)
    halves = {
        name: HALVES[int(np.random.default_rng([seed, crc32(name.encode())]).random() < 0.5)]
        for name in names.unique()
    }
    return names.map(halves)


def draw_part(questions: pd.DataFrame, count: int | None, seed: int) -> pd.DataFrame:
    """`count` of the questions at random, in their own order; None or too many: all of them.

    With the same seed a smaller part lies inside a larger one.
    """
    count = min(count or len(questions), len(questions))
    return questions.sample(count, random_state=seed).sort_index()


def check_splits(questions: pd.DataFrame) -> dict:
    """Counts that judge the splits: questions of each; texts and ids in two splits (both 0)."""
    texts = questions.assign(text=questions["question"].map(question_key))
    return {
        "questions": {s: int((questions["split"] == s).sum()) for s in SPLITS},
        "texts_in_two_splits": int((texts.groupby("text")["split"].nunique() > 1).sum()),
        "ids_twice": int(questions["question_id"].duplicated().sum()),
    }
