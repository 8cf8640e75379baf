"""A chat completion's request and response: what a response means, and what a server lacks."""

import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

# what a response asks for: the text is there; a few more tries; tries for as long as patience
# lasts; none, for this case; none, for any case
REPLY, AGAIN, LATER, REFUSED, STOP = "reply", "again", "later", "refused", "stop"
RETRIED = {408, 409, 425, 429}  # and 5xx: another try may help
QUOTA = re.compile(r"insufficient_(user_)?quota|billing_hard_limit_reached|insufficient_credits")
NO_MODEL = re.compile(
    r"model_not_found|\bmodel\b.{0,80}(not found|not exist|not a valid|unknown)|"
    r"(unknown|invalid|no such) model|not a valid model",
    re.I | re.S,
)
BUSY = re.compile(r"rate.?limit|overloaded|timeout|timed out|server_error|unavailable", re.I)
FILTERED = re.compile(r"moderat|flagged|content|filter|safety", re.I)
UNSUPPORTED = re.compile(
    r"unsupported|not support|only the default|deprecated|not allowed|alternate|only user", re.I
)
THOUGHT = re.compile(r"\A\s*<think>.*?</think>\s*", re.S)


@dataclass(frozen=True)
class Response:
    """What a server's response means.

    `then`: one of REPLY, AGAIN, LATER, REFUSED, STOP. `cause`: one line on why there is no text, or
    how the text ended. `lack`: a capability that the server misses, of `max_tokens`, `temperature`
    and `system`; `tries`: how many tries with this outcome end the call; `tokens`: what the server
    counted; `advice`: what to do when the run stops.
    """

    then: str
    text: str | None = None
    cause: str = ""
    lack: str | None = None
    tries: int = 3
    tokens: int = 0
    advice: str = ""


def request(model: str, messages: list[dict], sampling: dict, lacks=frozenset()) -> dict:
    """The body of a request to a server that lacks some capabilities (see Response)."""
    sampling = dict(sampling)
    if "max_tokens" in lacks:
        sampling["max_completion_tokens"] = sampling.pop("max_tokens")
    if "temperature" in lacks:
        del sampling["temperature"]
    if "system" in lacks:
        messages = fold_system(messages)
    return {"model": model, "messages": messages} | sampling


def fold_system(messages: list[dict]) -> list[dict]:
    """The messages with the system message put behind the first user message.

    Behind it, so that the rules have the last word over the data.
    """
    if len(messages) < 2 or messages[0]["role"] != "system":
        return messages
    first, second, *rest = messages
    return [second | {"content": f"{second['content']}\n\n{first['content']}"}, *rest]


def read_response(status: int, content, raw: str, body: dict) -> Response:
    """What a response means. content: its JSON, None where it is none; raw: its text.

    body: the request. An error object inside a 200 is that error.
    """
    error = content.get("error") if isinstance(content, dict) else None
    if status != 200:
        return _read_error(status, *_error_fields(content, raw), body)
    if error:
        code, message = _error_fields(content, raw)
        if str(code).isdigit():
            return _read_error(int(code), code, message, body)
        busy = BUSY.search(f"{code} {message}")
        return Response(LATER if busy else AGAIN, cause=f"an error inside a 200: {message}")
    if not isinstance(content, dict):
        return Response(AGAIN, cause=f"a body that is not a chat completion: {raw[:80]!r}")
    return _read_completion(content, raw, body)


def _read_completion(content: dict, raw: str, body: dict) -> Response:
    tokens, choices = count_tokens(content.get("usage")), content.get("choices")
    if not (isinstance(choices, list) and choices):
        # what a router says while the server behind it is overloaded
        cause = f"a reply without choices: {raw[:80]!r}"
        return Response(AGAIN, cause=cause, tries=8, tokens=tokens)
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return Response(AGAIN, cause=f"a reply without a message: {raw[:80]!r}", tokens=tokens)

    finish, text = choice.get("finish_reason"), _join_parts(message.get("content"))
    if finish == "content_filter":
        return Response(REFUSED, cause="filtered (finish reason content_filter)", tokens=tokens)
    if message.get("refusal"):
        return Response(REFUSED, cause=f"refused: {message['refusal']}", tokens=tokens)
    spoken = THOUGHT.sub("", text or "", count=1)
    if spoken.strip() and not (spoken.lstrip().startswith("<think>") and finish == "length"):
        return Response(REPLY, text=spoken, cause=f"finish reason {finish}", tokens=tokens)

    if finish == "length":
        limit = next((f"{k} = {body[k]}" for k in body if k.startswith("max_")), "its limit")
        thought = text or message.get("reasoning_content") or message.get("reasoning")
        part = "nothing but reasoning" if thought else "before any text"
        cause = f"cut at {limit}, {part}; raise `judge.reply_tokens`"
        return Response(REFUSED, cause=cause, tokens=tokens)
    return Response(AGAIN, cause=f"a reply without text (finish reason {finish})", tokens=tokens)


def _read_error(status: int, code, message: str, body: dict) -> Response:
    cause = f"status {status}{f' {code}' if code and str(code) != str(status) else ''}: {message}"
    if lack := _lack(message, body):
        return Response(AGAIN, cause=cause, lack=lack)
    if QUOTA.search(str(code)) or status == 402:
        advice = "the quota is spent: raise it or use another key, then run again"
        return Response(STOP, cause=cause, advice=f"{advice} (answered calls are cached)")
    if status == 401 or (status == 403 and not FILTERED.search(f"{code} {message}")):
        return Response(STOP, cause=cause, advice="check OPENAI_API_KEY and what it may use")
    if status in (404, 405) or (status < 500 and NO_MODEL.search(f"{code} {message}")):
        return Response(STOP, cause=cause, advice="check `judge.model` and the address")
    if status >= 500 or status in RETRIED:
        return Response(LATER, cause=cause)
    return Response(REFUSED, cause=cause)


def _lack(message: str, body: dict) -> str | None:
    """Which capability the error's message says that the server lacks, None where it says none."""
    if "max_tokens" in body and "max_completion_tokens" in message:
        return "max_tokens"
    if not UNSUPPORTED.search(message):
        return None
    if "temperature" in body and "temperature" in message:
        return "temperature"
    roles = [message["role"] for message in body["messages"]]
    has_system = roles[0] == "system" and len(roles) > 1
    return "system" if has_system and re.search(r"\b(system|roles?)\b", message, re.I) else None


def _error_fields(content, raw: str) -> tuple:
    """(code, message) of an error body, as far as it has them."""
    if not isinstance(content, dict):
        return None, raw
    error = content.get("error") or content
    if not isinstance(error, dict):
        return None, str(error)
    return error.get("code") or error.get("type"), str(error.get("message") or raw)


def _join_parts(content) -> str | None:
    """The text of a message's content: a string, or the text parts of a list."""
    if isinstance(content, list):
        parts = [p.get("text") for p in content if isinstance(p, dict) and "text" in p]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else None


def count_tokens(usage) -> int:
    """The tokens that the server counted, 0 where it says nothing usable."""
    if not isinstance(usage, dict):
        return 0
    counts = [usage.get(f"{side}_tokens") for side in ("prompt", "completion")]
    return sum(count for count in counts if isinstance(count, int))


def retry_after(headers) -> float:
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
