"""One decision: what holds, what a failing part costs, and that nothing outside the arguments matters."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from tests.unit.engine.parts import (
    NAN,
    analyzer,
    brain,
    fixed,
    follows,
    freezes,
    measured,
    optimizer,
    remembering,
    says,
    steps,
)
from wva_core.domain import Allocation, Assessment, Memory, Reason, ReplicaTable, SignalRequest, Verdict
from wva_core.engine import Deadline, decide, same_plan
from wva_core.testing.builders import observe

KV = SignalRequest("kv_usage")


@pytest.fixture
def chains():
    """Makes brains and takes them out of service after the test."""
    made = []

    def make(analyzers, chooser, /, **policy):
        made.append(brain(analyzers, chooser, **policy))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def plan_of(seen, chain, memory=None):
    return decide(seen, chain, memory or Memory.empty(seen.fleet)).plan


def reasons(plan):
    return [Reason(value) for value in plan.reason]


def two(**variant):
    return observe([{"name": "a", "current": 2, **variant}])


# ---------------------------------------------------------------------------------------------------------------------
# Moving and holding


def test_growth_and_shrinking_follow_the_votes(chains):
    for answer, desired, reason in (
        (steps(required=1), 3.0, Reason.GROW),
        (steps(spare=1), 1.0, Reason.SHRINK),
        (steps(), 2.0, Reason.STEADY),
    ):
        plan = plan_of(two(), chains([analyzer(answer)], optimizer(follows)))
        assert (plan.desired.tolist(), reasons(plan), plan.degraded) == ([desired], [reason], False)


def test_every_variant_has_a_row_and_its_bounds_are_told(chains):
    seen = observe([{"name": name, "model": name, "max_replicas": 9} for name in "abc"])
    plan = plan_of(seen, chains([analyzer(steps(required=1))], optimizer(follows)))
    assert plan.fleet is seen.fleet
    assert (plan.desired.tolist(), plan.low.tolist(), plan.high.tolist()) == ([2] * 3, [0] * 3, [9] * 3)


@pytest.mark.parametrize("answer", [freezes, says("freeze", spare=1), measured(NAN, 1.0)])
def test_a_frozen_scope_keeps_its_last_target_else_what_is_there(chains, answer):
    chain = chains([analyzer(answer)], optimizer(follows))
    seen = replace(two(), time=9000.0)
    plan = plan_of(seen, chain)
    assert (plan.desired.tolist(), reasons(plan)) == ([2.0], [Reason.FROZEN])
    plan = plan_of(seen, chain, remembering(seen.fleet, target=[6]))
    assert (plan.desired.tolist(), reasons(plan)) == ([6.0], [Reason.FROZEN])


def test_one_freezes_and_another_requires_growth(chains):
    chain = chains([analyzer(freezes, name="first"), analyzer(steps(required=1), name="second")], optimizer(follows))
    assert plan_of(two(), chain).desired.tolist() == [3.0]


def test_a_scope_whose_capacity_nobody_knows_is_held(chains):
    plan = plan_of(two(), chains([analyzer(steps(required=1, capacity=NAN))], optimizer(follows)))
    assert (plan.desired.tolist(), reasons(plan)) == ([2.0], [Reason.NO_ANCHOR])


def test_no_shrink_grows_and_never_shrinks(chains):
    chain = chains([analyzer(says("no_shrink", required=1))], optimizer(follows))
    assert plan_of(two(), chain).desired.tolist() == [3.0]
    chain = chains([analyzer(says("no_shrink", spare=1))], optimizer(follows))
    assert plan_of(two(), chain).desired.tolist() == [2.0]


@pytest.mark.parametrize("bound", [{"min_replicas": 3}, {"max_replicas": 1}])
@pytest.mark.parametrize(
    "answer", [steps(), freezes, says("abstain"), steps(capacity=NAN)], ids=["judged", "frozen", "abstain", "nobody"]
)
def test_minimum_and_maximum_hold_on_every_path(chains, bound, answer):
    plan = plan_of(two(**bound), chains([analyzer(answer)], optimizer(follows)))
    assert plan.desired.tolist() == [float(next(iter(bound.values())))]
    assert reasons(plan) == [Reason.BOUND_MIN if "min_replicas" in bound else Reason.BOUND_MAX]


@pytest.mark.parametrize("bound", [{"min_replicas": 3}, {"max_replicas": 1}])
def test_and_where_the_optimizer_leaves_a_variant_out_fails_or_the_fleet_is_incomplete(chains, bound):
    silent = optimizer(lambda seen, _ballot, _limits: Allocation(np.full(len(seen.fleet), NAN)))
    broken = optimizer(lambda *_: 1 / 0)
    expected = [float(next(iter(bound.values())))]
    assert plan_of(two(**bound), chains([analyzer(steps())], silent)).desired.tolist() == expected
    assert plan_of(two(**bound), chains([analyzer(steps())], broken)).desired.tolist() == expected
    lost = replace(two(**bound), complete=False)
    assert plan_of(lost, chains([analyzer(steps())], optimizer(follows))).desired.tolist() == expected


def test_growth_stops_at_the_maximum_and_says_so(chains):
    plan = plan_of(two(max_replicas=2), chains([analyzer(steps(required=1))], optimizer(follows)))
    assert (plan.desired.tolist(), reasons(plan)) == ([2.0], [Reason.BOUND_MAX])


def test_shrinking_stops_at_the_minimum_and_says_so(chains):
    plan = plan_of(two(min_replicas=2), chains([analyzer(steps(spare=1))], optimizer(follows)))
    assert (plan.desired.tolist(), reasons(plan)) == ([2.0], [Reason.BOUND_MIN])


def test_a_variant_of_unknown_size_and_without_a_target_gets_nothing(chains):
    seen = observe([{"name": "a", "current": NAN, "ready": NAN, "pending": NAN, "min_replicas": 1}])
    plan = plan_of(seen, chains([analyzer(steps(required=1))], optimizer(follows)))
    assert np.isnan(plan.desired).all()
    assert reasons(plan) == [Reason.UNKNOWN]


def test_an_incomplete_fleet_holds_everything(chains):
    chain = chains([analyzer(steps(required=1))], optimizer(follows))
    plan = plan_of(replace(two(), complete=False), chain)
    assert (plan.desired.tolist(), reasons(plan), plan.degraded) == ([2.0], [Reason.HELD_INCOMPLETE], True)


def stale(seen, age):
    values = {"kv_usage": np.full(len(seen.replicas), 0.5)}
    table = ReplicaTable.of(seen.replicas.index, values, {"kv_usage": np.full(len(seen.replicas), age)})
    return replace(seen, replicas=table)


def reporting(**variant):
    return observe([{"name": "a", **variant}], [{"variant": "a"}] * 2)


def test_nothing_shrinks_on_stale_or_missing_data_but_it_may_grow(chains):
    for age, reason in ((0.0, Reason.SHRINK), (60.0, Reason.HELD_STALE), (300.0, Reason.HELD_MISSING)):
        seen = stale(reporting(current=2), age)
        plan = plan_of(seen, chains([analyzer(steps(spare=1), signals=[KV])], optimizer(follows)))
        assert (plan.desired.tolist(), reasons(plan)) == ([1.0 if age == 0.0 else 2.0], [reason])
        plan = plan_of(seen, chains([analyzer(steps(required=1), signals=[KV])], optimizer(follows)))
        assert plan.desired.tolist() == [3.0]


def test_signals_that_only_an_optional_analyzer_reads_hold_nothing(chains):
    first, second = analyzer(steps(spare=1), name="first"), analyzer(steps(spare=1), name="second", signals=[KV])
    seen = reporting(current=2)
    assert plan_of(seen, chains([first, second], optimizer(follows))).desired.tolist() == [2.0]
    second.required = False
    assert plan_of(seen, chains([first, second], optimizer(follows))).desired.tolist() == [1.0]


def test_an_outage_in_the_middle_of_growth_keeps_the_target_however_long_it_lasts(chains):
    # target 6 set at 0 s, the autoscaler stands at 4; signals stop at 10 s and their age grows by the second.
    # Stale from 70 s, settled (300 s) while stale, missing from 310 s; the analyzer judges what it is given.
    def judge(observation, _settings, _state):
        fleet = observation.fleet
        known = observation.replicas.index.by_scope.any(~np.isnan(observation.replicas["kv_usage"]))
        step = np.where(known, 0.0, NAN)
        return Assessment.of(fleet, unit="replicas", capacity=np.ones(len(fleet)), required=step, spare=step)

    chain = chains([analyzer(judge, signals=[KV])], optimizer(follows))
    seen = observe([{"name": "a", "current": 4}], [{"variant": "a"}] * 4)
    memory = remembering(seen.fleet, target=[6])
    for time in np.arange(15.0, 1200.0, 15.0):
        decision = decide(replace(stale(seen, time - 10.0), time=float(time)), chain, memory)
        assert decision.plan.desired.tolist() == [6.0], time
        memory = decision.memory
    assert decision.plan.stalled.tolist() == [True]
    # fresh signals again: what is there is the base
    assert decide(replace(stale(seen, 0.0), time=1200.0), chain, memory).plan.desired.tolist() == [4.0]


def test_a_target_that_is_not_reached_is_the_base_for_settle_seconds_only(chains):
    chain = chains([analyzer(steps())], optimizer(follows), bounds={"settleSeconds": 60})
    seen = observe([{"name": "a", "current": 4}])
    memory = remembering(seen.fleet, target=[6])
    for time, desired, stalls in ((59.0, 6.0, False), (60.0, 4.0, True)):
        plan = plan_of(replace(seen, time=time), chain, memory)
        assert (plan.desired.tolist(), plan.stalled.tolist()) == ([desired], [stalls])


def test_shared_gpus_are_a_limit_the_optimizer_sees(chains):
    shown = []

    def look(seen, ballot, limits):
        shown.append(limits.rows)
        return follows(seen, ballot, limits)

    seen = observe([{"name": "a", "current": 2}, {"name": "b", "current": 1}], accelerators={"H100": (8, 5)})
    plan = plan_of(seen, chains([analyzer(steps(required=1))], optimizer(look)))
    assert (shown[0].labels, shown[0].upper.tolist()) == (("GPUs of type H100",), [6.0])
    assert plan.limits == ("GPUs of type H100",)


def test_the_row_that_stopped_growth_is_told(chains):
    def stopped(seen, _ballot, _limits):
        return Allocation(seen.variants.base, binding_row=np.array([0]))

    seen = observe([{"name": "a", "current": 2}], accelerators={"H100": (2, 2)})
    plan = plan_of(seen, chains([analyzer(steps(required=1))], optimizer(stopped)))
    assert (reasons(plan), plan.binding_row.tolist()) == ([Reason.BOUND_ROW], [0])


def test_the_wish_is_what_static_limits_alone_would_have_given(chains):
    calls = []

    def wishing(seen, ballot, limits):
        calls.append((limits.low[0], limits.high[0]))
        return fixed(9)(seen, ballot, limits)

    rate = {"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]}}}
    plan = plan_of(two(), chains([analyzer(steps())], optimizer(wishing), bounds=rate))
    assert calls == [(0.0, np.inf), (2.0, 3.0)]
    assert (plan.wanted.tolist(), plan.desired.tolist(), reasons(plan)) == ([9.0], [3.0], [Reason.BOUND_RATE])


def test_a_wish_within_the_bounds_is_asked_for_once(chains):
    calls = []

    def counting(seen, ballot, limits):
        calls.append(1)
        return follows(seen, ballot, limits)

    plan_of(two(), chains([analyzer(steps(required=1))], optimizer(counting)))
    assert len(calls) == 1


# ---------------------------------------------------------------------------------------------------------------------
# Failing parts


def held_by_optimizer(decision, problem):
    plan = decision.plan
    assert plan.desired.tolist() == plan.wanted.tolist() == [2.0]
    assert (reasons(plan), plan.status, plan.degraded) == ([Reason.HELD_OPTIMIZER], "held", True)
    assert problem in str(decision.failures["optimizer chooser"])
    assert [notice.code for notice in plan.notices] == ["plugin_failed"]


UNUSABLE = {
    "raises": (lambda *_: 1 / 0, "raised ZeroDivisionError"),
    "nothing": (lambda *_: None, "returned None"),
    "another type": (lambda *_: 3, "allocate.answer: is not what the hook returns (got 'int'); return Allocation"),
    "another shape": (lambda *_: Allocation(np.ones(2)), "allocate.replicas: is not what the hook returns (got (2,))"),
    "text": (lambda *_: Allocation(["two"]), "an array of numbers of shape (1,)"),
    "half": (lambda *_: Allocation(np.array([1.5])), "ns/a: is not a whole number of replicas (got 1.5)"),
    "too many": (lambda *_: Allocation(np.array([9.0])), "ns/a: is outside [0, 5] (got 9.0)"),
    "a row that is none": (
        lambda *_: Allocation(np.array([2.0]), binding_row=np.array([0])),
        "allocate.binding_row: is not what the hook returns (got 0); return numbers from -1 to -1",
    ),
    "a reason that is none": (
        lambda *_: Allocation(np.array([2.0]), reason=np.array([1])),
        "allocate.reason: is not what the hook returns (got 1); return numbers from 0 to 0",
    ),
}


@pytest.mark.parametrize(("answer", "problem"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_an_optimizer_without_a_usable_answer_holds_every_target(chains, answer, problem):
    chain = chains([analyzer(steps(required=1))], optimizer(answer))
    seen = two(max_replicas=5)
    held_by_optimizer(decide(seen, chain, Memory.empty(seen.fleet)), problem)


def test_the_targets_hold_even_where_they_were_not_reached_or_a_rate_would_bind(chains):
    rate = {
        "settleSeconds": 0,
        "behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]}},
    }
    chain = chains([analyzer(steps())], optimizer(lambda *_: 1 / 0), bounds=rate)
    seen = replace(observe([{"name": "a", "current": 4}]), time=9000.0)
    assert plan_of(seen, chain, remembering(seen.fleet, target=[6])).desired.tolist() == [6.0]


def test_a_second_answer_that_fails_holds_and_its_wish_is_forgotten(chains):
    def once(_seen, _ballot, limits):
        if limits.high[0] == np.inf:
            return Allocation(np.array([9.0]))
        raise RuntimeError("twice is too much")

    rate = {
        "behavior": {
            "scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]},
            "scaleDown": {"stabilizationWindowSeconds": 60},
        }
    }
    seen = two()
    decision = decide(seen, chains([analyzer(steps())], optimizer(once), bounds=rate), Memory.empty(seen.fleet))
    held_by_optimizer(decision, "raised RuntimeError: twice is too much")
    assert [row.tolist() for row in decision.memory.wishes.values] == [[2.0]]


def test_an_analyzer_that_raises_costs_its_own_vote(chains):
    broken = analyzer(lambda *_: 1 / 0, name="broken")
    for other, desired in ((steps(required=1), 3.0), (steps(spare=1), 2.0)):
        seen = two()
        decision = decide(
            seen, chains([broken, analyzer(other, name="other")], optimizer(follows)), Memory.empty(seen.fleet)
        )
        assert decision.plan.desired.tolist() == [desired]
        assert list(decision.failures) == ["analyzer broken"]
        assert list(decision.assessments) == ["other"]
        assert decision.plan.degraded


def answering(**columns):
    def answer(observation, _settings, _state):
        good = {"capacity": np.ones(1), "demand": np.zeros(1), "verdict": np.array([Verdict.JUDGED])}
        return Assessment(unit="tokens", **{**good, **columns})

    return answer


MISSHAPEN = {
    "another type": (lambda *_: 3, "assess.answer: is not what the hook returns (got 'int'); return Assessment"),
    "capacity of a scope": ({"capacity": np.ones(2)}, "assess.capacity: is not what the hook returns (got (2,))"),
    "demand missing": ({"demand": None}, "assess.demand: is not what the hook returns (got 'NoneType')"),
    "verdict as fractions": ({"verdict": np.array([1.0])}, "an array of whole numbers of shape (1,)"),
    "unknown verdict": ({"verdict": np.array([4])}, "assess.verdict: is not what the hook returns (got 4)"),
    "required of variants": ({"required": np.ones(3)}, "assess.required: is not what the hook returns (got (3,))"),
    "negative demand": ({"demand": np.array([-1.0])}, "(got -1.0); return finite numbers of at least 0, or NaN"),
    "detail of no variant": (
        {"per_variant": ("load",)},
        "assess.per_variant: is not what the hook returns (got 'load'); return names of details",
    ),
    "priority of variants": ({"priority": np.ones(3)}, "assess.priority: is not what the hook returns (got (3,))"),
    "priority of zero": (
        {"priority": np.zeros(1)},
        "assess.priority: is not what the hook returns (got 0.0); return numbers from 1, which is served first, or NaN",
    ),
    "infinite demand": ({"demand": np.array([np.inf])}, "assess.demand: is not what the hook returns (got inf)"),
    "infinite capacity": ({"capacity": np.array([np.inf])}, "assess.capacity: is not what the hook returns (got inf)"),
    "reason without a sentence": ({"reason": np.array([1])}, "assess.reason: is not what the hook returns (got 1)"),
    "details of nothing": ({"details": {"load": np.ones(7)}}, "assess.details.load: is not what the hook returns"),
    "state of objects": ({"state": {"model": object()}}, "assess.state: is not what the hook returns"),
    "state that is no mapping": ({"state": [1]}, "assess.state: is not what the hook returns (got [1])"),
}


@pytest.mark.parametrize(("columns", "problem"), MISSHAPEN.values(), ids=MISSHAPEN.keys())
def test_a_misshapen_assessment_is_no_vote(chains, columns, problem):
    answer = columns if callable(columns) else answering(**columns)
    seen = two()
    decision = decide(seen, chains([analyzer(answer)], optimizer(follows)), Memory.empty(seen.fleet))
    assert problem in str(decision.failures["analyzer mine"])
    assert decision.plan.desired.tolist() == [2.0]
    assert decision.memory.states == {}


def test_lists_are_columns_too(chains):
    answer = answering(capacity=[1.0], demand=[0.0], verdict=[1], required=[1], spare=[0])
    assert plan_of(two(), chains([analyzer(answer)], optimizer(follows))).desired.tolist() == [3.0]


def test_who_is_late_loses_result_and_state_and_leaves_time_to_the_others(chains):
    release = threading.Event()

    def slow(_observation, _settings, _state):
        assert release.wait(30.0)
        return answering(state={"version": 2})(None, None, None)

    chain = chains(
        [analyzer(slow, name="slow"), analyzer(steps(required=1, state={"version": 1}), name="quick")],
        optimizer(follows),
    )
    seen = two()
    memory = replace(Memory.empty(seen.fleet), states={"slow": {"version": 1}})
    decision = decide(seen, chain, memory, Deadline(0.4))
    release.set()
    assert "did not answer within 0.2 s" in str(decision.failures["analyzer slow"])
    assert list(decision.failures) == ["analyzer slow"]
    assert decision.plan.desired.tolist() == [3.0]
    assert decision.memory.states == {"slow": {"version": 1}, "quick": {"version": 1}}


def test_an_absent_entry_is_not_asked_and_has_no_say(chains):
    asked = []

    def noting(*arguments):
        asked.append(1)
        return steps(spare=1)(*arguments)

    chain = chains([analyzer(noting), analyzer(steps(spare=1), name="other")], optimizer(follows))
    seen = two()
    decision = decide(seen, chain, Memory.empty(seen.fleet), absent={"analyzer mine": "was late"})
    assert (asked, decision.plan.desired.tolist()) == ([], [2.0])
    assert str(decision.failures["analyzer mine"]) == "analyzer mine: assess: was late"
    held = decide(seen, chain, Memory.empty(seen.fleet), absent={"optimizer chooser": "was late"})
    assert reasons(held.plan) == [Reason.HELD_OPTIMIZER]


# ---------------------------------------------------------------------------------------------------------------------
# Policy by model, and purity


def test_an_analyzer_is_asked_only_about_the_models_policy_names(chains):
    # `second` is off by default and switched on for model m alone, where its veto counts
    analyzers = [analyzer(steps(spare=1), name="first"), analyzer(steps(), name="second")]
    document = {
        "analyzers": [{"type": "first"}, {"type": "second", "enabled": False}],
        "overrides": [{"match": {"modelID": "m"}, "analyzers": [{"name": "second", "enabled": True}]}],
    }
    seen = observe([{"name": "a", "model": "m", "current": 2}, {"name": "b", "model": "n", "current": 2}])
    plan = plan_of(seen, chains(analyzers, optimizer(follows), **document))
    assert plan.desired.tolist() == [2.0, 1.0]


def test_a_state_goes_round_as_plain_data(chains):
    given = []

    def counting(observation, settings, state):
        given.append(state)
        count = state.get("count", 0) + 1
        return steps(state={"count": count, "pair": (1, 2), "rates": np.arange(2.0)})(observation, settings, state)

    chain = chains([analyzer(counting)], optimizer(follows))
    seen = two()
    memory = Memory.empty(seen.fleet)
    for _ in range(3):
        memory = decide(seen, chain, memory).memory
    assert [state.get("count") for state in given] == [None, 1, 2]
    # as a checkpoint gives it back
    assert given[1]["pair"] == [1, 2]
    assert not given[1]["rates"].flags.writeable


def test_the_same_arguments_give_the_same_plan_and_stay_as_they_are(chains):
    chain = chains([analyzer(measured(500.0, 100.0))], optimizer(follows))
    seen = observe(
        [{"name": "a", "current": 3, "pending": 1}, {"name": "b", "current": 1}], accelerators={"H100": (9, 5)}
    )
    memory = remembering(seen.fleet, target=[4, NAN])
    before = memory.to_bytes()
    first, second = decide(seen, chain, memory), decide(seen, chain, memory)
    assert same_plan(first.plan, second.plan)
    assert first.memory.to_bytes() == second.memory.to_bytes()
    assert memory.to_bytes() == before
    assert np.isnan(seen.variants.target).all()


def test_a_plugin_cannot_write_on_what_it_is_given(chains):
    refused = []

    def scribbling(seen, ballot, limits):
        for column in (limits.low, limits.high, limits.rows.upper, seen.variants.base, ballot.votes[0].required):
            try:
                column[0] = 7.0
            except ValueError:
                refused.append(True)
        return follows(seen, ballot, limits)

    seen = observe([{"name": "a"}], accelerators={"H100": (2, 1)})
    decision = decide(seen, chains([analyzer(steps())], optimizer(scribbling)), Memory.empty(seen.fleet))
    assert (len(refused), decision.failures) == (5, {})


def test_an_empty_fleet_has_an_empty_plan(chains):
    plan = plan_of(observe([]), chains([analyzer(steps())], optimizer(follows)))
    assert (len(plan.desired), plan.degraded) == (0, False)
