"""The analyzer `saturation-v1` on observations: published vectors, missing samples, transition and parameters."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wva_analyzers.saturation_v1.plugin import SaturationV1
from wva_core.domain import Verdict
from wva_core.errors import PolicyError
from wva_core.policy.documents import validate
from wva_core.testing.builders import observe, settings

NAN = math.nan


def assess(seen, **parameters):
    chosen = SaturationV1.Parameters(**parameters)
    return SaturationV1(chosen).assess(seen, settings(chosen, seen))


def fleet(pods, **variant):
    """One scope; `pods` are (kv, waiting) of variant `v`, or a mapping from variants to such lists."""
    by_variant = pods if isinstance(pods, dict) else {"v": pods}
    return observe(
        variants=[{"name": name, **variant} for name in by_variant],
        replicas=[
            {"variant": name, "kv_usage": kv, "waiting": waiting}
            for name, rows in by_variant.items()
            for kv, waiting in rows
        ],
    )


def said(answer):
    """The only scope's (required, spare), or its verdict where it is not judged."""
    if answer.verdict[0] != Verdict.JUDGED:
        return Verdict(answer.verdict[0])
    return float(answer.required[0]), float(answer.spare[0])


def sentence(answer, scope=0):
    details = {name: column[scope] for name, column in answer.details.items()}
    return answer.reasons[answer.reason[scope]].format(**details)


GROW, SHRINK, STAY = (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)

# Vectors of upstream WVA v0.9, default thresholds: replicas (kv, queue), number not saturated, outcome, other figures.
VECTORS = {
    "A1": ([(0.75, 2), (0.76, 2)], 2, GROW, {"avg_spare_kv": 0.045}),
    "A2": ([(0.50, 1), (0.50, 1)], 2, STAY, {"avg_spare_kv": 0.30, "avg_spare_queue": 4, "remaining_kv": -0.20}),
    "A3": ([(0.20, 1), (0.30, 1), (0.25, 1)], 3, SHRINK, {"remaining_kv": 0.425, "remaining_queue": 3.5}),
    "A4": ([(0.70, 2), (0.75, 2)], 2, GROW, {}),
    "A5": ([(0.50, 2)], 1, STAY, {"remaining_kv": NAN}),
    "A7": ([(0.85, 2), (0.50, 6), (0.90, 7)], 0, GROW, {"avg_spare_kv": 0, "avg_spare_queue": 0, "saturated": 3}),
    "A8": ([(0.85, 2), (0.50, 6), (0.60, 2)], 1, STAY, {"saturated": 2}),
    "A9": (
        {"v1": [(0.70, 2), (0.75, 3)], "v2": [(0.60, 1), (0.65, 2)]},
        4,
        STAY,
        {"avg_spare_kv": 0.125, "avg_spare_queue": 3.0},
    ),
    "A10": ([(0.95, 0)], 0, GROW, {}),
    "A11": ([(0.95, 0), (0.05, 0)], 1, STAY, {"avg_spare_kv": 0.75}),
    "A12": ([(0.95, 0)] + [(0.05, 0)] * 4, 4, SHRINK, {"saturated": 1}),
    "A13": ([(0.95, 0), (0.70, 0)], 1, STAY, {"avg_spare_kv": 0.10000000000000009}),
    "A14": ([(0.95, 0), (0.71, 0)], 1, GROW, {}),
    "A15": ([(0.95, 0)] * 3, 0, GROW, {}),
    "A16": ([(0.80, 0)], 0, GROW, {}),
    "A17": ([(0.20, 5)], 0, GROW, {}),
    "A18": ([(0.35, 0)] * 2, 2, SHRINK, {"remaining_kv": 0.10000000000000009}),
    "A19": ([(0.36, 0)] * 2, 2, STAY, {"remaining_kv": 0.08}),
    "A20 safe": ([(0.46, 0)] * 3, 3, SHRINK, {}),
    "A20 unsafe": ([(0.47, 0)] * 3, 3, STAY, {}),
    "A21 safe": ([(0.525, 0)] * 4, 4, SHRINK, {}),
    "A21 unsafe": ([(0.53, 0)] * 4, 4, STAY, {}),
    "A22 safe": ([(0.20, 1)] * 2, 2, SHRINK, {"remaining_queue": 3}),
    "A22 unsafe": ([(0.20, 2)] * 2, 2, STAY, {"remaining_queue": 1}),
    "A23 enough": ([(0.65, 0), (0.72, 0)], 2, STAY, {"avg_spare_kv": 0.115}),
    "A23 low": ([(0.65, 0), (0.76, 0)], 2, GROW, {"avg_spare_kv": 0.095}),
}


