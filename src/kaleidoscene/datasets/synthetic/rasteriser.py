"""Rasterise textured meshes with OpenGL: colour, coverage and depth from exact pinhole cameras.

Runs without a screen or a graphics card (EGL with a software driver); benchmarks/render_speed.md has the speed and
why it was preferred to ray casting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from kaleidoscene.datasets.synthetic.lighting import Lighting
from kaleidoscene.datasets.synthetic.mesh import TexturedMesh
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras

NEAR, FAR = 0.05, 50.0

_VERTEX = """
#version 330
uniform mat4 clip_from_world;
uniform mat4 cam_from_world;
in vec3 position; in vec3 normal; in vec2 uv;
out vec3 world; out vec3 world_normal; out vec2 texcoord; out float depth;
void main() {
    gl_Position = clip_from_world * vec4(position, 1.0);
    world = position; world_normal = normal; texcoord = uv;
    depth = (cam_from_world * vec4(position, 1.0)).z;
}
"""

_COLOUR = """
#version 330
uniform sampler2D image;
uniform vec3 centre;
uniform float ambient;
uniform int num_lights;
uniform vec3 light_direction[4];
uniform vec3 light_colour[4];
uniform float specular;
uniform float shininess;
in vec3 world; in vec3 world_normal; in vec2 texcoord; in float depth;
out vec4 colour;
void main() {
    vec3 albedo = texture(image, texcoord).rgb;
    vec3 view = normalize(centre - world);
    vec3 n = normalize(world_normal);
    if (dot(n, view) < 0.0) n = -n;
    vec3 diffuse = vec3(ambient);
    vec3 glint = vec3(0.0);
    for (int i = 0; i < num_lights; i++) {
        float along = max(dot(n, light_direction[i]), 0.0);
        diffuse += light_colour[i] * along;
        vec3 halfway = normalize(light_direction[i] + view);
        glint += light_colour[i] * pow(max(dot(n, halfway), 0.0), shininess) * step(0.001, along);
    }
    colour = vec4(clamp(albedo * diffuse + specular * glint, 0.0, 1.0), 1.0);
}
"""

_DEPTH = """
#version 330
in vec3 world; in vec3 world_normal; in vec2 texcoord; in float depth;
out float colour;
void main() { colour = depth; }
"""


@dataclass(frozen=True, eq=False)
class Renders:
    """What the rasteriser saw.

    Attributes:
        rgba: 8-bit colour with straight alpha; alpha is the share of the pixel that the object covers.
        depth: Distance along the optical axis in world units, 0 where there is nothing; None if not asked for.
    """

    rgba: UInt8[np.ndarray, "views h w 4"]
    depth: Float[np.ndarray, "views h w"] | None


class Rasteriser:
    """An OpenGL context with the buffers for images of one size; one for each process and size."""

    def __init__(self, image_size: tuple[int, int], *, supersampling: int = 3) -> None:
        self.image_size = image_size
        self.supersampling = supersampling
        self.context: Any = _make_context()
        self.colour_program = self.context.program(vertex_shader=_VERTEX, fragment_shader=_COLOUR)
        self.depth_program = self.context.program(vertex_shader=_VERTEX, fragment_shader=_DEPTH)
        h, w = (side * supersampling for side in image_size)
        # Plain supersampling: multisampled buffers cost the software driver up to 100 times as much to resolve.
        self.fine = self.context.framebuffer(
            self.context.renderbuffer((w, h), 4), self.context.depth_renderbuffer((w, h))
        )
        h, w = image_size
        self.distance = self.context.framebuffer(
            self.context.renderbuffer((w, h), 1, dtype="f4"), self.context.depth_renderbuffer((w, h))
        )
        self.context.enable(self.context.DEPTH_TEST)

    def render(
        self, parts: list[TexturedMesh], cameras: Cameras, lighting: Lighting, *, depth: bool = False
    ) -> Renders:
        """Render every camera of a batch ``(views,)``; the object's world is the cameras' world."""
        if cameras.image_size != self.image_size:
            raise ValueError(f"Cameras of {cameras.image_size} images, rasteriser of {self.image_size}.")
        with self.context:  # another rasteriser may have made its own the current one
            drawables = [self._upload(part) for part in parts]
            try:
                views = list(zip(clip_from_world(cameras), _each(cameras), strict=True))
                colour = [self._colour(drawables, clip, camera, lighting) for clip, camera in views]
                depths = [self._depth(drawables, clip, camera) for clip, camera in views] if depth else None
            finally:
                for drawable in drawables:
                    drawable.release()
        return Renders(np.stack(colour), None if depths is None else np.stack(depths))

    def release(self) -> None:
        """Free the context."""
        self.context.release()

    def _upload(self, part: TexturedMesh) -> _Drawable:
        ctx = self.context
        data = np.concatenate([part.vertices, part.normals, part.uv], axis=1).astype(np.float32)
        vertices = ctx.buffer(data.tobytes())
        indices = ctx.buffer(part.faces.astype(np.int32).tobytes())
        h, w, _ = part.texture.shape
        # v = 0 is the bottom row, and OpenGL takes the bottom row first.
        texture = ctx.texture((w, h), 3, np.ascontiguousarray(part.texture[::-1]).tobytes(), alignment=1)
        texture.build_mipmaps()
        texture.filter = (ctx.LINEAR_MIPMAP_LINEAR, ctx.LINEAR)
        layout = [(vertices, "3f 3f 2f", "position", "normal", "uv")]
        plain = [(vertices, "3f 5x4", "position")]
        return _Drawable(
            texture,
            ctx.vertex_array(self.colour_program, layout, indices),
            ctx.vertex_array(self.depth_program, plain, indices),
            (vertices, indices),
        )

    def _colour(self, drawables: list[_Drawable], clip: np.ndarray, camera: _Camera, light: Lighting) -> np.ndarray:
        program = self.colour_program
        _set(program, "clip_from_world", clip.T)
        _set(program, "cam_from_world", camera.cam_from_world.T)
        _set(program, "centre", camera.centre)
        light.apply(program)
        self.fine.use()
        self.fine.clear(0.0, 0.0, 0.0, 0.0)
        for drawable in drawables:
            drawable.texture.use(0)
            drawable.colour.render()
        h, w = self.image_size
        s = self.supersampling
        raw = np.frombuffer(self.fine.read(components=4, alignment=1), np.uint8)
        # Uncovered samples are black and transparent, so means over samples are premultiplied colours.
        mean = raw.reshape(h, s, w, s, 4).astype(np.float32).mean(axis=(1, 3))
        alpha = mean[..., 3:] / 255
        straight = np.where(alpha > 0, mean[..., :3] / np.maximum(alpha, 1e-6), 0)
        return np.concatenate([straight, mean[..., 3:]], axis=-1).round().clip(0, 255).astype(np.uint8)

    def _depth(self, drawables: list[_Drawable], clip: np.ndarray, camera: _Camera) -> np.ndarray:
        _set(self.depth_program, "clip_from_world", clip.T)
        _set(self.depth_program, "cam_from_world", camera.cam_from_world.T)
        self.distance.use()
        self.distance.clear(0.0)
        for drawable in drawables:
            drawable.depth.render()
        raw = np.frombuffer(self.distance.read(components=1, dtype="f4", alignment=1), np.float32)
        return raw.reshape(self.image_size).copy()


@dataclass(frozen=True, eq=False)
class _Drawable:
    texture: Any
    colour: Any
    depth: Any
    buffers: tuple[Any, ...]

    def release(self) -> None:
        for item in (self.texture, self.colour, self.depth, *self.buffers):
            item.release()


@dataclass(frozen=True, eq=False)
class _Camera:
    cam_from_world: np.ndarray
    centre: np.ndarray


def _each(cameras: Cameras) -> list[_Camera]:
    poses, centres = cameras.cam_from_world.double().numpy(), cameras.centres.double().numpy()
    return [_Camera(pose, centre) for pose, centre in zip(poses, centres, strict=True)]


def clip_from_world(cameras: Cameras) -> Float[np.ndarray, "views 4 4"]:
    """OpenGL clip matrices of pinhole cameras; the first row that is read back is the top row of the image."""
    h, w = cameras.image_size
    k = cameras.intrinsics.double()
    clip = torch.zeros(*cameras.batch_shape, 4, 4, dtype=torch.float64)
    clip[..., 0, 0], clip[..., 0, 1] = 2 * k[..., 0, 0] / w, 2 * k[..., 0, 1] / w
    clip[..., 0, 2] = 2 * k[..., 0, 2] / w - 1
    clip[..., 1, 1], clip[..., 1, 2] = 2 * k[..., 1, 1] / h, 2 * k[..., 1, 2] / h - 1
    clip[..., 2, 2], clip[..., 2, 3] = (FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)
    clip[..., 3, 2] = 1
    return (clip @ cameras.cam_from_world.double()).numpy()


def _set(program: Any, name: str, value: np.ndarray) -> None:
    """Write a uniform, unless the compiler has dropped it because the shader does not use it."""
    if name in program:
        program[name].write(np.ascontiguousarray(value, np.float32).tobytes())


def _make_context() -> Any:
    try:
        import moderngl  # noqa: PLC0415  an extra, needed for training data only
    except ImportError as error:
        raise KaleidosceneError("Rendering meshes needs moderngl: pip install 'kaleidoscene[synthetic]'.") from error
    try:
        return moderngl.create_context(standalone=True, backend="egl")  # pyright: ignore[reportArgumentType]
    except Exception as error:  # the driver's own error types
        raise KaleidosceneError(
            f"No OpenGL without a screen here ({error}); on Debian: apt-get install libegl1 libgl1 libgl1-mesa-dri."
        ) from error
