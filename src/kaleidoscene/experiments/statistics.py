"""Effects of an ablation's rows: pooled noise, scans as a random effect, and Holm's correction for many tests."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.ablation import AblationRow

SETTINGS = ("1->5", "5->1", "5->5")
LEAST_EFFECT = 0.3
"""Published differences below this (dB) are not judged: single runs, as the paper's are, do not tell so little."""
_LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run of a row.

    Attributes:
        row: Name of the row.
        seed: Of data, noise and first weights.
        psnr: By setting, ``references->targets``, mean over scans.
        scenes_per_second: Of training, from the median step.
        top_activation: Largest output of any unit while the held-out captures were rendered; None if not measured.
        loss: Mean of the last 50 steps.
        scans: By setting, of every held-out capture; empty of results that were taken before this was kept.
    """

    row: str
    seed: int
    psnr: dict[str, float]
    scenes_per_second: float
    top_activation: float | None
    loss: float
    scans: dict[str, dict[str, float]] | None = None


@dataclass(frozen=True)
class Effect:
    """What a row changes against the choice before it.

    Attributes:
        ours: Difference of PSNR, mean over seeds.
        error: Its standard error, from the noise of all rows of like treatment and, where they are known, the scans;
            NaN where nothing has two seeds.
        freedom: Degrees of freedom of the error.
        seeds: How many seeds it is a mean of.
        paper: The published difference, if there is one.
        chance: Probability of so large a difference where there is none, after Holm's correction; NaN without an
            error.
    """

    ours: float
    error: float
    freedom: int
    seeds: int
    paper: float | None
    chance: float = math.nan

    @property
    def reach(self) -> float:
        """Half the width of the 95 % interval of this row alone; NaN without an error."""
        return math.nan if math.isnan(self.error) else float(_student().ppf(1 - _LEVEL / 2, self.freedom)) * self.error

    @property
    def verdict(self) -> str:
        """Whether the sign of the paper is reproduced, or what undoing a choice of our own did."""
        if self.paper is not None and abs(self.paper) < LEAST_EFFECT:
            return "not judged: small in the paper"
        if math.isnan(self.chance):
            return "one seed" if self.paper is None else "one seed: " + _sign(self.ours * self.paper)
        if self.chance > _LEVEL:
            return "within noise"
        if self.paper is None:
            return "worse" if self.ours < 0 else "better"
        return "reproduced" if self.ours * self.paper > 0 else "NOT reproduced"


def _sign(product: float) -> str:
    return "same sign" if product > 0 else "other sign"


def effects(rows: Sequence[AblationRow], results: Sequence[Result], setting: int) -> dict[str, Effect]:
    """The effect of every row against the chosen row of the decision before it.

    Differences are taken seed by seed. Their variance is pooled over the rows that are trained, and over those that
    differ in inference alone, since a row with three seeds says little of its own noise. Where results hold scores of
    single scans, the spread of a row's effect from scan to scan counts as well: other scans would be other draws.

    Args:
        rows: In the order of the table.
        results: Of the runs there are.
        setting: Which of :data:`SETTINGS`.
    """
    name = SETTINGS[setting]
    by_run = {(result.row, result.seed): result for result in results}
    differences: dict[str, dict[int, float]] = {}
    scans: dict[str, float] = {}
    published: dict[str, float | None] = {}
    for place, row in enumerate(rows):
        earlier = [other for other in rows[:place] if other.chosen and other.decision != row.decision]
        run = [other for other in earlier if any(other.name == ran for ran, _ in by_run)]
        if not run:
            continue
        # Where a decision could not be tried here, ours is against the one before it; the paper's never skips.
        before, published_before = run[-1], earlier[-1]
        pairs = {
            seed: (result, by_run[before.name, seed])
            for (ran, seed), result in by_run.items()
            if ran == row.name and (before.name, seed) in by_run
        }
        if not pairs:
            continue
        differences[row.name] = {seed: mine.psnr[name] - theirs.psnr[name] for seed, (mine, theirs) in pairs.items()}
        scans[row.name] = _variance_of_scans(list(pairs.values()), name)
        known = row.paper is not None and published_before.paper is not None
        published[row.name] = row.paper[setting] - published_before.paper[setting] if known else None  # pyright: ignore[reportOptionalSubscript]
    trains = {row.name: row.trains for row in rows}
    noise = {kind: _pooled([d for row, d in differences.items() if trains[row] == kind]) for kind in (True, False)}
    found = {}
    for row, values in differences.items():
        variance, freedom = noise[trains[row]]
        error = math.sqrt(variance / len(values) + scans[row]) if freedom else math.nan
        found[row] = Effect(statistics.fmean(values.values()), error, freedom, len(values), published[row])
    return _corrected(found)


def _pooled(groups: Sequence[Mapping[int, float]]) -> tuple[float, int]:
    """Variance of a difference between seeds, over all rows, and its degrees of freedom."""
    several = [list(group.values()) for group in groups if len(group) > 1]
    freedom = sum(len(values) - 1 for values in several)
    if not freedom:
        return math.nan, 0
    return sum(statistics.variance(values) * (len(values) - 1) for values in several) / freedom, freedom


def _variance_of_scans(pairs: Sequence[tuple[Result, Result]], setting: str) -> float:
    """Variance of the mean effect that the choice of scans brings; 0 where their scores were not kept."""
    effects_of: dict[str, list[float]] = {}
    for mine, theirs in pairs:
        if not mine.scans or not theirs.scans:
            return 0.0
        for scan, value in mine.scans[setting].items():
            effects_of.setdefault(scan, []).append(value - theirs.scans[setting][scan])
    means = [statistics.fmean(values) for values in effects_of.values()]
    return statistics.variance(means) / len(means) if len(means) > 1 else 0.0


def _corrected(found: dict[str, Effect]) -> dict[str, Effect]:
    """Effects with their chances, corrected for the number of tests (Holm 1979)."""
    plain = {
        row: 2 * float(_student().sf(abs(effect.ours) / effect.error, effect.freedom))
        for row, effect in found.items()
        if effect.error > 0 and (effect.paper is None or abs(effect.paper) >= LEAST_EFFECT)
    }
    out, largest = dict(found), 0.0
    for place, row in enumerate(sorted(plain, key=plain.__getitem__)):
        largest = max(largest, min(1.0, plain[row] * (len(plain) - place)))
        effect = found[row]
        out[row] = Effect(effect.ours, effect.error, effect.freedom, effect.seeds, effect.paper, largest)
    return out


def _student():
    try:
        from scipy.stats import t  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError("Statistics of an ablation need scipy: pip install 'kaleidoscene[eval]'.") from error
    return t
