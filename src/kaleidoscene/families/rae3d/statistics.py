"""Mean and deviation of tokens, for each slot and channel: what diffusion over them needs (method C.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.checkpoints import weights_digest
from kaleidoscene.serialisation import save_aside

FILE = "statistics.safetensors"
_EPSILON = 1e-5


@dataclass(frozen=True, eq=False)
class TokenStatistics:
    """Of the tokens of many scenes.

    Attributes:
        mean: Of a slot and channel.
        deviation: Likewise, the root of the variance and 1e-5.
    """

    mean: Float[Tensor, "latents width"]
    deviation: Float[Tensor, "latents width"]

    @classmethod
    def of(cls, batches: Iterable[Float[Tensor, "_ latents width"]]) -> TokenStatistics:
        """Measure the tokens of some batches; sums are kept in fp64.

        Raises:
            KaleidosceneError: There are fewer than two scenes.
        """
        count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
        for tokens in batches:
            exact = tokens.double()
            count, total, squares = count + len(exact), total + exact.sum(0), squares + exact.square().sum(0)
        if count < 2:
            raise KaleidosceneError(f"Statistics of tokens need at least 2 scenes, got {count}.")
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(0)
        return cls(mean.float(), (variance + _EPSILON).sqrt().float())

    def enter(self, tokens: Float[Tensor, "batch latents width"]) -> Float[Tensor, "batch latents width"]:
        """Tokens of mean 0 and variance 1."""
        return (tokens - self.mean.to(tokens)) / self.deviation.to(tokens)

    def leave(self, tokens: Float[Tensor, "batch latents width"]) -> Float[Tensor, "batch latents width"]:
        """Inverse of :meth:`enter`."""
        return tokens * self.deviation.to(tokens) + self.mean.to(tokens)

    def save(self, folder: Path) -> None:
        """Write them into the folder of a checkpoint, of whose weights they are."""
        tensors = {"mean": self.mean.contiguous(), "deviation": self.deviation.contiguous()}
        written = save(tensors, {"weights": weights_digest(folder)})
        save_aside(folder / FILE, lambda file: file.write(written))


def read_statistics(folder: Path, shape: tuple[int, int]) -> TokenStatistics:
    """Those of a checkpoint.

    Args:
        folder: Of the checkpoint.
        shape: Tokens and channels of its network.

    Raises:
        KaleidosceneError: They are missing, damaged, of other weights, or of another number of tokens or channels.
    """
    path, command = folder / FILE, f"'python examples/09_token_statistics.py {folder} SHARDS'"
    if not path.is_file():
        raise KaleidosceneError(
            f"{folder}: there are no statistics of its tokens, which diffusion over them needs; make them with "
            f"{command}."
        )
    try:
        with safe_open(path, framework="pt") as file:
            weights = (file.metadata() or {}).get("weights")
            statistics = TokenStatistics(file.get_tensor("mean"), file.get_tensor("deviation"))
    except (OSError, SafetensorError) as error:
        raise KaleidosceneError(f"{path}: not readable as statistics of tokens ({error}).") from error
    if tuple(statistics.mean.shape) != shape or tuple(statistics.deviation.shape) != shape:
        raise KaleidosceneError(
            f"{path}: of {tuple(statistics.mean.shape)} tokens and channels, the model has {shape}."
        )
    if weights != weights_digest(folder):
        raise KaleidosceneError(f"{path}: not of the tokens of the weights beside it; make it anew with {command}.")
    return statistics
