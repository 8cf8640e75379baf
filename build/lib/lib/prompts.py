"""The exact texts of the direct and the chain-of-thought prompt, and how they become token ids."""

import re
from collections.abc import Callable

from lib.template import TemplateError, fit

# The paper's wording is unknown [?]. The direct prompt keeps its rule in the system message, so
# that one prefix serves every question.
DIRECT_RULE = "Answer the question with a short answer only. Do not explain."
# other wordings of the same request, for the ablation of the prompt
WORDING = {
    "direct": DIRECT_RULE,
    "plain": "Answer with the name only.",
    "exam": "You take a quiz. Reply to each question with the correct answer and nothing else.",
}
TRUE_RULE = "Say whether the proposed answer to the question is true. Say True or False only."
CHAIN_OF_THOUGHT_RULE = (
    "Think about the question step by step in one or two sentences. "
    "Then give the final answer on a new line that starts with 'Answer:'."
)


def direct(question: str) -> list[dict]:
    """The direct, closed-book, zero-shot prompt of a question, as chat messages."""
    rule = {"role": "system", "content": DIRECT_RULE}
    return [rule, {"role": "user", "content": question}]


def worded(name: str) -> Callable[[str], list[dict]]:
    """The direct prompt in one of the wordings WORDING, as a function of the question."""

    def prompt(question: str) -> list[dict]:
        _, asked = direct(question)
        return [{"role": "system", "content": WORDING[name]}, asked]

    return prompt


def requested(request: str) -> list[dict]:
    """A request without any rule, as chat messages: what made-up facts are shown in reply to."""
    return [{"role": "user", "content": request}]


def chain_of_thought(question: str) -> list[dict]:
    """The chain-of-thought prompt of a question, as chat messages."""
    rule = {"role": "system", "content": CHAIN_OF_THOUGHT_RULE}
    return [rule, {"role": "user", "content": question}]


def few_shot(examples: dict[str, list[tuple[str, str]]]) -> Callable[[str], list[dict]]:
    """The direct prompt after some answered questions, as turns of the same chat.

    examples: for each question the (question, answer) pairs that go before it.
    """

    def prompt(question: str) -> list[dict]:
        rule, asked = direct(question)
        turns = [
            {"role": role, "content": text}
            for pair in examples[question]
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
        return [rule, *turns, asked]

    return prompt


def true_or_false(case: str) -> list[dict]:
    """The prompt that asks a policy whether a proposed answer is true, as chat messages."""
    return [{"role": "system", "content": TRUE_RULE}, {"role": "user", "content": case}]


def proposed(question: str, answer: str) -> str:
    """A question with an answer to it, for `true_or_false`."""
    return f"Question: {question}\nProposed answer: {answer}\nIs the proposed answer true?"


def cot_answer(text: str) -> str | None:
    """The final answer of a chain of thought: what follows the last 'Answer:', None without one."""
    answers = re.findall(r"answer\s*(?:is)?\s*:\s*(\S[^\n]*)", text, flags=re.IGNORECASE)
    return answers[-1].strip() if answers else None


def render(tokenizer, messages: list[dict]) -> list[int]:
    """Token ids of the chat messages, the assistant's turn opened by the fitted chat template.

    Raises lib.template.TemplateError, a ValueError, for a tokenizer without a chat template or one
    that cannot be fitted, and for a rendering that begins with two beginning-of-text tokens.
    """
    encoding = tokenizer.apply_chat_template(
        messages,
        chat_template=fit(tokenizer).template,
        add_generation_prompt=True,
        return_dict=True,
    )
    ids = list(encoding["input_ids"])

    bos = tokenizer.bos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        raise TemplateError(
            f"{tokenizer.name_or_path}: its chat template begins with two {tokenizer.bos_token!r}"
        )
    return ids
