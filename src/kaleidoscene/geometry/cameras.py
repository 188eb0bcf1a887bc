"""Pinhole cameras: a batched, frozen value that is checked when it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.poses import invert

# Files carry poses with 4 to 7 digits; a matrix further off than this is not a rotation that was rounded.
_RIGID_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Cameras:
    """Any batch of pinhole cameras with one image size.

    OpenCV axes (x right, y down, z forward), pixel centres at +0.5. See docs/conventions.md.

    Attributes:
        world_from_cam: Rigid camera-to-world transforms, in world units.
        intrinsics: Pinhole matrices, in pixels of an image of ``image_size``.
        image_size: ``(height, width)`` of the images the intrinsics belong to.

    Raises:
        KaleidosceneError: A camera is not rigid, not finite or has no focal length; the message names its index.
    """

    # "..." and not one batch for both: that they agree is checked below, with a message for users.
    world_from_cam: Float[Tensor, "... 4 4"]
    intrinsics: Float[Tensor, "... 3 3"]
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        poses, intrinsics = self.world_from_cam, self.intrinsics
        if poses.shape[-2:] != (4, 4) or intrinsics.shape[-2:] != (3, 3):
            shapes = f"{list(poses.shape)} and {list(intrinsics.shape)}"
            raise KaleidosceneError(f"Cameras need 4x4 poses and 3x3 intrinsics, got {shapes}.")
        if poses.shape[:-2] != intrinsics.shape[:-2]:
            raise KaleidosceneError(
                f"Poses and intrinsics do not match in number: {list(poses.shape[:-2])} poses, "
                f"{list(intrinsics.shape[:-2])} intrinsics."
            )
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise KaleidosceneError(f"Image size must be two positive numbers (height, width), got {self.image_size}.")
        if fault := pose_fault(poses) or intrinsics_fault(intrinsics):
            raise KaleidosceneError(f"Camera {fault.index}: {fault.text}.")

    @classmethod
    def from_field_of_view(
        cls,
        world_from_cam: Float[Tensor, "*batch 4 4"],
        field_of_view: float | Float[Tensor, "*batch"],
        image_size: tuple[int, int],
    ) -> Cameras:
        """Cameras with square pixels, a centred principal point and a full vertical angle in radians (one, or each)."""
        h, w = image_size
        focal = 0.5 * h / torch.tan(0.5 * torch.as_tensor(field_of_view, dtype=torch.float64))
        matrix = torch.tensor([[0.0, 0.0, w / 2], [0.0, 0.0, h / 2], [0.0, 0.0, 1.0]]).to(world_from_cam)
        matrix = matrix.expand(*world_from_cam.shape[:-2], 3, 3).clone()
        matrix[..., 0, 0] = matrix[..., 1, 1] = focal.to(world_from_cam)
        return cls(world_from_cam, matrix, image_size)

    @classmethod
    def stack(cls, cameras: Sequence[Cameras]) -> Cameras:
        """Stack along a new first axis."""
        return cls._join(cameras, torch.stack)

    @classmethod
    def concatenate(cls, cameras: Sequence[Cameras]) -> Cameras:
        """Join along the first axis."""
        return cls._join(cameras, torch.cat)

    @classmethod
    def _join(cls, cameras: Sequence[Cameras], join) -> Cameras:
        sizes = {camera.image_size for camera in cameras}
        if len(sizes) != 1:
            raise KaleidosceneError(
                f"Cameras of different image sizes cannot be joined: {sorted(sizes)}; resize them first."
            )
        poses = join([camera.world_from_cam for camera in cameras])
        return cls(poses, join([camera.intrinsics for camera in cameras]), cameras[0].image_size)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch, without the matrix axes."""
        return tuple(self.world_from_cam.shape[:-2])

    @property
    def cam_from_world(self) -> Float[Tensor, "*batch 4 4"]:
        """World-to-camera transforms, in closed form."""
        return invert(self.world_from_cam)

    @property
    def centres(self) -> Float[Tensor, "*batch 3"]:
        """Camera centres in world axes and units."""
        return self.world_from_cam[..., :3, 3]

    @property
    def directions(self) -> Float[Tensor, "*batch 3"]:
        """Unit viewing directions (the optical axes) in world axes."""
        return self.world_from_cam[..., :3, 2]

    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError("A single camera has no length.")
        return self.batch_shape[0]

    def __getitem__(self, index) -> Cameras:
        """Index the batch axes, as a tensor is indexed."""
        return replace(self, world_from_cam=self.world_from_cam[index], intrinsics=self.intrinsics[index])

    def reshape(self, *batch: int) -> Cameras:
        """Reshape the batch axes."""
        return replace(
            self,
            world_from_cam=self.world_from_cam.reshape(*batch, 4, 4),
            intrinsics=self.intrinsics.reshape(*batch, 3, 3),
        )

    def to(self, target: torch.device | torch.dtype | str | Tensor) -> Cameras:
        """Move to a device or a floating dtype."""
        return replace(self, world_from_cam=self.world_from_cam.to(target), intrinsics=self.intrinsics.to(target))

    def crop(self, top: int, left: int, height: int, width: int) -> Cameras:
        """Cameras of the image ``[top:top+height, left:left+width]``; the principal point moves, the focal stays."""
        intrinsics = self.intrinsics.clone()
        intrinsics[..., 0, 2] -= left
        intrinsics[..., 1, 2] -= top
        return replace(self, intrinsics=intrinsics, image_size=(height, width))

    def resize(self, height: int, width: int) -> Cameras:
        """Cameras of the resampled image; focal and principal point scale with each axis."""
        old_height, old_width = self.image_size
        scale = self.intrinsics.new_tensor([width / old_width, height / old_height, 1.0])
        return replace(self, intrinsics=scale[:, None] * self.intrinsics, image_size=(height, width))


