"""Questions of a run: atlas, a benchmark from the hub or a mirror of it, or the user's own file; and their splits."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from lib.config import BENCHMARKS, Profile
from lib.text import holds, normalise, unique  # noqa: F401  normalise and holds are read from here by others

COLUMNS = ["question_id", "dataset", "split", "question", "answers", "subject", "relation", "popularity"]
MORE = ["fact", "gives", "names"]  # atlas: what is asked, what question and answer give away, the subject's names
SPLITS = ("train", "validation", "test")

# Hub id, configuration, folder in a mirror, revision, and the rows of each split (another count is another
# file than the one described here, and stops the run). A revision of None takes the newest: put a commit here
# to pin it; the counts are checked either way.
HUB = {
    "nq": ("google-research-datasets/nq_open", None, "nq_open", None, {"train": 87925, "validation": 3610}),
    "triviaqa": ("mandarjoshi/trivia_qa", "unfiltered.nocontext", "trivia_qa/unfiltered.nocontext", None,
                 {"train": 87622, "validation": 11313}),
    "popqa": ("akariasai/PopQA", None, "PopQA", None, {"test": 14267}),
    "simpleqa": ("basicv8vc/SimpleQA", None, "SimpleQA", None, {"test": 4326}),
}  # fmt: skip


class QuestionsError(ValueError):
    """Questions that cannot be used: the message names the file, the column or row, and what to do."""


def load_questions(profile: Profile, seed: int = 0) -> pd.DataFrame:
    """The run's questions with their splits, the same for the same profile and seed.

    Columns question_id, dataset, split, question, answers (first = the one shown), subject, relation, popularity,
    then fact, gives and names (see `lib.facts`; for other data fact = the normalised question). Questions with
    the same normalised text are one, with their answers united. Raises QuestionsError for unusable data.
    """
    data, name = profile.data, profile.dataset
    if name == "atlas":
        from lib.facts import atlas

        counts = [data.train, data.validation, data.test]
        total = sum(counts) if all(isinstance(c, int) for c in counts) else None
        questions = atlas(total, data.relations, data.most_popular, seed)
    elif name in BENCHMARKS:
        questions = read_benchmark(name, profile.hub_mirror)
    else:
        questions = read_file(profile.files[name])
    questions = group(complete(questions, name))
    return assign_splits(questions, data, seed)


def read_benchmark(name: str, mirror: str | None = None) -> pd.DataFrame:
    """The rows of a benchmark from the hub, or from `mirror`, a folder of <name>/<split>.parquet in its schema.

    Column `official` holds the official split. Raises QuestionsError naming file and column where the data is
    not as described.
    """
    hub_id, configuration, folder, revision, counts = HUB[name]
    frames = []
    for split, count in counts.items():
        where = f"{hub_id} ({split})"
        if mirror:
            where = str(Path(mirror) / folder / f"{split}.parquet")
            frame = _read_table(Path(where))
        else:
            frame = _from_hub(hub_id, configuration, split, revision)
            if len(frame) != count:
                raise QuestionsError(
                    f"{where}: {len(frame)} rows instead of {count}; pin the revision in lib/questions.py"
                )
        frame = READERS[name](frame, where)
        ids = [f"{name}-{split}-{i:06d}" for i in range(len(frame))]
        frames.append(frame.assign(official=split, question_id=ids))
    return pd.concat(frames, ignore_index=True)


def _from_hub(hub_id, configuration, split, revision) -> pd.DataFrame:
    import datasets

    try:
        return datasets.load_dataset(hub_id, configuration, split=split, revision=revision).to_pandas()
    except Exception as error:  # the hub client raises a dozen kinds: each means "cannot be read from here"
        raise QuestionsError(f"{hub_id} ({split}): cannot be loaded from the hub ({type(error).__name__}); "
                             "set `hub_mirror` or HUB_MIRROR to a folder in its schema") from error  # fmt: skip


def _nq(frame, where):
    need(frame, ["question", "answer"], where)
    return pd.DataFrame({"question": frame["question"], "answers": [read_answers(a, where, i) for i, a in
                                                                    enumerate(frame["answer"])]})  # fmt: skip


def _triviaqa(frame, where):
    need(frame, ["question", "answer"], where)
    answers = []
    for i, answer in enumerate(frame["answer"]):
        if not isinstance(answer, dict) or "aliases" not in answer:
            raise QuestionsError(f"{where}: row {i}: column `answer` holds no `aliases`; give the hub's schema")
        names = read_answers(answer["aliases"], where, i)
        value = answer.get("value")
        answers.append(unique([value if isinstance(value, str) and value else typical(names), *names]))
    return pd.DataFrame({"question": frame["question"], "answers": answers})


def _popqa(frame, where):
    need(frame, ["question", "possible_answers", "subj", "prop", "s_pop"], where)
    names = [json.loads(s) if isinstance(s, str) else [] for s in frame.get("s_aliases", [None] * len(frame))]
    answers = [read_answers(a, where, i) for i, a in enumerate(frame["possible_answers"])]
    return pd.DataFrame({"question": frame["question"], "answers": answers, "subject": frame["subj"],
                         "relation": frame["prop"], "popularity": frame["s_pop"], "names": names})  # fmt: skip


def _simpleqa(frame, where):
    need(frame, ["problem", "answer"], where)
    answers = [unique([a]) if isinstance(a, str) else [] for a in frame["answer"]]
    return pd.DataFrame({"question": frame["problem"], "answers": answers})


READERS = {"nq": _nq, "triviaqa": _triviaqa, "popqa": _popqa, "simpleqa": _simpleqa}


def typical(names: list[str]) -> str:
    """The name that shares most words with the others: TriviaQA's aliases come in no order and often without value."""
    words = [set(normalise(n).split()) for n in names]
    shared = [sum(len(a & b) / (len(a | b) or 1) for b in words) for a in words]
    return names[int(np.argmax(shared))]


