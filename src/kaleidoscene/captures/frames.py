"""One image of a capture with what the files say of its camera, and the points of a scene."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Float, UInt8
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.distortion import Distortion


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a capture with what the files say of its camera, unchanged.

    Attributes:
        image: The image, or the video that it is in.
        image_size: ``(height, width)`` that the camera belongs to; None if nothing says it and the image is missing.
        world_from_cam: OpenCV axes, world units; None without a pose.
        intrinsics: Pixels of the image as it lies on disk; None if the focal length is not known.
        distortion: Of the lens.
        mask: Image that is white where the object is (or what may be used).
        depth: 16-bit image of distances along the optical axis; times ``depth_scale`` they are world units.
        depth_scale: World units per level of ``depth``.
        bounds: Nearest and farthest depth of what is seen, world units.
        time: Seconds since the start of a video.
        position: Number of the frame in a video, None for image files.
        upright: Whether the EXIF orientation of the image is to be applied before the camera fits.
        interpolated: Whether it was put between others: nothing is scored against it.
        guessed_focal: Whether nothing says the focal length of ``intrinsics``, and a usual one was taken.
    """

    image: Path
    image_size: tuple[int, int] | None
    world_from_cam: Float[Tensor, "4 4"] | None = None
    intrinsics: Float[Tensor, "3 3"] | None = None
    distortion: Distortion = Distortion()
    mask: Path | None = None
    depth: Path | None = None
    depth_scale: float = 0.001
    bounds: tuple[float, float] | None = None
    time: float | None = None
    position: int | None = None
    upright: bool = True
    interpolated: bool = False
    guessed_focal: bool = False

    @property
    def name(self) -> str:
        """File name, with the frame number of a video."""
        return self.image.name if self.position is None else f"{self.image.name}#{self.position}"

    def camera(self) -> tuple[Float[Tensor, "4 4"], Float[Tensor, "3 3"], tuple[int, int]]:
        """Pose, intrinsics and image size, all of which are known.

        Raises:
            KaleidosceneError: One of them is not.
        """
        if self.world_from_cam is None or self.intrinsics is None or self.image_size is None:
            raise KaleidosceneError(
                f"{self.image}: {self.name} has no camera; estimate it with 'kaleidoscene pose' first."
            )
        return self.world_from_cam, self.intrinsics, self.image_size

    @property
    def is_posed(self) -> bool:
        """Whether it has a pose and a focal length."""
        return self.world_from_cam is not None and self.intrinsics is not None


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points of a scene, world units.

    Attributes:
        positions: In the world.
        colours: 8 bits.
        normals: Unit vectors away from the surface.
        confidence: How sure a point is, in units of whoever told it.
    """

    positions: Float[Tensor, "points 3"]
    colours: UInt8[Tensor, "points 3"] | None = None
    normals: Float[Tensor, "points 3"] | None = None
    confidence: Float[Tensor, " points"] | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def moved(self, world: Float[Tensor, "4 4"]) -> PointCloud:
        """Positions and normals in another world, by a rigid transform."""
        turn, offset = world[:3, :3].T.to(self.positions), world[:3, 3].to(self.positions)
        normals = None if self.normals is None else self.normals @ turn
        return replace(self, positions=self.positions @ turn + offset, normals=normals)
