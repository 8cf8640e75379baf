"""Predictions as other tools leave them: each format becomes rows of question, answers, prediction.

`plain` is this project's own table. The others are what people have at hand: the samples of
lm-evaluation-harness (`--log_samples`), simple-evals' results (`*_allresults.json`), and Inspect's
logs (`.eval` or `.json`). A format is recognised by its columns, and the caller is told which one
it was.
"""

import ast
import html
import json
import re
import zipfile
import zlib
from pathlib import Path

import pandas as pd

from lib.cells import is_list, read_answers
from lib.readers import read_text, value_of_json
from lib.tables import TableError, is_missing, need, read_table

PREDICTION_FORMATS = ("plain", "lm-eval", "simple-evals", "inspect")
INVALID = "[invalid]"  # the harness's reply where a filter found no answer
LOGARITHM = re.compile(r"-?inf|-\d+\.\d+(?:e[+-]?\d+)?|-?0\.0|nan")
PARAGRAPH = re.compile(r"<p>\s*(Correct Answer|Extracted Answer):(.*?)</p>", re.DOTALL)


def read_predictions(path: Path, form: str = "auto") -> tuple[pd.DataFrame, str]:
    """(rows with question, answers and prediction; the format's name) of anybody's file.

    form: one of PREDICTION_FORMATS, or `auto`, which looks at the file. Raises TableError naming
    file, row and what to do.
    """
    path = Path(path)
    if form not in ("auto", *PREDICTION_FORMATS):
        raise TableError(
            f"{path}: unknown format {form!r}; give one of auto, {', '.join(PREDICTION_FORMATS)}"
        )

    log = _inspect_zip(path) if path.suffix == ".eval" else _object(path)
    if log is not None:
        return _read_log(log, path, form)
    table = read_table(path)
    is_harness = {"doc", "target"} <= set(table) and ({"filtered_resps", "resps"} & set(table))
    if form == "lm-eval" or (form == "auto" and is_harness):
        return _lm_eval(table, path), "lm-eval"
    if form in ("simple-evals", "inspect"):
        raise TableError(
            f"{path}: {form} leaves .json or .eval files; give that file, or another --format"
        )
    return table, "plain"


def _object(path: Path) -> dict | None:
    """The object in a JSON file; None for rows and for other files. Raises TableError."""
    if path.suffix.lower() != ".json":
        return None
    try:
        log = value_of_json(read_text(path))
    except FileNotFoundError:
        raise TableError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TableError(f"{path}: cannot be read as JSON: {reason}") from None
    return log if isinstance(log, dict) else None


def _read_log(log: dict, path: Path, form: str) -> tuple[pd.DataFrame, str]:
    """A log that is one JSON object, or Inspect's zip of them. Raises TableError."""
    if "samples" in log and form in ("auto", "inspect"):
        return _inspect(log["samples"], path), "inspect"
    if {"htmls", "convos"} <= set(log) and form in ("auto", "simple-evals"):
        return _simple_evals(log, path), "simple-evals"
    raise TableError(
        f"{path}: one object with the keys {sorted(map(str, log))[:8]}, neither a log of Inspect "
        "(`samples`) nor results of simple-evals (`htmls` and `convos`), or not of the --format "
        "given; for a table give a list of rows, or one row a line"
    )


def _inspect_zip(path: Path) -> dict:
    """The samples of an `.eval` file: a zip with one JSON file for each sample."""
    try:
        with zipfile.ZipFile(path) as log:
            names = sorted(
                n for n in log.namelist() if n.startswith("samples/") and n.endswith(".json")
            )
            return {"samples": [value_of_json(log.read(name).decode()) for name in names]}
    except FileNotFoundError:
        raise TableError(f"{path}: no such file") from None
    except NotImplementedError:
        raise TableError(
            f"{path}: its compression is not known to this Python; convert it first: "
            "inspect log convert --to json --output-dir FOLDER FILE"
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, RuntimeError) as error:
        raise TableError(f"{path}: cannot be read as an Inspect log: {error}") from None


def _rows(rows: list[tuple], path: Path, more=()) -> pd.DataFrame:
    if not rows:
        raise TableError(f"{path}: holds no samples; give a log with at least one")
    return pd.DataFrame(rows, columns=["question_id", "question", "answers", "prediction", *more])


