"""Answers of a policy: prefix-merged sampling, greedy decoding, and scores of given answers.

Samples of one question share prefixes. At each node of the question's trie every sample draws its own next
token, samples that drew the same one go on together, and each distinct prefix is run once. Sample i of a
question uses random numbers of its own, so it does not depend on the batch, on the order, nor on how many
other samples are drawn.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
import torch

from lib.models import Policy
from lib.prompts import direct, render
from lib.runs import write_table
from lib.trie import ChosenLogprobs, Trie, grouped_attention, packed_hidden, softmax_

PREFILL = 64  # prompts of one prefill
HEAD = 512  # positions whose next-token logits are held at once in scoring
BLOCK = 32  # prefixes of a question that attend together
VOCABULARY_BLOCK = 256  # tokens summed together before a draw looks inside
COLUMNS = ["question_id", "policy", "sample", "text", "tokens", "logprob", "finish"]


class Question:
    """One question in flight: its draws, its key-value cache, and the distinct prefixes that go on."""

    def __init__(self, index, prompt, draws, keys, values, groups):
        self.index, self.draws, self.groups = index, draws, groups
        self.depth, self.used = len(prompt), len(prompt)  # depth of the next token; cached entries
        self.keys, self.values = keys, values  # (layers, heads, capacity, width)
        self.mask = torch.ones(1, len(prompt), dtype=torch.bool, device=keys.device)  # (prefixes, used)
        self.ids = [[] for _ in draws]
        self.logprobs = np.zeros(len(draws))
        self.entropies = np.zeros(len(draws))
        self.prefixes = [list(range(len(draws)))]  # samples that share each live prefix
        self.tokens = []  # the next token of each live prefix

    def extend(self, parents: list[int]) -> None:
        """Make room for one entry a live prefix, dropping entries that no live prefix sees."""
        seen = self.mask[parents]
        keep = seen.any(0)
        if int(keep.sum()) < self.used // 2:
            self.keys[:, :, : int(keep.sum())] = self.keys[:, :, : self.used][:, :, keep]
            self.values[:, :, : int(keep.sum())] = self.values[:, :, : self.used][:, :, keep]
            seen = seen[:, keep]
            self.used = int(keep.sum())
        self.reserve(self.used + len(parents))
        own = torch.eye(len(parents), dtype=torch.bool, device=seen.device)
        self.mask = torch.cat([seen, own], 1)

    def reserve(self, entries: int) -> None:
        """Let the cache hold so many entries, at least doubling it when it is too short."""
        if entries > self.keys.shape[2]:
            pad = (0, 0, 0, max(entries, 2 * self.keys.shape[2]) - self.keys.shape[2])
            self.keys, self.values = (torch.nn.functional.pad(x, pad) for x in (self.keys, self.values))


class Decode:
    """The layout of one decoding step: the live prefixes of all questions in flight, packed.

    A question's prefixes attend in blocks of neighbours, each to the cached entries that its prefixes see: those
    of the other branches cost nothing.
    """

    def __init__(self, questions: list[Question]):
        self.questions, self.blocks = questions, []
        for question in questions:
            parts = []
            for start in range(0, len(question.tokens), BLOCK):
                mask = question.mask[start : start + BLOCK]
                seen = None if len(question.tokens) <= BLOCK else mask.any(0).nonzero()[:, 0]
                mask = mask if seen is None else mask[:, seen]
                parts.append((start, start + len(mask), seen, mask.repeat(question.groups, 1)))
            self.blocks.append(parts)

    def attend(self, layer, query, key, value, scaling):
        """Attention of each live prefix to its own ancestors in its question's cache: (H, N, D) -> (H, N, D)."""
        parts, at = [], 0
        for question, blocks in zip(self.questions, self.blocks, strict=True):
            stop, end = at + len(question.tokens), question.used + len(question.tokens)
            question.keys[layer, :, question.used : end] = key[:, at:stop]
            question.values[layer, :, question.used : end] = value[:, at:stop]
            keys, values = question.keys[layer, :, :end], question.values[layer, :, :end]
            for first, last, seen, mask in blocks:
                cached = (keys, values) if seen is None else (keys.index_select(1, seen), values.index_select(1, seen))
                own = query[:, at + first : at + last]
                parts.append(grouped_attention(own, *cached, mask, scaling, grouped=True))
            at = stop
        return torch.cat(parts, 1)


