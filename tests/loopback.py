"""A chat server on this machine for tests and faults: real HTTP, replies from a script.

`python -m tests.loopback SECONDS` answers every chat with 1.0 after so many seconds and prints its
address.
"""

import asyncio
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager


class Loopback:
    """Answers each chat by `script(body, attempt)`: a reply, or (status, headers, body).

    The script may return an awaitable of either.

    body: the request; attempt: 1 when its messages come for the first time. `seen` counts requests
    by messages, `order` holds them as they came, `auth` the authorizations (in lower case). With
    `models` it lists them under /models, else it knows no such page.
    """

    def __init__(self, script: Callable, models: list[str] | None = None):
        self.script, self.models, self.url = script, models, ""
        self.seen, self.order, self.auth = Counter(), [], set()

    async def serve(self, reader, writer) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(
                    line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if line
                )
                self.auth.add(fields.get(b"authorization", b"").decode())
                text = await reader.readexactly(int(fields.get(b"content-length", 0)))
                found = await self.answer(head.split()[1].decode(), text)
                if isinstance(found, str):
                    found = 200, {}, completion(found)
                status, headers, body = found
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                lines = {"content-type": "application/json", "content-length": len(body), **headers}
                head = (
                    f"HTTP/1.1 {status} X\r\n"
                    + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
                    + "\r\n"
                )
                writer.write(head.encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client is gone, or the server is closed
        finally:
            writer.close()

    async def answer(self, path: str, text: bytes):
        if path.endswith("/models"):
            known = {"object": "list", "data": [{"id": name} for name in self.models or ()]}
            return (404, {}, {}) if self.models is None else (200, {}, known)
        body = json.loads(text)
        key = json.dumps(body["messages"])
        self.seen[key] += 1
        self.order.append(key)
        found = self.script(body, self.seen[key])
        return await found if asyncio.iscoroutine(found) else found

    async def listen(self, port: int = 0) -> None:
        server = await asyncio.start_server(self.serve, "127.0.0.1", port, backlog=512)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def completion(text: str) -> dict:
    """A whole chat completion with this reply and a count of tokens."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": {"prompt_tokens": 100, "completion_tokens": 2, "total_tokens": 102},
    }


def failure(status: int, code: str | None = None, message: str = "no", **headers):
    """A refusal as OpenAI's servers word it."""
    return status, headers, {"error": {"message": message, "code": code}}


@contextmanager
def loopback(script: Callable, models: list[str] | None = None):
    """A Loopback that listens in a thread of its own, for as long as the block runs."""
    loop, server = asyncio.new_event_loop(), Loopback(script, models)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.listen(), loop).result()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(_close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _close() -> None:
    """End what the loop still does: connections that clients keep open."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def main() -> None:
    delay, reply = float(sys.argv[1]), completion("1.0")

    async def script(body, attempt):
        await asyncio.sleep(delay)
        return 200, {}, reply

    server = Loopback(script)
    await server.listen()
    print(server.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
