"""The protocol of a prompt that is measured."""

from __future__ import annotations

from typing import Protocol


class MeasuredPrompt(Protocol):
    """A prompt that is measured; `corpus` makes them."""

    @property
    def key(self) -> str:
        """Its name in the data, the same in every run."""
        ...

    @property
    def tokens(self) -> tuple[int, ...]:
        """Token ids, at least two."""
        ...

    @property
    def text(self) -> str: ...

    @property
    def response(self) -> tuple[int, ...] | None:
        """The reference response of the data, token ids."""
        ...

    @property
    def document(self) -> str:
        """The source document (file, conversation, question) of the prompt.

        The prompt's key if no other prompt has this document.
        """
        ...

    @property
    def category(self) -> str | None:
        """The category of the prompt, if the data has one."""
        ...
