"""Where questions come from: the hub's benchmarks, a mirror of them, the user's own files."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lib.cells import doubtful_answers, read_answers
from lib.config import ROOT, Profile
from lib.tables import TableError, need, read_table, refuse_missing_ids
from lib.text import normalise, unique

# Hub id, configuration, folder in a mirror, revision, and the rows of each split (another count is
# another file than the one described here, and stops the run). A revision of None takes the newest,
# whose commit 01 records: put one here to pin it; the counts are checked either way.
HUB = {
    "nq": ("google-research-datasets/nq_open", None, "nq_open", None,
           {"train": 87925, "validation": 3610}),
    "triviaqa": ("mandarjoshi/trivia_qa", "unfiltered.nocontext", "trivia_qa/unfiltered.nocontext",
                 None, {"train": 87622, "validation": 11313}),
    "popqa": ("akariasai/PopQA", None, "PopQA", None, {"test": 14267}),
    "simpleqa": ("basicv8vc/SimpleQA", None, "SimpleQA", None, {"test": 4326}),
}  # fmt: skip

# what a file of the user's own may hold; the columns that a run adds are never taken from it
OWN_COLUMNS = ("question", "answers", "question_id", "subject", "relation", "popularity")


def read_benchmark(name: str, mirror: str | None = None) -> pd.DataFrame:
    """The rows of a benchmark from the hub, or from `mirror`, a folder in the hub's schema.

    The mirror holds <name>/<split>.parquet; a relative path begins at the
    repository. Column `official` is the official split. Raises TableError naming file and column
    where the data is not as described.
    """
    hub_id, configuration, folder, _, counts = HUB[name]
    frames, commit = [], None if mirror else hub_commit(name)
    for split, count in counts.items():
        if mirror:
            where = str(from_root(mirror) / folder / f"{split}.parquet")
            frame = read_table(Path(where))
        else:
            where = f"{hub_id} ({split})"
            frame = _from_hub(hub_id, configuration, split, commit)
            if len(frame) != count:
                pin = "pin the revision in lib/questions/sources.py"
                raise TableError(f"{where}: {len(frame)} rows instead of {count}; {pin}")

        frame = READERS[name](frame, where)
        ids = [f"{name}-{split}-{i:06d}" for i in range(len(frame))]
        frames.append(frame.assign(official=split, question_id=ids))
    return pd.concat(frames, ignore_index=True)


def hub_commit(name: str) -> str:
    """The commit of a benchmark at the hub: the pinned one, else the newest.

    Where the hub cannot be reached it is the newest that was fetched; raises TableError where there
    is none.
    """
    hub_id, revision = HUB[name][0], HUB[name][3]
    if revision:
        return revision
    from huggingface_hub import hf_hub_download

    try:  # the file lies in a folder that is called by its commit
        return Path(hf_hub_download(hub_id, "README.md", repo_type="dataset")).parent.name
    except Exception as error:
        raise _unreachable(hub_id, error) from error


def _unreachable(what: str, error: Exception) -> TableError:
    """The error of a benchmark that cannot be loaded: a dozen kinds, and each means this."""
    return TableError(
        f"{what}: cannot be loaded from the hub ({type(error).__name__}); "
        "set `hub_mirror` or HUB_MIRROR to a folder in its schema"
    )


def source_files(profile: Profile) -> dict:
    """What the questions are read from: {"sources": {file: its rows and digest}}.

    At the hub {benchmark: its commit}; {} where all is in packages. A setting of the stage that
    reads them: an edited file is another data set.
    """
    name = profile.dataset
    if name in profile.files:
        paths = {profile.files[name]: own_path(profile)}
    elif name in HUB and profile.hub_mirror:
        folder, counts = HUB[name][2], HUB[name][4]
        names = [f"{folder}/{split}.parquet" for split in counts]
        paths = {part: from_root(profile.hub_mirror) / part for part in names}
    elif name in HUB:
        return {"sources": {HUB[name][0]: f"commit {hub_commit(name)}"}}
    else:
        return {}
    found = {key: path for key, path in paths.items() if path.is_file()}  # reading says what lacks
    return {"sources": {key: _describe_file(path) for key, path in found.items()}}


def own_path(profile: Profile) -> Path:
    """The file of the run's own data set; a path that begins nowhere begins at the repository."""
    return from_root(profile.files[profile.dataset])


def from_root(path: str) -> Path:
    """A path as a profile gives it: a relative one begins at the repository."""
    return ROOT / Path(path).expanduser()