def read_file(path: str | Path) -> pd.DataFrame:
    """The user's questions from a csv, jsonl or parquet file with columns `question` and `answers`.

    `answers` is a list or one string (in a csv a string may hold a JSON list); question_id, subject, relation and
    popularity are taken where given. Raises QuestionsError naming the file, the column or row, and what to do.
    """
    path = Path(path)
    frame = _read_table(path)
    need(frame, ["question", "answers"], path)
    answers = [read_answers(a, path, i) for i, a in enumerate(frame["answers"])]
    frame = frame.assign(answers=answers)
    if "question_id" not in frame:
        return frame.assign(question_id=[f"{path.stem}-{i:06d}" for i in range(len(frame))])
    ids = frame["question_id"]
    if ids.isna().any():
        raise QuestionsError(f"{path}: row {int(ids.isna().argmax())}: empty `question_id`; fill it or drop the column")
    if ids.astype(str).duplicated().any():
        row = int(ids.astype(str).duplicated().argmax())
        raise QuestionsError(f"{path}: row {row}: `question_id` {ids[row]!r} is there twice; make ids unique")
    if "popularity" in frame and not pd.api.types.is_numeric_dtype(frame["popularity"]):
        raise QuestionsError(f"{path}: column `popularity` is not all numbers; mend it or drop the column")
    return frame.assign(question_id=ids.astype(str))


def _read_table(path: Path) -> pd.DataFrame:
    readers = {
        ".csv": pd.read_csv,
        ".jsonl": lambda p: pd.read_json(p, lines=True, dtype=False),
        ".parquet": pd.read_parquet,
    }
    if path.suffix not in readers:
        raise QuestionsError(f"{path}: unknown extension {path.suffix!r}; give one of {', '.join(readers)}")
    if not path.is_file():
        raise QuestionsError(f"{path}: no such file; check the path in the profile (or HUB_MIRROR)")
    try:
        text = {"dtype": {"question": str, "answers": str, "question_id": str}} if path.suffix == ".csv" else {}
        frame = readers[path.suffix](path, **text)
    except (ValueError, OSError) as error:
        raise QuestionsError(
            f"{path}: cannot be read as {path.suffix[1:]}: {' '.join(str(error).split())[:200]}"
        ) from None
    if frame.empty:
        raise QuestionsError(f"{path}: holds no rows; give at least one question")
    return frame.reset_index(drop=True)


def need(frame: pd.DataFrame, columns: list[str], where) -> None:
    """Raise QuestionsError naming the missing columns and those that are there."""
    missing = [c for c in columns if c not in frame]
    if missing:
        raise QuestionsError(f"{where}: no column {missing}; there are {list(map(str, frame.columns))}")


