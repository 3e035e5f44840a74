"""What a prompt must have to be measured on."""

from __future__ import annotations

from typing import Protocol


class MeasuredPrompt(Protocol):
    """What a prompt must have to be measured on; `corpus` makes them."""

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
        """The reference that the data has for it, token ids."""
        ...

    @property
    def document(self) -> str:
        """The source document (file, conversation, question) that it comes from: its own key where
        no other prompt comes from there.
        """
        ...

    @property
    def category(self) -> str | None:
        """What it is about; None where the data does not say."""
        ...
