"""The exception base of all four packages, and the errors that searching itself can raise.

Every error that a person can cause is an ``AutotuneError``: its text says what was given, what was
expected and what to do, in one or two lines; the command line prints it without a traceback and exits
with ``exit_code``. Each class of error has a code of its own, listed in ``docs/reference/errors.md``.
"""


class AutotuneError(Exception):
    """Base of all errors that are shown to people as a message instead of a traceback."""

    exit_code = 1


class InvalidCandidate(AutotuneError):
    """A sequence of decisions that the space does not allow, or that TVM refuses to apply."""

    exit_code = 3


class UnsupportedWorkload(AutotuneError):
    """A kernel for which no space can be generated."""

    exit_code = 4


def last_line(error: BaseException) -> str:
    """The last line of an error's text, where compilers and importers put what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
