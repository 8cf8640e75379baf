"""`python -m lib.judge`: grade anybody's predictions, by rule or by a model."""

import argparse
import os
import sys
from pathlib import Path

from lib.config import Auditor, Judge
from lib.judge.extraction import EXTRACTIONS
from lib.judge.formats import PREDICTION_FORMATS, read_predictions
from lib.judge.grading import asked_of, regrade
from lib.judge.model import causes
from lib.judge.reasons import tally
from lib.metrics import accuracy
from lib.tables import check_columns, check_output, save_table

# options that only a judge that is a model has; what is not given is as in lib.config.Judge
OF_A_MODEL = (
    "model",
    "base_url",
    "concurrency",
    "max_failed",
    "max_fooled",
    "reply_tokens",
    "timeout",
    "identity",
    "max_calls",
    "auditor",
    "auditor_url",
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lib.judge",
        description="Grade predictions: a file with question, answers and prediction.",
    )
    add = parser.add_argument
    add("input", type=Path, help="csv, tsv, jsonl, json, parquet, or a log of lm-eval …")
    add("output", type=Path, help="the same rows with the verdicts: csv, tsv, jsonl, json, parquet")
    add(
        "--format",
        choices=["auto", *PREDICTION_FORMATS],
        default="auto",
        help="whose file it is; auto looks",
    )
    add(
        "--texts",
        action="store_true",
        help="every prediction is one text, also one that reads as a JSON list",
    )
    add(
        "--extract",
        choices=EXTRACTIONS,
        default="auto",
        help="how the answer is taken out of a longer text: by its last form (auto), by one form "
        "only, without thoughts and turns (text), or not at all (none)",
    )
    add("--judge", choices=["exact", "alias", "llm"], default="alias")
    add("--model", help="the judge's model, as its server names it")
    add("--base-url", help="an OpenAI-compatible server; the key is read from OPENAI_API_KEY")
    add("--concurrency", type=int, help="calls at the same time (64)")
    add("--max-failed", type=float, help="share of failed verdicts that stops the run (0.05)")
    add(
        "--max-fooled",
        type=float,
        help="share of plainly wrong answers accepted that stops the run (0.5)",
    )
    add("--reply-tokens", type=int, help="of a reply (8); a judge that reasons needs more")
    add("--timeout", type=float, help="seconds that one try of a call may take (60)")
    add("--identity", help="the server's name in the cache of replies, in place of its address")
    add("--max-calls", type=int, help="most calls to make; what was answered is kept")
    add("--auditor", metavar="MODEL", help="a second model, set beside the first")
    add("--auditor-url", help="its server; its key: AUDITOR_API_KEY, or OPENAI_API_KEY")
    return parser.parse_args()


def read_settings(args: argparse.Namespace) -> Judge:
    """The judge that the command line asks for; raises ValueError naming the option."""
    given = {name: value for name in OF_A_MODEL if (value := getattr(args, name)) is not None}
    options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
    if given and args.judge != "llm":
        raise ValueError(f"{options}: for a judge that is a model; add --judge llm, or drop them")
    if args.judge == "llm" and not args.model:
        raise ValueError("--judge llm needs --model, the name under which the server knows it")
    if args.auditor_url and not args.auditor:
        raise ValueError("--auditor-url needs --auditor, the name under which the server knows it")

    for name, option in (("OPENAI", "base_url"), ("AUDITOR", "auditor_url")):
        if url := given.pop(option, None):
            os.environ[f"{name}_BASE_URL"] = url  # the command line outranks the environment

    if args.auditor:
        given["auditor"] = Auditor(model=args.auditor)
    return Judge(kind=args.judge, **given)


def judge_line(settings: Judge) -> str:
    """Who judges, in a line."""
    if settings.kind != "llm":
        return f"judge: {settings.kind}, a rule"
    second = f"; auditor: {settings.auditor.model}" if settings.auditor else ""
    return f"judge: {settings.model}, a model{second}"


def main() -> None:
    args = parse_arguments()
    try:
        settings = read_settings(args)
        check_output(args.output, [args.input])
        print(judge_line(settings), flush=True)
        table, form = read_predictions(args.input, args.format)
        absent = table.pop("no_reply") if form == "inspect" else None
        check_columns(table.drop(columns=["answers", "prediction"], errors="ignore"), args.output)
        if form != "plain":
            print(f"{args.input}: read as a file of {form}, {len(table)} questions", flush=True)
        texts = args.texts or form != "plain"
        graded = regrade(table, settings, args.input, texts, args.extract, absent)
        save_table(graded, args.output)
    except (ValueError, OSError, RuntimeError) as error:  # every failure of ours is one of these
        sys.exit(f"judging: {' '.join(str(error).split())}")

    reached = accuracy(graded.assign(question_id=asked_of(graded)))
    interval = f"[{reached['low']:.3f}, {reached['high']:.3f}]"
    said = f"accuracy {reached['value']:.3f} {interval} over {reached['n']} questions"
    print(said if reached["n"] else "no accuracy: no prediction has a verdict")

    failed = graded["correct"].isna()
    blank = graded["prediction"].str.strip().eq("") & ~failed
    counts = f"{failed.sum()} verdicts failed, {graded['disputed'].sum()} were disputed"
    counts += f", {graded['fooled'].sum()} fooled"
    if blank.any():
        counts += f"; {blank.sum()} were blank, which is wrong"
    print(f"{len(graded)} predictions; {counts}; {args.output}")
    if "form" in graded:
        print(f"taken out (--extract {args.extract}): {tally(graded['form'])}")
    print(f"why: {tally(graded['why'])}")
    if failed.any():
        print(f"failed verdicts: {causes(graded[failed].to_dict('records'))}")


if __name__ == "__main__":
    main()