@pytest.mark.parametrize(("pods", "n", "outcome", "figures"), VECTORS.values(), ids=VECTORS)
def test_published_vector(pods, n, outcome, figures):
    answer = assess(fleet(pods))
    assert said(answer) == outcome
    assert answer.details["non_saturated"][0] == n
    for name, value in figures.items():
        exact = value in {0.10000000000000009, 3}  # these decide by equality
        tolerance = {"rel": 0, "abs": 0} if exact else {"rel": 1e-12, "abs": 1e-12}
        assert answer.details[name][0] == pytest.approx(value, nan_ok=True, **tolerance)


def test_published_vector_without_metrics():  # A6
    answer = assess(observe(variants=[{"name": "v", "current": 2}]))
    assert said(answer) == Verdict.FREEZE
    assert answer.details["non_saturated"][0] == 0
    assert np.isnan(answer.capacity[0])


@pytest.mark.parametrize(("kv", "outcome"), [(0.35, STAY), (0.36, GROW)], ids=["A24 enough", "A24 low"])
def test_published_vector_with_other_thresholds(kv, outcome):
    assert said(assess(fleet([(kv, 0)]), kv_cache_threshold=0.70, kv_spare_trigger=0.35)) == outcome


def test_published_vector_of_variant_figures():  # A25
    answer = assess(fleet([(0.30, 2), (0.60, 2), (0.90, 2)]))
    assert answer.details["avg_kv"][0] == pytest.approx(0.60)
    assert answer.details["max_kv"][0] == 0.90
    assert answer.details["max_queue"][0] == 2
    assert answer.details["non_saturated"][0] == 2


@pytest.mark.parametrize(
    ("pods", "text"),
    [
        ([(0.75, 3)] * 2, "mean spare KV cache 0.050 is below 0.100 and mean spare queue 2.0 is below 3.0"),
        ([(0.75, 2)] * 2, "mean spare KV cache 0.050 is below 0.100"),
        ([(0.20, 3)] * 2, "mean spare queue 2.0 is below 3.0"),
        ([(0.20, 1)] * 3, "one replica fewer leaves a spare KV cache of 0.500 and a spare queue of 3.5"),
        ([(0.50, 1)] * 2, ""),
        ([(NAN, 1)] * 2, "no replica reports both its KV cache and its queue"),
    ],
)
def test_the_reason_names_what_fired(pods, text):
    assert sentence(assess(fleet(pods))) == text


def test_only_variants_with_a_reporting_replica_have_a_capacity():
    seen = observe(
        variants=[{"name": "full"}, {"name": "half"}, {"name": "mute"}, {"name": "gone"}],
        replicas=[
            {"variant": "full", "kv_usage": 0.4, "waiting": 0},
            {"variant": "half", "waiting": 0},
            {"variant": "mute"},
        ],
    )
    answer = assess(seen)
    capacity = dict(zip(seen.fleet.keys, answer.capacity.tolist(), strict=True))
    assert capacity == {"ns/full": 1.0, "ns/half": 1.0, "ns/mute": pytest.approx(NAN, nan_ok=True)} | {
        "ns/gone": pytest.approx(NAN, nan_ok=True)
    }
    assert [answer.reasons[index] for index in answer.capacity_reason] == [
        "",
        "no replica of the variant reports",
        "",
        "no replica of the variant reports",
    ]


