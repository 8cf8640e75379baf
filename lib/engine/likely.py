"""The answer distribution itself: its likeliest answers in order, and what they prove about
P(correct).

Sampling sees nothing below 1/n. A best-first walk over the trie of answers finds single answers of
any probability: those judged correct bound P(correct) from below, those judged wrong bound it from
above.
"""

from collections.abc import Iterator
from heapq import heappop, heappush

import numpy as np
import pandas as pd
import torch

from lib.engine.decoding import PREFILL
from lib.engine.families import KeyValueCache, run_prompts, run_step
from lib.engine.linear import packed_weights
from lib.engine.models import Policy
from lib.engine.sampling import Progress
from lib.prompts import direct, render

FLOOR = 1e-5  # less probable answers are not judged: they stay unknown
TOGETHER = 32  # prefixes of one question in a step, at most
CHILDREN = (
    64  # likeliest next tokens that a prefix puts on the frontier; the others count as unknown
)


class Search:
    """The frontier of one question, likeliest prefix first, and the answers that were completed."""

    def __init__(self, index: int, prompt: list[int]):
        self.index, self.prompt, self.used = index, prompt, len(prompt)
        self.frontier, self.answers = (
            [],
            [],
        )  # (-logprob, order, ids, cached ancestors); (ids, logprob, finish)
        self.expanded, self.complete, self.order = 0, 0.0, 0

    def grow(self, ids, ancestors, logprob, logprobs, stops, max_new_tokens) -> None:
        """Take in the next-token log-probabilities (V,) of the prefix `ids` with log-probability
        `logprob`.
        """
        for stop in stops:
            self.finish((*ids, stop), logprob + float(logprobs[stop]), "stop")
        top = logprobs.topk(min(CHILDREN + len(stops), len(logprobs)))
        for value, token in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            if token in stops:
                continue
            if len(ids) + 1 == max_new_tokens:
                self.finish((*ids, token), logprob + value, "length")
            else:
                self.order += 1
                heappush(self.frontier, (-(logprob + value), self.order, (*ids, token), ancestors))

    def finish(self, ids, logprob, finish) -> None:
        """A whole answer, as the sampler would give it."""
        if np.exp(logprob) >= FLOOR:
            self.answers.append((ids, logprob, finish))
        self.complete += np.exp(logprob)

    def done(self, nodes: int, mass: float) -> bool:
        """Whether nothing is left to run: enough prefixes, enough of the distribution, or an empty
        frontier.
        """
        return self.expanded >= nodes or self.complete >= mass or not self.frontier

    def take(self, cache: KeyValueCache, family, count: int) -> list[tuple]:
        """The likeliest prefixes of the frontier, made the next ones of the family; entries stay in
        the cache.
        """
        chosen = [heappop(self.frontier) for _ in range(min(count, len(self.frontier)))]
        columns = list(range(self.used, self.used + len(chosen)))
        seen = np.zeros((len(chosen), self.used), bool)
        seen[:, : len(self.prompt)] = True
        for row, (_, _, _, ancestors) in enumerate(chosen):
            seen[row, list(ancestors)] = True
        cache.place(family, seen, columns)
        family.tokens = [ids[-1] for _, _, ids, _ in chosen]
        self.used += len(chosen)
        self.expanded += len(chosen)
        return [
            (ids, (*ancestors, column), -cost)
            for column, (cost, _, ids, ancestors) in zip(columns, chosen, strict=True)
        ]


@torch.inference_mode()
def walk(
    policy: Policy, prompts, max_new_tokens: int, nodes: int, mass: float = 0.999, rows: int = 256
) -> Iterator:
    """(index, answers, prefixes run) of each prompt, as it is done; answers are (ids, logprob,
    finish).

    A walk ends when `nodes` prefixes were run, when its answers hold `mass`, or when nothing is
    left.
    """
    waiting, cache = (
        list(range(len(prompts)))[::-1],
        KeyValueCache(
            policy,
            min(max(1, len(prompts)), PREFILL),
            max(map(len, prompts), default=0) + nodes,
            TOGETHER,
        ),
    )

    def log_softmax(hidden):
        return policy.model.get_output_embeddings()(hidden).float().log_softmax(-1)

    with packed_weights(policy.model):
        while waiting or cache.families:
            while waiting and len(cache.families) < PREFILL:
                batch = [
                    waiting.pop() for _ in range(min(len(waiting), PREFILL - len(cache.families)))
                ]
                owners = [Search(i, prompts[i]) for i in batch]
                _, hidden = run_prompts(policy, cache, [owner.prompt for owner in owners], owners)
                for owner, logprobs in zip(owners, log_softmax(hidden), strict=True):
                    owner.grow((), (), 0.0, logprobs, policy.stops, max_new_tokens)
            for family in [f for f in cache.families if f.owner.done(nodes, mass)]:
                cache.remove(family)
                yield family.owner.index, family.owner.answers, family.owner.expanded
            if cache.families:
                share = min(TOGETHER, max(1, rows // len(cache.families)))
                taken = [
                    (one, entry)
                    for family in cache.families
                    for one in [family.owner]
                    for entry in one.take(cache, family, min(share, nodes - one.expanded))
                ]
                hidden = run_step(
                    policy, cache, [len(one.prompt) + len(ids) - 1 for one, (ids, _, _) in taken]
                )
                for (one, entry), logprobs in zip(taken, log_softmax(hidden), strict=True):
                    ids, ancestors, logprob = entry
                    one.grow(ids, ancestors, logprob, logprobs, policy.stops, max_new_tokens)


def likely_answers(
    policy,
    questions: pd.DataFrame,
    max_new_tokens: int,
    nodes: int,
    rows=256,
    prompt=direct,
    name="",
):
    """The answers found for each question: frame of question_id, text, logprob (nats), finish.

    Token sequences that give one text are one answer: their probabilities are added. `finish` is
    that of the likeliest of them.
    """
    ids = questions["question_id"].tolist()
    prompts = [render(policy.tokenizer, prompt(q)) for q in questions["question"]]
    progress, found = Progress(f"{name}: likeliest answers of {len(ids)} questions", len(ids)), []
    for index, answers, _ in walk(policy, prompts, max_new_tokens, nodes, rows=rows):
        for tokens, logprob, finish in answers:
            text = policy.tokenizer.decode(tokens, skip_special_tokens=True).strip()
            found.append((ids[index], text, logprob, finish))
        progress.step()
    frame = pd.DataFrame(found, columns=["question_id", "text", "logprob", "finish"])
    frame = frame.sort_values(
        ["question_id", "logprob"], ascending=[True, False], ignore_index=True
    )
    groups = frame.groupby(["question_id", "text"], sort=False)
    frame = groups.agg(
        logprob=("logprob", np.logaddexp.reduce), finish=("finish", "first")
    ).reset_index()
    return frame.sort_values(["question_id", "logprob"], ascending=[True, False], ignore_index=True)
