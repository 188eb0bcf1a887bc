"""Training throughput by window size, and with and without GTA, at 12 views of 16 x 16 tokens (Table 4)."""

from benchmarks.common import interleaved_medians, network, train_step, write_result
from kaleidoscene.families.kaleido.config import EncodingConfig

PAPER = {"1": 148, "2": 146, "4": 142, "8": 103, "full": 58}


def main() -> None:
    models = {name: network(window=None if name == "full" else int(name)) for name in PAPER}
    plain = EncodingConfig(representation="dual", transform_values=False)
    models["4, no value transform"] = network(encoding=plain)
    seconds = interleaved_medians({name: train_step(model, 12, 6, 32) for name, model in models.items()}, repeats=15)
    lines = [
        "Forward and backward in bf16 of one scene, 12 views (6 references) of 16 x 16 tokens, width 256, 4 blocks;",
        "medians of 15 interleaved runs. The paper's column is Kaleido-Small on H100s; only ratios compare.",
        "",
        "| window K | seconds | relative to K = 1 | paper, relative | relative to full | paper, relative |",
        "|---|---|---|---|---|---|",
    ]
    for name, paper in PAPER.items():
        ratio, gain = seconds["1"] / seconds[name], seconds["full"] / seconds[name]
        published = f"{paper / PAPER['1']:.2f} | {gain:.2f} | {paper / PAPER['full']:.2f}"
        lines.append(f"| {name} | {seconds[name]:.2f} | {ratio:.2f} | {published} |")
    gta = seconds["4, no value transform"] / seconds["4"]
    lines += [
        "",
        f"GTA against 2D RoPE + CaPE (no value and output transform), K = 4: {gta:.2f} of its throughput, so that the",
        f"two transforms cost {100 * (1 / gta - 1):.0f} % (paper 148 / 160 = 0.93, 8 %).",
    ]
    write_result("throughput", "Training throughput by window size and encoding", lines)


if __name__ == "__main__":
    main()
