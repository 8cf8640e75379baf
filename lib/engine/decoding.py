"""Decoding: the distinct prefixes of all answers in flight run together, a token a step.

1) Admit prompts while there is room: what they share is run once.
2) Otherwise run one step: the next token of every distinct prefix, each once.
3) Draw a next token for every sample of a prefix; samples that drew the same one go on together.
4) Yield the prompts whose samples have all ended.

Sample i of a question uses random numbers of its own. So it does not depend on the batch, on the
order, or on how many other samples are drawn.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from zlib import crc32

import numpy as np
import psutil
import torch
import torch.nn.functional as F

from lib.engine.families import FAMILY_SIZE, Family, KeyValueCache, key_heads
from lib.engine.lanes import in_lanes
from lib.engine.linear import packed_weights
from lib.engine.logprobs import softmax_
from lib.engine.passes import PREFILL, run_prompts, run_step
from lib.processes import release_memory

LANE_ROWS = 32  # prefixes that a lane must have to be worth a thread of its own
VOCABULARY_BLOCK = 256  # tokens summed together before a draw looks inside


class Samples:
    """The samples of one prompt, as they grow."""

    def __init__(self, index: int, prompt: list[int], numbers: np.ndarray):
        self.index = index
        self.prompt = prompt
        self.numbers = numbers  # (n, max_new_tokens) uniform numbers, NaN = greedy
        self.ids = [[] for _ in numbers]
        self.logprobs = np.zeros(len(numbers))
        self.entropies = np.zeros(len(numbers))
        self.open_families = 1  # in the cache

    def result(self, stops, entropies: bool) -> dict:
        """What `decode` yields for this prompt."""
        answers = {"index": self.index, "ids": self.ids, "logprob": self.logprobs}
        answers["finish"] = [finish_reason(ids, stops) for ids in self.ids]
        if entropies:
            answers["entropy"] = self.entropies
        return answers


def decode(
    policy,
    prompts,
    draws,
    max_new_tokens,
    rows=256,
    entropies=False,
    temperature=1.0,
    report: Callable[[int], None] | None = None,
) -> Iterator[dict]:
    """Completions of each prompt, one dict for each prompt as it finishes.

    policy: lib.engine.models.Policy, whose model must not change before the last dict is yielded.
    prompts: token ids of each. draws(i): the (n, max_new_tokens) uniform numbers of prompt i, or
    None for one greedy completion. About `rows` distinct prefixes are run together; a prompt is
    admitted when others finish, so memory does not grow with the number of prompts. temperature
    divides the logits; log-probabilities and entropies are those of the divided ones. report: told
    after each step how many samples ended in it.

    Yields index, ids (n lists, end-of-text included), logprob (n,), finish (n of `stop` or
    `length`), and on request entropy (n,): the sum over the tokens, in nats. Raises ValueError for
    a prompt too long for the model.
    """
    refuse_long_prompts(policy.model, prompts, max_new_tokens)

    def numbers(i):
        """(n, max_new_tokens) uniform numbers of prompt i, or NaN for a greedy completion."""
        drawn = draws(i)
        return np.full((1, max_new_tokens), np.nan) if drawn is None else drawn

    n = len(numbers(0)) if prompts else 1
    rows = fitting_rows(policy.model, prompts, n, max_new_tokens, rows)
    open_prompts = dict.fromkeys(range(len(prompts)))
    with packed_weights(policy.model), evaluating(policy.model):
        while open_prompts:
            left = list(open_prompts)
            lanes = count_lanes(policy.device, len(left), n, rows)
            how = (max_new_tokens, max(1, rows // lanes), entropies, temperature)
            parts = [left[lane::lanes] for lane in range(lanes)]
            works = [partial(decode_part, policy, prompts, part, numbers, *how) for part in parts]
            try:
                for result in in_lanes(works):
                    if isinstance(result, dict):
                        del open_prompts[result["index"]]
                        yield result
                    elif report:
                        report(result)
            except torch.OutOfMemoryError:
                if rows == 1:
                    raise
                rows //= 2  # what is not finished begins again; its random numbers are the same
                print(f"out of memory: {rows} rows from now on", flush=True)
            if open_prompts:
                release_memory()  # the failed caches hang on the error's frames


@contextlib.contextmanager
def evaluating(model) -> Iterator[None]:
    """The model in evaluation mode meanwhile: nothing dropped, nothing kept for a backward pass."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def fitting_rows(model, prompts, n: int, max_new_tokens: int, rows: int) -> int:
    """At most `rows` prefixes, as many as fit into half of the free memory.

    A prefix takes its keys and values, with its prompt's, and twice its logits.
    """
    config, device = model.config, model.device
    heads, width = key_heads(config)
    entry = 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize
    shared = min(n, FAMILY_SIZE)  # prefixes of one prompt, whose entries they share
    longest = max(map(len, prompts), default=0)
    each = (longest / shared + max_new_tokens) * entry + 8 * config.vocab_size
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        free -= torch.cuda.memory_allocated(device)  # what torch keeps is free for it
    else:
        free = psutil.virtual_memory().available
    return max(1, min(rows, int(free / 2 / each)))


