"""The simulated HPA against hand-worked syncs, and against a plain loop on random runs."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.hpa_reference import ReferenceHpa
from wva_core.errors import ParameterError
from wva_core.numerics.scaling_behavior import HPA_DEFAULT_BEHAVIOR, UNDAMPED, Behavior, ScalingPolicy, ScalingRules
from wva_core.simulation.hpa import AverageValueMetric, HorizontalPodAutoscaler, HpaDecision, HpaReason


def advised(min_replicas=1, max_replicas=100, behavior=UNDAMPED, **options):
    """An HPA on one metric `advice` with an average value of 1."""
    return HorizontalPodAutoscaler(
        [AverageValueMetric("advice", 1)],
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        behavior=behavior,
        **options,
    )


def sync(hpa, now, replicas, advice, status=None):
    return hpa.sync(now, replicas, replicas if status is None else status, {"advice": advice})


def rules(window=0.0, select="Max", policies=(), tolerance=None):
    return ScalingRules(window, select, tuple(policies), tolerance)


# ---------------------------------------------------------------------------------------------------------------------
# One sync without damping


def test_defaults_are_those_of_the_controller():
    hpa = HorizontalPodAutoscaler([AverageValueMetric("advice")], max_replicas=5)
    assert hpa.behavior is HPA_DEFAULT_BEHAVIOR
    assert (hpa.min_replicas, hpa.sync_period_seconds, hpa.metrics[0].target) == (1, 15.0, 1.0)


def test_average_value_of_one_makes_the_advice_the_replicas():
    # Advice 5 at 2 replicas: 5/(1·2) = 2.5 is outside the tolerance, ceil(5/1) = 5. (A target type `Value` would
    # multiply: ceil(5·2) = 10.)
    assert sync(advised(), 0.0, 2, 5) == HpaDecision(5, HpaReason.WITHIN_RANGE, 5)


@pytest.mark.parametrize(
    ("replicas", "advice", "expected"),
    [
        (20, 21, 20),  # W-8: 1.05
        (20, 19, 20),  # W-8: 0.95
        (20, 23, 23),  # 1.15
        (20, 17, 17),  # 0.85
        (11, 12, 11),  # 1.0909…
        (11, 10, 11),  # 0.9090…
        (10, 11, 10),  # 1.1: the edge belongs to the tolerance
        (10, 9, 10),  # 0.9: likewise
        (9, 10, 10),  # 1.11…
        (9, 8, 8),  # 0.88…
        (1, 2, 2),
    ],
)
def test_steps_within_ten_percent_are_swallowed(replicas, advice, expected):
    assert sync(advised(), 0.0, replicas, advice).desired == expected


def test_tolerance_may_differ_per_direction():
    behavior = Behavior(scale_up=rules(tolerance=0.0), scale_down=rules(tolerance=0.2))
    hpa = advised(behavior=behavior)
    assert sync(hpa, 0.0, 20, 21).desired == 21
    assert sync(hpa, 15.0, 20, 17).desired == 20  # 0.85
    assert sync(hpa, 30.0, 20, 15).desired == 15  # 0.75


def test_tolerance_of_the_controller_may_be_changed():
    assert sync(advised(tolerance=0.0), 0.0, 20, 21).desired == 21
    assert sync(advised(tolerance=0.5), 0.0, 20, 29).desired == 20


def test_the_share_is_that_of_the_pods_that_exist():
    # spec 6 but only 5 pods exist: 5/(1·5) = 1 keeps the status' 5, which for the spec of 6 is a step down.
    assert sync(advised(), 0.0, 6, 5, status=5).desired == 5
    # spec 4, 8 pods exist during a roll-out: 6/8 = 0.75, so ceil(6) = 6.
    assert sync(advised(), 0.0, 4, 6, status=8).desired == 6


def test_no_pods_yet_means_no_tolerance():
    assert sync(advised(), 0.0, 3, 3, status=0).desired == 3
    assert sync(advised(), 0.0, 3, 0, status=0).desired == 1


def test_the_total_is_divided_by_the_target_and_rounded_up():
    # Queue of 25 with 4 per replica at 2 replicas: 25/(4·2) = 3.125, ceil(25/4) = ceil(6.25) = 7.
    hpa = HorizontalPodAutoscaler([AverageValueMetric("queue", 4)], max_replicas=50, behavior=UNDAMPED)
    assert hpa.sync(0.0, 2, 2, {"queue": 25}).desired == 7


@pytest.mark.parametrize(
    ("total", "target", "expected"),
    [
        (2.0009, 1, 2),  # the value is cut off after a thousandth
        (2.001, 1, 3),
        (3.003, 1.001, 3),  # 3003 over 1001; 1.001·1000 is a little less than 1001
        (0.3, 0.1, 3),  # 300 over 100 thousandths; 0.3/0.1 and 0.1·3 disagree in binary
    ],
)
def test_values_are_counted_in_thousandths(total, target, expected):
    hpa = HorizontalPodAutoscaler([AverageValueMetric("m", target)], max_replicas=50, behavior=UNDAMPED)
    assert hpa.sync(0.0, 1, 1, {"m": total}).desired == expected


def test_the_largest_of_several_metrics_rules():
    hpa = HorizontalPodAutoscaler(
        [AverageValueMetric("advice", 1), AverageValueMetric("queue", 10)], max_replicas=50, behavior=UNDAMPED
    )
    # advice 3, queue ceil(55/10) = 6
    assert hpa.sync(0.0, 4, 4, {"advice": 3, "queue": 55}).desired == 6
    # advice 5, queue ceil(12/10) = 2
    assert hpa.sync(15.0, 8, 8, {"advice": 5, "queue": 12}).desired == 5


def test_a_missing_metric_forbids_shrinking_and_allows_growth():
    hpa = HorizontalPodAutoscaler(
        [AverageValueMetric("advice", 1), AverageValueMetric("queue", 10)], max_replicas=50, behavior=UNDAMPED
    )
    assert hpa.sync(0.0, 4, 4, {"advice": 2, "queue": math.nan}) == HpaDecision(4, HpaReason.METRICS_MISSING)
    assert hpa.sync(15.0, 4, 4, {"advice": 7}) == HpaDecision(7, HpaReason.WITHIN_RANGE, 7)
    assert hpa.sync(30.0, 7, 7, {"advice": 7}).desired == 7


def test_without_any_metric_the_replicas_stay():
    assert sync(advised(), 0.0, 4, math.nan) == HpaDecision(4, HpaReason.METRICS_MISSING)


def test_a_sync_without_metrics_leaves_no_recommendation():
    # Down window 60 s. Were the blind sync at t=30 remembered as "4", it would hold the 4 at t=75 (45 s later).
    hpa = advised(behavior=Behavior(scale_down=rules(window=60)))
    assert sync(hpa, 0.0, 4, 4).desired == 4
    assert sync(hpa, 30.0, 4, math.nan).desired == 4
    assert sync(hpa, 75.0, 4, 2).desired == 2


# ---------------------------------------------------------------------------------------------------------------------
# Minimum, maximum, zero


def test_maximum_and_minimum_limit_the_recommendation():
    assert sync(advised(max_replicas=8), 0.0, 4, 50) == HpaDecision(8, HpaReason.TOO_MANY, 50)
    assert sync(advised(min_replicas=3), 0.0, 6, 1) == HpaDecision(3, HpaReason.TOO_FEW, 1)


def test_a_target_outside_its_range_is_brought_back_before_metrics_are_looked_at():
    assert sync(advised(max_replicas=8), 0.0, 12, math.nan) == HpaDecision(8, HpaReason.ABOVE_MAXIMUM)
    assert sync(advised(min_replicas=3), 0.0, 2, math.nan) == HpaDecision(3, HpaReason.BELOW_MINIMUM)


def test_bringing_a_target_into_range_is_not_damped_but_counts_as_a_scale_event():
    # At most 1 pod a minute, yet 2 -> 6. Then 6 − 4 + 1 = 3 is allowed from the period's start of 2: it stays at 6.
    behavior = Behavior(scale_up=rules(policies=[ScalingPolicy("Pods", 1, 60)]))
    hpa = advised(min_replicas=6, behavior=behavior)
    assert sync(hpa, 0.0, 2, 9).desired == 6
    assert sync(hpa, 15.0, 6, 9) == HpaDecision(6, HpaReason.SCALE_UP_LIMIT, 9)
    assert sync(hpa, 60.0, 6, 9).desired == 7


def test_a_target_at_zero_is_left_alone_unless_the_minimum_is_zero():
    assert sync(advised(min_replicas=1), 0.0, 0, 5) == HpaDecision(0, HpaReason.SCALING_DISABLED)
    assert sync(advised(min_replicas=0), 0.0, 0, 5) == HpaDecision(5, HpaReason.WITHIN_RANGE, 5)
    assert sync(advised(min_replicas=0), 0.0, 2, 0) == HpaDecision(0, HpaReason.WITHIN_RANGE, 0)


# ---------------------------------------------------------------------------------------------------------------------
# Damping over time


def test_the_down_window_looks_back_on_recommendations_before_damping():
    # Down window 60 s. Advice 10, 4, 4, 4 at 30 s intervals.
    #   t=0   seed 10, recommendation 10.
    #   t=30  max(10, 10, 4) = 10 holds, and so it does at t=59.
    #   t=60  both samples of t=0 are 60 s old and gone: max(4, 4) = 4.
    # Remembering the held 10 of t=30 as a recommendation would keep 10 for ever.
    hpa = advised(behavior=Behavior(scale_down=rules(window=60)))
    assert sync(hpa, 0.0, 10, 10).desired == 10
    assert sync(hpa, 30.0, 10, 4) == HpaDecision(10, HpaReason.SCALE_DOWN_STABILIZED, 4)
    assert sync(hpa, 59.0, 10, 4).desired == 10
    assert sync(hpa, 60.0, 10, 4) == HpaDecision(4, HpaReason.WITHIN_RANGE, 4)


def test_a_fresh_controller_does_not_shrink_within_its_window():
    # Seed: 10 at t=0. It holds until it is 300 s old.
    hpa = advised(behavior=HPA_DEFAULT_BEHAVIOR)
    desired = [sync(hpa, 15.0 * k, 10, 4).desired for k in range(21)]
    assert desired == [10] * 20 + [4]


def test_the_seed_also_holds_growth_under_an_up_window():
    # Up window 30 s: min(seed 2, 8) = 2 until the seed is 30 s old, then min(8, 8) = 8.
    hpa = advised(behavior=Behavior(scale_up=rules(window=30)))
    assert sync(hpa, 0.0, 2, 8) == HpaDecision(2, HpaReason.SCALE_UP_STABILIZED, 8)
    assert sync(hpa, 15.0, 2, 8).desired == 2
    assert sync(hpa, 30.0, 2, 8).desired == 8


def test_default_growth_doubles_or_adds_four_per_sync():
    # 1 -> max(1+4, 2) = 5 -> max(9, 10) = 10 -> 20 -> 40. The event of the sync before is exactly 15 s old and no
    # longer counts.
    hpa = advised(behavior=HPA_DEFAULT_BEHAVIOR)
    replicas, seen = 1, []
    for k in range(5):
        replicas = sync(hpa, 15.0 * k, replicas, 40).desired
        seen.append(replicas)
    assert seen == [5, 10, 20, 40, 40]


def test_syncs_within_one_period_share_its_allowance():
    # 4 pods a minute from 10: 14 at once, then the period's start is 10 until t=60, then 14 + 4 = 18.
    hpa = advised(behavior=Behavior(scale_up=rules(policies=[ScalingPolicy("Pods", 4, 60)])))
    assert sync(hpa, 0.0, 10, 30) == HpaDecision(14, HpaReason.SCALE_UP_LIMIT, 30)
    assert sync(hpa, 15.0, 14, 30).desired == 14
    assert sync(hpa, 59.0, 14, 30).desired == 14
    assert sync(hpa, 60.0, 14, 30).desired == 18


def test_shrinking_is_limited_by_percent_of_the_period_start():
    # 50 % a minute from 9: int(9·0.5) = 4, held there by the same start (4 + 5 = 9), then int(4·0.5) = 2.
    hpa = advised(behavior=Behavior(scale_down=rules(policies=[ScalingPolicy("Percent", 50, 60)])))
    assert sync(hpa, 0.0, 9, 1) == HpaDecision(4, HpaReason.SCALE_DOWN_LIMIT, 1)
    assert sync(hpa, 15.0, 4, 1).desired == 4
    assert sync(hpa, 60.0, 4, 1).desired == 2


def test_a_held_sync_is_no_scale_event():
    # Were the held syncs events, the period's start would move and the allowance with it.
    hpa = advised(behavior=Behavior(scale_up=rules(policies=[ScalingPolicy("Pods", 1, 60)])))
    for k in range(4):
        assert sync(hpa, 15.0 * k, 10, 10).desired == 10
    assert sync(hpa, 60.0, 10, 20).desired == 11


@pytest.mark.parametrize(("select", "grown", "shrunk"), [("Max", 20, 5), ("Min", 12, 8), ("Disabled", 10, 10)])
def test_select_policy(select, grown, shrunk):
    # From 10: up 10+2 = 12 or 10·2 = 20, down 10−2 = 8 or 10·0.5 = 5.
    behavior = Behavior(
        scale_up=rules(select=select, policies=[ScalingPolicy("Pods", 2, 60), ScalingPolicy("Percent", 100, 60)]),
        scale_down=rules(select=select, policies=[ScalingPolicy("Pods", 2, 60), ScalingPolicy("Percent", 50, 60)]),
    )
    assert sync(advised(behavior=behavior), 0.0, 10, 99).desired == grown
    assert sync(advised(behavior=behavior), 0.0, 10, 1).desired == shrunk


@pytest.mark.parametrize(("second", "limit"), [(15.0, 9), (16.0, 13)])
def test_an_event_outdated_for_its_own_direction_makes_room_for_the_next(second, limit):
    # Up policies look back 15 s, down policies 600 s; +4 at t=0 and at t=second. At t=16 the first is outdated for its
    # own direction and gives way, although the downward limit would still count it: the start is taken to be
    # 18 − 4 = 14 and the limit 13. At t=15 it is just not outdated: 18 − 8 = 10 and 9.
    behavior = Behavior(
        scale_up=rules(policies=[ScalingPolicy("Pods", 4, 15)]),
        scale_down=rules(policies=[ScalingPolicy("Pods", 1, 600)]),
    )
    hpa = advised(behavior=behavior)
    assert sync(hpa, 0.0, 10, 30).desired == 14
    assert sync(hpa, second, 14, 30).desired == 18
    assert sync(hpa, 40.0, 18, 1).desired == limit


def test_of_several_outdated_events_the_last_gives_way():
    # As above with +4 at t=0, 15 and 40. At t=40 two are outdated and that of t=15 gives way. At t=60 the downward
    # period of 50 s holds only t=40: 22 − 4 − 1 = 17. Had that of t=0 given way, t=15 would count too: 13.
    behavior = Behavior(
        scale_up=rules(policies=[ScalingPolicy("Pods", 4, 15)]),
        scale_down=rules(policies=[ScalingPolicy("Pods", 1, 50)]),
    )
    hpa = advised(behavior=behavior)
    assert [sync(hpa, now, now_at, 30).desired for now, now_at in [(0.0, 10), (15.0, 14), (40.0, 18)]] == [14, 18, 22]
    assert sync(hpa, 60.0, 22, 1).desired == 17


def test_rules_without_policies_lose_no_event_that_the_other_direction_counts():
    # Growth is unlimited here; shrinking by 1 a minute counts from before all of it: 16 − 6 − 1 = 9.
    hpa = advised(behavior=Behavior(scale_down=rules(policies=[ScalingPolicy("Pods", 1, 60)])))
    assert [sync(hpa, 15.0 * k, 10 + 2 * k, 12 + 2 * k).desired for k in range(3)] == [12, 14, 16]
    assert sync(hpa, 45.0, 16, 1).desired == 9


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: AverageValueMetric("advice", 0),
            "metric advice: target.averageValue: is not a positive quantity (got 0); give 0.001 or more",
        ),
        (
            lambda: HorizontalPodAutoscaler([], max_replicas=1),
            "HorizontalPodAutoscaler: metrics: is empty (got []); give at least one metric",
        ),
        (
            lambda: HorizontalPodAutoscaler([AverageValueMetric("a"), AverageValueMetric("a")], max_replicas=1),
            (
                "HorizontalPodAutoscaler: metrics: names a metric twice (got ['a', 'a']); "
                "give every metric a name of its own"
            ),
        ),
        (
            lambda: advised(min_replicas=-1),
            "HorizontalPodAutoscaler: minReplicas: is negative (got -1); give 0 or more",
        ),
        (
            lambda: advised(min_replicas=5, max_replicas=4),
            "HorizontalPodAutoscaler: maxReplicas: is below 1 or below minReplicas (got 4); give at least both of them",
        ),
        (
            lambda: advised(tolerance=math.nan),
            "HorizontalPodAutoscaler: tolerance: is not a finite number of at least 0 (got nan); give 0 or more",
        ),
        (
            lambda: advised().sync(0.0, 1, 1, {"advise": 1}),
            "HorizontalPodAutoscaler: metrics: is not a metric of this autoscaler (got 'advise'); use advice",
        ),
        (
            lambda: sync(advised(), 0.0, 1, math.inf),
            "HorizontalPodAutoscaler: metrics.advice: is not a total (got inf); give a number of at least 0, or NaN",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(make, text):
    with pytest.raises(ParameterError) as refused:
        make()
    assert str(refused.value) == text


# ---------------------------------------------------------------------------------------------------------------------
# Against the plain loop. Whole numbers and seconds, so that boundaries are met and equality is exact.

POLICIES = st.lists(
    st.tuples(st.sampled_from(["Pods", "Percent"]), st.integers(1, 120), st.sampled_from([15, 30, 45, 60])),
    min_size=1,
    max_size=3,
)
RULES = st.fixed_dictionaries(
    {
        "window": st.sampled_from([0, 15, 30, 60]),
        "select": st.sampled_from(["Max", "Min", "Max", "Min", "Disabled"]),
        "policies": POLICIES,
        "tolerance": st.sampled_from([0.0, 0.1, 0.25]),
    }
)
STEP = st.tuples(
    st.integers(1, 25),  # seconds since the last sync
    st.one_of(st.none(), st.none(), st.integers(0, 30)),  # somebody else sets the replicas
    st.integers(-3, 3),  # pods that exist beyond the specification
    st.lists(st.one_of(st.integers(0, 40), st.just(math.nan)), min_size=2, max_size=2),
)


@given(
    targets=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    minimum=st.integers(0, 4),
    spread=st.integers(1, 24),
    upward=RULES,
    downward=RULES,
    start=st.integers(0, 30),
    steps=st.lists(STEP, min_size=1, max_size=25),
)
@settings(max_examples=200, deadline=None)
def test_any_run_equals_the_plain_loop(targets, minimum, spread, upward, downward, start, steps):
    def typed(plain):
        policies = [ScalingPolicy(*policy) for policy in plain["policies"]]
        return rules(plain["window"], plain["select"], policies, plain["tolerance"])

    names = [f"m{index}" for index in range(len(targets))]
    hpa = HorizontalPodAutoscaler(
        [AverageValueMetric(name, target) for name, target in zip(names, targets, strict=True)],
        min_replicas=minimum,
        max_replicas=minimum + spread,
        behavior=Behavior(typed(upward), typed(downward)),
    )
    expected = ReferenceHpa(targets, minimum, minimum + spread, upward, downward)
    now, replicas = 0.0, start
    for seconds, override, beyond, values in steps:
        now += seconds
        replicas = replicas if override is None else override
        status = max(0, replicas + beyond)
        totals = values[: len(targets)]
        decision = hpa.sync(now, replicas, status, dict(zip(names, totals, strict=True)))
        assert decision.desired == expected.sync(now, replicas, status, totals)
        replicas = decision.desired
