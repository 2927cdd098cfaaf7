"""The arithmetic of savings, and every reason for which there is none."""

from __future__ import annotations

import pytest

from reports.savings import Costs, measure_savings


def test_speedups_and_break_even_rest_on_the_pairs_alone() -> None:
    costs = Costs(
        distill_seconds=60.0,
        proxy_seconds=[2.0, 2.0, 4.0, 100.0],
        reference_seconds=[12.0, 20.0, 7.0],
        paired_seconds=[(2.0, 12.0), (4.0, 20.0)],
    )
    savings = measure_savings(costs)
    assert (savings.proxy_seconds, savings.reference_seconds) == (108.0, 39.0)
    assert (savings.proxy_trials, savings.reference_trials, savings.pairs) == (4, 3, 2)
    assert savings.speedup_search == pytest.approx(32 / 6)
    assert savings.speedup_total == pytest.approx(32 / 66)
    assert savings.break_even_architectures == pytest.approx(60 / (16 - 3))
    assert savings.reason is None


def test_never_pays_where_the_proxy_is_not_cheaper() -> None:
    costs = Costs(
        distill_seconds=1.0, proxy_seconds=[5.0], reference_seconds=[5.0], paired_seconds=[(5.0, 5.0)]
    )
    savings = measure_savings(costs)
    assert savings.break_even_architectures is None
    assert savings.break_even_reason is not None
    assert savings.break_even_reason.startswith("never")
    assert savings.speedup_search == 1.0


def test_a_set_that_cost_nothing_pays_at_once() -> None:
    costs = Costs(
        distill_seconds=0.0, proxy_seconds=[1.0], reference_seconds=[3.0], paired_seconds=[(1.0, 3.0)]
    )
    savings = measure_savings(costs)
    assert savings.break_even_architectures == 0.0
    assert savings.speedup_total == savings.speedup_search == 3.0


def test_unrecorded_distillation_leaves_the_total_unknown() -> None:
    costs = Costs(
        distill_seconds=None, proxy_seconds=[1.0], reference_seconds=[3.0], paired_seconds=[(1.0, 3.0)]
    )
    savings = measure_savings(costs)
    assert (savings.speedup_search, savings.speedup_total) == (3.0, None)
    assert savings.break_even_reason == "the seconds of distillation are not recorded"


@pytest.mark.parametrize(
    ("reference", "pairs", "reason"),
    [
        (None, [], "said so"),
        ([3.0], [], "no architecture was measured in both ways"),
        ([0.0], [(0.0, 0.0)], "the recorded seconds add up to zero"),
    ],
)
def test_no_comparison_says_why(
    reference: list[float] | None, pairs: list[tuple[float, float]], reason: str
) -> None:
    costs = Costs(
        distill_seconds=9.0,
        proxy_seconds=[1.0],
        reference_seconds=reference,
        paired_seconds=pairs,
        no_reference="said so",
    )
    savings = measure_savings(costs)
    assert savings.reason == savings.break_even_reason == reason
    assert savings.speedup_search is None
    assert savings.speedup_total is None
    assert savings.proxy_seconds == 1.0
