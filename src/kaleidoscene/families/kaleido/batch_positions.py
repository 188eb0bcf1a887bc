"""Where the views of a training batch stand in the network's world: as they would when the scene is rendered."""

from __future__ import annotations

import torch

from kaleidoscene.datasets.views import Views
from kaleidoscene.families.kaleido.settings import ScaleFrom
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import SceneNormalisation
from kaleidoscene.nn.positions import ViewPositions


def positions_of(views: Views, scale_from: ScaleFrom, device: torch.device | None = None) -> ViewPositions:
    """Normalised positions of a training batch, world origin = scene origin (open choice E3).

    The scale is what it is when the scene is rendered: scenes whose references are dropped keep that of these.
    """
    video = None if views.times is None else ViewPositions.from_times(views.times)
    if views.cameras is None:
        assert video is not None
        return video
    scene = ViewPositions.from_cameras(normalised(views, scale_from).to(device or views.images.device))
    if video is None:
        return scene
    choose = views.is_video[:, None]
    return ViewPositions(
        torch.where(choose[..., None, None], video.cam_from_world, scene.cam_from_world),
        torch.where(choose[..., None], video.lens, scene.lens),
        torch.where(choose, video.times, scene.times),
        views.is_video,
    )


def normalised(views: Views, scale_from: ScaleFrom) -> Cameras:
    """Cameras ``(batch, views)`` of a training batch in the network's world, as rendering would place them."""
    assert views.cameras is not None
    return world_of(views, scale_from).normalise(views.cameras)


def world_of(views: Views, scale_from: ScaleFrom) -> SceneNormalisation:
    """The network's world of the scenes of a training batch."""
    cameras, n = views.cameras, views.num_references
    assert cameras is not None
    references = views.dropped_cameras if views.dropped_cameras is not None else cameras[:, :n]
    origin = torch.zeros_like(cameras.centres[..., 0, :])
    if scale_from == "references" and references.batch_shape[1]:
        return SceneNormalisation.from_references(references, cameras, origin)
    poses = torch.cat([references.world_from_cam, cameras.world_from_cam], 1)
    lenses = torch.cat([references.intrinsics, cameras.intrinsics], 1)
    return SceneNormalisation.from_references(Cameras(poses, lenses, cameras.image_size), None, origin)