def test_a_missing_value_is_left_out_of_growth():
    # with the third replica read as kv 0 the mean spare would be .30, without it .05
    assert said(assess(fleet([(0.75, 0), (0.75, 0)]))) == GROW
    assert said(assess(fleet([(0.75, 0), (0.75, 0), (NAN, 0)]))) == GROW
    assert said(assess(fleet([(0.75, 0), (0.75, 0), (NAN, NAN)]))) == GROW


def test_a_missing_value_counts_in_the_shrink_test_as_a_replica_without_spare():
    # three at kv .40 could lose one (.60 on each of two). With a fourth, of unknown load, spare is (3 x .40 + 0) / 4 =
    # .30, so used .50; onto three replicas: .50 x 4/3 = .667 used, .133 left: still safe.
    answer = assess(fleet([(0.40, 0)] * 3 + [(NAN, 0)]))
    assert said(answer) == SHRINK
    assert answer.details["remaining_kv"][0] == pytest.approx(0.80 - 0.50 * 4 / 3)
    # five in doubt beside five at .40: spare .20, used .60, onto nine: .667 used; queue spare 2.5, onto nine: 2.22 < 3
    assert said(assess(fleet([(0.40, 0)] * 5 + [(NAN, 0)] * 5))) == STAY


def test_two_replicas_known_not_to_be_saturated_are_needed_to_shrink():
    # with triggers of 0 one idle replica could carry one without spare, but nobody knows that the other has any
    nothing = {"kv_spare_trigger": 0.0, "queue_spare_trigger": 0.0}
    assert said(assess(fleet([(0.0, 0), (0.0, 0)]), **nothing)) == SHRINK
    assert said(assess(fleet([(0.0, 0), (NAN, NAN)]), **nothing)) == STAY


def test_a_value_that_saturates_needs_no_other():
    assert said(assess(fleet([(0.95, NAN)]))) == GROW
    assert said(assess(fleet([(NAN, 5)]))) == GROW


@pytest.mark.parametrize("pods", [[(NAN, NAN)], [(0.2, NAN)], [(NAN, 0), (0.2, NAN)]])
def test_a_scope_in_which_nothing_can_be_judged_is_frozen(pods):
    answer = assess(fleet(pods))
    assert said(answer) == Verdict.FREEZE
    assert np.isnan(answer.required[0])
    assert np.isnan(answer.spare[0])


def test_a_settling_variant_that_reports_freezes_its_scope():
    assert said(assess(fleet([(0.95, 0)], settling=True))) == Verdict.FREEZE
    assert sentence(assess(fleet([(0.95, 0)], settling=True))).startswith("the last step is still under way")


def test_a_settling_variant_without_metrics_freezes_nothing():
    seen = observe(
        variants=[{"name": "a"}, {"name": "b", "settling": True}],
        replicas=[{"variant": "a", "kv_usage": 0.95, "waiting": 0}],
    )
    assert said(assess(seen)) == GROW


def test_scopes_are_judged_apart():
    seen = observe(
        variants=[{"name": "hot", "role": "decode"}, {"name": "cold", "role": "prefill"}],
        replicas=[{"variant": "hot", "kv_usage": 0.9, "waiting": 0}]
        + [{"variant": "cold", "kv_usage": 0.1, "waiting": 0}] * 3,
    )
    answer = assess(seen)
    assert [scope.role for scope in seen.fleet.scopes] == ["decode", "prefill"]
    assert answer.required.tolist() == [1.0, 0.0]
    assert answer.spare.tolist() == [0.0, 1.0]


def test_an_empty_fleet_is_answered_with_empty_columns():
    answer = assess(observe(variants=[]))
    assert len(answer.verdict) == len(answer.capacity) == 0


