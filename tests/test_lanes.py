"""Work in lanes: what comes out, errors, callers that leave, threads given back."""

import threading
import time

import pytest
import torch

from lib.engine.lanes import in_lanes


def counting(first):
    def work(give):
        for i in range(3):
            give(first + i)

    return work


def test_every_result_comes_and_the_threads_are_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    seen = []

    def look(give):
        seen.append(torch.get_num_threads())
        give(torch.get_num_threads())

    try:
        assert sorted(in_lanes([counting(0), counting(10)])) == [0, 1, 2, 10, 11, 12]
        assert list(in_lanes([look, look])) == [2, 2]
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_an_error_of_one_lane_is_raised_and_ends_the_others():
    ended = threading.Event()

    def endless(give):
        try:
            while True:
                time.sleep(0.01)
                give(0)
        finally:
            ended.set()

    def failing(give):
        give(1)
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        list(in_lanes([endless, failing]))
    assert ended.is_set()


def test_a_caller_that_leaves_ends_the_lanes():
    alive = threading.active_count()

    def endless(give):
        while True:
            time.sleep(0.01)
            give(0)

    results = in_lanes([endless, endless])
    assert next(results) == 0
    results.close()
    assert threading.active_count() == alive
