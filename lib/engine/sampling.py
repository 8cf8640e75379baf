"""Answers of a policy to a question frame: samples, greedy answers, and scores of given answers."""

import json
import os
import time
from pathlib import Path

import pandas as pd
import torch

from lib.engine.decoding import decode, uniform_draws
from lib.engine.models import Policy
from lib.engine.trie import ChosenLogprobs, Trie, packed_hidden
from lib.prompts import direct, render
from lib.tables import write_table

HEAD = 512  # positions whose next-token logits are held at once in scoring
SAMPLE_COLUMNS = ["question_id", "policy", "sample", "text", "tokens", "logprob", "finish"]


def sample(
    policy,
    questions,
    n,
    *,
    seed,
    max_new_tokens,
    rows=256,
    prompt=direct,
    path=None,
    name="base",
    first=0,
):
    """n independent samples of each question at temperature 1 as a sample frame, in the questions'
    order.

    questions: a question frame. With `path` (a parquet file) answers are appended beside it as they
    come, a call that was interrupted goes on, and a finished one is loaded. `first` skips that many
    samples.
    """
    ids = questions["question_id"].tolist()
    prompts = [render(policy.tokenizer, prompt(q)) for q in questions["question"]]
    numbers = (
        None
        if n is None
        else lambda i: uniform_draws(seed, ids[i], first + n, max_new_tokens)[first:]
    )
    if path is not None and Path(path).exists():
        return pd.read_parquet(path)
    log = Path(path).with_suffix(".jsonl") if path is not None else None
    records = _finished(log, ids)
    todo = [i for i, q in enumerate(ids) if q not in records]
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    file = open(log, "a") if log is not None else None  # noqa: SIM115  kept open while answers come
    progress = Progress(
        f"{name}: {'greedy' if n is None else n} x {len(ids)} questions", len(ids), len(records)
    )
    draws = (lambda i: None) if numbers is None else (lambda i: numbers(todo[i]))
    waiting = [prompts[i] for i in todo]
    if isinstance(policy, Policy):
        answers = decode(policy, waiting, draws, max_new_tokens, rows)
    else:  # lib.engine.vllm
        answers = policy.decode(
            waiting, [f"{ids[i]} {first}" for i in todo], n, seed, max_new_tokens
        )
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
    frame = frame.explode(["sample", "text", "tokens", "logprob", "finish"], ignore_index=True)[
        SAMPLE_COLUMNS
    ]
    frame = frame.astype({"sample": int, "tokens": int, "logprob": float})
    if file:
        os.fsync(file.fileno())
        file.close()
        write_table(frame, Path(path))
        log.unlink()
    return frame


def greedy(policy, questions, *, max_new_tokens, rows=256, prompt=direct, path=None, name="base"):
    """The greedy answer of each question as a sample frame with one sample a question; resumes like
    `sample`.
    """
    return sample(
        policy,
        questions,
        None,
        seed=0,
        max_new_tokens=max_new_tokens,
        rows=rows,
        prompt=prompt,
        path=path,
        name=name,
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
    """log P(answer | prompt), in nats, of each (prompt, answer) pair of token ids, in one packed
    pass.
    """
    trie = Trie([prompt + answer for prompt, answer in pairs], policy.device)
    hidden = packed_hidden(policy.model.base_model, trie.tokens, trie.depths, trie)
    before = [
        node
        for (prompt, _), path in zip(pairs, trie.nodes, strict=True)
        for node in path[len(prompt) - 1 : -1]
    ]
    sources, back = torch.tensor(before, device=policy.device).unique(return_inverse=True)
    target = torch.tensor([token for _, answer in pairs for token in answer], device=policy.device)
    chosen = target.new_zeros(len(target), dtype=torch.float32)
    head = policy.model.get_output_embeddings()
    for start in range(
        0, len(sources), HEAD
    ):  # their logits are the largest tensor: some at a time
        here = (back >= start) & (back < start + HEAD)
        logits = head(hidden[sources[start : start + HEAD]])
        chosen[here] = ChosenLogprobs.apply(logits, back[here] - start, target[here])[0]
    return [
        float(part.sum()) for part in chosen.double().split([len(answer) for _, answer in pairs])
    ]


def score(policy: Policy, questions: pd.DataFrame, batch: int = 16, prompt=direct) -> pd.DataFrame:
    """log P(answer and end of text | question) of each answer in `answers`: question_id, answer,
    logprob, tokens.

    All answers of a question run over the question once; `batch` questions share one pass.
    """
    end = policy.tokenizer.eos_token_id
    found = []
    for start in range(0, len(questions), batch):
        part = questions.iloc[start : start + batch]
        pairs, keys = [], []
        for question_id, question, answers in zip(
            part.question_id, part.question, part.answers, strict=True
        ):
            head = render(policy.tokenizer, prompt(question))
            for answer in answers:
                pairs.append(
                    (head, policy.tokenizer(answer, add_special_tokens=False)["input_ids"] + [end])
                )
                keys.append((question_id, answer))
        logprobs = answer_logprobs(policy, pairs)
        found += [
            (*key, x, len(tail)) for key, x, (_, tail) in zip(keys, logprobs, pairs, strict=True)
        ]
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
        print(
            f"{self.what}: {self.done}/{self.total} in {seconds:.0f} s, {left:.0f} s to go",
            flush=True,
        )
