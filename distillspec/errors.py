"""The one error a user can cause: it names what is wrong, where it is, and how to fix it."""

from distillspec.text.foreign import visible
from distillspec.text.secret import masked


class DistillSpecError(Exception):
    """A fault in what the user gave: printed without a traceback, exit code 1.

    All texts may hold foreign text: control characters are escaped, and known shapes of secrets
    are hidden.

    Attributes:
        what: The fault in one line, with its keys and values.
        where: File, key, line or command that holds the fault.
        fix: The action that removes the fault.
        why: The reason of the rule that was broken; None where `what` gives it.
    """

    def __init__(self, what: str, *, where: str, fix: str, why: str | None = None) -> None:
        where = where if where.strip() else repr(where)  # the name of a file may be a space
        self.what, self.where, self.fix = (masked(visible(text)) for text in (what, where, fix))
        self.why = None if why is None else masked(visible(why))
        super().__init__(self.what)

    def __str__(self) -> str:
        lines = f"{self.what}\n  where: {self.where}\n  fix:   {self.fix}"
        return lines if self.why is None else f"{lines}\n  why:   {self.why}"

    def __reduce__(self) -> tuple[object, ...]:
        """Keyword-only arguments need this to survive the way back from a worker process."""
        return _rebuild, (self.what, self.where, self.fix, self.why)


def _rebuild(what: str, where: str, fix: str, why: str | None) -> DistillSpecError:
    return DistillSpecError(what, where=where, fix=fix, why=why)