def _inspect(samples: list[dict], path: Path) -> pd.DataFrame:
    """Inspect: `input` (text or messages), `target`, and the completion of the first choice.

    Epochs repeat a sample: several predictions of one question. `no_reply` says for each why there
    is none. One id at several questions becomes several ids.
    """
    if not isinstance(samples, list):
        raise TableError(f"{path}: its `samples` are no list; give a log with its samples")
    found: dict[tuple, list] = {}
    for i, sample in enumerate(samples):
        if not isinstance(sample, dict) or not {"input", "target"} <= set(sample):
            raise TableError(f"{path}: sample {i} has no `input` and `target`; is it a whole log?")
        question = _text(sample["input"])
        if not question.strip():
            raise TableError(f"{path}: sample {i}: its `input` holds no text of a user")
        target = sample["target"]
        answers = read_answers(target if isinstance(target, list) else [target], path, i)
        name = i if sample.get("id") is None else sample["id"]
        key = f"{name}", question, tuple(answers)
        found.setdefault(key, []).append(_completion(sample))
    rows = []
    for (name, question, answers), replies in found.items():
        texts, causes = (list(column) for column in zip(*replies, strict=True))
        reply = (texts, causes) if len(replies) > 1 else replies[0]
        rows.append((name, question, list(answers), *reply))
    return _distinct_ids(_rows(rows, path, ["no_reply"]), path)


