"""Fused attention against the explicit softmax for training on a CPU, by the number of keys."""

import torch

from anyview.nn.attention import attend_explicitly
from benchmarks.common import interleaved_medians, write_result


def main() -> None:
    lines = [
        "Forward and backward in bf16, 4 query heads, 1 key/value head, 64 channels, 16384 tokens in all;",
        "medians of 7 interleaved runs.",
        "",
        "| keys | fused ms | explicit ms | ratio |",
        "|---|---|---|---|",
    ]
    for keys in (16, 64, 256, 512, 1024):
        batch = 16384 // keys
        q, k, v = (torch.randn(batch, heads, keys, 64, dtype=torch.bfloat16, requires_grad=True) for heads in (4, 1, 1))

        def fused(q=q, k=k, v=v) -> None:
            torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.125, enable_gqa=True).sum().backward()

        def explicit(q=q, k=k, v=v) -> None:
            attend_explicitly(q, k, v, scale=0.125).sum().backward()

        seconds = interleaved_medians({"fused": fused, "explicit": explicit}, repeats=7)
        a, b = 1e3 * seconds["fused"], 1e3 * seconds["explicit"]
        lines.append(f"| {keys} | {a:.1f} | {b:.1f} | {a / b:.2f} |")
    write_result("attention_backends", "Attention backends for training on a CPU", lines)


if __name__ == "__main__":
    main()
