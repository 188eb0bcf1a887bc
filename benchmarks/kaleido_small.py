"""One forward and backward pass of Kaleido-Small at 256 px with 2 references and 1 target, in bf16."""

import time

import torch

from benchmarks.common import peak_mebibytes, write_result
from kaleidoscene.families.kaleido.config import kaleido_small
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.geometry.poses import random_rigid
from kaleidoscene.nn.positions import ViewPositions


def main() -> None:
    torch.manual_seed(0)
    model = Kaleido(kaleido_small())
    parameters = sum(p.numel() for p in model.parameters())
    before = peak_mebibytes()
    latents, features = torch.randn(1, 3, 16, 32, 32), torch.randn(1, 2, 256, 768)
    positions = ViewPositions.from_poses(random_rigid(1, 3, translation=0.5))
    lines = [
        f"{parameters / 1e6:.1f} M parameters without the encoder, fp32 weights, bf16 autocast, 16 x 16 tokens a view,",
        "features given.",
        "",
        "| activation checkpointing | forward s | backward s | peak MiB |",
        "|---|---|---|---|",
    ]
    for on in (True, False):
        model.activation_checkpointing = on
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(latents, torch.tensor([0.7]), positions, 2, features=features).square().mean()
        middle = time.perf_counter()
        loss.backward()
        end = time.perf_counter()
        assert torch.isfinite(loss)
        model.zero_grad(set_to_none=True)
        lines.append(
            f"| {'on' if on else 'off'} | {middle - started:.1f} | {end - middle:.1f} | {peak_mebibytes():.0f} |"
        )
    lines += ["", f"The weights alone: {before:.0f} MiB of resident memory, PyTorch included."]
    write_result("kaleido_small", "Kaleido-Small at 256 px on a CPU", lines)


if __name__ == "__main__":
    main()
