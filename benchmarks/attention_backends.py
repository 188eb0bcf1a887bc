"""The three ways to compute attention on a CPU, with and without gradients, by type and number of keys."""

import torch

from benchmarks.common import interleaved_medians, write_result
from kaleidoscene.api import load
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.families.kaleido import spatial, windowed
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import look_at
from kaleidoscene.nn.attention import attend, attend_explicitly, attend_in_parts

# Scenes, query tokens and key tokens of a call: spatial attention, windows and full cross-view attention.
SHAPES = (
    (256, 64, 64), (64, 128, 256), (16, 256, 256), (64, 256, 448), (64, 256, 704), (1, 1536, 1792), (2, 1024, 4096),
)  # fmt: skip


def _fused(q, k, v):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.125, enable_gqa=True)


WAYS = {
    "fused": _fused,
    "explicit": lambda q, k, v: attend_explicitly(q, k, v, scale=0.125),
    "in blocks": lambda q, k, v: attend_in_parts(q, k, v, scale=0.125),
}


def main() -> None:
    lines = [
        "4 query heads, 1 key/value head, 72 channels; milliseconds, medians of 5 interleaved runs. Fused:",
        "`scaled_dot_product_attention`; explicit: two products and a softmax, the weights are kept; in blocks:",
        "`nn/blocked_attention.py`.",
    ]
    for training in (False, True):
        for dtype in (torch.bfloat16, torch.float32):
            passes = "forward and backward" if training else "forward"
            lines += ["", f"{passes}, {str(dtype).removeprefix('torch.')}:", ""]
            lines += ["| scenes x queries x keys | " + " | ".join(WAYS) + " |", "|---" * (len(WAYS) + 1) + "|"]
            for shape in SHAPES:
                seconds = _times(shape, dtype, training)
                cells = " | ".join(f"{1e3 * seconds[name]:.1f}" for name in WAYS)
                lines.append(f"| {' x '.join(map(str, shape))} | {cells} |")
    (before, after), (fused, blocked) = _render()
    lines += [
        "",
        "A whole request in bfloat16, 24 targets from 4 references, default weights, 8 steps, encoding and all:",
        f"{before:.2f} s fused, {after:.2f} s as it is now, {before / after:.2f} times as fast. Against fp32 the",
        f"images are at {fused:.1f} dB fused, at {blocked:.1f} dB now that logits and weights are rounded to bfloat16.",
    ]
    write_result("attention_backends", "Ways to compute attention on a CPU", lines)


def _times(shape: tuple[int, int, int], dtype: torch.dtype, training: bool) -> dict[str, float]:
    scenes, queries, keys = shape
    q = torch.randn(scenes, 4, queries, 72, dtype=dtype, requires_grad=training)
    k, v = (torch.randn(scenes, 1, keys, 72, dtype=dtype, requires_grad=training) for _ in range(2))

    def call(way) -> None:
        with torch.set_grad_enabled(training):
            out = way(q, k, v)
            if training:
                torch.autograd.grad(out, (q, k, v), torch.ones_like(out))

    return interleaved_medians({name: lambda way=way: call(way) for name, way in WAYS.items()}, repeats=5)


def _render() -> tuple[tuple[float, float], tuple[float, float]]:
    """Seconds of a request with the fused kernel alone and with what ``attend`` chooses; PSNR of both against fp32."""
    model, exact = (load("default", precision=precision).with_sampling(steps=8) for precision in ("bf16", "fp32"))
    angle = torch.arange(28) / 28 * 2 * torch.pi
    eye = 1.8 * torch.stack([angle.cos(), angle.sin(), torch.full_like(angle, 0.4)], dim=-1)
    poses = look_at(eye, torch.zeros_like(eye), torch.tensor([0.0, 0.0, 1.0]))
    cameras = Cameras.from_field_of_view(poses[None], 0.857, model.image_size)
    capture = read_capture("examples/captures/school_bus")
    images = model.prepare(capture.select(range(4)))[0][None]

    def request(way, renderer=model.system.renderer) -> torch.Tensor:
        spatial.attend = windowed.attend = way
        return renderer.render(renderer.encode(images, cameras[:, :4]), cameras[:, 4:], seeds=range(24)).images[0]

    def fused(q, k, v, *, scale, mask=None):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)

    seconds = interleaved_medians({"before": lambda: request(fused), "after": lambda: request(attend)}, repeats=5)
    truth = request(attend, exact.system.renderer)
    before, after = (float(psnr(request(way), truth).mean()) for way in (fused, attend))
    return (seconds["before"], seconds["after"]), (before, after)


if __name__ == "__main__":
    main()
