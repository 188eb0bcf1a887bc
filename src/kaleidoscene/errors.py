"""What Kaleidoscene raises for the user's eyes."""

import difflib
from collections.abc import Iterable


class KaleidosceneError(ValueError):
    """Bad input: the message is one sentence with what was wrong, where, and what was expected."""


class NoSurface(KaleidosceneError):
    """What was seen has no surface: the answer to a reconstruction, where other errors mean that none was tried."""


class Interrupted(Exception):
    """A signal asked a run to stop; it wrote a checkpoint, and the same command goes on."""

    exit_code = 75
    """The one of its own that a cluster's scripts can tell from failure (EX_TEMPFAIL: try again)."""


class Failed(Exception):
    """A verb has printed what it found, and the answer is no: exit code 1 without a further message."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> KaleidosceneError:
    """Return the error for a name that is not known, with the nearest known one.

    Args:
        kind: What the name stands for, for example ``"recipe"``.
        name: The name that was given.
        known: All names that would have been right.
    """
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(options)}."
    return KaleidosceneError(f"Unknown {kind} {name!r}: {hint}")