class Prefill:
    """A trie's attention that also keeps every layer's keys and values."""

    def __init__(self, trie: Trie):
        self.trie, self.keys, self.values = trie, [], []

    def attend(self, layer, query, key, value, scaling):
        self.keys.append(key)
        self.values.append(value)
        return self.trie.attend(layer, query, key, value, scaling)


@torch.inference_mode()
def decode(policy: Policy, prompts: list[list[int]], draws, max_new_tokens: int, rows: int = 256) -> Iterator[dict]:
    """Completions of each prompt, one dict a prompt as it finishes.

    prompts: token ids; draws(i) gives the (n, max_new_tokens) uniform numbers of prompt i, or None for one
    greedy completion. About `rows` distinct prefixes are run together; a prompt is admitted when others
    finish, so memory does not grow with their number. Yields index, ids (n lists, end-of-text included),
    logprob, entropy (n,), and finish (n of `stop` or `length`). Raises ValueError for a prompt too long for the model.
    """
    longest, limit = max(map(len, prompts), default=0), policy.model.config.max_position_embeddings
    if longest + max_new_tokens > limit:
        raise ValueError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones do not fit the model's {limit} positions; "
            "shorten the question or lower max_new_tokens"
        )
    waiting, live = list(range(len(prompts)))[::-1], []
    while waiting or live:
        room = rows - sum(len(q.tokens) for q in live)
        if waiting and room > rows // 4:
            numbers = draws(waiting[-1])
            width = 1 if numbers is None else len(numbers)  # as many prefixes as samples, at most
            batch = [waiting.pop() for _ in range(min(len(waiting), max(1, room // width), PREFILL))]
            admitted = prefill(policy, prompts, batch, draws)
            hidden = torch.cat([h for _, h in admitted])
            questions = [q for q, _ in admitted]
            _draw(policy, hidden, questions, max_new_tokens)
        else:
            for question in live:
                question.depth += 1
            tokens = torch.tensor([t for q in live for t in q.tokens], device=policy.device)
            depths = torch.tensor([q.depth - 1 for q in live for _ in q.tokens], device=policy.device)
            hidden = packed_hidden(policy.model.base_model, tokens, depths, Decode(live))
            for question in live:
                question.used += len(question.tokens)
            questions, live = live, []
            _draw(policy, hidden, questions, max_new_tokens)
        for question in questions:
            if question.tokens:
                live.append(question)
            else:
                stopped = [ids[-1] in policy.stops for ids in question.ids]
                yield {
                    "index": question.index,
                    "ids": question.ids,
                    "logprob": question.logprobs,
                    "entropy": question.entropies,
                    "finish": ["stop" if s else "length" for s in stopped],
                }


def prefill(policy, prompts, batch, draws) -> list[tuple[Question, torch.Tensor]]:
    """Run the prompts' shared prefixes once; the Questions with their caches and last hidden states (1, hidden)."""
    trie = Trie([prompts[i] for i in batch], policy.device)
    layout = Prefill(trie)
    hidden = packed_hidden(policy.model.base_model, trie.tokens, trie.depths, layout)
    keys, values = torch.stack(layout.keys), torch.stack(layout.values)  # (layers, heads, N, width)
    groups = policy.model.config.num_attention_heads // keys.shape[1]
    admitted = []
    for i, path in zip(batch, trie.nodes, strict=True):
        numbers = draws(i)
        numbers = np.full((1, 1), np.nan) if numbers is None else numbers
        question = Question(i, prompts[i], numbers, keys[:, :, path], values[:, :, path], groups)
        admitted.append((question, hidden[path[-1:]]))
    return admitted


def _draw(policy, hidden, questions, max_new_tokens) -> None:
    """Draw every live sample's next token and regroup the samples by the prefixes they now share."""
    probs = policy.model.get_output_embeddings()(hidden).float()  # (N, V) logits, until the next line
    _, entropy, best, _ = softmax_(probs)
    entropy = entropy.tolist()
    node, numbers = [], []
    for question in questions:
        for prefix in question.prefixes:
            row = len(node) and node[-1] + 1
            node += [row] * len(prefix)
            step = len(question.ids[prefix[0]])
            numbers += [question.draws[s, min(step, question.draws.shape[1] - 1)] for s in prefix]
    tokens, logprobs = choose(probs, best, torch.tensor(node, device=hidden.device), np.array(numbers))
    at = 0
    for question in questions:
        parents, prefixes, next_tokens = [], [], []
        for parent, prefix in enumerate(question.prefixes):
            children = {}
            for s in prefix:
                token = tokens[at]
                question.ids[s].append(token)
                question.logprobs[s] += logprobs[at]
                question.entropies[s] += entropy[node[at]]
                if token not in policy.stops and len(question.ids[s]) < max_new_tokens:
                    children.setdefault(token, []).append(s)
                at += 1
            parents += [parent] * len(children)
            prefixes += children.values()
            next_tokens += children
        question.prefixes, question.tokens = prefixes, next_tokens
        if next_tokens:
            question.extend(parents)


def choose(probs, best, node, numbers) -> tuple[list[int], list[float]]:
    """Tokens and their log-probabilities by inverse transform: one uniform number a sample, NaN = greedy.

    probs (N, V), best (N,) the likeliest token, node (M,) the row of each sample, numbers (M,) in [0, 1).
    The cumulative sum runs over blocks of the vocabulary in double precision, then inside the drawn block.
    """
    greedy = torch.from_numpy(np.isnan(numbers)).to(node.device)
    tokens = best[node]
    if not bool(greedy.all()):
        u = torch.from_numpy(np.nan_to_num(numbers)).to(node.device)  # (M,) double
        spare = -probs.shape[1] % VOCABULARY_BLOCK
        padded = torch.nn.functional.pad(probs, (0, spare)) if spare else probs
        blocks = padded.view(len(probs), -1, VOCABULARY_BLOCK)  # (N, V / B, B)
        sums = blocks.sum(-1).double().cumsum(-1)  # (N, V / B)
        target = u * sums[node, -1]
        block = (sums[node] <= target[:, None]).sum(-1).clamp(max=sums.shape[1] - 1)  # (M,)
        before = torch.where(block > 0, sums[node, (block - 1).clamp(min=0)], 0.0)
        inner = blocks[node, block].double().cumsum(-1)  # (M, B)
        # rounding may put the target past the last token with any probability: stay on the last that has some
        last = (inner < inner[:, -1:]).sum(-1)
        offset = torch.minimum((inner <= (target - before)[:, None]).sum(-1), last)
        tokens = torch.where(greedy, tokens, block * VOCABULARY_BLOCK + offset)
    return tokens.tolist(), probs[node, tokens].log().tolist()


def uniform_draws(seed: int, question_id: str, n: int, length: int) -> np.ndarray:
    """The (n, length) uniform numbers of a question's samples; the first rows are the same for every n."""
    return np.random.default_rng([seed, crc32(question_id.encode())]).random((n, length))


def sample(policy, questions, n, *, seed, max_new_tokens, rows=256, prompt=direct, path=None, name="base", first=0):
    """n independent samples of each question at temperature 1 as a sample frame, in the questions' order.

    questions: a question frame. With `path` (a parquet file) answers are appended beside it as they come, a
    call that was interrupted goes on, and a finished one is loaded. `first` skips that many samples.
    """
    ids = questions["question_id"].tolist()
    prompts = [render(policy.tokenizer, prompt(q)) for q in questions["question"]]
    numbers = None if n is None else lambda i: uniform_draws(seed, ids[i], first + n, max_new_tokens)[first:]
    if path is not None and Path(path).exists():
        return pd.read_parquet(path)
    log = Path(path).with_suffix(".jsonl") if path is not None else None
    records = _finished(log, ids)
    todo = [i for i, q in enumerate(ids) if q not in records]
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    file = open(log, "a") if log is not None else None  # noqa: SIM115  kept open while answers come
    progress = Progress(f"{name}: {'greedy' if n is None else n} x {len(ids)} questions", len(ids), len(records))
    draws = (lambda i: None) if numbers is None else (lambda i: numbers(todo[i]))
    waiting = [prompts[i] for i in todo]
    if isinstance(policy, Policy):
        answers = decode(policy, waiting, draws, max_new_tokens, rows)
    else:  # lib.serving
        answers = policy.decode(waiting, [f"{ids[i]} {first}" for i in todo], n, seed, max_new_tokens)
    for done in answers:
        texts = policy.tokenizer.batch_decode(done["ids"], skip_special_tokens=True)
        record = {
            "question_id": ids[todo[done["index"]]],
            "text": [text.strip() for text in texts],
            "tokens": [len(x) for x in done["ids"]],
            "logprob": [round(float(x), 6) for x in done["logprob"]],
            "finish": done["finish"],
        }
        records[record["question_id"]] = record
        if file:
            file.write(json.dumps(record) + "\n")
            file.flush()
        progress.step()
    frame = pd.DataFrame([records[q] for q in ids]).assign(policy=name)
    frame["sample"] = [list(range(first, first + len(x))) for x in frame["text"]]
    frame = frame.explode(["sample", "text", "tokens", "logprob", "finish"], ignore_index=True)[COLUMNS]
    frame = frame.astype({"sample": int, "tokens": int, "logprob": float})
    if file:
        os.fsync(file.fileno())
        file.close()
        write_table(frame, Path(path))
        log.unlink()
    return frame


def greedy(policy, questions, *, max_new_tokens, rows=256, prompt=direct, path=None, name="base"):
    """The greedy answer of each question as a sample frame with one sample a question; resumes like `sample`."""
    return sample(
        policy, questions, None, seed=0, max_new_tokens=max_new_tokens, rows=rows, prompt=prompt, path=path, name=name
    )


def _finished(log: Path | None, ids: list[str]) -> dict[str, dict]:
    """Whole records of an interrupted call, by question; a torn last line is cut off."""
    if log is None or not log.exists():
        return {}
    records, whole = {}, []
    for line in log.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record["question_id"] in set(ids):
            records[record["question_id"]] = record
            whole.append(line)
    log.write_text("".join(line + "\n" for line in whole))
    return records


@torch.inference_mode()
def answer_logprobs(policy: Policy, pairs: list[tuple[list[int], list[int]]]) -> list[float]:
    """log P(answer | prompt), in nats, of each (prompt, answer) pair of token ids, in one packed pass."""
    trie = Trie([prompt + answer for prompt, answer in pairs], policy.device)
    hidden = packed_hidden(policy.model.base_model, trie.tokens, trie.depths, trie)
    before = [node for (prompt, _), path in zip(pairs, trie.nodes, strict=True) for node in path[len(prompt) - 1 : -1]]
    sources, back = torch.tensor(before, device=policy.device).unique(return_inverse=True)
    target = torch.tensor([token for _, answer in pairs for token in answer], device=policy.device)
    chosen = target.new_zeros(len(target), dtype=torch.float32)
    head = policy.model.get_output_embeddings()
    for start in range(0, len(sources), HEAD):  # their logits are the largest tensor: some at a time
        here = (back >= start) & (back < start + HEAD)
        logits = head(hidden[sources[start : start + HEAD]])
        chosen[here] = ChosenLogprobs.apply(logits, back[here] - start, target[here])[0]
    return [float(part.sum()) for part in chosen.double().split([len(answer) for _, answer in pairs])]


def score(policy: Policy, questions: pd.DataFrame, batch: int = 16, prompt=direct) -> pd.DataFrame:
    """log P(answer and end of text | question) of each answer in `answers`: question_id, answer, logprob, tokens.

    All answers of a question run over the question once; `batch` questions share one pass.
    """
    end = policy.tokenizer.eos_token_id
    found = []
    for start in range(0, len(questions), batch):
        part = questions.iloc[start : start + batch]
        pairs, keys = [], []
        for question_id, question, answers in zip(part.question_id, part.question, part.answers, strict=True):
            head = render(policy.tokenizer, prompt(question))
            for answer in answers:
                pairs.append((head, policy.tokenizer(answer, add_special_tokens=False)["input_ids"] + [end]))
                keys.append((question_id, answer))
        logprobs = answer_logprobs(policy, pairs)
        found += [(*key, x, len(tail)) for key, x, (_, tail) in zip(keys, logprobs, pairs, strict=True)]
    return pd.DataFrame(found, columns=["question_id", "answer", "logprob", "tokens"])


class Progress:
    """A line about every fifteen seconds, as questions finish: how much is done, how long to go."""

    def __init__(self, what: str, total: int, done: int = 0, every: float = 15.0):
        self.what, self.total, self.done, self.first, self.every = what, total, done, done, every
        self.started = self.told = time.monotonic()

    def step(self) -> None:
        """Count one more; print when it is time, and at the end."""
        self.done += 1
        now = time.monotonic()
        if now - self.told < self.every and self.done < self.total:
            return
        self.told, seconds = now, now - self.started
        left = seconds / (self.done - self.first) * (self.total - self.done)
        print(f"{self.what}: {self.done}/{self.total} in {seconds:.0f} s, {left:.0f} s to go", flush=True)