def count_lanes(device, prompts: int, n: int, rows: int) -> int:
    """How many parts of the prompts decode beside each other: a CPU's threads, each busy enough."""
    if device.type != "cpu":
        return 1
    width = min(rows, n * prompts)
    return max(1, min(torch.get_num_threads(), width // LANE_ROWS, prompts))


@torch.inference_mode()
def decode_part(
    policy, prompts, part, numbers, max_new_tokens, rows, entropies, temperature, give
) -> None:
    """Decode the prompts `part`: give each prompt's dict, and after each step how many ended."""
    waiting = deque(part)
    n = len(numbers(waiting[0])) if waiting else 1
    cache = make_cache(policy.model, [prompts[i] for i in part], n, max_new_tokens, rows)

    while waiting or cache.families:
        room = rows - sum(len(family.tokens) for family in cache.families)

        # 1) not before a quarter of the rows is free: a prefill of many prompts costs less
        if waiting and room > rows // 4:
            families, hidden = admit(policy.model, cache, prompts, waiting, numbers, room)
        else:  # 2)
            families, hidden = advance(policy.model, cache)

        # 3) and 4)
        draw(policy.model, hidden, families, entropies, temperature)
        ended = 0
        for family in families:
            ended += regroup(cache, family, policy.stops, max_new_tokens)
            if not family.owner.open_families:
                give(family.owner.result(policy.stops, entropies))
        give(ended)


def refuse_long_prompts(model, prompts: list[list[int]], max_new_tokens: int) -> None:
    """Raise ValueError where a prompt and its completion do not fit the model."""
    longest = max(map(len, prompts), default=0)
    limit = model.config.max_position_embeddings
    if longest + max_new_tokens > limit:
        raise ValueError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones do not fit the model's "
            f"{limit} positions; shorten the question or lower max_new_tokens"
        )


def make_cache(model, prompts, n: int, max_new_tokens: int, rows: int) -> KeyValueCache:
    """An empty cache of about the size that decoding will need; a guess, since it can grow."""
    longest = max(map(len, prompts), default=0)

    # families in flight: of about 4 prefixes each, or all samples of all prompts in full ones
    slots = max(1, min(rows * 5 // (4 * min(n, 4)), len(prompts) * -(-2 * n // FAMILY_SIZE)))

    # each prefix of a family has columns of its own for its tokens: room for 32 of them
    columns = longest + max(max_new_tokens, min(n, FAMILY_SIZE) * min(max_new_tokens, 32))
    return KeyValueCache(model, slots, columns)


def admit(
    model, cache: KeyValueCache, prompts, waiting: deque[int], numbers: Callable, room: int
) -> tuple[list[Family], torch.Tensor]:
    """Run the next prompts: a family for each, of all its samples, and hidden states (N, hidden).

    waiting: indices of prompts, from which the admitted ones are taken; room: free rows.
    """
    # a prompt may come to as many prefixes as it has samples
    count = min(len(waiting), max(1, room // len(numbers(waiting[0]))), PREFILL)
    batch = [waiting.popleft() for _ in range(count)]

    owners = [Samples(i, prompts[i], numbers(i)) for i in batch]
    families, hidden = run_prompts(model, cache, owners)
    for family in families:
        family.prefixes = [list(range(len(family.owner.ids)))]
    return families, hidden


def advance(model, cache: KeyValueCache) -> tuple[list[Family], torch.Tensor]:
    """Run one step: all families, and the hidden states (N, hidden) of their N prefixes."""
    depths = []
    for family in cache.families:
        first = family.prefixes[0][0]  # all samples of a family have as many tokens
        depth = len(family.owner.prompt) + len(family.owner.ids[first]) - 1
        depths += [depth] * len(family.tokens)
    return list(cache.families), run_step(model, cache, depths)


def draw(
    model, hidden: torch.Tensor, families: list[Family], entropies: bool, temperature: float
) -> None:
    """Append a next token to every sample of the families.

    hidden (N, hidden): the last hidden states of their N prefixes.
    """
    # the logits are the largest tensor of a step: their softmax takes their place
    logits = model.get_output_embeddings()(hidden).float()  # (N, V)
    if temperature != 1.0:
        logits.div_(temperature)
    if entropies:
        entropy, probs = softmax_(logits)[1].tolist(), logits
    else:
        entropy, probs = None, torch.softmax(logits, -1, out=logits)

    # the M samples in the order of their prefixes: row of `probs`, uniform number of this token
    prefixes = [(family.owner, prefix) for family in families for prefix in family.prefixes]
    row = [i for i, (_, prefix) in enumerate(prefixes) for _ in prefix]
    numbers = [owner.numbers[prefix, len(owner.ids[prefix[0]])] for owner, prefix in prefixes]
    node = torch.tensor(row, device=hidden.device)  # (M,)
    tokens, logprobs = choose(probs, node, np.concatenate(numbers))

    samples = [(owner, s) for owner, prefix in prefixes for s in prefix]
    for (owner, s), token, logprob in zip(samples, tokens, logprobs, strict=True):
        owner.ids[s].append(token)
        owner.logprobs[s] += logprob
    if entropies:
        for (owner, s), i in zip(samples, row, strict=True):
            owner.entropies[s] += entropy[i]


def regroup(cache: KeyValueCache, family: Family, stops, max_new_tokens: int) -> int:
    """Let the samples that drew the same token go on together; without any, the family leaves.

    Returns how many samples have ended.
    """
    owner, parents, prefixes, tokens = family.owner, [], [], []
    samples = sum(map(len, family.prefixes))
    for parent, prefix in enumerate(family.prefixes):
        children = {}  # next token -> the samples that drew it and go on
        for s in prefix:
            ids = owner.ids[s]
            if ids[-1] not in stops and len(ids) < max_new_tokens:
                children.setdefault(ids[-1], []).append(s)
        parents += [parent] * len(children)
        prefixes += children.values()
        tokens += children

    before = len(cache.families)
    if tokens:
        cache.extend(family, parents, prefixes, tokens)
    else:
        cache.remove(family)
    owner.open_families += len(cache.families) - before
    return samples - sum(map(len, prefixes))


def choose(probs, node, numbers) -> tuple[list[int], list[float]]:
    """Tokens and their log-probabilities by inverse transform, one uniform number for each sample.

    probs (N, V), node (M,) the row of each sample, numbers (M,) in [0, 1), NaN = greedy. The
    cumulative sum runs over blocks of the vocabulary in double precision, then inside the drawn
    block.
    """
    greedy = torch.from_numpy(np.isnan(numbers)).to(node.device)  # (M,)
    tokens = probs.argmax(-1)[node] if bool(greedy.any()) else node.new_zeros(())

    if not bool(greedy.all()):
        u = torch.from_numpy(np.nan_to_num(numbers)).to(node.device)  # (M,) double
        spare = -probs.shape[1] % VOCABULARY_BLOCK
        padded = F.pad(probs, (0, spare)) if spare else probs
        blocks = padded.view(len(probs), -1, VOCABULARY_BLOCK)  # (N, V / B, B)

        # the block: the first whose cumulative sum is beyond the target
        sums = blocks.sum(-1).double().cumsum(-1)  # (N, V / B)
        target = u * sums[node, -1]  # (M,)
        block = (sums[node] <= target[:, None]).sum(-1).clamp(max=sums.shape[1] - 1)  # (M,)
        before = torch.where(block > 0, sums[node, (block - 1).clamp(min=0)], 0.0)  # (M,)

        # the token in it; rounding may put the target past the last token with any probability:
        # stay on the last that has some
        inner = blocks[node, block].double().cumsum(-1)  # (M, B)
        last = (inner < inner[:, -1:]).sum(-1)  # (M,)
        offset = torch.minimum((inner <= (target - before)[:, None]).sum(-1), last)  # (M,)
        tokens = torch.where(greedy, tokens, block * VOCABULARY_BLOCK + offset)

    return tokens.tolist(), probs[node, tokens].log().tolist()


def finish_reason(ids: list[int], stops) -> str:
    """`stop` for an answer that ended by itself, `length` for one that was cut."""
    return "stop" if ids and ids[-1] in stops else "length"


def uniform_draws(seed: int, question_id: str, n: int, length: int) -> np.ndarray:
    """The (n, length) uniform numbers of a question's samples; row i is the same for every n."""
    return np.random.default_rng([seed, crc32(question_id.encode())]).random((n, length))
