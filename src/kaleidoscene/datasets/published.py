"""Mixtures of data sets as papers print them: the weight of every set, and by which reader it comes to shards here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kaleidoscene.errors import KaleidosceneError, unknown_name


@dataclass(frozen=True)
class PublishedSet:
    """A data set of a mixture.

    Attributes:
        weight: Share of the scenes that are drawn, in percent, however many the set has.
        reader: Format by which 'kaleidoscene convert --to shards' reads it; None: there is none here.
    """

    weight: float
    reader: str | None = None


MIXTURES: dict[str, dict[str, PublishedSet]] = {
    "rae3d": {
        "co3d": PublishedSet(7.1, "co3d"),
        "wildrgbd": PublishedSet(5.1),
        "arkitscenes": PublishedSet(13.2, "arkitscenes"),
        "scannet": PublishedSet(6.3, "scannet"),
        "scannet++": PublishedSet(3.4),
        "taskonomy": PublishedSet(4.2),
        "hm3d": PublishedSet(4.7),
        "hypersim": PublishedSet(5.0),
        "re10k": PublishedSet(17.3, "re10k"),
        "waymo": PublishedSet(6.3),
        "mapillary": PublishedSet(0.6),
        "virtual-kitti": PublishedSet(0.7),
        "mvs-synth": PublishedSet(0.6),
        "dl3dv": PublishedSet(8.4, "transforms"),
        "blendedmvg": PublishedSet(5.3),
        "megadepth": PublishedSet(0.6),
        "tartanair": PublishedSet(3.9),
        "imagenet": PublishedSet(8.4),
    },
}
"""``rae3d``: 3DRAE and 3DDiT, Table 7; the numbers there sum up to 101.1, and ImageNet is for single images alone."""


def published_weights(mixture: str, folders: Sequence[str | Path]) -> tuple[float, ...]:
    """Weights of folders of shards that are named as the sets of a mixture are.

    Args:
        mixture: One of :data:`MIXTURES`.
        folders: Folders or addresses; the last part of each is the name of its set.

    Raises:
        KaleidosceneError: There is no such mixture or set, no reader of the set, or a set is named twice.
    """
    if mixture not in MIXTURES:
        raise unknown_name("mixture", mixture, MIXTURES)
    sets = MIXTURES[mixture]
    names = [str(folder).rstrip("/").rpartition("/")[2].lower() for folder in folders]
    for number, name in enumerate(names):
        if name not in sets:
            raise unknown_name(f"set of the mixture {mixture}", name, sets)
        if sets[name].reader is None:
            able = ", ".join(known for known, one in sets.items() if one.reader is not None)
            raise KaleidosceneError(
                f"{folders[number]}: {name} has {sets[name].weight} % of the mixture {mixture}, and no reader here "
                f"makes shards of it; those of {able} do. --weights takes any numbers."
            )
        if name in names[:number]:
            raise KaleidosceneError(f"{folders[number]}: the set {name} is named twice.")
    return tuple(sets[name].weight for name in names)
