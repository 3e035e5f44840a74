"""The one error a user can cause: it says what is wrong, where, and how to mend it."""

from distillspec.text.foreign import visible
from distillspec.text.secret import masked


class DistillSpecError(Exception):
    """A fault in what the user gave us: printed as three lines, without a traceback, exit code 1.

    what: the fault, in one line. where: the file, key, line or command it was found in.
    fix: what to do about it. All three may hold foreign text: control characters are escaped and
    known shapes of secrets are hidden.
    """

    def __init__(self, what: str, *, where: str, fix: str) -> None:
        where = where if where.strip() else repr(where)  # the name of a file may be a space
        self.what, self.where, self.fix = (masked(visible(one)) for one in (what, where, fix))
        super().__init__(self.what)

    def __str__(self) -> str:
        return f"{self.what}\n  where: {self.where}\n  mend:  {self.fix}"

    def __reduce__(self) -> tuple[object, ...]:
        """Keyword-only arguments need this to survive the way back from a worker process."""
        return _rebuild, (self.what, self.where, self.fix)


def _rebuild(what: str, where: str, fix: str) -> DistillSpecError:
    return DistillSpecError(what, where=where, fix=fix)
