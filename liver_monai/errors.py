"""The one exception a user of the command line is meant to read, and how its message is put."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence

OF_DISKS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO))
"""What the operating system says of a place that is full, or may not be written to."""


class InputError(ValueError):
    """Input that cannot be used; the message names the file or field, the value, the rule and the way out."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``", did you mean 'X'?"`` with the known name closest to a misspelt one, or nothing when none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean '{matches[0]}'?" if matches else ""


def some(names: Sequence[str], *, most: int) -> str:
    """The first names of a list, and how many more there are: ``"a, b and 3 more"``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def root_cause(error: BaseException) -> BaseException:
    """What went wrong first, or the ``InputError`` that tells it, below the errors that libraries wrap around it."""
    while error.__cause__ is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


def one_line(error: BaseException) -> str:
    """What an error says, in one line: its root cause where a library has wrapped it in words of its own."""
    error = root_cause(error)
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
