"""One chat client for judge and dedup: OpenAI-compatible, concurrent, retried, cached.

A call ends in a reply, in None (it failed, and is asked again in the next run) or, where asking
again cannot help (refused request, wrong key, spent quota or budget, no server, another model), in
one clear error.
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
from contextlib import AsyncExitStack
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path

import httpx2  # the openai package's own HTTP library
from openai import DefaultAsyncHttpxClient

from lib.config import ROOT, Judge
from lib.judge.address import served
from lib.judge.cache import ReplyCache

ADDRESS = "https://api.openai.com/v1"
RETRIED = {408, 409, 429}  # and 5xx: another try may help; every other 4xx stops the run
QUOTA = {"insufficient_quota", "billing_hard_limit_reached"}
DEAD = 8  # calls given up one after another with no reply between: the server is gone, not the call
REACH = 5.0  # seconds in which a server must accept a connection
# a server that lists at most so many models serves no other; longer lists may leave names out
FEW = 20


class CallsStopped(RuntimeError):
    """The server refuses, quota or budget is spent, or nothing answers: more calls are useless."""


def cache_key(
    model: str, revision: str, messages, sampling: dict, version: str, sample: int
) -> str:
    """The digest under which a reply is kept: every field that can change the reply is in it."""
    fields = [model, revision, messages, sampling, version, sample]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def open_client(settings: Judge, who: str = "OPENAI") -> "Client":
    """This process's client with these settings: one cache in memory and one budget for all."""
    environment = (
        os.environ.get(name)
        for name in ("OUTPUTS", f"{who}_BASE_URL", f"{who}_API_KEY", "OPENAI_API_KEY")
    )
    return _client(settings, who, *environment)


@lru_cache(maxsize=4)
def _client(settings, who, *environment):
    return Client(settings, who=who)


