"""The chat template of a policy: how a prompt is rendered, and which token ends a turn.

Every use of a template goes through here: sampling, scoring, training, serving. A template is
*fitted* by text that is put before it, so that TRL, vLLM and a saved tokenizer render as this
project does:

1) A reasoning model does not think: `enable_thinking` is false (Qwen3).
2) The date is pinned to DATE, for templates that write today's into the system prompt (Llama 3.1).
3) A system message goes into the user's turn where the template has no such role (Gemma, Mistral).
"""

from dataclasses import dataclass

DATE = "26 Jul 2024"  # what Llama 3.1's template says where it is given no date
RENDERED_DATES = {"%d %b %Y": DATE, "%Y-%m-%d": "2024-07-26", "%B %d, %Y": "July 26, 2024"}

NO_THINKING = "{%- set enable_thinking = false -%}"
PINNED = (
    f"{{%- set date_string = '{DATE}' -%}}"
    "{%- macro strftime_now(format) -%}"
    f"{{{{- {RENDERED_DATES!r}.get(format, '{DATE}') -}}}}"
    "{%- endmacro -%}"
)
FOLDED = (
    "{%- if messages[0]['role'] == 'system' and messages | length > 1 -%}"
    "{%- set messages = [{'role': 'user', 'content': messages[0]['content'] + '\\n\\n' + "
    "messages[1]['content']}] + messages[2:] -%}"
    "{%- endif -%}"
)
FITTED: dict[tuple, "FittedTemplate"] = {}  # by name, special tokens and template
SYSTEM, USER, ASSISTANT = "Name one word.", "Which word?", "Placeholder"


class TemplateError(ValueError):
    """A chat template that cannot be used: the message names the model and says what to do."""


@dataclass(frozen=True)
class FittedTemplate:
    """A template that renders the direct prompt, and what was done to it (in words, for people)."""

    template: str
    changes: tuple[str, ...]


def fit(tokenizer) -> FittedTemplate:
    """The tokenizer's chat template, fitted. Raises TemplateError where that is not possible."""
    name, template = tokenizer.name_or_path, tokenizer.chat_template
    if not isinstance(template, str) or not template:
        raise TemplateError(f"{name}: no chat template; use an instruct model or set one")
    key = (name, str(tokenizer.special_tokens_map), template)
    if key not in FITTED:
        FITTED[key] = _fit(tokenizer, template, name)
    return FITTED[key]


def _fit(tokenizer, template: str, name: str) -> FittedTemplate:
    changes = []
    if "enable_thinking" in template and NO_THINKING not in template:
        template = NO_THINKING + template
        changes.append("thinking is switched off")

    if ("strftime_now" in template or "date_string" in template) and PINNED not in template:
        template = PINNED + template
        changes.append(f"the date is pinned to {DATE}")

    if not _shows_system(tokenizer, template):
        template = FOLDED + template
        changes.append("the system message stands in the user's turn")
        if not _shows_system(tokenizer, template):
            raise TemplateError(
                f"{name}: its chat template shows no system message, neither as a role nor in "
                "the user's turn; use another model or set `chat_template` in its "
                "tokenizer_config.json"
            )

    prompt = _render_text(tokenizer, _chat(), template)
    if prompt.count("<think>") > prompt.count("</think>"):
        raise TemplateError(
            f"{name}: its chat template opens a block of reasoning that no option switches off; "
            "use an instruct model without reasoning"
        )
    return FittedTemplate(template, tuple(changes))


def _render_text(tokenizer, messages, template: str, opened: bool = True) -> str:
    return tokenizer.apply_chat_template(
        messages, chat_template=template, add_generation_prompt=opened, tokenize=False
    )


def _chat(*more: dict) -> list[dict]:
    """A prompt as chat messages: a rule in the system message, then a question."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}, *more]


def _shows_system(tokenizer, template: str) -> bool:
    """Whether the template renders a prompt with the system message's text in it, once."""
    try:
        text = _render_text(tokenizer, _chat(), template)
    # templates raise what they like: jinja2's errors, or TypeError on a missing role
    except Exception:
        return False
    return text.count(SYSTEM) == 1 and text.count(USER) == 1


def turn_end(tokenizer, generation_config=None) -> int:
    """The id of the token that closes the assistant's turn, as the template says.

    It is often another token than the tokenizer's end of text (Gemma's <end_of_turn>, Phi's
    <|end|>). Where the template closes a turn with no special token, it is the end of text of the
    tokenizer, or the first that the model's config names. Raises TemplateError without any.
    """
    chat = _chat({"role": "assistant", "content": ASSISTANT})
    text = _render_text(tokenizer, chat, fit(tokenizer).template, opened=False)
    tail = text.rsplit(ASSISTANT, 1)[-1].strip()
    ids = tokenizer(tail, add_special_tokens=False)["input_ids"] if tail else []

    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    if ids and ids[0] in special:
        return ids[0]
    ends = [tokenizer.eos_token_id, *_named_ends(generation_config)]
    known = [end for end in ends if end is not None]
    if not known:
        raise TemplateError(
            f"{tokenizer.name_or_path}: no end-of-text token; answers would never end. Set "
            "`eos_token` in its tokenizer_config.json"
        )
    return known[0]


def fit_tokenizer(tokenizer, generation_config) -> tuple[frozenset[int], int]:
    """Give the tokenizer its fitted template; (every id that ends an answer, the turn's end)."""
    tokenizer.chat_template = fit(tokenizer).template
    stops = stop_ids(tokenizer, generation_config)
    return stops, turn_end(tokenizer, generation_config)


def stop_ids(tokenizer, generation_config=None) -> frozenset[int]:
    """Every id that ends an answer: the turn's end, the end of text, and what the config names."""
    ends = [
        turn_end(tokenizer, generation_config),
        tokenizer.eos_token_id,
        *_named_ends(generation_config),
    ]
    return frozenset(end for end in ends if end is not None)


def _named_ends(generation_config) -> list:
    ends = getattr(generation_config, "eos_token_id", None)
    return list(ends) if isinstance(ends, list | tuple) else [ends]


def describe(tokenizer) -> str:
    """One line for people: what was done to the template, and which token ends a turn."""
    end = tokenizer.convert_ids_to_tokens(turn_end(tokenizer))
    return "; ".join(["chat template", *fit(tokenizer).changes, f"a turn ends with {end}"])
