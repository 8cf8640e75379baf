"""Work on a CPU in lanes: each on cores of its own, so that no core waits for another.

One product on two cores ends when the slower core ends, and a core that another program uses is
slow. Lanes meet once, at the end, so they lose only the time that the other program takes.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch


class Abandoned(Exception):
    """Raised inside a lane by `give` when nobody takes its results any more."""


def in_lanes(works: list[Callable[[Callable[[Any], None]], None]]) -> Iterator[Any]:
    """What the works give, in the order in which it comes; each work runs in a thread of its own.

    works: functions of `give`, which hands one result over. The threads of torch are shared out
    among them. The first error of a work is raised here, and the other works end at their next
    `give`; so they do when the caller stops iterating.
    """
    threads = torch.get_num_threads()
    results, abandoned = queue.SimpleQueue(), threading.Event()

    def give(result) -> None:
        if abandoned.is_set():
            raise Abandoned
        results.put((None, result))

    def run(work) -> None:
        error = None
        try:
            torch.set_num_threads(max(1, threads // len(works)))  # of this thread and later ones
            work(give)
        except Exception as raised:
            error = raised
        results.put((work, error))
        error = None  # it refers to this frame

    workers = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    try:
        for worker in workers:
            worker.start()
        for _ in workers:
            while (item := results.get())[0] is None:
                yield item[1]
            if item[1] is not None:
                raise item[1]
    finally:
        abandoned.set()
        for worker in workers:
            with contextlib.suppress(RuntimeError):  # it was not started
                worker.join()
        torch.set_num_threads(threads)
