"""The straight path from data (t = 0) to noise (t = 1) and its velocity (Kaleido eq. 2)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Sampling never asks the network at an exact end of the path (section 3.2.3: steps 1 to 999 of 1000).
TIME_RANGE = (0.001, 0.999)


def _expand(t: Tensor, like: Tensor) -> Tensor:
    return t.reshape(*t.shape, *(1,) * (like.ndim - t.ndim))


def interpolate(
    data: Float[Tensor, "*batch c h w"], noise: Float[Tensor, "*batch c h w"], t: Tensor
) -> Float[Tensor, "*batch c h w"]:
    """``z_t = (1 - t) z + t noise``; ``t`` has any number of the leading axes."""
    return torch.lerp(data, noise, _expand(t, data))


def velocity(data: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``dz_t / dt = noise - data``."""
    return noise - data


def data_from_velocity(z_t: Float[Tensor, "*shape"], v: Float[Tensor, "*shape"], t: Tensor) -> Float[Tensor, "*shape"]:
    """The data that a velocity at ``(z_t, t)`` points away from: ``z_t - t v``."""
    return z_t - _expand(t, z_t) * v


def noise_from_velocity(z_t: Float[Tensor, "*shape"], v: Float[Tensor, "*shape"], t: Tensor) -> Float[Tensor, "*shape"]:
    """The noise that a velocity at ``(z_t, t)`` points to: ``z_t + (1 - t) v``."""
    return z_t + (1 - _expand(t, z_t)) * v


def velocity_from_data(
    z_t: Float[Tensor, "*shape"], data: Float[Tensor, "*shape"], t: Tensor
) -> Float[Tensor, "*shape"]:
    """The velocity ``(z_t - data) / t`` that goes with a prediction of the data; ``t`` must not be 0."""
    return (z_t - data) / _expand(t, z_t)


def masked_mean_square(
    prediction: Float[Tensor, "batch views c h w"],
    target: Float[Tensor, "batch views c h w"],
    counts: Bool[Tensor, "batch views"],
    weight: Float[Tensor, "batch views"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error over the views that count; the others get no gradient.

    Args:
        prediction: What the network says.
        target: What it should say.
        counts: True for unmasked targets.
        weight: Factor of each view (1 if None).
    """
    per_view = (prediction.float() - target.float()).square().mean(dim=(-3, -2, -1))
    if weight is not None:
        per_view = per_view * weight
    return torch.where(counts, per_view, torch.zeros_like(per_view)).sum() / counts.sum().clamp_min(1)