class Client:
    """Asks the profile's judge model. `counts`: calls, cached, retries, failed and tokens.

    The key comes from OPENAI_API_KEY; the address from OPENAI_BASE_URL or else the profile's
    `base_url` or else from where `make judge` serves this model (OpenAI's without all); `who` =
    AUDITOR reads AUDITOR_… first, for a second model. `model` may carry a revision,
    `owner/name@revision`: it names the served weights in the cache and is not sent. A call is tried
    for `patience` seconds, waiting from `first_wait` up to 16 times as long between tries; each try
    may take `timeout`. The cache is `outputs/cache/llm.jsonl` for every run and notebook.
    `max_calls` and `max_tokens` are this client's budget.
    """

    def __init__(
        self,
        settings: Judge,
        cache: Path | None = None,
        timeout=60.0,
        patience=300.0,
        first_wait=0.5,
        who="OPENAI",
    ):
        self.settings = settings
        self.key = (
            os.environ.get(f"{who}_API_KEY") or os.environ.get("OPENAI_API_KEY") or ""
        ).strip()
        self.model, _, self.revision = settings.model.partition("@")
        self.base_url = os.environ.get(f"{who}_BASE_URL") or settings.base_url or served(self.model)
        if not self.base_url and not self.key:
            raise CallsStopped(
                f"no key for the judge {self.model}: set OPENAI_API_KEY, or OPENAI_BASE_URL (or "
                "`judge.base_url` in "
                "the profile) to a server of your own"
            )
        try:
            httpx2.URL(self.base_url or ADDRESS)
        except httpx2.InvalidURL as error:
            raise CallsStopped(
                f"the address {_safe(self.base_url)} of {self.model} is none ({error})"
            ) from None
        self.concurrency, self.timeout, self.patience = settings.concurrency, timeout, patience
        self.first_wait, self.counts, self.answered, self.in_a_row = first_wait, Counter(), False, 0
        self.known = False  # whether the server was asked for its models
        folder = ROOT / os.environ.get("OUTPUTS", "outputs") / "cache"
        self.cache = ReplyCache(cache or folder / "llm.jsonl")

    def ask(
        self, batch, *, temperature=0.0, max_tokens=256, version="1", sample=0
    ) -> list[str | None]:
        """The reply to each message list of the batch, in order; None where a call failed for good.

        Equal requests are sent once, and never again when the cache holds their reply; errors are
        not cached. `version` names the prompt, `sample` one of several draws. Raises CallsStopped,
        and OSError where replies cannot be kept.
        """
        sampling = {"temperature": temperature, "max_tokens": max_tokens}
        keys = [cache_key(self.model, self.revision, m, sampling, version, sample) for m in batch]
        self.cache.read()
        missing = {k: m for k, m in zip(keys, batch, strict=True) if k not in self.cache.replies}
        self.counts["cached"] += len(batch) - len(missing)
        if missing:
            self.cache.open()
            try:
                _in_thread(self._ask_all(missing, sampling))
            finally:
                self.cache.flush()
        return [self.cache.replies.get(key) for key in keys]

    async def _ask_all(self, missing: dict, sampling: dict) -> None:
        todo = iter(missing.items())

        async def work(http):
            for name, messages in todo:
                reply = await self._call(http, messages, sampling)
                if reply is not None:
                    self.cache.add(name, reply)
                elif self._over():
                    return  # the others' calls under way come to their end
                else:
                    self.counts["failed"] += 1

        async with AsyncExitStack() as stack:
            workers = range(min(self.concurrency, len(missing)))
            # a worker has a connection of its own: a shared pool looks at all its connections for
            # every call
            https = [await stack.enter_async_context(self._http()) for _ in workers]
            if not self.known:
                await self._check(https[0])
            try:
                async with asyncio.TaskGroup() as group:
                    for http in https:
                        group.create_task(work(http))
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None
        left = sum(name not in self.cache.replies for name in missing)
        if left and self._over():
            raise CallsStopped(
                f"{self._over()}, {left} of {len(missing)} questions are open; what was answered "
                "is kept: raise the "
                "limit in the profile and run again"
            )

    def _http(self) -> DefaultAsyncHttpxClient:
        return DefaultAsyncHttpxClient(
            base_url=(self.base_url or ADDRESS).rstrip("/") + "/",
            headers={
                "authorization": f"Bearer {self.key or 'none'}"
            },  # a server of one's own may want no key
            timeout=httpx2.Timeout(self.timeout, connect=min(REACH, self.timeout)),
            verify=_certificates(),
        )

    async def _check(self, http) -> None:
        """Stop at once where nobody listens, or where a server of few models does not serve this
        one.
        """
        for attempt in range(3):
            try:
                got = await http.get("models", timeout=REACH)
                break
            except (
                httpx2.ConnectError,
                httpx2.ConnectTimeout,
                httpx2.UnsupportedProtocol,
            ) as error:
                if attempt == 2 or not isinstance(error, httpx2.ConnectError):
                    raise CallsStopped(
                        f"{self._where()} does not answer ({type(error).__name__}); start it or "
                        "correct the address"
                    ) from None
                await asyncio.sleep(0.5)
            except httpx2.HTTPError:
                return  # it listens; the calls will tell
        self.known = True
        try:
            served = [str(model["id"]) for model in got.json()["data"]]
        except (ValueError, KeyError, TypeError):
            return  # not every server has a list
        if (
            got.status_code == 200
            and 0 < len(served) <= FEW
            and not {self.model, f"{self.model}:latest"} & {*served}
        ):
            raise CallsStopped(
                f"{self._where()} is not served there; it serves {_safe(', '.join(served))}"
            )

    async def _call(self, http, messages, sampling) -> str | None:
        """One call with its retries: the reply, or None when its patience or the budget ran out."""
        start, attempt, unusable = time.monotonic(), 0, 0
        while not self._over():
            self.counts["calls"] += 1
            wait = self.first_wait * 2 ** min(attempt, 4) * random.uniform(0.5, 1.0)
            attempt, reached = attempt + 1, True
            try:
                # the library's time limit is for each read: a server that drips would hold a call
                # for ever
                async with asyncio.timeout(self.timeout):
                    got = await http.post(
                        "chat/completions",
                        json={"model": self.model, "messages": messages} | sampling,
                    )
                if got.status_code == 200:
                    reply, why = self._text(got), "a reply without text"
                    if reply is not None:
                        self.answered, self.in_a_row = True, 0
                        return reply
                    unusable += 1
                else:
                    code, detail = _error(got)
                    why = f"status {got.status_code}: {_safe(detail)}"
                    if code in QUOTA or (got.status_code < 500 and got.status_code not in RETRIED):
                        raise CallsStopped(
                            f"{self._where()} refused the call, {why}; "
                            f"{_advice(got.status_code, code)}"
                        )
                    wait = max(wait, _retry_after(got.headers))
            except (httpx2.TransportError, TimeoutError) as error:
                reached, why = False, f"{type(error).__name__} within {self.timeout:g} s"
            except ValueError:  # a body that is not JSON
                unusable, why = unusable + 1, "a body that is not a chat completion"
            self.answered |= reached
            spent = time.monotonic() - start + wait
            if not self.answered and spent > self.patience / 10:
                raise CallsStopped(
                    f"{self._where()} does not answer ({why}); start it or correct the address"
                )
            if spent > self.patience or unusable == 3:
                self.in_a_row += (
                    unusable < 3
                )  # a reply that is of no use came from a server that lives
                if self.in_a_row >= DEAD:
                    raise CallsStopped(
                        f"{self._where()}: {DEAD} calls in a row failed, the last with {why}"
                    )
                return None
            self.counts["retries"] += 1
            await asyncio.sleep(wait)
        return None

    def _text(self, got) -> str | None:
        """A completion's text, None where malformed, empty, filtered or refused."""
        try:
            body = got.json()
            if usage := body.get("usage"):
                self.counts["tokens"] += sum(
                    int(usage.get(f"{side}_tokens") or 0) for side in ("prompt", "completion")
                )
            choice = body["choices"][0]
            text, finish = choice["message"]["content"], choice.get("finish_reason")
        except (AttributeError, IndexError, KeyError, TypeError):
            return None
        return (
            text if isinstance(text, str) and text.strip() and finish != "content_filter" else None
        )

    def _over(self) -> str | None:
        """Which limit of the budget is reached, or None."""
        for name in ("calls", "tokens"):
            most = getattr(self.settings, f"max_{name}")
            if most is not None and self.counts[name] >= most:
                used = f"{self.counts[name]} {name} used"
                return f"{self._where()}: {used}, the most that judge.max_{name} = {most} allows"
        return None

    def _where(self) -> str:
        return f"{self.model} at {_safe(self.base_url or ADDRESS)}"


