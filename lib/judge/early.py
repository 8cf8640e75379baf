"""Verdicts that are asked for while the caller goes on: answers are judged as groups finish."""

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Early:
    """Asks about cases, (question, gold answers, prediction), in a thread of its own.

    ask: cases -> a (verdict, note) for each. What fails is not kept, so that who takes the verdicts
    asks again. An error ends it, and is raised where the verdicts are taken.
    """

    def __init__(self, ask: Callable[[list[tuple]], list[tuple]]):
        self.ask = ask
        self.waiting: SimpleQueue = SimpleQueue()
        self.known: dict[tuple, tuple] = {}
        self.thread: threading.Thread | None = None
        self.error: Exception | None = None

    def begin(self, cases: list[tuple]) -> None:
        """Ask about these cases as soon as those before them are answered."""
        for case in cases:
            self.waiting.put(case)
        if self.thread is None or not self.thread.is_alive():
            self.thread = threading.Thread(target=self._work, daemon=True)
            self.thread.start()

    def _work(self) -> None:
        while not self.waiting.empty():
            cases = [self.waiting.get() for _ in range(self.waiting.qsize())]
            if self.error:
                continue
            try:
                for case, end in zip(cases, self.ask(cases), strict=True):
                    if end[0] is not None:
                        self.known[case_key(case)] = end
            except Exception as error:
                self.error = error

    def take(self) -> dict[tuple, tuple]:
        """The (verdict, note) of every case that was asked, by `case_key`; waits for the last."""
        if self.thread:
            self.thread.join()
        if self.error:
            error, self.error = self.error, None
            raise error
        known, self.known = self.known, {}
        return known


def case_key(case: tuple) -> tuple:
    question, answers, prediction = case
    return question, tuple(answers), prediction
