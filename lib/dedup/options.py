"""The options that the commands of dedup share: the judge, and how candidates are found."""

import os
from types import SimpleNamespace

from lib.config import Dedup, Judge


def add_options(parser) -> None:
    """The options of the commands that decide pairs: judge, model, address, candidates."""
    parser.add_argument(
        "--judge",
        choices=["rule", "llm"],
        default="rule",
        help="rule sees reversals and rewordings that keep most words; llm any paraphrase",
    )
    parser.add_argument("--model", help="the judge's model, as its server names it")
    parser.add_argument(
        "--base-url", help="an OpenAI-compatible server; the key is read from OPENAI_API_KEY"
    )
    parser.add_argument(
        "--reply-tokens", type=int, default=256, help="of a reply; a judge that reasons needs more"
    )
    parser.add_argument("--concurrency", type=int, default=64, help="calls at the same time")
    parser.add_argument(
        "--neighbours",
        type=int,
        default=10,
        help="most similar training questions of a test question",
    )
    parser.add_argument(
        "--similarity", type=float, default=0.5, help="cosine from which a neighbour is a candidate"
    )


def read_options(args) -> SimpleNamespace:
    """The settings that `dedup` reads; raises ValueError naming the option."""
    if args.judge == "llm" and not args.model:
        raise ValueError("--judge llm needs --model, the name under which the server knows it")
    if args.judge != "llm" and (args.model or args.base_url):
        raise ValueError(
            "--model and --base-url are of a judge that is a model; add --judge llm, or drop them"
        )
    if min(args.neighbours, args.concurrency, args.reply_tokens) < 1:
        raise ValueError("--neighbours, --concurrency, --reply-tokens: give 1 or more")
    if not 0 <= args.similarity <= 1:
        raise ValueError(f"--similarity {args.similarity:g} is no cosine: give 0 to 1")
    if args.base_url:
        os.environ["OPENAI_BASE_URL"] = args.base_url  # the command line outranks the environment
    return SimpleNamespace(
        dedup=Dedup(neighbours=args.neighbours, similarity=args.similarity, judge=args.judge),
        judge=Judge(
            kind="llm" if args.model else "alias",
            model=args.model,
            reply_tokens=args.reply_tokens,
            concurrency=args.concurrency,
        ),
    )