@lru_cache(maxsize=1)
def _certificates():
    """The authorities that are trusted, read once: that takes longer than a call."""
    return httpx2.create_ssl_context()


def _error(got) -> tuple[str | None, str]:
    """(code, message) of an error body, as far as it has them."""
    try:
        error = got.json()["error"]
        return (
            (error.get("code"), str(error.get("message")))
            if isinstance(error, dict)
            else (None, str(error))
        )
    except (ValueError, KeyError, TypeError):
        return None, got.text


def _retry_after(headers) -> float:
    """Seconds to wait by Retry-After (seconds or a date): 0 without one, at most two minutes."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            seconds = 0.0
    return min(max(seconds, 0.0), 120.0) if seconds == seconds else 0.0


def _advice(status: int, code: str | None) -> str:
    if code in QUOTA:
        return (
            "the quota is spent: raise it or use another key, then run again "
            "(answered calls are cached)"
        )
    return {
        401: "check OPENAI_API_KEY",
        403: "check what OPENAI_API_KEY may use",
        404: "check `judge.model` and the address",
    }.get(status, "check the request and `judge` in the profile")


def _safe(text: str) -> str:
    """One line of at most 200 characters without the keys: servers quote them in their messages."""
    text = str(text)
    for name in ("OPENAI_API_KEY", "AUDITOR_API_KEY"):
        if os.environ.get(name):
            text = text.replace(os.environ[name], "***")
    text = re.sub(r"\bsk-[\w*-]+", "***", re.sub(r"//[^/@\s]+@", "//***@", text))
    return " ".join(text.split())[:200]


def _in_thread(work) -> None:
    """Run a coroutine in a thread of its own: a notebook's kernel already runs a loop here."""
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
