"""Answers of a policy to a question frame: samples, greedy answers, and scores of given answers."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from lib.engine.logprobs import ChosenLogprobs
from lib.engine.models import Policy
from lib.engine.trie import Trie, packed_hidden
from lib.processes import release_memory
from lib.prompts import direct, render
from lib.tables import load_table, write_table, write_text

SCORED_TOGETHER = 512  # positions whose next-token logits are held at once in scoring
LIST_COLUMNS = ["sample", "text", "tokens", "logprob", "finish"]  # one entry for each answer
SAMPLE_COLUMNS = ["question_id", "policy", *LIST_COLUMNS]


def sample(
    policy,
    questions: pd.DataFrame,
    n: int | None,
    *,
    seed: int,
    max_new_tokens: int,
    rows: int = 256,
    prompt: Callable = direct,
    path: Path | str | None = None,
    name: str = "base",
    first: int = 0,
    temperature: float = 1.0,
) -> pd.DataFrame:
    """n independent samples of each question, in the questions' order.

    policy: what lib.engine.models.load_sampler gives, or a function that gives it, called where
    there is something to draw; n None: one greedy answer. With `path` (a
    parquet file) answers are appended beside it as they come, a call that was interrupted goes on,
    and a finished one is loaded. `first` skips that many samples. Returns a sample frame.
    """
    if path is not None and Path(path).exists():
        return load_table(path)
    if lent := callable(policy):
        policy = policy()

    ids = questions["question_id"].tolist()
    prompts = [render(policy.tokenizer, prompt(q)) for q in questions["question"]]
    log = AnswerLog(path, ids)
    waiting = [i for i, key in enumerate(ids) if key not in log.records]

    keys, inputs = [ids[i] for i in waiting], [prompts[i] for i in waiting]
    each = n or 1
    what = f"{name}: {'greedy' if n is None else n} x {len(ids)} questions"
    progress = Progress(what, each * len(ids), each * len(log.records))
    how = (n, seed, first, max_new_tokens, rows, temperature, progress.step)
    with log:
        for answer in policy.completions(inputs, keys, *how):
            log.add(answer_record(policy.tokenizer, keys[answer["index"]], answer))
    progress.end()

    if lent:
        policy = None  # a model refers to itself, so it would stay until somebody counts
        release_memory()
    frame = sample_frame([log.records[key] for key in ids], name, first)
    log.replace(frame)
    return frame


def greedy(policy, questions: pd.DataFrame, **settings) -> pd.DataFrame:
    """The greedy answer of each question as a sample frame with one sample for each question.

    settings: those of `sample`, but for n and seed; it resumes like `sample`.
    """
    return sample(policy, questions, None, seed=0, **settings)


def answer_record(tokenizer, question_id: str, answer: dict) -> dict:
    """What is kept of one question's answers: question_id, and a list for each other field."""
    texts = tokenizer.batch_decode(answer["ids"], skip_special_tokens=True)
    return {
        "question_id": question_id,
        "text": [text.strip() for text in texts],
        "tokens": [len(ids) for ids in answer["ids"]],
        "logprob": [round(float(x), 6) for x in answer["logprob"]],
        "finish": answer["finish"],
    }


def sample_frame(records: list[dict], name: str, first: int) -> pd.DataFrame:
    """One row for each answer, of the policy `name`; samples are counted from `first`."""
    frame = pd.DataFrame(records).assign(policy=name)
    frame["sample"] = [list(range(first, first + len(texts))) for texts in frame["text"]]
    frame = frame.explode(LIST_COLUMNS, ignore_index=True)[SAMPLE_COLUMNS]
    return frame.astype({"sample": int, "tokens": int, "logprob": float})


class AnswerLog:
    """The records of finished questions: as JSON lines beside `path`, and in memory as `records`.

    Without a path they are kept in memory only.
    """

    def __init__(self, path: Path | str | None, question_ids: list[str]):
        self.table = Path(path) if path is not None else None
        self.lines = self.table.with_suffix(".jsonl") if self.table else None
        self.records = self.read(set(question_ids)) if self.table else {}

    def read(self, question_ids: set[str]) -> dict[str, dict]:
        """Whole records of an interrupted call, by question; a torn last line is cut off."""
        if not self.lines.exists():
            return {}

        records, whole = {}, []
        for line in self.lines.read_text().splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if record["question_id"] in question_ids:
                records[record["question_id"]] = record
                whole.append(line)

        write_text(self.lines, "".join(line + "\n" for line in whole))
        return records

    def __enter__(self):
        if self.table:
            self.lines.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.lines, "a")
        return self

    def __exit__(self, *error):
        if self.table:
            os.fsync(self.file.fileno())
            self.file.close()

    def add(self, record: dict) -> None:
        """Keep the record of a question that is finished, before the next one comes."""
        self.records[record["question_id"]] = record
        if self.table:
            self.file.write(json.dumps(record) + "\n")
            self.file.flush()

    def replace(self, frame: pd.DataFrame) -> None:
        """Write the whole table; only then the lines go."""
        if self.table:
            write_table(frame, self.table)
            self.lines.unlink()


