"""Text files that hold rows, as people leave them: encodings, separators, JSON in its forms."""

import ast
import csv
import io
import json
import re
import tokenize
from pathlib import Path

import pandas as pd

CELL_MARKS = (",", ";", "\t")
# what Python and NumPy write around a list
CALLED = re.compile(
    r"(?:np\.|numpy\.)?(?:array|set|frozenset|list|tuple)\((.*?)(?:,\s*dtype=[^()\[\]]*)?\)", re.S
)
# half of a character in JSON's escapes; a whole one, and an escaped backslash, are found first
HALF = re.compile(r"(\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})|\\ud[89a-f][0-9a-f]{2}", re.I)
BOMS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its byte order mark, which is left out.

    Raises ValueError that shows how the first other byte reads in Windows' encoding, which is a
    guess that only a person can confirm.
    """
    raw = path.read_bytes()
    encoding = next((name for bom, name in BOMS.items() if raw.startswith(bom)), "utf-8")
    if raw.startswith(b"PK\x03\x04"):
        raise ValueError("it is a zip, such as an Excel file; save it as csv (UTF-8)")
    if encoding != "utf-16" and raw.count(0) > len(raw) // 4:
        raise ValueError("it looks like UTF-16 without its mark; save it as UTF-8")

    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        at = error.start
        if encoding == "utf-16":
            raise ValueError(f"byte {at} is no UTF-16; save it as UTF-8") from None
        line = raw[max(at - 30, 0) : at + 30].decode("cp1252", "replace").replace("\r", "\n")
        before = len(raw[max(at - 30, 0) : at].decode("cp1252", "replace"))
        shown = line[:before].split("\n")[-1] + line[before:].split("\n")[0]
        raise ValueError(
            f"byte {at} is no UTF-8. As cp1252 (Windows, near latin-1) it reads {shown!r}; where "
            "that is right, convert it: iconv -f cp1252 -t utf-8 OLD > NEW"
        ) from None


def separator_of(text: str) -> str:
    """What separates the cells of a csv: of comma, semicolon and tab, what cuts the header most."""
    return max(CELL_MARKS, key=lambda mark: len(_header(text, mark)))  # at a tie the comma


def _header(text: str, separator: str) -> list[str]:
    """The cells of the first line that is not blank. Raises ValueError."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        return next((row for row in rows if "".join(row).strip()), [])
    except csv.Error as error:
        raise ValueError(f"its header is none: {error}") from None


def rows_of_csv(text: str, separator: str) -> pd.DataFrame:
    """The rows of a csv as text, an empty cell as missing; "NA" and "None" are texts.

    Raises ValueError for a header that names a column twice and, with its line, for a row that is
    longer or shorter than the header.
    """
    header = _header(text, separator)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ValueError(f"column {twice[0]!r} is there twice; rename one or drop it")

    advice = f"put cells that hold {separator!r} in double quotes"
    _check_widths(text, separator, len(header), advice)
    options = {"sep": separator, "keep_default_na": False, "na_values": [""], "dtype": str}
    try:
        frame = pd.read_csv(io.StringIO(text, newline=""), **options)
    except pd.errors.ParserError as error:
        raise ValueError(f"{error}; {advice}") from None

    # where all rows have a cell too many, pandas takes the first one for the row's name
    if not isinstance(frame.index, pd.RangeIndex):
        raise ValueError(f"its rows have more cells than the header {header}; {advice}")
    return frame


def _check_widths(text: str, separator: str, width: int, advice: str) -> None:
    """Raise ValueError naming the first line whose row has more or fewer cells than the header."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    limit, line = csv.field_size_limit(len(text) + 1), 1
    try:
        for row in rows:
            cells = f"{len(row)} and {width}"
            if len(row) > width:
                raise ValueError(
                    f"line {line} has more cells than the header ({cells}): {row!r:.80}; {advice}"
                )
            # a blank line is no row
            if len(row) < width and "".join(row).strip():
                raise ValueError(
                    f"line {line} has fewer cells than the header ({cells}): {row!r:.80}; write "
                    "empty cells, too, and close every quote"
                )
            line = rows.line_num + 1
    except csv.Error as error:
        raise ValueError(f"line {line}: {error}; {advice}") from None
    finally:
        csv.field_size_limit(limit)


def value_of_json(text: str):
    """What a JSON file holds; of one object a line the list of them. Raises ValueError."""
    text = without_halves(text)
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        try:
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        except ValueError:
            raise error from None


def without_halves(text: str) -> str:
    """JSON with the mark for what cannot be read in the place of half a character.

    Tools that cut a text by its UTF-16 units leave "\\ud83d" without its other half, which no file
    in UTF-8 can hold.
    """
    return HALF.sub(lambda found: found[1] or r"\ufffd", text)


def rows_of_json(text: str) -> pd.DataFrame:
    """The rows of a list of objects, or of one object a line. Raises ValueError."""
    rows = value_of_json(text)
    if isinstance(rows, dict):
        raise ValueError(
            f"it is one object with the keys {list(rows)[:8]}; give a list of rows, or one a line"
        )
    if not isinstance(rows, list):
        raise ValueError("it is no list of JSON objects")
    return _frame(rows, "item")


def rows_of_jsonl(text: str) -> pd.DataFrame:
    """The rows of one JSON object a line, or of a list of them. Raises ValueError with the line.

    Only a newline ends a line: JSON may hold other marks that Python takes for one.
    """
    if re.match(r"\s*\[\s*\{", text):
        return rows_of_json(text)
    rows, text = [], without_halves(text)
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except RecursionError:
            raise ValueError(f"line {number} is nested too deeply") from None
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number}: {error.msg} (character {error.colno})") from None
    return _frame(rows, "line")


def _frame(rows: list, what: str) -> pd.DataFrame:
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"a {what} is no JSON object")
    frame = pd.DataFrame(rows, dtype=object)
    # a column of one type takes it; in a mixed one 1945 must not become 1945.0 beside 3.5
    single = [c for c in frame if frame[c].map(type).nunique() == 1]
    return frame.assign(**{c: frame[c].infer_objects() for c in single})


def python_value(text: str):
    """A list or object in Python's form; None where it is none, or joins strings without a comma.

    NumPy writes ['A' 'B'], which Python reads as one string.
    """
    try:
        value = ast.literal_eval(text.strip())
        tokens = list(tokenize.generate_tokens(io.StringIO(text.strip()).readline))
    except (ValueError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError):
        return None
    kinds = [token.type for token in tokens if token.type not in (tokenize.NL, tokenize.NEWLINE)]
    pairs = zip(kinds, kinds[1:], strict=False)
    return None if (tokenize.STRING, tokenize.STRING) in pairs else value


def list_in_text(text: str) -> list | None:
    """The members of a list, tuple, set or array written in JSON's or Python's form, else None.

    None, too, for numbers in round or curly brackets, which may be one point, interval or set.
    """
    text = text.strip()
    called = CALLED.fullmatch(text)
    inside = called[1].strip() if called else text
    if inside[:1] not in ("[", "(", "{"):
        return None
    try:
        found = json.loads(inside)
    except (ValueError, RecursionError):
        found = python_value(inside)
    if isinstance(found, list) or (called and isinstance(found, tuple | set)):
        return list(found)
    if isinstance(found, tuple | set) and any(isinstance(member, str) for member in found):
        return sorted(found, key=str) if isinstance(found, set) else list(found)
    return None


def object_in_text(text: str):
    """An object in JSON's or Python's form; the text where it is none."""
    try:
        found = json.loads(text)
    except ValueError:
        found = python_value(text)
    return found if isinstance(found, dict) else text
