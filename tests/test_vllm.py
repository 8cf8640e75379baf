"""vLLM's client where no server answers. With a real server: tests/vllm_real.py."""

import time
from types import SimpleNamespace

import pytest

from lib.engine.vllm import PROMPTS_TOGETHER, ServedPolicy


def test_a_server_that_ended_is_told_before_all_were_asked():
    asked = []

    def create(**request):
        asked.append(request)
        time.sleep(0.01)
        raise ConnectionError("it has ended")

    client = SimpleNamespace(completions=SimpleNamespace(create=create))
    policy = ServedPolicy("m", client, None, frozenset())
    with pytest.raises(ConnectionError, match="it has ended"):
        list(policy.completions([[1]] * 3000, [str(i) for i in range(3000)], 1, 0, 0, 8))
    assert len(asked) < 10 * PROMPTS_TOGETHER
