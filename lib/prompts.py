"""The exact prompts, and how they become token ids."""

import re

# The paper's wording is unknown [?]. The direct prompt keeps its rule in the system message, so
# that one prefix serves every question.
DIRECT = "Answer the question with a short answer only. Do not explain."
CHAIN_OF_THOUGHT = (
    "Think about the question step by step in one or two sentences. "
    "Then give the final answer on a new line that starts with 'Answer:'."
)


def direct(question: str) -> list[dict]:
    """The direct, closed-book, zero-shot prompt of a question, as chat messages."""
    return [{"role": "system", "content": DIRECT}, {"role": "user", "content": question}]


def chain_of_thought(question: str) -> list[dict]:
    """The chain-of-thought prompt of a question, as chat messages."""
    return [{"role": "system", "content": CHAIN_OF_THOUGHT}, {"role": "user", "content": question}]


def cot_answer(text: str) -> str | None:
    """The final answer in a chain of thought: what follows the last 'Answer:', or None where there
    is none.
    """
    found = re.findall(r"answer\s*(?:is)?\s*:\s*(\S[^\n]*)", text, flags=re.IGNORECASE)
    return found[-1].strip() if found else None


def render(tokenizer, messages: list[dict]) -> list[int]:
    """Token ids of the chat messages with the assistant's turn opened, as the model's chat template
    says.

    Raises ValueError for a tokenizer without a chat template, or one whose rendering begins with
    two beginning-of-text tokens.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            f"{tokenizer.name_or_path}: no chat template; use an instruct model or set one"
        )
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    bos = tokenizer.bos_token_id
    if len(ids) > 1 and bos is not None and ids[0] == ids[1] == bos:
        raise ValueError(
            f"{tokenizer.name_or_path}: its chat template begins with two {tokenizer.bos_token!r}"
        )
    return list(ids)