def _describe_file(path: Path) -> str:
    """Rows, where it is a parquet file, and sha256."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    if path.suffix != ".parquet":
        return f"sha256 {digest}"
    try:
        return f"{pq.read_metadata(path).num_rows} rows, sha256 {digest}"
    except pa.ArrowException:  # reading says what is wrong with it
        return f"sha256 {digest}"


def _from_hub(hub_id, configuration, split, revision) -> pd.DataFrame:
    """One split from the hub; raises TableError when it cannot be loaded."""
    import datasets

    try:
        rows = datasets.load_dataset(hub_id, configuration, split=split, revision=revision)
        return rows.to_pandas()
    except Exception as error:
        raise _unreachable(f"{hub_id} ({split})", error) from error


def _nq(frame, where):
    need(frame, ["question", "answer"], where)
    answers = [_several(a, where, i, "answer") for i, a in enumerate(frame["answer"])]
    return pd.DataFrame({"question": frame["question"], "answers": answers})


def _several(value, where, row, column) -> list[str]:
    """A benchmark's list of answers; one plain text is another schema and raises TableError."""
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
        first = value if isinstance(value, str) and value else typical(names)
        answers.append(unique([first, *names]))
    return pd.DataFrame({"question": frame["question"], "answers": answers})


def _popqa(frame, where):
    need(frame, ["question", "possible_answers", "subj", "prop", "s_pop"], where)
    column = "possible_answers"
    answers = [_several(a, where, i, column) for i, a in enumerate(frame[column])]
    aliases = frame.get("s_aliases", [None] * len(frame))

    return pd.DataFrame(
        {
            "question": frame["question"],
            "answers": answers,
            "subject": frame["subj"],
            "relation": frame["prop"],
            "popularity": frame["s_pop"],
            "names": [json.loads(names) if isinstance(names, str) else [] for names in aliases],
        }
    )


def _simpleqa(frame, where):
    need(frame, ["problem", "answer"], where)
    answers = [unique([a]) if isinstance(a, str) else [] for a in frame["answer"]]
    return pd.DataFrame({"question": frame["problem"], "answers": answers})


READERS = {"nq": _nq, "triviaqa": _triviaqa, "popqa": _popqa, "simpleqa": _simpleqa}


def typical(names: list[str]) -> str:
    """The name that shares most words with the others.

    At a tie, one as written in a sentence: without comma, bracket or slash. TriviaQA's aliases come
    in no order and its mirror mostly without `value`: where both are known, this is the value in
    three of five rows, the first alias in one of five.
    """
    words = [set(normalise(name).split()) for name in names]
    shared = [sum(len(a & b) / (len(a | b) or 1) for b in words) for a in words]
    plain = [not set(name) & set(",(/") for name in names]
    return max(zip(shared, plain, names, strict=True), key=lambda row: row[:2])[2]


def read_file(path: str | Path) -> pd.DataFrame:
    """The user's questions from a table's file (lib.tables) with columns `question` and `answers`.

    `answers` is what lib.cells.read_answers reads: a list, also in a string, or one string.
    question_id, subject, relation and popularity are taken where given, other columns are left out:
    their names may mean something else here. A line says where a cell may hold several answers in
    another form. Raises TableError naming the file, the column or row,
    and what to do.
    """
    path = Path(path)
    frame = read_table(path)
    need(frame, ["question", "answers"], path)
    frame = frame[[column for column in frame if column in OWN_COLUMNS]]
    answers = [read_answers(a, path, i) for i, a in enumerate(frame["answers"])]
    for line in doubtful_answers(frame["answers"], path):
        print(line, flush=True)
    texts = {c: _texts(frame[c], path) for c in frame if c not in ("answers", "popularity")}
    frame = frame.assign(answers=answers, **texts)

    if "popularity" in frame:
        try:
            frame["popularity"] = pd.to_numeric(frame["popularity"]).astype(float)
        except (ValueError, TypeError):
            raise TableError(
                f"{path}: column `popularity` is not all numbers; mend it or drop the column"
            ) from None
    return frame.assign(question_id=_ids(frame, path))


def _texts(cells: pd.Series, path: Path) -> pd.Series:
    """A column's cells as texts, None for a blank one; raises TableError for a list or an object.

    A number is the text that it is written as.
    """
    texts = []
    for row, cell in enumerate(cells):
        if isinstance(cell, bool | np.bool_) or not pd.api.types.is_scalar(cell):
            shown = f"`{cells.name}` {str(cell)[:60]!r}"
            raise TableError(f"{path}: row {row}: {shown} is no text; write one or drop the column")
        if isinstance(cell, float) and cell.is_integer():  # of a column with gaps: 1945, not 1945.0
            cell = int(cell)
        blank = pd.isna(cell) or not str(cell).strip()
        texts.append(None if blank else str(cell))
    return pd.Series(texts, index=cells.index, dtype=object)


def _ids(frame: pd.DataFrame, path: Path) -> list[str] | pd.Series:
    """The file's own question ids, which must be there once each, else numbered ones."""
    if "question_id" not in frame:
        return [f"{path.stem}-{i:06d}" for i in range(len(frame))]

    refuse_missing_ids(frame, path)
    ids = frame["question_id"]
    repeated = ids.duplicated()
    if repeated.any():
        row = int(repeated.argmax())
        raise TableError(
            f"{path}: row {row}: `question_id` {ids[row]!r} is there twice; make ids unique"
        )
    return ids
