"""What the compiler raises: one family, each error a full sentence with its remedy.

`TinyhwError` is the base of everything that the house raises to a user; families of the higher
floors derive from it, because imports only go down.
"""

from __future__ import annotations


class TinyhwError(Exception):
    """Something that went wrong, in a sentence that its reader can act on.

    `detail` says what happened, with the given value beside its limit; `remedy` what to do
    about it (may be empty); `operation` names the call that failed; `device` may be empty.
    `code` stays the same between versions, so that programs can tell errors apart.
    """

    code = "TH000"

    def __init__(
        self, detail: str, *, device: str = "", operation: str = "", remedy: str = ""
    ) -> None:
        self.device, self.operation = device, operation
        self.detail, self.remedy = detail, remedy
        super().__init__(" ".join(part for part in (detail, remedy) if part))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.detail, self.device, self.operation, self.remedy))


def _rebuild(
    kind: type[TinyhwError], detail: str, device: str, operation: str, remedy: str
) -> TinyhwError:
    error = kind.__new__(kind)
    TinyhwError.__init__(error, detail, device=device, operation=operation, remedy=remedy)
    return error


class CompilerError(TinyhwError):
    """A kernel cannot become machine code."""

    code = "KC000"


class InvalidKernel(CompilerError):
    """A kernel or its source text breaks the contract of its level: a fault of the compiler."""

    code = "KC101"


class UnsupportedType(CompilerError):
    """The target has no instructions for an element type."""

    code = "KC102"


class NotDecided(CompilerError, TypeError):
    """A condition on Variables is used as if it were true or false already."""

    code = "KC103"


class NotAnIndex(CompilerError, TypeError):
    """Something else than an integer stands in index arithmetic."""

    code = "KC104"


class ToolMissing(CompilerError):
    """A program or library that compiles is not installed."""

    code = "KC201"


class ToolFailed(CompilerError):
    """A compiler refused its input; `detail` has what it said."""

    code = "KC202"


class MalformedObject(CompilerError):
    """An object file contradicts itself or is cut off."""

    code = "KC301"


class UnsupportedObject(CompilerError):
    """An object file is well-formed but needs something that the loader does not do."""

    code = "KC302"


class UndefinedSymbol(CompilerError):
    """Machine code refers to a function or variable that its object does not have."""

    code = "KC303"


class InvalidSetting(CompilerError):
    """An environment variable has a value that means nothing."""

    code = "KC401"
