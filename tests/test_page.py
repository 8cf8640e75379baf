"""The page of a run: its rows by hand, hostile texts, and the page itself in a browser."""

import json
import re
import shutil
import subprocess
import time
import urllib.request

import pandas as pd
import pytest
import websocket

from lib.study.page import browse, finding_section, make_page, question_rows, sanitise
from lib.tables import write_table

HOSTILE = "</script><img src=x onerror=alert(1)><b>$title</b> =HYPERLINK(1)"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def graded(run, stage, texts, grades, rows):
    """Write texts and grades of rows (question_id, sample, text, correct)."""
    frame = pd.DataFrame(rows, columns=["question_id", "sample", "text", "correct"])
    frame["correct"] = frame["correct"].astype("boolean")
    write_table(frame.drop(columns="correct"), run / stage / f"{texts}.parquet")
    write_table(frame.drop(columns="text"), run / stage / f"{grades}.parquet")


@pytest.fixture
def run(tmp_path):
    """A run of three test questions: one repaired, one damaged, one without a verdict."""
    folder = tmp_path / "laptop" / "model" / "atlas" / "seed0"
    questions = pd.DataFrame(
        {
            "question_id": ["a", "b", "c", "t"],
            "split": ["test", "test", "test", "train"],
            "question": ["Where is Lima?", "Where is Oslo?", HOSTILE, "Where is Rome?"],
            "answers": [["Peru", "Perú"], ["Norway"], ["x"], ["Italy"]],
            "relation": ["city", "city", "other", "city"],
        }
    )
    write_table(questions, folder / "02_dedup" / "questions.parquet")
    before = [("a", 0, "Chile", False), ("b", 0, "Norway", True), ("c", 0, HOSTILE, None)]
    graded(folder, "03_baselines", "greedy_base_test", "grades_greedy_base_test", before)
    after = [("a", 0, "Peru", True), ("b", 0, "Sweden", False), ("c", 0, "y", False)]
    graded(folder, "04_grpo", "greedy_grpo_test", "grades_greedy_grpo_test", after)
    drawn = [("a", 0, "Chile", False), ("a", 1, "Peru", True), ("a", 2, "Chile", False)]
    drawn.append(("a", 3, "Peru", True))
    graded(folder, "03_baselines", "samples_base_test", "grades_base_test", drawn)
    settings = folder / "03_baselines" / "settings.json"  # the fourth sample is the control's
    settings.write_text(json.dumps({"sampling": {"test_samples": 3}}))
    cells = [
        {"cell_type": "markdown", "source": [f"# A title\n\nWords {HOSTILE}"]},
        {
            "cell_type": "code",
            "source": ["print(1)"],
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": [f"said {HOSTILE}"]},
                {
                    "output_type": "display_data",
                    "data": {
                        "text/html": f"<style>b</style><table><tr><td>4{HOSTILE}</td></tr></table>"
                    },
                },
            ],
        },
    ]
    (folder / "01_data.ipynb").write_text(json.dumps({"cells": cells}))
    return folder


def test_rows_by_hand(run):
    rows = {row["id"]: row for row in question_rows(run)}
    assert list(rows) == ["a", "b", "c"]
    assert [row["outcome"] for row in rows.values()] == ["repaired", "damaged", "no verdict"]
    assert rows["a"]["golds"] == ["Peru", "Perú"]
    assert rows["a"]["share"] == pytest.approx(1 / 3)
    assert rows["a"]["stratum"] == "middle"  # of 05: a third of three
    assert rows["a"]["samples"] == [["Chile", 2, False], ["Peru", 1, True]]
    assert rows["a"]["samplesAfter"] is None and rows["b"]["stratum"] is None
    assert (rows["c"]["before"], rows["c"]["rightBefore"]) == (HOSTILE, None)


def test_a_run_that_has_only_questions_has_a_page(run):
    for stage in ("03_baselines", "04_grpo"):
        shutil.rmtree(run / stage)
    assert {row["outcome"] for row in question_rows(run)} == {"not asked yet"}
    assert "Where is Lima?" in make_page(run)


@pytest.mark.skipif(BROWSER is None, reason="no chromium")
def test_a_question_that_was_not_asked_after_training_says_so(run, tmp_path):
    shutil.rmtree(run / "04_grpo")
    said = said_after(
        make_page(run), tmp_path / "index.html", "said.push(get('rows').innerText)", "#open=b"
    )
    text = "|".join(said)
    assert "Before (right): Norway" in text and "After (" not in text
    assert text.count("not asked yet") == 3 and "no verdict" not in text


