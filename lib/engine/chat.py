"""A small OpenAI-compatible server on loopback: one local model behind the chat protocol, batched
by the engine.

For judges of a size that a laptop runs, and for tests: `python -m lib.engine.chat FOLDER`. It
answers greedily and alone; a served judge of a real run is vLLM's business.
"""

import argparse
import json
import queue
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lib.config import load_profile
from lib.engine.decoding import decode
from lib.engine.models import Policy, load_policy
from lib.prompts import render

GATHER = 0.02  # seconds that a first request waits for others to share its pass
MOST_TOKENS = 256  # tokens of a reply


class Asked:
    """One request on its way: prompt ids, most tokens, and the reply with its finish reason once it
    is there.
    """

    def __init__(self, prompt: list[int], tokens: int):
        self.prompt, self.tokens = prompt, tokens
        self.done, self.text, self.finish, self.used, self.error = (
            threading.Event(),
            None,
            None,
            0,
            None,
        )


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # the default of 5 drops connections when many come at once


class ChatServer:
    """Serves a Policy under `name` at http://127.0.0.1:`port`/v1 from threads of this process,
    until `close`.

    Requests that arrive together run in one pass, where their common prefix runs once. `address` is
    the base URL.
    """

    def __init__(self, policy: Policy, name: str, port: int = 0):
        self.policy, self.name, self.waiting = policy, name, queue.Queue()
        self.http = Listener(("127.0.0.1", port), handler(self))
        self.address = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.threads = [
            threading.Thread(target=work, daemon=True)
            for work in (self.http.serve_forever, self.answer)
        ]
        for thread in self.threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self) -> None:
        """Stop serving; requests on their way are answered first."""
        self.http.shutdown()
        self.waiting.put(None)
        for thread in self.threads:
            thread.join()
        self.http.server_close()

    def answer(self) -> None:
        """Answer what waits, all of it in one pass, again and again."""
        while (first := self.waiting.get()) is not None:
            time.sleep(GATHER)
            batch = [first]
            while not self.waiting.empty():
                batch.append(self.waiting.get())
            if None in batch:
                self.waiting.put(None)
            self.run([asked for asked in batch if asked is not None])

    def run(self, batch: list[Asked]) -> None:
        """Greedy replies to a batch; an error goes to every request of it, the server goes on."""
        try:
            longest = max(asked.tokens for asked in batch)
            for done in decode(
                self.policy, [asked.prompt for asked in batch], lambda i: None, longest
            ):
                asked, ids = batch[done["index"]], done["ids"][0][: batch[done["index"]].tokens]
                asked.text = self.policy.tokenizer.decode(ids, skip_special_tokens=True)
                asked.used, asked.finish = (
                    len(ids),
                    "stop" if ids[-1] in self.policy.stops else "length",
                )
        except Exception as error:  # it must not end the thread that every later request waits for
            for asked in batch:
                asked.error = f"{type(error).__name__}: {error}"
        for asked in batch:
            asked.done.set()

    def complete(self, body: dict) -> tuple[int, dict]:
        """Status and answer of one chat completion request; what cannot be served is refused with
        its reason.
        """
        if body.get("model") != self.name:
            return 404, _refusal(
                f"the model {body.get('model')!r} is not served here, {self.name!r} is"
            )
        if body.get("temperature", 0) or body.get("stream") or body.get("n", 1) != 1:
            return 400, _refusal("this server answers greedily, one whole reply a request")
        messages = body.get("messages")
        plain = isinstance(messages, list) and all(
            isinstance(m, dict) and isinstance(m.get("content"), str) for m in messages
        )
        if not messages or not plain:
            return 400, _refusal("`messages` must be a list of role and text")
        tokens = body.get("max_tokens") or MOST_TOKENS
        if not isinstance(tokens, int) or tokens < 1:
            return 400, _refusal("`max_tokens` must be a positive whole number")
        prompt = render(self.policy.tokenizer, messages)
        asked = Asked(prompt, min(tokens, MOST_TOKENS))
        self.waiting.put(asked)
        asked.done.wait()
        if asked.error:
            return 500, _refusal(asked.error)
        choice = {
            "index": 0,
            "finish_reason": asked.finish,
            "message": {"role": "assistant", "content": asked.text},
        }
        usage = {
            "prompt_tokens": len(prompt),
            "completion_tokens": asked.used,
            "total_tokens": len(prompt) + asked.used,
        }
        return 200, {
            "id": f"chatcmpl-{id(asked):x}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.name,
            "choices": [choice],
            "usage": usage,
        }


def _refusal(message: str) -> dict:
    return {"error": {"message": message, "type": "invalid_request_error", "code": None}}


def handler(server: ChatServer):
    """The HTTP handler class of one server: GET /v1/models and POST /v1/chat/completions."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words):
            pass

        def reply(self, status: int, answer: dict) -> None:
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            if self.path != "/v1/models":
                return self.reply(404, _refusal(f"no such address: {self.path}"))
            self.reply(
                200,
                {
                    "object": "list",
                    "data": [{"id": server.name, "object": "model", "owned_by": "local"}],
                },
            )

        def do_POST(self):
            text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path != "/v1/chat/completions":
                return self.reply(404, _refusal(f"no such address: {self.path}"))
            try:
                body = json.loads(text)
            except ValueError:
                body = None
            if not isinstance(body, dict):
                return self.reply(400, _refusal("the body is no JSON object"))
            self.reply(*server.complete(body))

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder", nargs="?", help="weights and tokenizer; without it the profile's model"
    )
    parser.add_argument("--run", default="laptop")
    parser.add_argument(
        "--name", help="under which the model is served; without it the folder's or model's name"
    )
    parser.add_argument("--port", type=int, default=8010)
    args = parser.parse_args()
    try:
        profile = load_profile(args.run)
        name = args.name or (args.folder or profile.model).rstrip("/").rpartition("/")[2]
        with ChatServer(load_policy(profile, args.folder), name, args.port) as server:
            print(f"serving {name} at {server.address}; end it with Ctrl-C", flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        pass
    except (ValueError, OSError) as error:
        sys.exit(f"chatserver: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