@torch.inference_mode()
def answer_logprobs(policy: Policy, pairs: list[tuple[list[int], list[int]]]) -> list[float]:
    """log P(answer | prompt) in nats of (prompt, answer) pairs of token ids, in one packed pass."""
    trie = Trie([prompt + answer for prompt, answer in pairs], policy.device)
    hidden = packed_hidden(policy.model.base_model, trie.tokens, trie.depths, trie)  # (N, hidden)

    # every token of an answer, and the node before it, which predicts it
    tokens, before = [], []
    for (prompt, answer), path in zip(pairs, trie.nodes, strict=True):
        tokens += answer
        before += path[len(prompt) - 1 : -1]
    target = torch.tensor(tokens, device=policy.device)  # (M,)
    sources = torch.tensor(before, device=policy.device)  # (M,)
    sources, back = sources.unique(return_inverse=True)  # (S,), (M,)

    # the logits (S, V) would be the largest tensor: only some rows exist at a time
    chosen = target.new_zeros(len(target), dtype=torch.float32)  # (M,)
    head = policy.model.get_output_embeddings()
    for start in range(0, len(sources), SCORED_TOGETHER):
        here = (back >= start) & (back < start + SCORED_TOGETHER)  # (M,)
        logits = head(hidden[sources[start : start + SCORED_TOGETHER]])
        chosen[here] = ChosenLogprobs.apply(logits, back[here] - start, target[here])[0]

    parts = chosen.double().split([len(answer) for _, answer in pairs])
    return [float(part.sum()) for part in parts]


def score(
    policy: Policy, questions: pd.DataFrame, batch: int = 16, prompt: Callable = direct
) -> pd.DataFrame:
    """log P(answer and end of turn | question) of each answer in the column `answers`.

    Frame of question_id, answer, logprob (nats), tokens. All answers of a question run over the
    question once; `batch` questions share one pass.
    """
    tokenizer, records = policy.tokenizer, []
    for start in range(0, len(questions), batch):
        keys, pairs = [], []
        for row in questions.iloc[start : start + batch].itertuples():
            prompt_ids = render(tokenizer, prompt(row.question))
            for answer in row.answers:
                answer_ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
                keys.append((row.question_id, answer))
                pairs.append((prompt_ids, answer_ids + [policy.end]))

        logprobs = answer_logprobs(policy, pairs)
        for key, (_, answer_ids), logprob in zip(keys, pairs, logprobs, strict=True):
            records.append((*key, logprob, len(answer_ids)))
    return pd.DataFrame(records, columns=["question_id", "answer", "logprob", "tokens"])


class Progress:
    """A line about every fifteen seconds: how much is done, and how long it will take.

    There is no estimate before a twentieth of the work is done: the first answers to end are the
    short ones, and none ends in the first steps.
    """

    def __init__(self, what: str, total: int, done: int = 0, every: float = 15.0):
        self.what = what
        self.total = total
        self.done = done
        self.first = done  # those finished before this call took no time of it
        self.every = every
        self.started = self.printed = time.monotonic()

    def step(self, count: int = 1) -> None:
        """Count some more; print when it is time."""
        self.done += count
        now = time.monotonic()
        if now - self.printed < self.every or self.done >= self.total:
            return

        self.printed = now
        seconds, fresh = now - self.started, self.done - self.first
        share = f"{self.done / self.total:.0%} in {seconds:.0f} s"
        left = ""
        if fresh >= 0.05 * (self.total - self.first):
            left = f", {seconds / fresh * (self.total - self.done):.0f} s to go"
        print(f"{self.what}: {share}{left}", flush=True)

    def end(self) -> None:
        """Say how long it took."""
        print(f"{self.what}: done in {time.monotonic() - self.started:.0f} s", flush=True)
