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
from pathlib import Path

import pandas as pd

from lib.readers import read_text, value_of_json
from lib.tables import TableError, read_table

PREDICTION_FORMATS = ("plain", "lm-eval", "simple-evals", "inspect")
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
        f"{path}: neither a log of Inspect (no `samples`) nor results of simple-evals "
        f"(no `htmls` and `convos`); its keys are {sorted(log)[:8]}"
    )


def _inspect_zip(path: Path) -> dict:
    """The samples of an `.eval` file: a zip with one JSON file for each sample."""
    try:
        with zipfile.ZipFile(path) as log:
            names = sorted(
                n for n in log.namelist() if n.startswith("samples/") and n.endswith(".json")
            )
            return {"samples": [json.loads(log.read(name)) for name in names]}
    except FileNotFoundError:
        raise TableError(f"{path}: no such file") from None
    except NotImplementedError:
        raise TableError(
            f"{path}: its compression is not known to this Python; convert it first: "
            "inspect log convert --to json --output-dir FOLDER FILE"
        ) from None
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise TableError(f"{path}: cannot be read as an Inspect log: {error}") from None


def _rows(rows: list[tuple], path: Path) -> pd.DataFrame:
    if not rows:
        raise TableError(f"{path}: holds no samples; give a log with at least one")
    return pd.DataFrame(rows, columns=["question_id", "question", "answers", "prediction"])


def _inspect(samples: list[dict], path: Path) -> pd.DataFrame:
    """Inspect: `input` (text or messages), `target`, and the completion of the first choice."""
    rows = []
    for i, sample in enumerate(samples):
        if not isinstance(sample, dict) or not {"input", "target"} <= set(sample):
            raise TableError(f"{path}: sample {i} has no `input` and `target`; is it a whole log?")
        target = sample["target"]
        name = f"{sample.get('id', i)}"
        answers = target if isinstance(target, list) else [target]
        rows.append(
            (name, _text(sample["input"]), answers, _completion(sample.get("output") or {}))
        )

    frame = _rows(rows, path)
    # epochs repeat a sample: several predictions of one question
    columns = ["question_id", "question"]
    grouped = frame.groupby("question_id", sort=False)
    whole = grouped[[*columns[1:], "answers"]].first()
    whole["prediction"] = grouped["prediction"].agg(
        lambda texts: texts.iloc[0] if len(texts) == 1 else list(texts)
    )
    return whole.reset_index()


def _completion(output: dict) -> str:
    if isinstance(output.get("completion"), str):
        return output["completion"]
    choices = output.get("choices") or [{}]
    return _text((choices[0].get("message") or {}).get("content") or "")


def _text(content) -> str:
    """The text of a message, a list of messages (the last of the user), or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return _text(content.get("content") or content.get("text") or "")
    parts = [part for part in content or [] if isinstance(part, dict)]
    users = [part for part in parts if part.get("role") == "user"]
    if users:
        return _text(users[-1].get("content"))
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def _simple_evals(log: dict, path: Path) -> pd.DataFrame:
    """simple-evals: question and reply from `convos`, the gold answer from the page beside it."""
    rows = []
    for i, (convo, page) in enumerate(zip(log["convos"], log["htmls"], strict=False)):
        users = [m for m in convo if m.get("role") == "user"]
        replies = [m for m in convo if m.get("role") == "assistant"]
        facts = {k: html.unescape(v).strip() for k, v in PARAGRAPH.findall(page)}
        if not users or not replies or not facts.get("Correct Answer"):
            raise TableError(f"{path}: result {i} lacks a question, a reply or its correct answer")
        question, reply = _text(users[-1]["content"]), _text(replies[-1]["content"])
        rows.append((f"{i:06d}", question, [facts["Correct Answer"]], reply))
    return _rows(rows, path)


def _lm_eval(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """lm-evaluation-harness: the first filter's rows, gold answers from `target`, all replies."""
    if "filter" in table:
        table = table[table["filter"] == table["filter"].iloc[0]].reset_index(drop=True)

    rows = []
    for i, row in enumerate(table.to_dict("records")):
        doc = _literal(row["doc"])
        if not isinstance(doc, dict):
            raise TableError(
                f"{path}: row {i}: `doc` is no object; give the file as --log_samples wrote it"
            )
        question = doc.get("question") or doc.get("problem") or doc.get("query")
        if not isinstance(question, str):
            raise TableError(f"{path}: row {i}: `doc` holds no question, problem or query")

        answers = doc["answer"].get("aliases") if isinstance(doc.get("answer"), dict) else None
        answers = _literal(row["target"]) if answers is None else answers
        answers = [str(a) for a in (answers if isinstance(answers, list) else [answers])]

        replies = _flat(_literal(row.get("filtered_resps", row.get("resps"))))
        if not replies:
            raise TableError(f"{path}: row {i}: no reply in `filtered_resps` or `resps`")
        prediction = replies[0] if len(replies) == 1 else replies
        rows.append((f"{row.get('doc_id', i)}", question, answers, prediction))
    return _rows(rows, path)


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


def _flat(replies) -> list[str]:
    """The texts in a list of lists of texts."""
    if isinstance(replies, str):
        return [replies]
    return [text for part in replies or [] for text in _flat(part)]