def _distinct_ids(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The rows with another id where one stands at several questions, which a line says."""
    asked = frame.groupby("question_id", sort=False)["question"]
    nth = asked.transform(lambda texts: pd.factorize(texts)[0]).astype(int)
    if nth.any():
        name = frame["question_id"][nth.idxmax()]
        print(f"{path}: note: an id such as {name!r} stands at several questions", flush=True)
        named = frame["question_id"] + " (" + (nth + 1).astype(str) + ")"
        frame["question_id"] = frame["question_id"].where(nth.eq(0), named)
    return frame


def _completion(sample: dict) -> tuple[str, str | None]:
    """(the text of a sample's reply, None), or ("", why the model gave none)."""
    output = sample.get("output")
    whole = output if isinstance(output, dict) else {"completion": output}
    choices = whole.get("choices")
    first = choices[0] if is_list(choices) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    given = whole.get("completion")
    text = given if isinstance(given, str) and given else _text(message)
    error = sample.get("error") or whole.get("error")
    # an empty reply is one, unless the run failed or the model was never called
    if text.strip() or (isinstance(message, dict) and not error):
        return text, None
    said = error.get("message", error) if isinstance(error, dict) else error or "no output"
    return "", " ".join(str(said).split())[:200]


def _text(content) -> str:
    """The text of a message, a list of messages (the last of the user), or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return _text(content.get("content") or content.get("text") or "")
    parts = [part for part in content if isinstance(part, dict)] if is_list(content) else []
    users = [part for part in parts if part.get("role") == "user"]
    if users:
        return _text(users[-1].get("content"))
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def _simple_evals(log: dict, path: Path) -> pd.DataFrame:
    """simple-evals: question and reply from `convos`, the gold answer from the page beside it.

    Repeats of a question (its `n_repeats`) are several predictions of it.
    """
    convos, pages = log["convos"], log["htmls"]
    if not isinstance(convos, list) or not isinstance(pages, list) or len(convos) != len(pages):
        counts = [len(x) if isinstance(x, list) else "no" for x in (convos, pages)]
        raise TableError(
            f"{path}: {counts[0]} `convos` and {counts[1]} `htmls`; give whole results, with one "
            "page for each conversation"
        )
    found: dict[tuple, list[str]] = {}
    for i, (convo, page) in enumerate(zip(convos, pages, strict=True)):
        messages = [m for m in convo if isinstance(m, dict)] if isinstance(convo, list) else []
        users = [m for m in messages if m.get("role") == "user"]
        replies = [m for m in messages if m.get("role") == "assistant"]
        said = PARAGRAPH.findall(page) if isinstance(page, str) else []
        facts = {k: html.unescape(v).strip() for k, v in said}
        if not users or not replies or not facts.get("Correct Answer"):
            raise TableError(f"{path}: result {i} lacks a question, a reply or its correct answer")
        question, reply = _text(users[-1].get("content")), _text(replies[-1].get("content"))
        found.setdefault((question, facts["Correct Answer"]), []).append(reply)
    rows = [
        (f"{i:06d}", question, [answer], replies if len(replies) > 1 else replies[0])
        for i, ((question, answer), replies) in enumerate(found.items())
    ]
    return _rows(rows, path)


def _lm_eval(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """lm-evaluation-harness: one filter's rows, gold answers, and all replies to a question."""
    replied = "filtered_resps" if "filtered_resps" in table else "resps"
    need(table, ["doc", "target", replied], path)
    table = _one_filter(table, path)

    rows, unfiltered = [], 0
    for i, row in enumerate(table.to_dict("records")):
        doc = _literal(row["doc"])
        if not isinstance(doc, dict):
            raise TableError(
                f"{path}: row {i}: `doc` is no object; give the file as --log_samples wrote it"
            )
        question = doc.get("question") or doc.get("problem") or doc.get("query")
        if not isinstance(question, str):
            raise TableError(f"{path}: row {i}: `doc` holds no question, problem or query")

        replies = _replies_of(row, replied, doc, f"{path}: row {i}")
        if INVALID in replies and "resps" in row:
            whole = _replies_of(row, "resps", doc, f"{path}: row {i}")
            replies, unfiltered = whole or replies, unfiltered + 1
        if not replies:
            raise TableError(f"{path}: row {i}: no reply in `filtered_resps` or `resps`")
        prediction = replies[0] if len(replies) == 1 else replies
        answers = _gold(doc, row["target"], path, i)
        rows.append((f"{row.get('doc_id', i)}", question, answers, prediction))
    if unfiltered:
        print(f"{path}: note: in {unfiltered} rows the filter found no answer; whole replies there")
    return _distinct_ids(_rows(rows, path), path)


def _one_filter(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The rows of the filter with most rows and then fewest replies INVALID, named in a line."""
    if "filter" not in table or table["filter"].nunique(dropna=False) < 2:
        return table
    failed = table.get("filtered_resps", table["filter"]).map(lambda v: INVALID in str(v))
    counts = failed.groupby(table["filter"].map(str), sort=False).agg(["size", "sum"])
    chosen = min(counts.index, key=lambda name: (-counts["size"][name], counts["sum"][name]))
    listed = ", ".join(f"{row.Index} ({row.size} rows)" for row in counts.itertuples())
    print(
        f"{path}: note: it holds several filters, {listed}; read are the rows of {chosen}, the one "
        f"with most rows and then fewest {INVALID}; for another one give its rows alone",
        flush=True,
    )
    return table[table["filter"].map(str) == chosen].reset_index(drop=True)


def _gold(doc: dict, target, path: Path, i: int) -> list[str]:
    """The gold answers: TriviaQA's `value` and `aliases`, else `target`; GSM8K's behind its ####.

    Raises TableError where there is none.
    """
    answer = doc.get("answer") if isinstance(doc.get("answer"), dict) else {}
    aliases = _literal(answer.get("aliases"))
    named = [answer.get("value"), *(aliases if isinstance(aliases, list) else [])]
    named = [name for name in named if isinstance(name, str) and name.strip()]
    if not named:
        found = _literal(target)
        named = found if isinstance(found, list) else [found]
    cut = [a.rsplit("####", 1)[1] if isinstance(a, str) and "####" in a else a for a in named]
    return read_answers(cut, path, i)


def _replies_of(row: dict, column: str, doc: dict, where: str) -> list[str]:
    """The texts of a row's replies; raises TableError for log-likelihoods, which are none."""
    found = _literal(row[column])
    replies = list(_flat(found))
    texts = [r for r in replies if isinstance(r, str)]
    likely = texts and all(LOGARITHM.fullmatch(r) or r in ("True", "False") for r in texts)
    if len(texts) < len(replies) or (likely and (len(texts) > 1 or "choices" in doc)):
        raise TableError(
            f"{where}: `{column}` holds log-likelihoods, {str(found)[:60]}, and no texts; give "
            "samples of a task that lets the model write"
        )
    return replies


def _literal(value):
    """A list or object written as text in JSON's or Python's form; anything else unchanged."""
    if not isinstance(value, str) or value[:1] not in ("[", "{"):
        return value.tolist() if hasattr(value, "tolist") else value
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return value


def _flat(replies):
    """Whatever stands in a list of lists, in its order; nothing of a missing one."""
    if is_list(replies):
        for part in replies:
            yield from _flat(part)
    elif not is_missing(replies):
        yield replies