def test_a_question_without_a_relation_has_a_page(run):
    path = run / "02_dedup" / "questions.parquet"
    for missing in (None, float("nan")):
        questions = pd.read_parquet(path)
        others = questions["question_id"] != "a"
        questions["relation"] = questions["relation"].where(others, missing)
        write_table(questions, path)
        assert [row["relation"] for row in question_rows(run)] == [None, "city", "other"]
        assert '"relation": null' in make_page(run)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="questions.parquet is missing; run the notebooks"):
        make_page(tmp_path)


def test_texts_never_become_markup_and_nothing_is_loaded(run):
    page = make_page(run)
    assert "<img src=x" not in page and "<b>$title" not in page
    assert page.count("</script>") == 2  # its own
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert "default-src 'none'" in page
    assert sanitise("<a href='javascript:x'>y</a><i onclick=z>k</i>", {"a"}) == "<a>y</a>k"


def test_the_finding_is_what_the_last_cells_print(run):
    def printed(*texts):
        outputs = [{"output_type": "stream", "name": "stdout", "text": [t]} for t in texts]
        return {"cell_type": "code", "source": ["x"], "outputs": outputs}

    cells = [printed("progress"), printed(), printed("first\n"), printed("second\n", "third\n")]
    cells.append(printed())  # a last cell may have nothing to say
    (run / "02_dedup.ipynb").write_text(json.dumps({"cells": cells}))
    said = finding_section(run)
    assert "first\nsecond\nthird" in said and "progress" not in said


