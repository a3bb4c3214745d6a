"""What a person says to an agent."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agentkeel.errors import ValidationError

__all__ = ["MAX_PROMPT_BYTES", "Prompt", "prompt_of"]

MAX_PROMPT_BYTES = 8 * 1024 * 1024
"""Above this no agent takes a prompt in one piece; the text belongs into a file of the workspace."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """The words of one turn. `argv` is set where the prompt is a command's argument vector (the shell provider)."""

    text: str
    argv: tuple[str, ...] = ()


def prompt_of(value: str | Sequence[str] | Prompt) -> Prompt:
    """The prompt a caller means: a text, or an argument vector.

    Raises:
        ValidationError: It is no text, empty, or larger than `MAX_PROMPT_BYTES`. Nothing was stored.
    """
    if isinstance(value, Prompt):
        prompt = value
    elif isinstance(value, str):
        prompt = Prompt(text=value)
    else:
        argv = tuple(value) if isinstance(value, Sequence) else (value,)
        if not all(isinstance(word, str) for word in argv):
            raise ValidationError(
                f"A prompt is a text or a list of texts, not {value!r:.80}. Nothing was stored.", code="invalid_input"
            )
        prompt = Prompt(text=" ".join(argv), argv=argv)
    if not prompt.text.strip():
        raise ValidationError("The prompt is empty. Nothing was stored; say something.", code="invalid_input")
    size = len(prompt.text.encode("utf-8", "surrogatepass"))
    if size > MAX_PROMPT_BYTES:
        raise ValidationError(
            f"The prompt has {size:,} bytes and {MAX_PROMPT_BYTES:,} are allowed. Nothing was stored; "
            "put the text into a file of the workspace and name the file.",
            code="invalid_input",
            details={"bytes": size, "max_bytes": MAX_PROMPT_BYTES},
        )
    if "\0" in prompt.text:
        raise ValidationError("The prompt has a NUL character. Nothing was stored.", code="invalid_input")
    try:
        prompt.text.encode()
    except UnicodeEncodeError as error:
        raise ValidationError(
            f"The prompt has a lone surrogate at {error.start}, which no agent can read. Nothing was stored.",
            code="invalid_input",
        ) from error
    return prompt
