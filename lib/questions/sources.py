"""Where questions come from: the benchmarks on the hub or in a mirror of it, and the user's own
files.
"""

import json
from pathlib import Path

import pandas as pd

from lib.tables import TableError, need, read_answers, read_table
from lib.text import normalise, unique

# Hub id, configuration, folder in a mirror, revision, and the rows of each split (another count is
# another file than the one described here, and stops the run). A revision of None takes the newest:
# put a commit here to pin it; the counts are checked either way.
HUB = {
    "nq": (
        "google-research-datasets/nq_open",
        None,
        "nq_open",
        None,
        {"train": 87925, "validation": 3610},
    ),
    "triviaqa": (
        "mandarjoshi/trivia_qa",
        "unfiltered.nocontext",
        "trivia_qa/unfiltered.nocontext",
        None,
        {"train": 87622, "validation": 11313},
    ),
    "popqa": ("akariasai/PopQA", None, "PopQA", None, {"test": 14267}),
    "simpleqa": ("basicv8vc/SimpleQA", None, "SimpleQA", None, {"test": 4326}),
}


def read_benchmark(name: str, mirror: str | None = None) -> pd.DataFrame:
    """The rows of a benchmark from the hub, or from `mirror`, a folder of <name>/<split>.parquet in
    its schema.

    Column `official` holds the official split. Raises TableError naming file and column where
    the data is not as described.
    """
    hub_id, configuration, folder, revision, counts = HUB[name]
    frames = []
    for split, count in counts.items():
        where = f"{hub_id} ({split})"
        if mirror:
            where = str(Path(mirror) / folder / f"{split}.parquet")
            frame = read_table(Path(where))
        else:
            frame = _from_hub(hub_id, configuration, split, revision)
            if len(frame) != count:
                raise TableError(
                    f"{where}: {len(frame)} rows instead of {count}; pin the revision in "
                    "lib/questions/sources.py"
                )
        frame = READERS[name](frame, where)
        ids = [f"{name}-{split}-{i:06d}" for i in range(len(frame))]
        frames.append(frame.assign(official=split, question_id=ids))
    return pd.concat(frames, ignore_index=True)


def _from_hub(hub_id, configuration, split, revision) -> pd.DataFrame:
    import datasets

    try:
        return datasets.load_dataset(
            hub_id, configuration, split=split, revision=revision
        ).to_pandas()
    except (
        Exception
    ) as error:  # the hub client raises a dozen kinds: each means "cannot be read from here"
        raise TableError(
            f"{hub_id} ({split}): cannot be loaded from the hub ({type(error).__name__}); "
            "set `hub_mirror` or HUB_MIRROR to a folder in its schema"
        ) from error


def _nq(frame, where):
    need(frame, ["question", "answer"], where)
    answers = [_several(a, where, i, "answer") for i, a in enumerate(frame["answer"])]
    return pd.DataFrame({"question": frame["question"], "answers": answers})


def _several(value, where, row, column) -> list[str]:
    """A benchmark's answers; one plain text where the benchmark has a list is another schema, and
    refused.
    """
    if isinstance(value, str) and not value.lstrip().startswith("["):
        raise TableError(
            f"{where}: row {row}: column `{column}` is one text; give a list, as the hub does"
        )
    return read_answers(value, where, row)


def _triviaqa(frame, where):
    need(frame, ["question", "answer"], where)
    answers = []
    for i, answer in enumerate(frame["answer"]):
        if not isinstance(answer, dict) or "aliases" not in answer:
            raise TableError(
                f"{where}: row {i}: column `answer` holds no `aliases`; give the hub's schema"
            )
        names = _several(answer["aliases"], where, i, "answer.aliases")
        value = answer.get("value")
        answers.append(
            unique([value if isinstance(value, str) and value else typical(names), *names])
        )
    return pd.DataFrame({"question": frame["question"], "answers": answers})


def _popqa(frame, where):
    need(frame, ["question", "possible_answers", "subj", "prop", "s_pop"], where)
    names = [
        json.loads(s) if isinstance(s, str) else []
        for s in frame.get("s_aliases", [None] * len(frame))
    ]
    answers = [
        _several(a, where, i, "possible_answers") for i, a in enumerate(frame["possible_answers"])
    ]
    return pd.DataFrame(
        {
            "question": frame["question"],
            "answers": answers,
            "subject": frame["subj"],
            "relation": frame["prop"],
            "popularity": frame["s_pop"],
            "names": names,
        }
    )


def _simpleqa(frame, where):
    need(frame, ["problem", "answer"], where)
    answers = [unique([a]) if isinstance(a, str) else [] for a in frame["answer"]]
    return pd.DataFrame({"question": frame["problem"], "answers": answers})


READERS = {"nq": _nq, "triviaqa": _triviaqa, "popqa": _popqa, "simpleqa": _simpleqa}


def typical(names: list[str]) -> str:
    """The name that shares most words with the others, at a tie one as written in a sentence (no
    comma, bracket).

    TriviaQA's aliases come in no order and its mirror mostly without `value`: where both are known,
    this is the value in three of five rows, the first alias in one of five.
    """
    words = [set(normalise(n).split()) for n in names]
    shared = [sum(len(a & b) / (len(a | b) or 1) for b in words) for a in words]
    return max(
        zip(shared, [not set(n) & set(",(/") for n in names], names, strict=True),
        key=lambda x: x[:2],
    )[2]


def read_file(path: str | Path) -> pd.DataFrame:
    """The user's questions from a csv, jsonl or parquet file with columns `question` and `answers`.

    `answers` is a list or one string (in a csv a string may hold a JSON list); question_id,
    subject, relation and popularity are taken where given. Raises TableError naming the file,
    the column or row, and what to do.
    """
    path = Path(path)
    frame = read_table(path)
    need(frame, ["question", "answers"], path)
    answers = [read_answers(a, path, i) for i, a in enumerate(frame["answers"])]
    frame = frame.assign(answers=answers)
    if "popularity" in frame and not pd.api.types.is_numeric_dtype(frame["popularity"]):
        raise TableError(
            f"{path}: column `popularity` is not all numbers; mend it or drop the column"
        )
    if "question_id" not in frame:
        return frame.assign(question_id=[f"{path.stem}-{i:06d}" for i in range(len(frame))])
    ids = frame["question_id"]
    if ids.isna().any():
        raise TableError(
            f"{path}: row {int(ids.isna().argmax())}: empty `question_id`; fill it or drop the "
            "column"
        )
    if ids.astype(str).duplicated().any():
        row = int(ids.astype(str).duplicated().argmax())
        raise TableError(
            f"{path}: row {row}: `question_id` {ids[row]!r} is there twice; make ids unique"
        )
    return frame.assign(question_id=ids.astype(str))
