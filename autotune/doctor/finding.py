"""What an examination of the machine finds."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Whether something spoils measurements."""

    OK = "ok"
    WARNING = "warning"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        found: What was found, for people.
        advice: What to do about it, as a command where there is one; empty where there is nothing to do.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def judged(name: str, bad: bool, found: str, advice: str) -> Finding:
    """A warning with advice if ``bad``, else all is well."""
    return Finding(name, State.WARNING, found, advice) if bad else Finding(name, State.OK, found)


def unknown(name: str, found: str, advice: str = "") -> Finding:
    """Something that cannot be told here."""
    return Finding(name, State.UNKNOWN, found, advice)
