"""The chooser that has made up its mind."""

from __future__ import annotations

from distillspec.speculation.configuration import Configuration


class Fixed:
    """The same configuration every round."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def choose(self) -> Configuration:
        return self._configuration