def dom(path, link=""):
    """The page at `path` as Chromium has it after its scripts; raises where one of them says."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command = [BROWSER, *options, f"--user-data-dir={path.parent / 'browser'}", "--dump-dom"]
    command.append(f"{path.as_uri()}{link}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    return done.stdout


def said_after(page, path, act, link=""):
    """What the script `act` puts into `said`, a list of texts, in the page."""
    script = f"<script>const said = []; {act}; document.body.append('[[' + said.join('|') + ']]')"
    path.write_text(page.replace("</body>", f"{script}</script></body>"))
    return dom(path, link).rpartition("[[")[2].partition("]]")[0].split("|")


@pytest.mark.skipif(BROWSER is None, reason="no chromium")
@pytest.mark.parametrize(
    ("link", "shown", "others"),
    [
        ("", ["Where is Lima?", "Where is Oslo?", "3 of 3 questions"], []),
        ("#questions", ["3 of 3 questions"], []),
        ("#outcome=repaired", ["Where is Lima?", "1 of 3 questions"], ["Where is Oslo?"]),
        ("#search=oslo+sweden", ["Where is Oslo?"], ["Where is Lima?"]),
        ("#open=a", ["Gold: Peru | Perú", "2 × Chile (wrong)"], []),
        ("#relation=other", ["1 of 3 questions", "&lt;/script&gt;&lt;img"], ["Where is Oslo?"]),
        ("#stratum=middle", ["Where is Lima?"], ["Where is Oslo?"]),
    ],
)
def test_filters_filter_in_a_browser(run, tmp_path, link, shown, others):
    path = tmp_path / "index.html"
    path.write_text(make_page(run))
    body = dom(path, link)
    body = body[body.index("<body>") : body.index('<script id="data"')]
    table = body[body.index('<div class="controls">') :]
    assert all(text in table for text in shown), table
    assert not any(text in table for text in others)


@pytest.mark.skipif(BROWSER is None, reason="no chromium")
def test_with_an_opened_question_one_pages_searches_and_filters(run, tmp_path):
    path = run / "02_dedup" / "questions.parquet"
    one = pd.read_parquet(path).iloc[[0]]
    more = [one.assign(question_id=f"q{k:03}", relation=f"r{k % 2}") for k in range(220)]
    write_table(pd.concat(more), path)
    act = """
    const note = () =>
      said.push(get("count").textContent.replace(/.*page /, ""), get("rows").rows.length);
    note();
    for (const side of ["forth", "forth", "back", "back", "back"]) { get(side).click(); note(); }
    get("relation").value = "r0";
    get("relation").dispatchEvent(new Event("change"));
    note();
    get("forth").click(); note();
    location.hash = "#open=q210";
    """
    said = said_after(make_page(run), tmp_path / "index.html", act, "#open=q120")
    pages = ["3 of 5", "4 of 5", "5 of 5", "4 of 5", "3 of 5", "2 of 5", "1 of 3", "2 of 3"]
    assert said[::2] == pages
    assert said[1::2] == ["51", "50", "20", "50", "51", "50", "50", "51"]
    after = dom(tmp_path / "index.html", "#open=q120")  # a link that was followed later
    assert "page 5 of 5" in after


class Tab:
    """A tab of a running Chromium that is asked and gets keys as from a keyboard."""

    def __init__(self, port: str):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        tabs = json.load(opener.open(f"http://127.0.0.1:{port}/json", timeout=60))
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        self.socket = websocket.create_connection(address, timeout=60, suppress_origin=True)

    def call(self, method, **options):
        self.socket.send(json.dumps({"id": 1, "method": method, "params": options}))
        while "id" not in (answer := json.loads(self.socket.recv())):
            pass
        return answer["result"]

    def value(self, expression):
        options = {"expression": expression, "returnByValue": True}
        return self.call("Runtime.evaluate", **options)["result"].get("value")

    def press(self, key, code, text):
        options = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **options)
        self.call("Input.dispatchKeyEvent", type="keyUp", **options)


@pytest.fixture
def tab(run, tmp_path):
    """The page of the run in a Chromium with a keyboard."""
    path = tmp_path / "index.html"
    path.write_text(make_page(run))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    command = [BROWSER, *options, f"--user-data-dir={tmp_path / 'browser'}", path.as_uri()]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as browser:
        try:
            written = tmp_path / "browser" / "DevToolsActivePort"
            for _ in range(240):
                if written.exists() and written.read_text():
                    break
                time.sleep(0.25)
            one = Tab(written.read_text().split()[0])
            loaded = "document.readyState == 'complete' && !!document.querySelector('#rows button')"
            while not one.value(loaded):  # the empty tab before the page is complete too
                time.sleep(0.1)
            yield one
        finally:
            browser.terminate()


@pytest.mark.skipif(BROWSER is None, reason="no chromium")
def test_rows_open_and_close_by_keyboard_and_keep_the_focus(tab):
    at = "document.activeElement"
    state = f"[{at}.tagName, {at}.textContent, {at}.getAttribute('aria-expanded')].join()"
    opened = "document.querySelectorAll('#opened').length"
    tab.value("document.querySelectorAll('th button')[6].focus()")
    tab.press("Tab", 9, "")
    tab.press("Tab", 9, "")
    assert tab.value(state) == "BUTTON,Where is Oslo?,false"
    tab.press("Enter", 13, "\r")
    assert (tab.value(state), tab.value(opened)) == ("BUTTON,Where is Oslo?,true", 1)
    tab.press(" ", 32, " ")
    assert (tab.value(state), tab.value(opened)) == ("BUTTON,Where is Oslo?,false", 0)
    tab.press("Tab", 9, "")
    assert tab.value(f"{at}.textContent").startswith("</script>")


@pytest.mark.skipif(BROWSER is None, reason="no chromium")
def test_texts_run_in_their_own_direction(run, tmp_path):
    path = run / "02_dedup" / "questions.parquet"
    questions = pd.read_parquet(path)
    questions.loc[0, "question"] = "أين تقع ليما؟"
    write_table(questions, path)
    act = """
    const way = css => getComputedStyle(document.querySelector(css)).direction;
    said.push(way("#rows tr:nth-child(1) td"), way("#rows tr:nth-child(1) button"));
    said.push(way("#rows tr:nth-child(3) td"), way("#rows tr:nth-child(1) td:nth-child(2)"));
    said.push(document.querySelectorAll("#opened :is(div, li):not([dir]):not(:has(ul))").length);
    """
    said = said_after(make_page(run), tmp_path / "index.html", act, "#open=a")
    assert said == ["rtl", "rtl", "ltr", "ltr", "0"]


@pytest.mark.skipif(BROWSER is None, reason="no chromium")
def test_the_questions_are_browsed_inside_a_notebook(run, tmp_path):
    frame = browse(run)._repr_html_()
    assert "Ended" not in frame  # the notebooks are not in it
    act = """<p id=said></p><script>
    onload = () => { const page = document.querySelector("iframe").contentDocument;
      page.getElementById("outcome").value = "repaired";
      page.getElementById("outcome").dispatchEvent(new Event("change", {bubbles: true}));
      document.getElementById("said").textContent = page.getElementById("count").textContent; };
    </script>"""
    path = tmp_path / "notebook.html"
    path.write_text(f"<html><body>{frame}{act}</body></html>")
    assert '<p id="said">1 of 3 questions' in dom(path)
