"""One thing about a capture that a user should know."""

from dataclasses import dataclass
from typing import Literal

from kaleidoscene.choices import check_choices

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """A fault, or what looks like one.

    Attributes:
        severity: ``error`` (the capture is not to be used so), ``warning`` (the result may suffer) or ``note``.
        kind: Name of the fault, for programs and tests.
        frame: Number of the frame, None if it concerns the whole.
        value: What was found, as a sentence without its full stop.
        effect: What it does to the result.
        remedy: What to do.
    """

    severity: Severity
    kind: str
    frame: int | None
    value: str
    effect: str
    remedy: str

    def __post_init__(self) -> None:
        check_choices(self)
