"""What the calls of a plan cost together, against counting them one by one."""

import pytest

from kaleidoscene.rendering.cost import Cost, cost_of_calls
from kaleidoscene.rendering.ordering import RenderPlan

ENCODING = 1000


class Calls:
    """Costs of a model whose references are 1000 operations each, and a target 10 a reference; keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, bool]] = []

    def __call__(self, references: int, targets: int, *, independent: bool = False) -> Cost:
        self.asked.append((references, targets, independent))
        shared = ENCODING * references
        return Cost(7, shared + 10 * references * targets, 100 * targets, references, shared)


def test_references_count_once_however_many_calls_there_are():
    for mode in ("joint", "independent"):
        calls = Calls()
        cost = cost_of_calls(calls, 3, 20, RenderPlan(mode=mode, chunk=8))
        assert calls.asked == [(3, 8, mode == "independent")] * 2 + [(3, 4, mode == "independent")]
        assert cost == Cost(7, 3 * ENCODING + 10 * 3 * 20, 800, 3, 3 * ENCODING)
        assert cost.flops == cost_of_calls(Calls(), 3, 20, RenderPlan(mode=mode, chunk=20)).flops


def test_views_that_become_references_are_encoded_with_them():
    calls, plan = Calls(), RenderPlan(mode="autoregressive", chunk=2, max_references=6)
    cost = cost_of_calls(calls, 3, 7, plan)
    assert calls.asked == [(3, 2, False), (5, 2, False), (6, 2, False), (6, 1, False)]
    assert cost.flops == sum(ENCODING * n + 10 * n * m for n, m, _ in calls.asked) and cost.cache == 6
    forgetful = Calls()
    cost_of_calls(forgetful, 3, 7, plan, remembers=False)
    assert {references for references, _, _ in forgetful.asked} == {3}


def test_nothing_to_render_is_refused():
    with pytest.raises(ValueError, match="nothing to render: 0 targets"):
        cost_of_calls(Calls(), 3, 0, RenderPlan())