def read_answers(value, where="", row=0) -> list[str]:
    """The answers as a list: of a list, an array, a JSON list in a string, or one string."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise QuestionsError(f"{where}: row {row}: `answers` {value[:60]!r} is no JSON list ({error})") from None
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        value = [] if value != value else [value]
    if value is None or isinstance(value, dict | bool):
        value = []
    answers = unique(str(a) for a in value if a is not None and a == a)
    if not answers:
        raise QuestionsError(f"{where}: row {row}: `answers` is empty; give at least one answer or drop the row")
    return answers


def complete(questions: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The questions with every column; raises QuestionsError for an empty question or answer."""
    questions = questions.assign(dataset=dataset).reset_index(drop=True)
    for column in ("subject", "relation", "popularity"):
        if column not in questions:
            questions[column] = None
    questions["popularity"] = questions["popularity"].astype(float)
    empty = [not isinstance(q, str) or not normalise(q) for q in questions["question"]]
    if any(empty):
        raise QuestionsError(f"{dataset}: row {empty.index(True)}: `question` is empty; fill it or drop the row")
    empty = [not answers for answers in questions["answers"]]
    if any(empty):
        raise QuestionsError(f"{dataset}: row {empty.index(True)}: `answers` is empty; give one or drop the row")
    if "fact" not in questions:
        questions["fact"] = questions["question"].map(normalise)
        questions["gives"] = [[fact] for fact in questions["fact"]]
    if "names" not in questions:
        questions["names"] = [[] for _ in range(len(questions))]
    return questions


def group(questions: pd.DataFrame) -> pd.DataFrame:
    """One row for each normalised question text (within an official split), with the answers of all united.

    The first row's other values stay, the popularity is the highest. A training question that is also an
    official test question is left out, whose answers stay as they are.
    """
    key = questions["question"].map(normalise)
    official = questions.get("official", pd.Series("", index=questions.index))
    if (official == "train").any():
        keep = (official == "train") & key.isin(key[official != "train"])
        questions, key, official = questions[~keep], key[~keep], official[~keep]
    grouped = questions.groupby([official, key], sort=False)
    first = questions[~pd.DataFrame({"o": official, "k": key}).duplicated()].copy()
    for column in ("answers", "gives", "names"):
        first[column] = grouped[column].agg(lambda lists: unique(x for one in lists for x in one)).to_list()
    first["popularity"] = grouped["popularity"].max().to_list()
    return first.reset_index(drop=True)


def assign_splits(questions: pd.DataFrame, data, seed: int) -> pd.DataFrame:
    """The drawn questions with their split: random, or the official test set where there is one.

    Sizes are counts or shares of the questions to draw from. Raises QuestionsError when there are too few.
    """
    rng = np.random.default_rng([seed, 2])
    official = "official" in questions and (questions["official"] == "train").any()
    if data.test == "official" and not official:
        raise QuestionsError(
            f"{questions['dataset'][0]} has no official test split; set `data.test` to a count or share"
        )
    pools = {"train": questions, "test": questions.iloc[:0]}
    if official:
        pools = {"train": questions[questions["official"] == "train"]}
        pools["test"] = questions[questions["official"] != "train"]
    order = {name: pool.iloc[rng.permutation(len(pool))] for name, pool in pools.items()}
    take, parts = {"train": 0, "test": 0}, []
    for split in ("test", "validation", "train"):
        pool = "test" if split == "test" and official else "train"
        size, there = getattr(data, split), len(order[pool])
        count = there if size == "official" else size if isinstance(size, int) else round(size * there)
        if take[pool] + count > there or count == 0:
            raise QuestionsError(
                f"{questions['dataset'][0]}: {there} questions to draw from, `data.{split}` = {size} asks for {count} "
                f"more than the {take[pool]} already drawn; lower the counts in the profile or give shares (0.2)"
            )
        parts.append(order[pool].iloc[take[pool] : take[pool] + count].assign(split=split))
        take[pool] += count
    drawn = pd.concat(parts, ignore_index=True)
    return drawn[[*COLUMNS, *MORE]].sort_values(["split", "question_id"], ignore_index=True)


def check_splits(questions: pd.DataFrame) -> dict:
    """Counts by which the splits are judged: questions a split, normalised texts and ids in two splits (both 0)."""
    texts = questions.assign(text=questions["question"].map(normalise))
    return {
        "questions": {s: int((questions["split"] == s).sum()) for s in SPLITS},
        "texts_in_two_splits": int((texts.groupby("text")["split"].nunique() > 1).sum()),
        "ids_twice": int(questions["question_id"].duplicated().sum()),
    }
