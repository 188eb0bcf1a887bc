"""Which view may attend to which: boolean, True = may attend, rows are queries."""

import torch
from jaxtyping import Bool
from torch import Tensor


def view_visibility(
    present: Bool[Tensor, "batch views"], num_references: int, *, causal: bool
) -> Bool[Tensor, "batch views views"]:
    """Visibility from the views that are there and from the direction of attention.

    Every view sees itself, so that the softmax of a hidden view stays defined; nobody else sees it.

    Args:
        present: False hides a view from everybody (ragged batches, random attention masking of section 3.2.1 (iii)).
        num_references: The first views of every scene are the references.
        causal: References see references only, as their cache demands.
    """
    views = present.shape[1]
    visible = present[:, None, :].expand(-1, views, -1)
    if causal:
        is_target = torch.arange(views, device=present.device) >= num_references
        visible = visible & (is_target[:, None] | ~is_target[None, :])
    return visible | torch.eye(views, dtype=torch.bool, device=present.device)
