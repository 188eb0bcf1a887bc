"""A capture: images and cameras of one object or place, as they lie on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.captures.findings import Finding
from kaleidoscene.captures.frame_files import frame_size, read_alpha, read_frame_depth, read_mask, read_pixels
from kaleidoscene.captures.frames import Frame, PointCloud
from kaleidoscene.captures.framing import Framing, common_size, framing
from kaleidoscene.choices import check_choices
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.origin import scene_origin
from kaleidoscene.geometry.upright import rotation_between
from kaleidoscene.geometry.view import Z_UP, mean_up
from kaleidoscene.images.files import read_thumbnail
from kaleidoscene.images.notebook import pictures_html
from kaleidoscene.images.undistortion import pinhole_of, undistort_image

Centred = Literal["object", "scene"]
_SHOWN = 24


@dataclass(frozen=True, eq=False)
class Capture:
    """Images of one scene; they are read when they are asked for.

    Frames keep what the files say. :attr:`cameras` and :meth:`images` are made from them: pinholes of one image size,
    undistorted; where sizes differ much larger ones are reduced, and all are cropped about their middle.

    Attributes:
        name: For messages and file names.
        format: The format it was read as.
        root: Folder or file it was read from.
        frames: One image each.
        centred: ``object``: the world's origin is the middle of the object, which is small in front of a plain
            background; ``scene``: the origin means nothing.
        centre: Of a scene, if it is known from more views than these; see :meth:`origin`.
        upward: Likewise; see :meth:`up`.
        stands: Likewise; see :meth:`standpoints`.
        points: Points of the scene, where the files have some.
        notes: What the reader decided, left out or estimated.
        findings: What the reader found fault with.
    """

    name: str
    format: str
    root: Path
    frames: tuple[Frame, ...]
    centred: Centred = "scene"
    centre: Float[Tensor, " 3"] | None = None
    upward: Float[Tensor, " 3"] | None = None
    stands: Float[Tensor, "all_views 3"] | None = None
    points: PointCloud | None = None
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        check_choices(self)

    @classmethod
    def of_images(
        cls, name: str, format: str, root: Path, images: Sequence[Path], cameras: Cameras, *, centred: Centred
    ) -> Capture:
        """A capture of image files with one pinhole camera each.

        Raises:
            KaleidosceneError: Images and cameras do not match in number.
        """
        if len(images) != len(cameras):
            raise KaleidosceneError(f"{name}: {len(images)} images and {len(cameras)} cameras do not match in number.")
        poses, intrinsics = cameras.world_from_cam.double(), cameras.intrinsics.double()
        frames = tuple(
            Frame(image, cameras.image_size, pose, matrix)
            for image, pose, matrix in zip(images, poses, intrinsics, strict=True)
        )
        return cls(name, format, root, frames, centred)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, which: SupportsIndex | slice | Iterable[SupportsIndex]) -> Capture:
        return self.select(range(len(self))[which] if isinstance(which, slice) else which)

    def __iter__(self) -> Iterator[Capture]:
        return (self.select(number) for number in range(len(self)))

    def __repr__(self) -> str:
        h, w = self.common_size
        return f"Capture({self.name!r}, {self.format}, {len(self)} views of {h}x{w}{', posed' * self.is_posed})"

    def _repr_html_(self) -> str:
        shown = [frame for frame in self.frames if frame.position is None][:_SHOWN]
        return pictures_html(repr(self), [read_thumbnail(f.image, 96, upright=f.upright) for f in shown])

    @property
    def image_paths(self) -> tuple[Path, ...]:
        """The file of every frame."""
        return tuple(frame.image for frame in self.frames)

    @property
    def is_posed(self) -> bool:
        """Whether all frames have cameras."""
        return all(frame.is_posed for frame in self.frames)

    @cached_property
    def common_size(self) -> tuple[int, int]:
        """Smallest height and smallest width of the frames, much larger ones reduced."""
        return common_size(self._sizes)

    @cached_property
    def _sizes(self) -> tuple[tuple[int, int], ...]:
        return tuple({frame_size(frame) for frame in self.frames})

    @property
    def cameras(self) -> Cameras:
        """Pinhole cameras ``(views,)`` of :meth:`images`, fp32.

        Raises:
            KaleidosceneError: A frame has no camera, or a bad one.
        """
        return self._single_cameras

    @cached_property
    def _single_cameras(self) -> Cameras:
        return self.exact_cameras.to(torch.float32)

    @cached_property
    def exact_cameras(self) -> Cameras:
        """:attr:`cameras` in double precision."""
        poses, matrices = [], []
        for number, frame in enumerate(self.frames):
            if frame.world_from_cam is None or frame.intrinsics is None:
                missing = "pose" if frame.world_from_cam is None else "focal length"
                raise KaleidosceneError(
                    f"{self.name}: frame {number} ({frame.name}) has no {missing}; estimate cameras with "
                    "'kaleidoscene pose' first."
                )
            poses.append(frame.world_from_cam.double())
            pinhole = pinhole_of(frame.intrinsics.double(), frame.distortion, frame_size(frame))
            matrices.append(self.framing(frame).matrix @ pinhole)
        try:
            return Cameras(torch.stack(poses), torch.stack(matrices), self.common_size)
        except KaleidosceneError as error:
            raise KaleidosceneError(f"{self.name}: {error}") from error

    def framing(self, frame: Frame) -> Framing:
        """What of a frame is seen at the common size."""
        return framing(frame_size(frame), self._sizes)

    def select(self, indices: SupportsIndex | Iterable[SupportsIndex]) -> Capture:
        """The views at ``indices``, in that order; one number is one view.

        Raises:
            KaleidosceneError: An index is out of range, or there are none.
        """
        # Arrays have an __index__, too, whatever their size.
        alone = isinstance(indices, SupportsIndex) and not getattr(indices, "ndim", 0)
        chosen = [int(number) for number in ([indices] if alone else indices)]  # pyright: ignore[reportGeneralTypeIssues]
        if not chosen:
            raise KaleidosceneError(f"{self.name}: no views were chosen.")
        for index in chosen:
            if not -len(self) <= index < len(self):
                raise KaleidosceneError(
                    f"{self.name}: view {index} is out of range, the capture has views 0 to {len(self) - 1}."
                )
        frames = tuple(self.frames[index] for index in chosen)
        if not self.is_posed:
            return replace(self, frames=frames)
        return replace(self, frames=frames, centre=self.origin(), upward=self.up(), stands=self.standpoints())

    def recentred(self) -> Capture:
        """The capture with :meth:`origin` at the world's origin."""
        move = torch.eye(4, dtype=torch.float64)
        move[:3, 3] = -self.origin().double()
        return replace(self._moved(move), centre=torch.zeros(3))

    def upright(self) -> Capture:
        """The capture in the world of its object: :meth:`origin` at the world's origin, :meth:`up` its z axis."""
        turn = torch.eye(4, dtype=torch.float64)
        turn[:3, :3] = rotation_between(self.up().double(), torch.tensor(Z_UP, dtype=torch.float64))
        return replace(self.recentred()._moved(turn), centred="object", upward=None)

    def _moved(self, world: Float[Tensor, "4 4"]) -> Capture:
        """Frames, points and standpoints in another world."""

        def moved(frame: Frame) -> Frame:
            assert frame.world_from_cam is not None
            return replace(frame, world_from_cam=world @ frame.world_from_cam.double())

        stands = self.standpoints().double() @ world[:3, :3].T + world[:3, 3]
        points = self.points and self.points.moved(world)
        return replace(self, frames=tuple(map(moved, self.frames)), points=points, stands=stands)

    def images(self, *, masked: bool = False, only: Sequence[int] | None = None) -> Float[Tensor, "views 3 h w"]:
        """All images as :attr:`cameras` see them, RGB in [0, 1], on white where they are transparent.

        Args:
            masked: Lay masks on white as well; every frame must have one.
            only: Some frames by number; None is all.

        Raises:
            KaleidosceneError: An image is missing, truncated, or of another size than its camera says.
        """
        frames = self._chosen(only)
        images = read_pixels(frames)
        if masked:
            masks = [read_mask(frame) for frame in frames]
            images = [image * mask + (1 - mask) for image, mask in zip(images, masks, strict=True)]
        return torch.stack([self._as_seen(frame, image) for frame, image in zip(frames, images, strict=True)])

    def alphas(self, *, only: Sequence[int] | None = None) -> Float[Tensor, "views h w"] | None:
        """Opacity of the images as :attr:`cameras` see them, None if none of them has an alpha channel.

        Args:
            only: Some frames by number; None is all.
        """
        frames = self._chosen(only)
        alphas = [read_alpha(frame) for frame in frames]
        if all(alpha is None for alpha in alphas):
            return None
        planes = [
            self._as_seen(frame, torch.ones(1, *frame_size(frame)) if alpha is None else alpha)
            for frame, alpha in zip(frames, alphas, strict=True)
        ]
        return torch.cat(planes)

    def depths(self, *, only: Sequence[int] | None = None) -> Float[Tensor, "views h w"]:
        """Depth maps as :attr:`cameras` see them, world units, 0 where unknown; not interpolated.

        Args:
            only: Some frames by number; None is all.

        Raises:
            KaleidosceneError: A frame has none, or it is not of the shape of its image.
        """
        frames = self._chosen(only)
        return torch.cat([self._as_seen(frame, read_frame_depth(frame), mode="nearest") for frame in frames])

    def masks(self, *, only: Sequence[int] | None = None) -> Float[Tensor, "views 1 h w"]:
        """Masks as :attr:`cameras` see them, 1 where the object is.

        Args:
            only: Some frames by number; None is all.

        Raises:
            KaleidosceneError: A frame has none, or it is not as large as its image.
        """
        return torch.stack([self._as_seen(frame, read_mask(frame)) for frame in self._chosen(only)])

    def _chosen(self, only: Sequence[int] | None) -> Sequence[Frame]:
        return self.frames if only is None else [self.frames[number] for number in only]

    def _as_seen(
        self, frame: Frame, image: Float[Tensor, "c h w"], *, mode: Literal["bilinear", "nearest"] = "bilinear"
    ) -> Float[Tensor, "c nh nw"]:
        """An image of a frame undistorted and brought to the common size."""
        if frame.intrinsics is not None:
            pinhole = pinhole_of(frame.intrinsics, frame.distortion, frame_size(frame))
            image = undistort_image(image, frame.intrinsics, frame.distortion, pinhole, mode=mode)
        return self.framing(frame).seen(image, mode=mode)

    def origin(self) -> Float[Tensor, " 3"]:
        """The point that networks take as origin, in world units; a selection keeps it.

        The object's middle, or what the cameras of the whole capture, its points and depth bounds tell
        (:func:`kaleidoscene.geometry.origin.scene_origin`).
        """
        if self.centre is not None:
            return self.centre
        return torch.zeros(3) if self.centred == "object" else self._scene_origin

    @cached_property
    def _scene_origin(self) -> Float[Tensor, " 3"]:
        bounds = [frame.bounds for frame in self.frames if frame.bounds is not None]
        points = None if self.points is None else self.points.positions
        return scene_origin(self.cameras, points=points, bounds=bounds if len(bounds) == len(self) else None)

    def up(self) -> Float[Tensor, " 3"]:
        """The direction that counts as up, in world axes.

        z where the world is that of an object, else the mean of all cameras' own, laid on a world axis that is within
        30 degrees of it.
        """
        if self.upward is not None:
            return self.upward
        return torch.tensor(Z_UP) if self.centred == "object" else mean_up(self.cameras)

    def standpoints(self) -> Float[Tensor, "all_views 3"]:
        """Where the cameras of the whole capture stand, world units."""
        return self.exact_cameras.centres if self.stands is None else self.stands
