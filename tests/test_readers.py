"""Files of rows as people leave them: each is read, or refused in a line that says what to do."""

import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.cells import read_answers
from lib.readers import python_value, rows_of_csv, rows_of_jsonl, separator_of
from lib.tables import TableError, read_table, save_table

BOGOTA = [["Bogotá", "Santa Fe de Bogotá"], ["Goethe"]]
ASKED = ["Which capital, in the Andes?", "Who wrote Faust?"]
COMMAS = (
    'question,answers\n"Which capital, in the Andes?","[""Bogotá"", ""Santa Fe de Bogotá""]"\n'
    "Who wrote Faust?,Goethe\n"
)
OTHERS = COMMAS.replace(
    '"Which capital, in the Andes?",', "Which capital, in the Andes?\t"
).replace("?,G", "?\tG")
TABS = OTHERS.replace("question,answers", "question\tanswers")
ROWS = [{"question": q, "answers": a} for q, a in zip(ASKED, BOGOTA, strict=True)]
SQUAD = [
    {"question": q, "answers": {"text": a, "answer_start": [3] * len(a)}}
    for q, a in zip(ASKED, BOGOTA, strict=True)
]
TRIVIA = [
    {"question": q, "answers": {"value": a[0], "aliases": a[::-1], "normalized_aliases": ["x"]}}
    for q, a in zip(ASKED, BOGOTA, strict=True)
]


def lines(rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


READ = {
    "utf-8.csv": COMMAS.encode(),
    "utf-8 with a mark.csv": COMMAS.encode("utf-8-sig"),
    "utf-16.csv": COMMAS.encode("utf-16"),
    "utf-16 the other way.csv": b"\xfe\xff" + COMMAS.encode("utf-16-be"),
    "lines of Windows.csv": COMMAS.replace("\n", "\r\n").encode(),
    "SHOUTED.CSV": COMMAS.encode(),
    "semicolons.csv": TABS.replace("\t", ";").encode(),
    "tabs.csv": TABS.encode(),
    "tabs.tsv": TABS.encode(),
    "python lists.csv": pd.DataFrame({"question": ASKED, "answers": [*map(str, BOGOTA)]})
    .to_csv(index=False)
    .encode(),
    "squad in cells.csv": pd.DataFrame(SQUAD).to_csv(index=False).encode(),
    "rows.jsonl": lines(ROWS).encode(),
    "rows with a mark.jsonl": lines(ROWS).encode("utf-8-sig"),
    "rows in utf-16.jsonl": lines(ROWS).encode("utf-16"),
    "array.jsonl": json.dumps(ROWS, indent=2).encode(),
    "array.json": json.dumps(ROWS).encode(),
    "lines.json": lines(ROWS).encode(),
    "squad.jsonl": lines(SQUAD).encode(),
    "trivia.json": json.dumps(TRIVIA).encode(),
}


@pytest.mark.parametrize("name", READ)
def test_each_shape_is_read(tmp_path, name):
    (tmp_path / name).write_bytes(READ[name])
    frame = read_table(tmp_path / name)
    assert frame["question"].tolist() == ASKED
    assert [read_answers(a) for a in frame["answers"]] == BOGOTA


@pytest.mark.parametrize("rows", [ROWS, SQUAD, TRIVIA])
def test_answers_in_parquet(tmp_path, rows):
    pd.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    frame = read_table(tmp_path / "rows.parquet")
    assert [read_answers(a) for a in frame["answers"]] == BOGOTA


REFUSED = {
    "a.xlsx": (b"PK\x03\x04", "sheets are not read; save it as csv"),
    "b.csv": (b"PK\x03\x04\xff", "a zip, such as an Excel file; save it as csv"),
    "c.csv": (COMMAS.encode("cp1252"), r"byte 57 is no UTF-8.*'.*Bogotá.*'.* iconv -f cp1252"),
    "d.csv": (COMMAS.encode("utf-16-le"), "looks like UTF-16 without its mark; save it as UTF-8"),
    "e.csv": (b"question,answers\nWho, pray?,A\nWho, then?,B\n", "more cells than the header"),
    "f.csv": (b"question,answers\nWho?,A\nWho, then?,B\n", "line 3.*put cells .* in double quotes"),
    "m.csv": (b"a,b\n1,2\n\n1,2,3\n", r"line 4 has more cells than the header \(3 and 2\)"),
    "n.csv": (b'a,b,c\n"x\ny",2,3\n1,2\n', r"line 4 has fewer cells .*\(2 and 3\).*'1', '2'"),
    "o.csv": (b'a,b\n1,"2\n3,4\n5,6\n', "line 2: EOF inside|EOF inside string"),
    "p.csv": (b'a,b\n"1,2\n3,4\n', "line 2 has fewer cells .* close every quote"),
    "g.csv": (b"question,answers,answers\nWho?,A,B\n", "'answers' is there twice"),
    "h.json": (b'{"data": []}', r"one object with the keys \['data'\]; give a list of rows"),
    "i.json": (b'"text"', "no list of JSON objects"),
    "j.jsonl": (b'{"question": "a"}\n{"question"\n', "line 2: Expecting ':' delimiter"),
    "k.jsonl": (b"[" * 100_000, "line 1 is nested too deeply"),
    "l.json": (b"\xff\xfe\x00", "no UTF-16; save it as UTF-8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_what_to_do(tmp_path, name):
    data, said = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TableError, match=f"{name}: .*{said}") as error:
        read_table(tmp_path / name)
    assert "\n" not in str(error.value)


def test_the_separator_is_what_cuts_the_header_most():
    assert separator_of("question;answers\na,b,c;d\n") == ";"
    assert separator_of('"a;b;c",d\n') == ","
    assert separator_of("question\n") == ","


CELLS = st.text("ab,;\t\"' \n1é", max_size=6)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5), st.sampled_from(",;\t"))
def test_every_cell_of_a_csv_comes_out_as_it_went_in(cells, mark):
    frame = pd.DataFrame(cells, columns=["one", "two"])
    text = frame.to_csv(index=False, sep=mark)
    assert separator_of(text) == mark
    # a blank line is no row, and an empty cell is missing
    kept = frame[(frame["one"] != "") | (frame["two"] != "")].reset_index(drop=True)
    back = rows_of_csv(text, mark).dropna(how="all").reset_index(drop=True)
    assert back.fillna("").values.tolist() == kept.values.tolist()


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(max_size=20))
def test_every_text_of_a_jsonl_comes_out_as_it_went_in(text):
    """Also one with U+2028 or U+0085, which end a line for Python and not for JSON."""
    row = json.dumps({"text": text}, ensure_ascii=False)
    assert rows_of_jsonl(row + "\n" + row)["text"].tolist() == [text, text]


