"""What is sent to a target behind an API for one prompt: what the draft will be trained after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Literal, NamedTuple

from distillspec.corpus.sources.passage import Messages, Tools
from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.sources.tokenizing import Encoder, PromptText, Tokenizer
from distillspec.errors import DistillSpecError
from distillspec.models.vocabulary.detokenize import decoded
from distillspec.runtime.seeds import derive_seed

Api = Literal["completions", "chat"]


class Question(NamedTuple):
    """A text, or a chat's messages and the tools that it may call. key: of its prompt. prompt: as
    the draft reads it; None where that is not known.
    """

    key: str
    content: str | Messages
    prompt: PromptText | None = None
    tools: Tools | None = None

    @property
    def tokens(self) -> int | None:
        """How many the draft reads it as."""
        return None if self.prompt is None else len(self.prompt.tokens)

    @property
    def is_chat(self) -> bool:
        return not isinstance(self.content, str)

    def digest(self) -> str:
        """Of the content, 16 hexadecimal digits: a key may come to stand for another text."""
        asked = [self.content, self.tools] if self.tools else self.content
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

    def seed(self, seed: int, attempt: int) -> int:
        """In [0, 2**31), another for every try: the same would bring the same nonsense."""
        return derive_seed(seed, "question", self.key, attempt) >> 32


def questions(prompts: Sequence[Prompt], api: Api, tokenizer: Tokenizer) -> list[Question]:
    """One for each prompt: its messages, or the text of its tokens.

    A prompt that lost its beginning is sent without it, so that target and draft see the same; what
    the tokenizer puts before a text is left to the server, which does that too.

    Errors: chats that would be sent as text, and texts that would be sent as chats.
    """
    check_fits(prompts, api)
    if api == "chat":
        return [
            Question(p.key, p.messages, _read(p), p.tools)
            for p in prompts
            if p.messages is not None
        ]
    before = len(Encoder(tokenizer).prefix)
    return [
        Question(
            p.key,
            p.text if p.kind == "plain" else decoded(tokenizer, p.tokens[before:]),
            _read(p),
        )
        for p in prompts
    ]


def _read(prompt: Prompt) -> PromptText:
    return PromptText(prompt.text, prompt.tokens, prompt.kind not in ("plain", "chat"))


def check_fits(prompts: Sequence[Prompt], api: Api) -> None:
    """DistillSpecError where the API would show the target other tokens than the draft sees."""
    chats = sum(p.messages is not None for p in prompts)
    if api == "completions" and chats:
        raise DistillSpecError(
            f"{chats} of {len(prompts)} prompts are chats, and completions are asked with text",
            where="pair.endpoint.api=completions",
            fix="set pair.endpoint.api=chat: then the server's own template renders them",
        )
    if api == "chat" and chats < len(prompts):
        raise DistillSpecError(
            f"{len(prompts) - chats} of {len(prompts)} prompts are plain text, and a chat is asked "
            "with messages",
            where="pair.endpoint.api=chat",
            fix="set pair.endpoint.api=completions, give `messages` in the data, or make each "
            "prompt a user's message: data.source.as_chat=if-template (the draft's tokenizer needs "
            "a chat template)",
        )