@pytest.mark.parametrize(
    ("parameters", "key"),
    [
        ({"kvCacheThreshold": 1.01}, "kvCacheThreshold"),
        ({"kvCacheThreshold": -0.1}, "kvCacheThreshold"),
        ({"queueLengthThreshold": -1}, "queueLengthThreshold"),
        ({"kvSpareTrigger": 1.1}, "kvSpareTrigger"),
        ({"queueSpareTrigger": "3"}, "queueSpareTrigger"),
        ({"queueSpareTrigger": NAN}, "queueSpareTrigger"),
        ({"kvCacheTreshold": 0.8}, "kvCacheTreshold"),
    ],
    ids=str,
)
def test_parameters_outside_their_range_are_refused(parameters, key):
    with pytest.raises(PolicyError) as refused:
        validate(SaturationV1.Parameters, parameters, "policy.yaml", PolicyError)
    assert refused.value.key == key


def test_a_trigger_that_can_never_be_met_is_refused():
    with pytest.raises(PolicyError) as refused:
        validate(SaturationV1.Parameters, {"kvSpareTrigger": 0.5, "kvCacheThreshold": 0.4}, "policy.yaml", PolicyError)
    assert "kvSpareTrigger 0.5 is above kvCacheThreshold 0.4" in str(refused.value)
    assert refused.value.remedy == "lower the trigger"


def test_parameters_are_read_as_policy_files_spell_them():
    read = validate(
        SaturationV1.Parameters, {"kvCacheThreshold": 0.7, "queueSpareTrigger": 2}, "policy.yaml", PolicyError
    )
    assert (read.kv_cache_threshold, read.queue_spare_trigger) == (0.7, 2.0)
    assert (read.queue_length_threshold, read.kv_spare_trigger) == (5.0, 0.10)


SAMPLES = st.tuples(
    st.one_of(st.just(NAN), st.sampled_from([0.0, 0.2, 0.35, 0.5, 0.7, 0.8]), st.floats(0, 1)),
    st.one_of(st.just(NAN), st.sampled_from([0.0, 1.0, 2.0, 5.0]), st.floats(0, 10)),
)
THRESHOLDS = st.fixed_dictionaries(
    {"kv_spare_trigger": st.sampled_from([0.0, 0.1, 0.3]), "queue_spare_trigger": st.sampled_from([0.0, 1.0, 3.0])}
)


@given(st.lists(SAMPLES, min_size=1, max_size=8), THRESHOLDS)
def test_an_unknown_sample_lets_nothing_go_that_could_not_go_fully_loaded(pods, thresholds):
    answer = assess(fleet(pods), **thresholds)
    loaded = [(1.0 if math.isnan(kv) else kv, 100.0 if math.isnan(waiting) else waiting) for kv, waiting in pods]
    if answer.spare[0] == 1:
        assert assess(fleet(loaded), **thresholds).spare[0] == 1


@given(st.lists(SAMPLES, min_size=1, max_size=8))
def test_an_unknown_sample_asks_for_nothing_that_is_not_asked_for_fully_loaded(pods):
    answer = assess(fleet(pods))
    loaded = [(1.0 if math.isnan(kv) else kv, 100.0 if math.isnan(waiting) else waiting) for kv, waiting in pods]
    if answer.required[0] == 1:
        assert assess(fleet(loaded)).required[0] == 1


@given(st.lists(SAMPLES, min_size=1, max_size=8), st.randoms())
def test_the_order_in_which_replicas_are_listed_changes_nothing(pods, random):
    rows = [
        {"variant": "v", "pod": f"v-{number}", "kv_usage": kv, "waiting": waiting}
        for number, (kv, waiting) in enumerate(pods)
    ]
    one = assess(observe(variants=[{"name": "v"}], replicas=rows))
    other = assess(observe(variants=[{"name": "v"}], replicas=random.sample(rows, len(rows))))
    assert said(one) == said(other)
    for name, column in one.details.items():
        assert np.array_equal(column, other.details[name], equal_nan=True)
