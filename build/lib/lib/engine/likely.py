"""The likeliest answers of a policy, in order: a best-first walk over the trie of answers.

Sampling sees nothing below 1/n; the walk finds single answers of any probability. Those judged
correct bound P(correct) from below, those judged wrong bound it from above.
"""

from collections.abc import Iterator
from heapq import heappop, heappush

import numpy as np
import pandas as pd
import torch

from lib.engine.families import Family, KeyValueCache
from lib.engine.linear import packed_weights
from lib.engine.passes import PREFILL, run_prompts, run_step
from lib.engine.sampling import Progress
from lib.prompts import direct, render

FLOOR = 1e-5  # less probable answers are not judged: they stay unknown
TOGETHER = 32  # prefixes of one question in a step, at most
CHILDREN = 64  # likeliest next tokens of a prefix that are followed; the others stay unknown


class Frontier:
    """The prefixes of one prompt that are not run yet, and the answers that were completed."""

    def __init__(self, index: int, prompt: list[int]):
        self.index = index
        self.prompt = prompt
        self.heap = []  # (-logprob, order, ids, columns of its ancestors), likeliest first
        self.order = 0  # of the last prefix put on the heap: among equals the oldest comes first
        self.answers = []  # (ids, logprob, finish)
        self.complete = 0.0  # probability of all completed answers together
        self.expanded = 0  # prefixes run
        self.columns = len(prompt)  # in use in the cache

    def grow(self, ids, ancestors, logprob, next_logprobs, stops, max_new_tokens) -> None:
        """Take in the next tokens of a prefix.

        ids: its tokens; ancestors: its columns in the cache; logprob: its own log-probability;
        next_logprobs (V,): those of the next token.
        """
        for stop in stops:
            self.finish((*ids, stop), logprob + float(next_logprobs[stop]), "stop")

        top = next_logprobs.topk(min(CHILDREN + len(stops), len(next_logprobs)))
        for value, token in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            child = (*ids, token)
            if token in stops:
                continue
            if len(child) == max_new_tokens:
                self.finish(child, logprob + value, "length")
            else:
                self.order += 1
                heappush(self.heap, (-(logprob + value), self.order, child, ancestors))

    def finish(self, ids: tuple[int, ...], logprob: float, reason: str) -> None:
        """Count a whole answer, and keep it where it is likely enough to be judged."""
        if np.exp(logprob) >= FLOOR:
            self.answers.append((ids, logprob, reason))
        self.complete += np.exp(logprob)

    def done(self, nodes: int, mass: float) -> bool:
        """Whether the walk ends: enough prefixes, enough probability, or nothing left to run."""
        return self.expanded >= nodes or self.complete >= mass or not self.heap

    def take(self, cache: KeyValueCache, family: Family, count: int) -> list[tuple]:
        """Take the likeliest `count` prefixes from the heap and make them the next of the family.

        Returns (ids, columns, logprob) of each. Entries stay in the cache, since a later prefix may
        have any of them as an ancestor; so each token gets a column that was never used.
        """
        chosen = [heappop(self.heap) for _ in range(min(count, len(self.heap)))]
        columns = list(range(self.columns, self.columns + len(chosen)))

        seen = np.zeros((len(chosen), self.columns), bool)
        seen[:, : len(self.prompt)] = True
        for row, (_, _, _, ancestors) in enumerate(chosen):
            seen[row, list(ancestors)] = True
        cache.place(family, seen, columns)
        family.tokens = [ids[-1] for _, _, ids, _ in chosen]

        self.columns += len(chosen)
        self.expanded += len(chosen)
        return [
            (ids, (*ancestors, column), -cost)
            for column, (cost, _, ids, ancestors) in zip(columns, chosen, strict=True)
        ]


