"""One chat client for judge and dedup: OpenAI-compatible, concurrent, retried, cached.

A call ends in a reply, in None with its cause (it failed, and is asked again in the next run) or,
where more calls cannot help (wrong key, spent quota or budget, no server, another model), in one
clear error.
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
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import lru_cache
from pathlib import Path

import httpx2  # the openai package's own HTTP library
from openai import DefaultAsyncHttpxClient

from lib.config import ROOT, Judge
from lib.judge.address import is_loopback, served
from lib.judge.cache import ReplyCache
from lib.judge.protocol import (
    AGAIN,
    LATER,
    REPLY,
    STOP,
    Response,
    read_response,
    request,
    retry_after,
)
from lib.processes import process_count
from lib.readers import without_halves

ADDRESS = "https://api.openai.com/v1"
DEAD = 8  # calls given up one after another with no reply between: the server is gone, not the call
REFUSALS = 20  # so many refusals before any reply: the server refuses the judge, not a case
REACH = 5.0  # seconds in which a server must accept a connection
# a server that lists at most so many models serves no other; longer lists may leave names out
FEW = 20


class CallsStopped(RuntimeError):
    """The server refuses, quota or budget is spent, or nothing answers: more calls are useless."""


def cache_key(
    server: str, model: str, revision: str, messages, sampling: dict, version: str, sample: int
) -> str:
    """The digest under which a reply is kept: every field that can change the reply is in it."""
    fields = [server, model, revision, messages, sampling, version, sample]
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
    `owner/name@revision`: it names the served weights in the cache and is not sent. The cache also
    tells servers apart, by the profile's `judge.identity` or by address. A call is tried for
    `patience` seconds, waiting from `first_wait` up to 16 times as long between tries; each try
    may take `timeout`, by default the profile's. The cache is `outputs/cache/llm.jsonl` for every
    run and notebook. `max_calls` and `max_tokens` are this client's budget. Each process of a
    training on many cards takes its share of the budget and of the calls at once.
    """

    def __init__(
        self,
        settings: Judge,
        cache: Path | None = None,
        timeout: float | None = None,
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
                "`judge.base_url` in the profile) to a server of your own"
            )
        try:
            httpx2.URL(self.base_url or ADDRESS)
        except httpx2.InvalidURL as error:
            raise CallsStopped(
                f"the address {_safe(self.base_url)} of {self.model} is none ({error})"
            ) from None
        self.processes = process_count()
        self.concurrency = max(1, settings.concurrency // self.processes)
        self.patience = patience
        self.timeout = timeout or settings.timeout
        self.first_wait, self.counts, self.answered, self.in_a_row = first_wait, Counter(), False, 0
        self.known = False  # whether the server told its models, or that it tells none
        self.lacks, self.refused = set(), 0  # capabilities it misses; refusals before any reply
        self.server = settings.identity or (self.base_url or ADDRESS).rstrip("/")
        folder = ROOT / os.environ.get("OUTPUTS", "outputs") / "cache"
        self.cache = ReplyCache(cache or folder / "llm.jsonl")

    def ask(
        self,
        batch,
        *,
        max_tokens=256,
        version="1",
        sample=0,
        usable: Callable[[str], bool] | None = None,
        causes: list | None = None,
    ) -> list[str | None]:
        """The reply to each message list of the batch, in order; None where a call failed for good.

        Equal requests are sent once, and never again when the cache holds their reply. Errors are
        not cached, nor are replies that are not `usable`. `version` names the prompt, `sample` one
        of several draws. `causes`, when given an empty list, gets for each message list a line on
        why it has no usable reply, or None. Raises CallsStopped, and OSError where replies cannot
        be kept.
        """
        sampling = {"temperature": 0.0, "max_tokens": max_tokens}
        keys = [
            cache_key(self.server, self.model, self.revision, m, sampling, version, sample)
            for m in batch
        ]
        self.cache.read()
        outcomes = {}  # key -> (reply, cause), of this batch
        for key in keys:
            reply = self.cache.replies.get(key)
            if reply is not None and (usable is None or usable(reply)):
                outcomes[key] = reply, None
        missing = {k: m for k, m in zip(keys, batch, strict=True) if k not in outcomes}
        self.counts["cached"] += len(batch) - len(missing)

        if missing:
            self.cache.open()
            try:
                _in_thread(self._ask_all(missing, sampling, usable, outcomes))
            finally:
                self.cache.flush()
        ends = [outcomes.get(key, (None, "not sent")) for key in keys]
        if causes is not None:
            causes += [cause for _, cause in ends]
        return [reply for reply, _ in ends]

    async def _ask_all(self, missing: dict, sampling: dict, usable, outcomes: dict) -> None:
        todo = iter(missing.items())

        async def work(http):
            for key, messages in todo:
                end = await self._call(http, messages, sampling)
                if end is None:
                    return  # the budget is spent; the others' calls under way come to their end
                if end.then != REPLY:
                    self.counts["failed"] += 1
                    outcomes[key] = None, _safe(end.cause)
                elif usable is None or usable(end.text):
                    self.cache.add(key, end.text)
                    outcomes[key] = end.text, None
                else:
                    cause = f"no verdict in the reply {_safe(end.text)[:80]!r} ({end.cause})"
                    outcomes[key] = end.text, cause

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

        left = len(missing.keys() - outcomes.keys())
        if left and self._over():
            raise CallsStopped(
                f"{self._over()}, {left} of {len(missing)} questions are open; what was answered "
                "is kept: raise the limit in the profile and run again"
            )

    def _http(self) -> DefaultAsyncHttpxClient:
        return DefaultAsyncHttpxClient(
            base_url=(self.base_url or ADDRESS).rstrip("/") + "/",
            headers={
                "authorization": f"Bearer {self.key or 'none'}"
            },  # a server of one's own may want no key
            timeout=httpx2.Timeout(self.timeout, connect=min(REACH, self.timeout)),
            verify=_certificates(),
            trust_env=not is_loopback(self.base_url or ADDRESS),
        )

    async def _check(self, http) -> None:
        """Stop at once where nobody listens, or where a server of few models lacks this one."""
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

    async def _call(self, http, messages, sampling) -> Response | None:
        """One call with its retries: its last response, None when the budget ran out."""
        start, attempt, unusable = time.monotonic(), 0, 0
        while not self._over():
            wait = self.first_wait * 2 ** min(attempt, 4) * random.uniform(0.5, 1.0)
            body = request(self.model, messages, sampling, self.lacks)
            end, asked_wait, reached = await self._try(http, body)
            attempt, wait = attempt + 1, max(wait, asked_wait)
            self.answered |= reached
            if end.then == REPLY:
                self.in_a_row, self.refused = 0, -1
                return end
            if end.lack:
                self._adapt(end)
                continue
            self._stop_if_useless(end)
            if end.then not in (AGAIN, LATER):
                return end

            unusable += end.then == AGAIN
            spent = time.monotonic() - start + wait
            if not (self.answered or self.known) and spent > self.patience / 10:
                raise CallsStopped(
                    f"{self._where()} does not answer ({_safe(end.cause)}); start it or correct "
                    "the address"
                )
            if spent > self.patience or (end.then == AGAIN and unusable >= end.tries):
                # a reply that is of no use came from a server that lives
                self.in_a_row += end.then == LATER
                if self.in_a_row >= DEAD:
                    raise CallsStopped(
                        f"{self._where()}: {DEAD} calls in a row failed, the last with "
                        f"{_safe(end.cause)}"
                    )
                return end
            self.counts["retries"] += 1
            await asyncio.sleep(wait)
        return None

    async def _try(self, http, body: dict) -> tuple[Response, float, bool]:
        """(what one request came to, the seconds that the server asks to wait, if it answered)."""
        self.counts["calls"] += 1
        try:
            # the library's time limit is for each read: a server that drips would hold a call for
            # ever
            async with asyncio.timeout(self.timeout):
                got = await http.post("chat/completions", json=body)
        except (httpx2.RequestError, TimeoutError) as error:
            cause = f"{type(error).__name__} within {self.timeout:g} s"
            return Response(LATER, cause=cause), 0.0, False
        try:
            content = json.loads(without_halves(got.text))
        except ValueError:
            content = None
        end = read_response(got.status_code, content, got.text, body)
        self.counts["tokens"] += end.tokens
        return end, retry_after(got.headers), True

    def _adapt(self, end: Response) -> None:
        """Remember what the server lacks, and say so once."""
        if end.lack not in self.lacks:
            self.lacks.add(end.lack)
            how = {
                "max_tokens": "max_completion_tokens in place of max_tokens",
                "temperature": "no temperature: its verdicts may differ from run to run",
                "system": "the rules in the user's message",
            }[end.lack]
            print(f"{self._where()}: asked with {how} from now on", flush=True)

    def _stop_if_useless(self, end: Response) -> None:
        """Raise CallsStopped where every further call would be refused as well."""
        if end.then not in (AGAIN, LATER):
            self.refused += self.refused >= 0
        if end.then == STOP:
            raise CallsStopped(
                f"{self._where()} refused the call, {_safe(end.cause)}; {end.advice}"
            )
        if self.refused >= REFUSALS:
            raise CallsStopped(
                f"{self._where()} refused the first {REFUSALS} calls, the last with "
                f"{_safe(end.cause)}; check the request and `judge` in the profile"
            )

    def _over(self) -> str | None:
        """Which limit of the budget is reached, or None."""
        for name in ("calls", "tokens"):
            most = getattr(self.settings, f"max_{name}")
            if most is not None and self.counts[name] >= most / self.processes:
                used = f"{self.counts[name] * self.processes} {name} used"
                return f"{self._where()}: {used}, the most that judge.max_{name} = {most} allows"
        return None

    def _where(self) -> str:
        return f"{self.model} at {_safe(self.base_url or ADDRESS)}"


@lru_cache(maxsize=1)
def _certificates():
    """The authorities that are trusted, read once: that takes longer than a call."""
    return httpx2.create_ssl_context()


def _safe(text: str) -> str:
    """One line of at most 200 characters without the keys: servers quote them in their messages."""
    text = str(text)
    for name in ("OPENAI_API_KEY", "AUDITOR_API_KEY"):
        if key := os.environ.get(name, "").strip():
            text = text.replace(key, "***")
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