def test_a_saved_jsonl_with_marks_of_lines_is_read_again(tmp_path):
    frame = pd.DataFrame({"text": ["one\u2028two\x85three"]})
    assert read_table(save_table(frame, tmp_path / "x.jsonl")).equals(frame)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['A', \"B's\"]", ["A", "B's"]),
        ("['A' 'B']", None),
        ("['A'\n 'B']", None),
        ("['A', nan]", None),
        ("{'text': ['A']}", {"text": ["A"]}),
        ("__import__('os')", None),
    ],
)
def test_a_value_in_python_s_form(text, value):
    assert python_value(text) == value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("A|B", r'`answers` \'A\|B\' holds `\|`; write several answers as \["A", "B"\]'),
        ("['A' 'B']", r'no JSON list .*\["A", "B"\]'),
        ({"en": "A"}, r"an object with the keys \['en'\]; give a list"),
        ({"text": []}, "`answers` is empty"),
        ('{"value": null, "aliases": []}', "`answers` is empty"),
    ],
)
def test_answers_that_cannot_be_read_are_refused_with_their_row(value, said):
    with pytest.raises(TableError, match=f"a.csv: row 3: .*{said}"):
        read_answers(value, "a.csv", 3)


@pytest.mark.parametrize("value", ["|x|", ["A|B"], '["A|B"]', "{x}", "[REC]"])
def test_marks_that_are_part_of_one_answer(value):
    assert len(read_answers(value)) == 1


def test_a_name_alone_and_an_object_of_texts():
    assert read_answers({"text": "A"}) == ["A"]
    assert read_answers({"aliases": ["A", "B"]}) == ["A", "B"]
    assert read_answers({"value": "B", "aliases": ["A", "B"]}) == ["B", "A"]


def test_lines_without_cells_are_no_rows_and_long_cells_are_read():
    text = "\n\nquestion,answers\r\n \nWho?,A\n\nWhen?,\n" + f"x,{'y' * 200_000}\n"
    frame = rows_of_csv(text, ",")
    assert frame["question"].tolist() == ["Who?", "When?", "x"]
    assert frame["answers"].str.len().dropna().tolist() == [1, 200_000]
