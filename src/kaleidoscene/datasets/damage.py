"""How much may be damaged before a run stops."""

# So many are looked at before a share of them means anything: the first of all may be the one that is damaged.
_FEWEST = 10_000


def allowed_damage(share: float, seen: int, stored: int) -> float:
    """How many of those seen so far may have been damaged.

    Args:
        share: Of them all.
        seen: How many have been tried.
        stored: How many there are; a small set counts as a whole from the start.
    """
    return share * max(seen, min(stored, _FEWEST))