@dataclass(frozen=True)
class CameraFault:
    """What is wrong with a camera.

    Attributes:
        index: Of the first bad camera of the batch, as text.
        kind: One word for programs: ``not-finite``, ``last-row``, ``not-rigid``, ``mirrored`` or ``focal``.
        text: For people, without the index.
    """

    index: str
    kind: str
    text: str


def _first(bad: Tensor) -> str:
    """The index of the first camera that is bad, as text."""
    index = bad.nonzero()[0].tolist()
    return str(index[0] if len(index) == 1 else index) if index else "0"


def pose_fault(poses: Float[Tensor, "*batch 4 4"]) -> CameraFault | None:
    """The first pose of a batch that is no rigid camera-to-world transform, or None."""
    if not bool((finite := poses.isfinite().all(-1).all(-1)).all()):
        return CameraFault(_first(~finite), "not-finite", "the pose has NaN or infinite entries")
    bottom = poses.new_tensor([0.0, 0.0, 0.0, 1.0])
    if bool((bad := ((poses[..., 3, :] - bottom).abs() > _RIGID_TOLERANCE).any(-1)).any()):
        return CameraFault(_first(bad), "last-row", "the last row of the pose is not (0, 0, 0, 1)")
    rotation = poses[..., :3, :3].double()
    eye = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    error = (rotation @ rotation.mT - eye).abs().amax((-1, -2))
    if bool((bad := ~(error <= _RIGID_TOLERANCE)).any()):
        worst = error[bad].flatten()[0].item()
        text = f"the pose is not rigid, its rotation is {worst:.2g} away from orthonormal (allowed {_RIGID_TOLERANCE})"
        return CameraFault(_first(bad), "not-rigid", text)
    cross = torch.linalg.cross(rotation[..., 0], rotation[..., 1])
    if bool((bad := (cross * rotation[..., 2]).sum(-1) < 0).any()):
        text = "the pose is not rigid, its rotation mirrors (determinant -1)"
        return CameraFault(_first(bad), "mirrored", text)
    return None


def intrinsics_fault(intrinsics: Float[Tensor, "*batch 3 3"]) -> CameraFault | None:
    """The first pinhole matrix of a batch that has no positive focal lengths, or None."""
    if not bool((finite := intrinsics.isfinite().all(-1).all(-1)).all()):
        return CameraFault(_first(~finite), "not-finite", "the intrinsics have NaN or infinite entries")
    focal = intrinsics.diagonal(dim1=-2, dim2=-1)[..., :2]
    if bool((bad := (focal <= 0).any(-1)).any()):
        text = f"the focal length must be positive, got {focal[bad].reshape(-1, 2)[0].tolist()}"
        return CameraFault(_first(bad), "focal", text)
    return None
