"""One self-contained page of a run: what was found, every question, the executed notebooks.

    python -m lib.study.page outputs/laptop/smollm2-135m/atlas/seed0

The page loads nothing: pictures are inside, scripts are its own. Texts of questions and models
never become markup.
"""

import base64
import html
import json
import re
import string
import sys
from pathlib import Path

import bleach
import pandas as pd
from IPython.display import IFrame
from nbconvert.filters import ansi2html, markdown2html

from lib.report import executed, last_words
from lib.study.redistribution import accessibility
from lib.tables import load_json, load_table, write_text

DISTINCT = 12  # different samples shown of a question, the most frequent first
OUTCOMES = {
    (False, True): "repaired",
    (True, False): "damaged",
    (True, True): "right, right",
    (False, False): "wrong, wrong",
}
TAGS = {"table", "thead", "tbody", "tfoot", "tr", "th", "td", "caption", "p", "div", "span", "br"}
KEPT = {"*": ["colspan", "rowspan", "scope"]}
ANCHOR = re.compile('<a class="anchor-link".*?</a>')
HEADING = re.compile("<(/?)h[12]")
MARKUP = TAGS | {"h3", "h4", "ul", "ol", "li", "em", "strong", "code", "pre", "a"}


def question_rows(run: Path) -> list[dict]:
    """What the page shows of each test question, as far as the run has come.

    id, question, gold, golds, relation; before and after (None: not asked yet) with rightBefore and
    rightAfter (None: no verdict) of greedy answers; outcome; share and shareAfter of right samples,
    stratum; samples and samplesAfter as [text, times, right]. The samples before are those that 05
    takes for them, not its control.
    """
    path = run / "02_dedup" / "questions.parquet"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; run the notebooks first (`make all`)")
    questions = load_table(path)
    test = questions[questions["split"] == "test"]
    early, grpo, moved = run / "03_baselines", run / "04_grpo", run / "05_redistribution"
    before = _answers(early / "greedy_base_test", early / "grades_greedy_base_test")
    after = _answers(grpo / "greedy_grpo_test", grpo / "grades_greedy_grpo_test")
    settings = early / "settings.json"
    n = load_json(settings)["sampling"]["test_samples"] if settings.exists() else None
    drawn = _samples(early / "samples_base_test", early / "grades_base_test", n)
    later = _samples(moved / "samples_grpo_test", moved / "grades_grpo_test", n)

    rows = []
    for one in test.itertuples():
        old, right_old = before.get(one.question_id, (None, None))
        new, right_new = after.get(one.question_id, (None, None))
        share, stratum, samples = drawn.get(one.question_id, (None, None, None))
        share_after, _, samples_after = later.get(one.question_id, (None, None, None))
        row = {"id": one.question_id, "question": one.question, "gold": one.answers[0]}
        relation = None if pd.isna(one.relation) else one.relation
        row |= {"golds": list(one.answers), "relation": relation, "before": old, "after": new}
        row |= {"rightBefore": right_old, "rightAfter": right_new}
        unknown = "not asked yet" if None in (old, new) else "no verdict"
        row |= {"outcome": OUTCOMES.get((right_old, right_new), unknown)}
        row |= {"share": share, "shareAfter": share_after, "stratum": stratum}
        rows.append(row | {"samples": samples, "samplesAfter": samples_after})
    return rows


def _joined(texts: Path, grades: Path) -> pd.DataFrame:
    """Texts with their verdicts: question_id, sample, text, correct; empty before the stage."""
    paths = [path.with_name(f"{path.name}.parquet") for path in (texts, grades)]
    if not all(path.exists() for path in paths):
        return pd.DataFrame(columns=["question_id", "sample", "text", "correct"])
    left, right = (load_table(path) for path in paths)
    keys = ["question_id", "sample"]
    return left.merge(right[[*keys, "correct"]], on=keys)[[*keys, "text", "correct"]]


def _truth(value) -> bool | None:
    return None if pd.isna(value) else bool(value)


def _answers(texts: Path, grades: Path) -> dict[str, tuple[str, bool | None]]:
    """question_id -> (answer, verdict)."""
    rows = _joined(texts, grades).itertuples(index=False)
    return {row.question_id: (row.text, _truth(row.correct)) for row in rows}


def _samples(texts: Path, grades: Path, n: int | None) -> dict[str, tuple]:
    """question_id -> (share of right samples, stratum, the most frequent as [text, times, right]).

    n: the first samples that count. Share and stratum are None where there is no verdict.
    """
    joined, samples = _joined(texts, grades), {}
    joined = joined if n is None else joined[joined["sample"] < n]
    known = accessibility(joined).set_index("question_id")[["share", "stratum"]].to_dict("index")
    for key, rows in joined.groupby("question_id"):
        verdicts = rows.drop_duplicates("text").set_index("text")["correct"]
        counts = rows["text"].value_counts().head(DISTINCT)
        shown = [[text, int(times), _truth(verdicts[text])] for text, times in counts.items()]
        found = known.get(key, {"share": None, "stratum": None})
        samples[key] = (found["share"], found["stratum"], shown)
    return samples


