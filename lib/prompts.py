"""The exact texts of the direct and the chain-of-thought prompt, and how they become token ids."""

import re

# The paper's wording is unknown [?]. The direct prompt keeps its rule in the system message, so
# that one prefix serves every question.
DIRECT_RULE = "Answer the question with a short answer only. Do not explain."
CHAIN_OF_THOUGHT_RULE = (
    "Think about the question step by step in one or two sentences. "
    "Then give the final answer on a new line that starts with 'Answer:'."
)


def direct(question: str) -> list[dict]:
    """The direct, closed-book, zero-shot prompt of a question, as chat messages."""
    rule = {"role": "system", "content": DIRECT_RULE}
    return [rule, {"role": "user", "content": question}]


def chain_of_thought(question: str) -> list[dict]:
    """The chain-of-thought prompt of a question, as chat messages."""
    rule = {"role": "system", "content": CHAIN_OF_THOUGHT_RULE}
    return [rule, {"role": "user", "content": question}]


def cot_answer(text: str) -> str | None:
    """The final answer of a chain of thought: what follows the last 'Answer:', None without one."""
    answers = re.findall(r"answer\s*(?:is)?\s*:\s*(\S[^\n]*)", text, flags=re.IGNORECASE)
    return answers[-1].strip() if answers else None


def render(tokenizer, messages: list[dict]) -> list[int]:
    """Token ids of the chat messages, with the assistant's turn opened by the chat template.

    Raises ValueError for a tokenizer without a chat template, or one whose rendering begins with
    two beginning-of-text tokens.
    """
    name = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise ValueError(f"{name}: no chat template; use an instruct model or set one")

    encoding = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    ids = list(encoding["input_ids"])

    bos = tokenizer.bos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        raise ValueError(f"{name}: its chat template begins with two {tokenizer.bos_token!r}")
    return ids