@torch.inference_mode()
def walk(
    policy,
    prompts: list[list[int]],
    max_new_tokens: int,
    nodes: int,
    mass: float = 0.999,
    rows: int = 256,
) -> Iterator[tuple]:
    """(index, answers, prefixes run) of each prompt as its walk ends.

    An answer is (ids, logprob, finish). A walk ends when `nodes` prefixes were run, when its
    answers hold the probability `mass`, or when nothing is left. About `rows` prefixes are run
    together.
    """
    slots = min(max(1, len(prompts)), PREFILL)
    columns = max(map(len, prompts), default=0) + nodes
    cache = KeyValueCache(policy.model, slots, columns, TOGETHER)
    waiting = [Frontier(i, prompt) for i, prompt in enumerate(prompts)]

    with packed_weights(policy.model):
        while waiting or cache.families:
            room = PREFILL - len(cache.families)
            if waiting and room:
                batch, waiting = waiting[:room], waiting[room:]
                _, hidden = run_prompts(policy.model, cache, batch)
                prefixes = [(frontier, ((), (), 0.0)) for frontier in batch]
                grow_all(policy, prefixes, hidden, max_new_tokens)

            for family in [f for f in cache.families if f.owner.done(nodes, mass)]:
                cache.remove(family)
                yield family.owner.index, family.owner.answers, family.owner.expanded

            if cache.families:
                prefixes = take_all(cache, nodes, rows)
                depths = [len(owner.prompt) + len(ids) - 1 for owner, (ids, _, _) in prefixes]
                hidden = run_step(policy.model, cache, depths)
                grow_all(policy, prefixes, hidden, max_new_tokens)


def take_all(cache: KeyValueCache, nodes: int, rows: int) -> list[tuple]:
    """The next prefixes of all families, (frontier, prefix) each, about `rows` together."""
    share = min(TOGETHER, max(1, rows // len(cache.families)))
    prefixes = []
    for family in cache.families:
        frontier = family.owner
        count = min(share, nodes - frontier.expanded)
        prefixes += [(frontier, prefix) for prefix in frontier.take(cache, family, count)]
    return prefixes


def grow_all(policy, prefixes: list[tuple], hidden: torch.Tensor, max_new_tokens: int) -> None:
    """Let frontiers grow by the next tokens of their prefixes, hidden states (prefixes, hidden)."""
    logits = policy.model.get_output_embeddings()(hidden)
    logprobs = logits.float().log_softmax(-1)  # (prefixes, V)
    for (frontier, prefix), next_logprobs in zip(prefixes, logprobs, strict=True):
        frontier.grow(*prefix, next_logprobs, policy.stops, max_new_tokens)


def likely_answers(
    policy,
    questions: pd.DataFrame,
    max_new_tokens: int,
    nodes: int,
    rows: int = 256,
    prompt=direct,
    name: str = "",
) -> pd.DataFrame:
    """The answers found for each question: frame of question_id, text, logprob (nats), finish.

    Token sequences that give one text are one answer: their probabilities are added. `finish` is
    that of the likeliest of them.
    """
    ids = questions["question_id"].tolist()
    prompts = [render(policy.tokenizer, prompt(q)) for q in questions["question"]]
    progress = Progress(f"{name}: likeliest answers of {len(ids)} questions", len(ids))

    records = []
    for index, answers, _ in walk(policy, prompts, max_new_tokens, nodes, rows=rows):
        for tokens, logprob, finish in answers:
            text = policy.tokenizer.decode(tokens, skip_special_tokens=True).strip()
            records.append((ids[index], text, logprob, finish))
        progress.step()
    progress.end()
    frame = pd.DataFrame(records, columns=["question_id", "text", "logprob", "finish"])

    # sorted before, so that the first of a text is its likeliest; and after, by the sums
    order = {"by": ["question_id", "logprob"], "ascending": [True, False], "ignore_index": True}
    texts = frame.sort_values(**order).groupby(["question_id", "text"], sort=False)
    frame = texts.agg(logprob=("logprob", np.logaddexp.reduce), finish=("finish", "first"))
    return frame.reset_index().sort_values(**order)
