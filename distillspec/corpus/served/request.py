"""The content that is sent to a target behind an API for one prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Literal, NamedTuple

from distillspec.corpus.sources.passage import Messages, Tools
from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.sources.tokenizing import Encoder, PromptText, Tokenizer
from distillspec.errors import DistillSpecError
from distillspec.models.vocabulary.detokenize import detokenize
from distillspec.runtime.seeds import derive_seed

Api = Literal["completions", "chat"]


class ApiRequest(NamedTuple):
    """One prompt as the API receives it.

    Attributes:
        key: The key of its prompt.
        content: A text, or the messages of a chat.
        prompt: The prompt as the draft reads it; None where that is not known.
        tools: The tools that the chat may call.
    """

    key: str
    content: str | Messages
    prompt: PromptText | None = None
    tools: Tools | None = None

    @property
    def tokens(self) -> int | None:
        """Number of tokens that the draft reads it as."""
        return None if self.prompt is None else len(self.prompt.tokens)

    @property
    def is_chat(self) -> bool:
        return not isinstance(self.content, str)

    def digest(self) -> str:
        """16 hexadecimal digits of the content, since a key may later stand for another text."""
        content = [self.content, self.tools] if self.tools else self.content
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def seed(self, seed: int, attempt: int) -> int:
        """A seed in [0, 2**31) that differs for every try: the same would repeat a bad answer."""
        return derive_seed(seed, "question", self.key, attempt) >> 32


def api_requests(prompts: Sequence[Prompt], api: Api, tokenizer: Tokenizer) -> list[ApiRequest]:
    """One question for each prompt: its messages, or the text of its tokens.

    A prompt that lost its beginning is sent without it, so that target and draft see the same text.
    The tokens that a tokenizer puts before a text are left out, since the server adds them.

    Raises:
        DistillSpecError: A chat would be sent as text, or a text as a chat.
    """
    check_fits(prompts, api)
    if api == "chat":
        return [
            ApiRequest(p.key, p.messages, _read(p), p.tools)
            for p in prompts
            if p.messages is not None
        ]
    before = len(Encoder(tokenizer).prefix)
    return [
        ApiRequest(
            p.key,
            p.text if p.kind == "plain" else detokenize(tokenizer, p.tokens[before:]),
            _read(p),
        )
        for p in prompts
    ]


def _read(prompt: Prompt) -> PromptText:
    return PromptText(prompt.text, prompt.tokens, prompt.kind not in ("plain", "chat"))


def check_fits(prompts: Sequence[Prompt], api: Api) -> None:
    """Raise a DistillSpecError where target and draft would see different tokens."""
    chats = sum(p.messages is not None for p in prompts)
    if api == "completions" and chats:
        raise DistillSpecError(
            f"{chats} of {len(prompts)} prompts are chats, and the completions API takes text",
            where="pair.endpoint.api=completions",
            fix="set pair.endpoint.api=chat: then the server's template renders them",
        )
    if api == "chat" and chats < len(prompts):
        raise DistillSpecError(
            f"{len(prompts) - chats} of {len(prompts)} prompts are plain text, and the chat API "
            "takes messages",
            where="pair.endpoint.api=chat",
            fix="set pair.endpoint.api=completions, provide `messages` in the data, or make each "
            "prompt a user's message: data.source.as_chat=if-template (the draft's tokenizer needs "
            "a chat template)",
        )
