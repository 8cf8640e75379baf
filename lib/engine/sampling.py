"""Answers of a policy to a question frame: samples, greedy answers, and scores of given answers."""

import json
import os
import time
from pathlib import Path

import pandas as pd
import torch

from lib.engine.models import Policy
from lib.engine.trie import ChosenLogprobs, Trie, packed_hidden
from lib.prompts import direct, render
from lib.tables import write_table

HEAD = 512  # positions whose next-token logits are held at once in scoring
SAMPLE_COLUMNS = ["question_id", "policy", "sample", "text", "tokens", "logprob", "finish"]


def sample(
    policy,
    questions: pd.DataFrame,
    n: int | None,
    *,
    seed: int,
    max_new_tokens: int,
    rows: int = 256,
    prompt=direct,
    path: Path | None = None,
    name: str = "base",
    first: int = 0,
) -> pd.DataFrame:
    """n independent samples of each question at temperature 1, as a sample frame.

    policy: lib.engine.models.Policy or lib.engine.vllm.Served; questions: a question frame, whose
    order is kept; n None: one greedy answer. With `path` (a parquet file) answers are appended
    beside it as they come, a call that was interrupted goes on, and a finished one is loaded.
    `first` skips that many samples.
    """
    if path is not None and Path(path).exists():
        return pd.read_parquet(path)
    ids = questions["question_id"].tolist()
    prompts = [render(policy.tokenizer, prompt(q)) for q in questions["question"]]

    with AnswerLog(path, ids) as log:
        missing = [i for i, question_id in enumerate(ids) if question_id not in log.records]
        count = "greedy" if n is None else n
        progress = Progress(f"{name}: {count} x {len(ids)} questions", len(ids), len(log.records))

        answers = policy.completions(
            [prompts[i] for i in missing],
            [ids[i] for i in missing],
            n,
            seed=seed,
            max_new_tokens=max_new_tokens,
            rows=rows,
            first=first,
        )
        for done in answers:
            log.add(_answer_record(ids[missing[done["index"]]], done, policy.tokenizer))
            progress.step()

        frame = _sample_frame([log.records[question_id] for question_id in ids], name, first)
        log.finish(frame)
    return frame


def greedy(policy, questions, *, max_new_tokens, rows=256, prompt=direct, path=None, name="base"):
    """The greedy answer of each question as a sample frame; resumes like `sample`."""
    options = dict(max_new_tokens=max_new_tokens, rows=rows, prompt=prompt, path=path, name=name)
    return sample(policy, questions, None, seed=0, **options)


def _answer_record(question_id: str, done: dict, tokenizer) -> dict:
    """What is kept of a question's completions, as one line of JSON."""
    texts = tokenizer.batch_decode(done["ids"], skip_special_tokens=True)
    return {
        "question_id": question_id,
        "text": [text.strip() for text in texts],
        "tokens": [len(ids) for ids in done["ids"]],
        "logprob": [round(float(logprob), 6) for logprob in done["logprob"]],
        "finish": done["finish"],
    }


def _sample_frame(records: list[dict], name: str, first: int) -> pd.DataFrame:
    """One row for each sample of each record."""
    frame = pd.DataFrame(records).assign(policy=name)
    frame["sample"] = [list(range(first, first + len(texts))) for texts in frame["text"]]
    lists = ["sample", "text", "tokens", "logprob", "finish"]
    frame = frame.explode(lists, ignore_index=True)[SAMPLE_COLUMNS]
    return frame.astype({"sample": int, "tokens": int, "logprob": float})


class AnswerLog:
    """Answers on disk as they come, one line for each question; without a path it only remembers.

    A torn last line, as a killed call leaves it, is cut off; the other lines are in `records`, by
    question. `finish` writes the table and removes the log.
    """

    def __init__(self, path: Path | None, ids: list[str]):
        self.path = None if path is None else Path(path)
        self.lines = None if path is None else self.path.with_suffix(".jsonl")
        self.records: dict[str, dict] = {}
        self.file = None
        if self.path is not None:
            self._read(set(ids))

    def _read(self, ids: set[str]) -> None:
        whole = []
        for line in self.lines.read_text().splitlines() if self.lines.exists() else []:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if record["question_id"] in ids:
                self.records[record["question_id"]] = record
                whole.append(line)
        self.lines.parent.mkdir(parents=True, exist_ok=True)
        self.lines.write_text("".join(line + "\n" for line in whole))

    def __enter__(self):
        self.file = open(self.lines, "a") if self.path is not None else None
        return self

    def __exit__(self, *_):
        if self.file is not None:
            self.file.close()

    def add(self, record: dict) -> None:
        self.records[record["question_id"]] = record
        if self.file is not None:
            self.file.write(json.dumps(record) + "\n")
            self.file.flush()

    def finish(self, frame: pd.DataFrame) -> None:
        if self.file is not None:
            self.file.flush()
            os.fsync(self.file.fileno())
            write_table(frame, self.path)
            self.lines.unlink()


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
