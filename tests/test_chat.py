"""A real model behind real HTTP: replies are its own greedy ones; bad requests are refused."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from lib.config import Judge
from lib.engine.chat import ChatServer
from lib.engine.decoding import decode
from lib.judge.client import CallsStopped, Client
from lib.prompts import render
from tests.tiny import tiny_policy, word_tokenizer


@pytest.fixture(scope="module")
def policy():
    return tiny_policy(word_tokenizer("Peru Chad same different"), spread=0.3)


@pytest.fixture
def server(policy):
    with ChatServer(policy, "tiny") as server:
        yield server


def chat(text):
    return [{"role": "user", "content": text}]


def post(server, body, path="/chat/completions"):
    """Status and JSON of one request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(server.address + path, data)) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_replies_through_the_client_are_the_model_s_greedy_ones(policy, server, tmp_path):
    questions = [chat(f"where is {place}") for place in ("Rome", "Lima", "Bern", "Peru", "Chad")]
    judge = Judge(kind="llm", model="tiny", base_url=server.address)
    replies = Client(judge, tmp_path / "cache.jsonl").ask(questions, max_tokens=5)

    prompts = [render(policy.tokenizer, messages) for messages in questions]
    ids = {d["index"]: d["ids"][0] for d in decode(policy, prompts, lambda i: None, 5)}
    texts = [policy.tokenizer.decode(ids[i], skip_special_tokens=True) for i in range(5)]
    assert replies == [text or None for text in texts]
    assert len(set(replies)) > 1


def test_many_requests_at_once_each_get_their_own_reply(server):
    def ask(i):
        messages = chat("Rome " * (i % 7 + 1))
        return post(server, {"model": "tiny", "messages": messages, "max_tokens": 4})

    with ThreadPoolExecutor(32) as pool:
        replies = list(pool.map(ask, range(64)))

    texts = [body["choices"][0]["message"]["content"] for status, body in replies if status == 200]
    assert len(texts) == 64
    assert all(texts[i] == texts[i % 7] for i in range(64))
    assert replies[3][1]["usage"]["prompt_tokens"] < replies[6][1]["usage"]["prompt_tokens"]
    assert replies[0][1]["choices"][0]["finish_reason"] in ("stop", "length")


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (
            {"model": "other", "messages": chat("Rome")},
            404,
            "'other' is not served here, 'tiny' is",
        ),
        ({"model": "tiny", "messages": chat("Rome"), "temperature": 1.0}, 400, "greedily"),
        ({"model": "tiny", "messages": []}, 400, "list of role and text"),
        (
            {"model": "tiny", "messages": [{"role": "user", "content": 3}]},
            400,
            "list of role and text",
        ),
        ({"model": "tiny", "messages": chat("Rome"), "max_tokens": "many"}, 400, "max_tokens"),
        ({"model": "tiny", "messages": chat("Rome " * 700)}, 400, "do not fit"),
        (b"{", 400, "no JSON object"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_reason(server, body, status, reason):
    code, reply = post(server, body)
    assert code == status
    assert reason in reply["error"]["message"]
    assert post(server, {"model": "tiny", "messages": chat("Rome"), "max_tokens": 1})[0] == 200


def test_a_wrong_model_name_stops_the_client_at_once(server, tmp_path):
    judge = Judge(kind="llm", model="other", base_url=server.address)
    client = Client(judge, tmp_path / "cache.jsonl")
    with pytest.raises(CallsStopped, match="other"):
        client.ask([chat("Rome")])


def test_an_error_inside_is_that_request_s_and_the_server_lives_on(server, monkeypatch):
    def broken(*arguments):
        raise MemoryError("too long")

    monkeypatch.setattr("lib.engine.chat.decode", broken)
    status, reply = post(server, {"model": "tiny", "messages": chat("Rome")})
    assert status == 500
    assert "too long" in reply["error"]["message"]

    monkeypatch.undo()
    assert post(server, {"model": "tiny", "messages": chat("Rome"), "max_tokens": 2})[0] == 200


def test_a_request_that_nobody_waits_for_is_dropped(server, monkeypatch):
    started, go_on, sizes = threading.Event(), threading.Event(), []

    def slow(policy, prompts, *options):
        sizes.append(len(prompts))
        started.set()
        go_on.wait(30)
        yield from decode(policy, prompts, *options)

    monkeypatch.setattr("lib.engine.chat.decode", slow)
    monkeypatch.setattr("lib.engine.chat.LOOK_SECONDS", 0.05)
    message = {"role": "user", "content": "where is Rome"}
    body = {"model": "tiny", "messages": [message], "max_tokens": 2}
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(server.complete, body)
        assert started.wait(10)
        host, port = server.http.server_address
        with socket.create_connection((host, port)) as impatient:
            text = json.dumps(body).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(text)}\r\n\r\n"
            impatient.sendall(head.encode() + text)
            waiting(lambda: server.waiting.qsize() == 1)
        waiting(lambda: server.waiting.queue[0].dropped)
        last = pool.submit(server.complete, body)
        waiting(lambda: server.waiting.qsize() == 2)
        go_on.set()
        assert first.result(30)[0] == last.result(30)[0] == 200
    assert sizes == [1, 1]  # the dropped one was never run


def waiting(done) -> None:
    """Wait until it is done, for ten seconds at most."""
    end = time.monotonic() + 10
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)