def render_notebook(path: Path) -> str:
    """An executed notebook as markup: its text, its code folded, its outputs."""
    notebook = json.loads(path.read_text())
    parts, caption = [], ""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            markup = ANCHOR.sub("", markdown2html(source))
            parts.append(sanitise(HEADING.sub(r"<\1h3", markup), MARKUP))  # under the stage's name
            caption = " ".join(source.lstrip("# ").split())[:200]
        elif cell["cell_type"] == "code" and source.strip():
            code = html.escape(source)
            parts.append(f"<details><summary>code</summary><pre>{code}</pre></details>")
            outputs = cell.get("outputs", [])
            said = ["".join(o["data"]["text/markdown"]) for o in outputs if _is_caption(o)]
            parts += [_output(output, said[0] if said else caption) for output in outputs]
    return "\n".join(parts)


def _is_caption(output: dict) -> bool:
    return "text/markdown" in output.get("data", {})


def sanitise(markup: str, tags=frozenset(TAGS)) -> str:
    """The markup with these tags alone; of links only those inside the page or to an address."""
    allowed = KEPT | ({"a": ["href"]} if "a" in tags else {})
    return bleach.clean(markup, tags=set(tags), attributes=allowed, strip=True)


def _output(output: dict, caption: str) -> str:
    """One output of a cell; a picture's alternative text is its caption, or the text before it."""
    if output["output_type"] == "stream":
        return f"<pre>{html.escape(''.join(output['text']))}</pre>"
    if output["output_type"] == "error":
        return f"<pre>{ansi2html(chr(10).join(output['traceback']))}</pre>"
    data = {kind: "".join(value) for kind, value in output["data"].items()}
    if "image/png" in data:
        picture = "".join(data["image/png"].split())
        return f'<p><img alt="{html.escape(caption)}" src="data:image/png;base64,{picture}"></p>'
    if _is_caption(output):
        return f'<p class="caption">{html.escape(data["text/markdown"])}</p>'
    if "text/html" in data:
        return f'<div class="wide">{sanitise(_without_style(data["text/html"]))}</div>'
    return f"<pre>{html.escape(data.get('text/plain', ''))}</pre>"


def _without_style(markup: str) -> str:
    """A frame's markup without the style sheet that pandas puts in front."""
    start, end = markup.find("<style"), markup.find("</style>")
    return markup[:start] + markup[end + len("</style>") :] if 0 <= start < end else markup


def finding_section(run: Path) -> str:
    """The run's main figure, and what the last cells of each notebook say."""
    parts = []
    for picture in sorted((run / "figures").glob("*_finding.png")):
        inside = base64.b64encode(picture.read_bytes()).decode()
        written = picture.with_suffix(".txt")
        words = html.escape(written.read_text().strip() if written.exists() else picture.stem)
        parts.append(f'<p><img alt="{words}" src="data:image/png;base64,{inside}"></p>')
        parts.append(f'<p class="caption">{words}</p>')
    for path in executed(run):
        said = last_words(path)
        link = f'<a href="#{path.stem}">{path.stem}</a>'
        parts.append(f"<h3>{link}</h3><pre>{html.escape(said)}</pre>" if said else "")
    return f'<h2 id="finding">What was found</h2>{"".join(parts)}'


def make_page(run: Path, whole: bool = True) -> str:
    """The page of a run, or its questions alone. Raises FileNotFoundError where it has none yet."""
    stages = executed(run) if whole else []
    names = ["finding", "questions", *(path.stem for path in stages)] if whole else []
    sections = [
        f'<h2 id="{path.stem}">{path.stem}</h2><p><a href="#finding">back to the finding</a></p>'
        f"{render_notebook(path)}"
        for path in stages
    ]
    # inside a script, `</` would end it
    data = json.dumps({"questions": question_rows(run)}, ensure_ascii=False, allow_nan=False)
    template = string.Template(Path(__file__).with_name("page.html").read_text())
    return template.substitute(
        title=html.escape(" / ".join(run.resolve().parts[-4:])),
        links=" ".join(f'<a href="#{name}">{name}</a>' for name in names),
        finding=finding_section(run) if whole else "",
        stages="\n".join(sections),
        data=data.replace("<", "\\u003c"),
    )


def browse(run: Path, height: int = 800) -> IFrame:
    """The questions of a run inside a notebook: `browse(stage.run)`."""
    inside = html.escape(make_page(Path(run), whole=False), quote=True)
    return IFrame("about:blank", "100%", height, extras=[f'srcdoc="{inside}"'])


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m lib.study.page FOLDER (a run's: outputs/…/seed<k>)")
    run = Path(sys.argv[1])
    try:
        page = make_page(run)
    except FileNotFoundError as error:
        sys.exit(str(error))
    path = run / "report" / "index.html"
    write_text(path, page)
    print(path)


if __name__ == "__main__":
    main()
