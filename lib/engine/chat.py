"""A small OpenAI-compatible server on loopback: one local model behind the chat protocol.

It is for judges of a size that a laptop runs, and for tests: `python -m lib.engine.chat FOLDER`.
Requests that arrive together run in one pass of the engine. It answers greedily and to this machine
only; a served judge of a real run is vLLM's business.
"""

import argparse
import json
import queue
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lib.config import load_profile
from lib.engine.decoding import decode, finish_reason, refuse_long_prompts
from lib.engine.models import Policy, load_policy
from lib.prompts import render

LOOK_SECONDS = 0.5  # between two looks whether the client of an open request is still there
GATHER_SECONDS = 0.02  # that a first request waits for others to share its pass
REPLY_TOKENS = 256  # of a reply, at most


class ChatRequest:
    """One request on its way, and its reply once `done` is set."""

    def __init__(self, prompt: list[int], max_tokens: int):
        self.prompt = prompt  # token ids
        self.max_tokens = max_tokens
        self.done = threading.Event()
        self.dropped = False  # nobody waits for it any more
        self.text = None
        self.finish = None
        self.tokens = 0  # of the reply
        self.error = None


class ChatServer:
    """Serves a Policy under `name` at http://127.0.0.1:`port`/v1 until `close`.

    It runs in threads of this process. `address` is the base URL.
    """

    def __init__(self, policy: Policy, name: str, port: int = 0):
        self.policy = policy
        self.name = name
        self.waiting = queue.Queue()  # requests, and None to stop
        self.http = Listener(("127.0.0.1", port), Handler)
        self.http.chat = self
        self.address = f"http://127.0.0.1:{self.http.server_port}/v1"

        # one thread answers, so that the model runs one pass at a time
        works = (self.http.serve_forever, self.answer)
        self.threads = [threading.Thread(target=work, daemon=True) for work in works]
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
        """Answer all waiting requests in one pass, again and again until None comes."""
        while (first := self.waiting.get()) is not None:
            time.sleep(GATHER_SECONDS)
            batch = [first]
            while not self.waiting.empty():
                batch.append(self.waiting.get())

            if None in batch:  # stop after this pass
                self.waiting.put(None)
            self.run([one for one in batch if one is not None and not one.dropped])

    def run(self, batch: list[ChatRequest]) -> None:
        """Reply to a batch greedily, each as soon as it is ready.

        An error goes to the requests that are still open, and the server lives on.
        """
        if not batch:
            return
        prompts = [request.prompt for request in batch]
        try:
            longest = max(request.max_tokens for request in batch)
            for answer in decode(self.policy, prompts, lambda i: None, longest):
                request = batch[answer["index"]]
                ids = answer["ids"][0][: request.max_tokens]
                request.text = self.policy.tokenizer.decode(ids, skip_special_tokens=True)
                request.finish = finish_reason(ids, self.policy.stops)
                request.tokens = len(ids)
                request.done.set()
        except Exception as error:  # it must not end the thread that every later request waits for
            for request in batch:
                if not request.done.is_set():
                    request.error = f"{type(error).__name__}: {error}"
                    request.done.set()

    def complete(
        self, body: dict, alive: Callable[[], bool] = lambda: True
    ) -> tuple[int, dict] | None:
        """Status and answer of one chat completion request; waits until it is answered.

        alive: whether the client still waits; where it does not, the request is dropped (None).
        """
        if refusal := self.refuse(body):
            return refusal

        prompt = render(self.policy.tokenizer, body["messages"])
        try:  # in a batch it would take the others with it
            refuse_long_prompts(self.policy.model, [prompt], REPLY_TOKENS)
        except ValueError as error:
            return 400, error_body(str(error))
        request = ChatRequest(prompt, min(body.get("max_tokens") or REPLY_TOKENS, REPLY_TOKENS))
        self.waiting.put(request)
        while not request.done.wait(LOOK_SECONDS):
            if not alive():
                request.dropped = True
                return None
        if request.error:
            return 500, error_body(request.error)

        message = {"role": "assistant", "content": request.text}
        usage = {
            "prompt_tokens": len(prompt),
            "completion_tokens": request.tokens,
            "total_tokens": len(prompt) + request.tokens,
        }
        return 200, {
            "id": f"chatcmpl-{id(request):x}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.name,
            "choices": [{"index": 0, "finish_reason": request.finish, "message": message}],
            "usage": usage,
        }

    def refuse(self, body: dict) -> tuple[int, dict] | None:
        """Status and reason for a request that cannot be served, None for one that can."""
        model = body.get("model")
        if model != self.name:
            return 404, error_body(f"the model {model!r} is not served here, {self.name!r} is")
        if body.get("temperature", 0) or body.get("stream") or body.get("n", 1) != 1:
            return 400, error_body("this server answers greedily, one whole reply for each request")

        messages = body.get("messages")
        plain = isinstance(messages, list) and all(
            isinstance(m, dict) and isinstance(m.get("content"), str) for m in messages
        )
        if not messages or not plain:
            return 400, error_body("`messages` must be a list of role and text")

        tokens = body.get("max_tokens") or REPLY_TOKENS
        if not isinstance(tokens, int) or tokens < 1:
            return 400, error_body("`max_tokens` must be a positive whole number")
        return None


def error_body(message: str) -> dict:
    """An error in the form of the OpenAI protocol."""
    return {"error": {"message": message, "type": "invalid_request_error", "code": None}}


class Listener(ThreadingHTTPServer):
    """The HTTP server of one ChatServer, its attribute `chat`; one thread for each connection."""

    daemon_threads = True
    request_queue_size = 256  # the default of 5 drops connections when many come at once


class Handler(BaseHTTPRequestHandler):
    """GET /v1/models and POST /v1/chat/completions."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        """Nothing: the default prints a line for each request."""

    def reply(self, status: int, answer: dict) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path != "/v1/models":
            return self.reply(404, error_body(f"no such address: {self.path}"))
        model = {"id": self.server.chat.name, "object": "model", "owned_by": "local"}
        self.reply(200, {"object": "list", "data": [model]})

    def do_POST(self):
        # read it even where it is refused: the next request of this connection comes after it
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/v1/chat/completions":
            return self.reply(404, error_body(f"no such address: {self.path}"))

        try:
            body = json.loads(text)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return self.reply(400, error_body("the body is no JSON object"))
        if answer := self.server.chat.complete(body, self.alive):
            self.reply(*answer)
        else:
            self.close_connection = True

    def alive(self) -> bool:
        """Whether the client has not hung up."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return not readable or bool(self.connection.recv(1, socket.MSG_PEEK))


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
