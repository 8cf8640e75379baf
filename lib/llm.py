"""One chat client for judge and dedup: any OpenAI-compatible server, bounded concurrency, retry, a cache on disk.

A call ends in a reply, in None (it failed, and is asked again in the next run) or, where asking again cannot
help (refused request, wrong key, spent quota, no server), in one clear error that stops the run.
"""

import asyncio
import hashlib
import json
import os
import random
import re
import threading
import time
from collections import Counter
from email.utils import parsedate_to_datetime
from pathlib import Path

from openai import APIConnectionError, APIStatusError, AsyncOpenAI

from lib.config import ROOT, Judge
from lib.replies import Cache

AGAIN = {408, 409, 429}  # and 5xx: another try may help; every other 4xx stops the run
QUOTA = {"insufficient_quota", "billing_hard_limit_reached"}
DEAD = 8  # calls given up one after another with no reply between: the server is gone, not the call


class CallsStopped(RuntimeError):
    """The server refuses, the quota is spent, or nothing answers: asking on is useless. The message says which."""


def cache_key(model: str, revision: str, messages, sampling: dict, version: str, sample: int) -> str:
    """The digest under which a reply is kept: every field that can change the reply is in it."""
    fields = [model, revision, messages, sampling, version, sample]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


class Client:
    """Asks the profile's judge model. `counts`: calls, cached, retries and failed so far.

    The key comes from OPENAI_API_KEY; the address from OPENAI_BASE_URL or else the profile's `base_url` (the
    package's default without both). `model` may carry a revision, `owner/name@revision`: it names the served
    weights in the cache and is not sent. A call is tried for `patience` seconds, waiting from `first_wait` up to
    16 times as long between tries; each try may take `timeout`. The cache is `outputs/cache/llm.jsonl` for every
    run and notebook.
    """

    def __init__(self, settings: Judge, cache: Path | None = None, timeout=60.0, patience=300.0, first_wait=0.5):
        self.model, _, self.revision = settings.model.partition("@")
        self.base_url = os.environ.get("OPENAI_BASE_URL") or settings.base_url
        if not self.base_url and not os.environ.get("OPENAI_API_KEY"):
            raise CallsStopped(
                f"no key for the judge {self.model}: set OPENAI_API_KEY, or OPENAI_BASE_URL (or `judge.base_url` in "
                "the profile) to a server of your own"
            )
        self.concurrency, self.timeout, self.patience = settings.concurrency, timeout, patience
        self.first_wait, self.counts, self.answered, self.in_a_row = first_wait, Counter(), False, 0
        folder = Path(os.environ.get("OUTPUTS", ROOT / "outputs")) / "cache"
        self.cache = Cache(cache or folder / "llm.jsonl")

    def ask(self, batch, *, temperature=0.0, max_tokens=256, version="1", sample=0) -> list[str | None]:
        """The reply to each message list of the batch, in order; None where a call failed for good.

        Equal requests are sent once, and never again when the cache holds their reply; errors are not cached.
        `version` names the prompt, `sample` one of several draws. Raises CallsStopped.
        """
        sampling = {"temperature": temperature, "max_tokens": max_tokens}
        keys = [cache_key(self.model, self.revision, m, sampling, version, sample) for m in batch]
        self.cache.read()
        missing = {k: m for k, m in zip(keys, batch, strict=True) if k not in self.cache.replies}
        self.counts["cached"] += len(batch) - len(missing)
        try:
            if missing:
                _in_thread(self._ask_all(missing, sampling))
        finally:
            self.cache.flush()
        return [self.cache.replies.get(key) for key in keys]

    async def _ask_all(self, missing: dict, sampling: dict) -> None:
        todo = iter(missing.items())
        key = os.environ.get("OPENAI_API_KEY") or "none"  # a server of one's own may want no key
        async with AsyncOpenAI(api_key=key, base_url=self.base_url, max_retries=0) as api:

            async def work():
                for name, messages in todo:
                    reply = await self._call(api, messages, sampling)
                    if reply is None:
                        self.counts["failed"] += 1
                    else:
                        self.cache.add(name, reply)

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.concurrency, len(missing))):
                        group.create_task(work())
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None

    async def _call(self, api, messages, sampling) -> str | None:
        """One call with its retries: the reply, or None when its patience ran out."""
        start, attempt, unusable = time.monotonic(), 0, 0
        while True:
            self.counts["calls"] += 1
            wait = self.first_wait * 2 ** min(attempt, 4) * random.uniform(0.5, 1.0)
            attempt, reached = attempt + 1, True
            try:
                # the package's own time limit is for each read: a server that drips would hold a call for ever
                async with asyncio.timeout(self.timeout):
                    got = await api.chat.completions.create(model=self.model, messages=messages, **sampling)
                reply, why = _text(got), "a reply without text"
                if reply is not None:
                    self.answered, self.in_a_row = True, 0
                    return reply
                unusable += 1
            except APIStatusError as error:
                why = f"status {error.status_code}: {_safe(error.message)}"
                if error.code in QUOTA or (error.status_code < 500 and error.status_code not in AGAIN):
                    raise CallsStopped(f"{self._where()} refused the call, {why}; {_advice(error)}") from None
                wait = max(wait, _retry_after(error.response.headers))
            except (APIConnectionError, TimeoutError) as error:
                reached, why = False, f"{type(error).__name__} within {self.timeout:g} s"
            except ValueError:  # a body that is not JSON, or not a chat completion
                unusable, why = unusable + 1, "a body that is not a chat completion"
            self.answered |= reached
            spent = time.monotonic() - start + wait
            if not self.answered and spent > self.patience / 10:
                raise CallsStopped(f"{self._where()} does not answer ({why}); start it or correct the address")
            if spent > self.patience or unusable == 3:
                self.in_a_row += 1
                if self.in_a_row >= DEAD:
                    raise CallsStopped(f"{self._where()}: {DEAD} calls in a row failed, the last with {why}")
                return None
            self.counts["retries"] += 1
            await asyncio.sleep(wait)

    def _where(self) -> str:
        return f"{self.model} at {_safe(self.base_url or 'the default address')}"


def _text(got) -> str | None:
    """The text of a completion, None for anything malformed, empty, filtered or a refusal."""
    try:
        choice = got.choices[0]
        text = choice.message.content
    except (AttributeError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) and text.strip() and choice.finish_reason != "content_filter" else None


def _retry_after(headers) -> float:
    """Seconds that the server asks to wait (Retry-After: seconds or a date), 0 without one, two minutes at most."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            seconds = 0.0
    return min(max(seconds, 0.0), 120.0) if seconds == seconds else 0.0


def _advice(error: APIStatusError) -> str:
    if error.code in QUOTA:
        return "the quota is spent: raise it or use another key, then run again (answered calls are cached)"
    return {
        401: "check OPENAI_API_KEY",
        403: "check what OPENAI_API_KEY may use",
        404: "check `judge.model` and the address",
    }.get(error.status_code, "check the request and `judge` in the profile")


def _safe(text: str) -> str:
    """One line of at most 200 characters without the key: servers quote it in their messages."""
    key = os.environ.get("OPENAI_API_KEY")
    text = str(text).replace(key, "***") if key else str(text)
    text = re.sub(r"\bsk-[\w*-]+", "***", re.sub(r"//[^/@\s]+@", "//***@", text))
    return " ".join(text.split())[:200]


def _in_thread(work) -> None:
    """Run a coroutine to its end in a thread of its own, since a notebook's kernel already runs a loop here."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        future.result()
    finally:
        future.cancel()  # an interrupt ends the calls too
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
