"""What a server's refusal says of its capabilities, and the request that it then gets."""

import pytest

from lib.judge.protocol import AGAIN, LATER, REFUSED, STOP, read_response, request

CHAT = [{"role": "system", "content": "Grade."}, {"role": "user", "content": "Rome"}]
SAMPLING = {"temperature": 0.0, "max_tokens": 8}


def refusal(message, status=400, code=None, lacks=frozenset()):
    body = request("m", CHAT, SAMPLING, lacks)
    error = {"error": {"message": message, "code": code}}
    return read_response(status, error, "", body)


@pytest.mark.parametrize(
    ("message", "lack"),
    [
        ("'max_tokens' is not supported. Use 'max_completion_tokens' instead.", "max_tokens"),
        ("'temperature' does not support 0; only the default (1) is supported", "temperature"),
        ("System role not supported", "system"),
        ("Conversation roles must alternate user/assistant", "system"),
        ("the prompt was filtered", None),
        ("maximum context length is 512 tokens", None),
    ],
)
def test_a_refusal_names_what_the_server_lacks(message, lack):
    assert refusal(message).lack == lack
    assert refusal(message, lacks={lack}).lack is None  # what was left out is not missed again


def test_a_request_leaves_out_what_the_server_lacks():
    body = request("m", CHAT, SAMPLING, {"max_tokens", "temperature", "system"})
    rest = {"max_completion_tokens": 8, "model": "m"}
    assert body == rest | {"messages": [{"role": "user", "content": "Rome\n\nGrade."}]}


@pytest.mark.parametrize(
    ("status", "code", "message", "then"),
    [
        (400, "content_filter", "filtered", REFUSED),
        (403, None, "your input was flagged by moderation", REFUSED),
        (403, None, "no access", STOP),
        (413, None, "too large", REFUSED),
        (429, "rate_limit_exceeded", "slow down", LATER),
        (529, "overloaded_error", "overloaded", LATER),
        (404, None, "no such page", STOP),
        (200, "server_error", "try again", LATER),
        (200, None, "something else", AGAIN),
    ],
)
def test_what_an_error_means(status, code, message, then):
    assert refusal(message, status, code).then == then
