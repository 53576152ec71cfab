"""What a check found: well, doubtful or broken, and what to do about it; a check that crashes is broken, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Literal, ParamSpec

from model.errors import CardiofedError
from tasks.privacy import concealed

Level = Literal["ok", "warning", "failed"]
P = ParamSpec("P")


@dataclass(frozen=True)
class Finding:
    """One check's result; holds no file name and no patient, so that it may be shown to anybody.

    Attributes:
        check: its name.
        level: ``failed`` where the machine cannot take part, ``warning`` where it soon may not.
        said: what was found.
        mend: what to do; empty when all is well.
    """

    check: str
    level: Level
    said: str
    mend: str = ""


def well(said: str) -> Finding:
    """All as it should be."""
    return Finding("", "ok", said)


def doubtful(said: str, mend: str) -> Finding:
    """It works, and somebody should look."""
    return Finding("", "warning", said, mend)


def broken(said: str, mend: str) -> Finding:
    """It does not work."""
    return Finding("", "failed", said, mend)


def named(check: str) -> Callable[[Callable[P, Finding]], Callable[P, Finding]]:
    """Give a check its name, and turn every error of it into a finding.

    Errors about local files and unforeseen ones are told by their kind alone (:func:`tasks.privacy.concealed`).

    Args:
        check: its name.

    Returns:
        A decorator for functions that return a finding without a name.
    """

    def wrap(look: Callable[P, Finding]) -> Callable[P, Finding]:
        @wraps(look)
        def run(*args: P.args, **kwargs: P.kwargs) -> Finding:
            try:
                with concealed():
                    found = look(*args, **kwargs)
            except CardiofedError as error:
                found = broken(" ".join(error.what.split()), error.mend)
            except OSError as error:  # not even errors.log can be written
                said = f"{type(error).__name__}, and errors.log cannot be written"
                found = broken(said, "give the folder to the user who runs this program")
            return replace(found, check=check)

        return run

    return wrap
