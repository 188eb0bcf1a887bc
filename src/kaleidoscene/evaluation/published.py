"""Published scores, to stand beside ours and be marked as published: Kaleido Tables 2 (PSNR) and 6 (SSIM, LPIPS)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_COLUMNS: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("omniobject3d", "SV3D", (1,)),
    ("gso30", "EscherNet", (1, 2, 3, 5, 10)),
    ("rtmv", "EscherNet", (1, 2, 3, 5, 10)),
    ("llff", "SEVA", (1, 3)),
    ("mipnerf360", "SEVA", (1, 3, 6)),
    ("tanks-and-temples", "SEVA", (1, 3, 6, 9)),
)
"""Benchmark, the best model before (the first row of the tables), numbers of references."""
_MODELS = ("", "Kaleido-Small", "Kaleido-Medium", "Kaleido")

_PSNR = (
    (19.28, 20.24, 22.91, 24.09, 25.09, 25.90, 10.56, 12.66, 13.59, 14.52, 15.55,
     14.03, 19.48, 12.93, 15.78, 16.70, 11.28, 12.65, 13.80, 14.72),
    (19.77, 18.58, 23.73, 26.20, 29.11, 31.66, 13.57, 17.18, 18.41, 19.97, 21.75,
     14.57, 19.30, 12.75, 15.81, 17.07, 11.40, 13.13, 14.13, 15.20),
    (20.78, 20.32, 25.78, 28.01, 30.74, 32.94, 13.78, 18.07, 19.41, 21.09, 22.73,
     14.86, 20.40, 14.17, 16.47, 17.80, 11.36, 13.04, 14.43, 15.47),
    (21.06, 20.94, 26.31, 28.89, 31.37, 33.74, 14.66, 18.48, 19.69, 21.13, 23.04,
     15.34, 20.71, 13.74, 16.78, 18.03, 11.79, 13.20, 14.61, 15.88),
)  # fmt: skip
_SSIM = (
    (0.850, 0.884, 0.908, 0.918, 0.927, 0.935, 0.518, 0.585, 0.611, 0.633, 0.657,
     0.384, 0.602, 0.282, 0.377, 0.395, 0.342, 0.385, 0.427, 0.452),
    (0.873, 0.867, 0.919, 0.938, 0.954, 0.969, 0.584, 0.670, 0.703, 0.746, 0.800,
     0.341, 0.574, 0.221, 0.313, 0.362, 0.313, 0.359, 0.403, 0.444),
    (0.880, 0.885, 0.933, 0.948, 0.963, 0.975, 0.591, 0.697, 0.731, 0.778, 0.827,
     0.359, 0.645, 0.271, 0.347, 0.410, 0.351, 0.359, 0.419, 0.459),
    (0.884, 0.895, 0.938, 0.954, 0.966, 0.978, 0.610, 0.704, 0.738, 0.781, 0.836,
     0.375, 0.659, 0.248, 0.361, 0.433, 0.333, 0.368, 0.429, 0.479),
)  # fmt: skip
_LPIPS = (
    (0.158, 0.095, 0.064, 0.052, 0.043, 0.036, 0.410, 0.301, 0.258, 0.222, 0.185,
     0.389, 0.181, 0.573, 0.364, 0.319, 0.571, 0.463, 0.387, 0.328),
    (0.144, 0.123, 0.061, 0.043, 0.029, 0.019, 0.332, 0.204, 0.166, 0.130, 0.095,
     0.323, 0.152, 0.528, 0.376, 0.318, 0.549, 0.449, 0.385, 0.328),
    (0.126, 0.094, 0.048, 0.034, 0.023, 0.015, 0.329, 0.181, 0.145, 0.109, 0.080,
     0.315, 0.127, 0.473, 0.347, 0.290, 0.508, 0.437, 0.359, 0.302),
    (0.121, 0.086, 0.044, 0.030, 0.021, 0.013, 0.289, 0.171, 0.137, 0.105, 0.074,
     0.301, 0.123, 0.530, 0.344, 0.286, 0.541, 0.465, 0.363, 0.288),
)  # fmt: skip


@dataclass(frozen=True)
class PublishedScores:
    """What was published for one metric on one benchmark.

    Attributes:
        quantity: PSNR, SSIM or LPIPS.
        decimals: As printed.
        source: Where.
        caveat: What the rows must not be shown without; begins with its punctuation, or is empty.
        rows: By model and number of references. With one reference of a scene they are the best of a sweep over the
            scale of translations.
    """

    quantity: str
    decimals: int
    source: str
    caveat: str
    rows: dict[str, dict[int, float]]

    def cells(self, counts: Sequence[int]) -> list[tuple[str, list[str]]]:
        """Models with their numbers at some numbers of references, empty where none was published."""
        return [
            (name, [f"{row[n]:.{self.decimals}f}" if n in row else "" for n in counts])
            for name, row in self.rows.items()
        ]


_TABLES = {
    "psnr": ("PSNR", 2, "Kaleido, Table 2", "", _PSNR),
    "ssim": ("SSIM", 3, "Kaleido, Table 6", "; which variant of SSIM is not said", _SSIM),
    "lpips": ("LPIPS", 3, "Kaleido, Table 6", "; which network is not said", _LPIPS),
}
_ESCHERNETS = " (EscherNet's own code has AlexNet)"


def published_scores(benchmark: str, metric: str) -> PublishedScores | None:
    """What was published for a metric, or for the family of variants it belongs to; None if nothing was.

    Args:
        benchmark: Its name.
        metric: Name of one of ours.
    """
    family, _, of = metric.partition("-")
    if family not in _TABLES or of == "object":  # of the object's pixels alone: another quantity
        return None
    quantity, decimals, source, variant, table = _TABLES[family]
    start = 0
    for name, before, counts in _COLUMNS:
        if name == benchmark:
            models = [model or before for model in _MODELS]
            rows = {
                model: dict(zip(counts, row[start : start + len(counts)], strict=True))
                for model, row in zip(models, table, strict=True)
            }
            variant += _ESCHERNETS if quantity == "LPIPS" and before == "EscherNet" else ""
            return PublishedScores(quantity, decimals, source, _of_benchmark(benchmark) + variant, rows)
        start += len(counts)
    return None


def _of_benchmark(benchmark: str) -> str:
    """How what was published differs from what is done here."""
    if benchmark == "rtmv":
        return "; EscherNet's code lets values above 1 wrap around, which is not done here"
    if benchmark in ("llff", "mipnerf360", "tanks-and-temples"):
        return ", on SEVA's lists of views; with one reference the best of a scale sweep by the truth"
    return ""
