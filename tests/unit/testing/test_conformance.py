"""The conformance kit catches what it is there to catch: one faulty plugin for each check that could miss it."""

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict

from wva_core.domain import Allocation, Assessment, FleetUpdate, Signals, Variant, VariantTable, Verdict
from wva_core.domain.fleet import Fleet
from wva_core.errors import WvaError
from wva_core.hooks import ActuationReport, Prediction, hookimpl
from wva_core.hooks.catalog import NoParameters
from wva_core.hooks.chain import Entry
from wva_core.testing import ActuatorConformance, AnalyzerConformance, CollectorConformance, OptimizerConformance


def caught(kit, plugin_class, check, *arguments):
    """Whether a check of the kit refuses the plugin."""

    class Checked(kit):
        plugin = "faulty"

        def _class(self):
            return plugin_class

    checks = Checked()
    entry = Entry.of(kit.kind, plugin_class, NoParameters(), type_name="faulty")
    entry.start(checks.runtime())
    try:
        getattr(checks, check)(*([entry] if "entry" in _names(checks, check) else []), *arguments)
    except (AssertionError, WvaError, pytest.fail.Exception):
        return True
    finally:
        entry.stop()
    return False


def _names(checks, check):
    return getattr(checks, check).__code__.co_varnames


class Good:
    """As many requests as run, sixteen to a replica."""

    api = "1"
    Parameters = NoParameters

    def __init__(self, parameters):
        self.parameters = parameters

    @hookimpl
    def assess(self, observation):
        return self.answer(observation)

    @hookimpl
    def predict(self, observation, allocation):
        running = observation.replicas.index.by_variant.sum(observation.replicas["running"])
        fill = running / np.where(allocation.replicas > 0, 16.0 * allocation.replicas, np.nan)
        return Prediction(*np.full((2, len(fill)), np.nan), fill)

    def answer(self, observation, **changed):
        demand = observation.replicas.index.by_scope.sum(observation.replicas["running"])
        empty = observation.replicas.index.by_scope.sizes() == 0
        columns = {
            "demand": np.where(empty, np.nan, demand),
            "capacity": np.full(len(observation.fleet), 16.0),
        }
        return Assessment.of(observation.fleet, unit="requests", **{**columns, **changed})


class InventsAZero(Good):
    """Takes unknown for none."""

    @hookimpl
    def assess(self, observation):
        running = np.nan_to_num(observation.replicas["running"])
        return self.answer(observation, demand=observation.replicas.index.by_scope.sum(running))


class Remembers(Good):
    """Counts its calls."""

    calls = 0

    @hookimpl
    def assess(self, observation):
        self.calls += 1
        return self.answer(observation, capacity=np.full(len(observation.fleet), 16.0 + self.calls))


class WritesToItsInput(Good):
    """Works in place."""

    @hookimpl
    def assess(self, observation):
        column = observation.replicas["running"]
        column *= 2.0
        return self.answer(observation)


class ChangesItsState(Good):
    """Counts in the state it was given."""

    @hookimpl
    def assess(self, observation, state):
        kept = state or {"version": 1, "calls": 0}
        kept["calls"] += 1
        return self.answer(observation, state=dict(kept))


class KeepsAnObject(Good):
    """Puts something into the state that no checkpoint can hold."""

    @hookimpl
    def assess(self, observation):
        return self.answer(observation, state={"version": 1, "model": object()})


class FollowsTheRows(Good):
    """Lets the order of the rows decide."""

    @hookimpl
    def assess(self, observation):
        return self.answer(observation, capacity=1.0 + np.arange(len(observation.fleet)))


class WrongShape(Good):
    """Answers for variants where scopes are asked for."""

    @hookimpl
    def assess(self, observation):
        count = len(observation.fleet)
        return self.answer(observation, demand=np.ones(count), verdict=np.full(count, Verdict.JUDGED))


class TakesOneReplicaLess(Good):
    """Cannot do without a replica."""

    @hookimpl
    def assess(self, observation):
        return self.answer(observation, capacity=np.full(len(observation.fleet), 16.0 + observation.replicas["itl"][0]))


class NamesNoDetail(Good):
    """Speaks of a number it does not give."""

    @hookimpl
    def assess(self, observation):
        return self.answer(
            observation, reason=np.ones(len(observation.fleet.scopes)), reasons=("", "{missing} is missing")
        )


class PredictsForScopes(Good):
    """Answers for scopes where variants are asked for."""

    @hookimpl
    def predict(self, observation):
        return Prediction(*np.ones((3, len(observation.fleet.scopes))))


class PredictsForEver(Good):
    """Divides by the replicas there are not."""

    @hookimpl
    def predict(self, observation):
        return Prediction(*np.full((3, len(observation.fleet)), np.inf))


class PredictsFromMemory(Good):
    """Keeps what it saw to itself."""

    seen = 0.0

    @hookimpl
    def assess(self, observation):
        self.seen += 1.0
        return self.answer(observation)

    @hookimpl
    def predict(self, observation):
        return Prediction(*np.full((3, len(observation.fleet)), self.seen))


class Undocumented(Good):
    __doc__ = None


class AcceptsChanges(Good):
    """Has parameters that can be changed."""

    class Parameters(BaseModel):
        model_config = ConfigDict(extra="forbid")


ANALYZER_FAULTS = [
    (InventsAZero, "test_nothing_known_of_the_load_shrinks_nothing", 0),
    (InventsAZero, "test_an_unknown_sample_shrinks_nothing_that_full_load_would_not", 2),
    (InventsAZero, "test_scopes_without_replicas_are_answered_without_shrinking"),
    (Remembers, "test_the_same_input_gives_the_same_answer", 0),
    (Remembers, "test_an_answer_depends_on_nothing_seen_before_but_the_state"),
    (WritesToItsInput, "test_what_it_is_given_stays_as_it_was"),
    (ChangesItsState, "test_what_it_is_given_stays_as_it_was"),
    (KeepsAnObject, "test_its_state_survives_a_checkpoint"),
    (FollowsTheRows, "test_other_names_change_the_order_of_the_answer_only", 0),
    (WrongShape, "test_ten_thousand_variants_are_answered"),
    (TakesOneReplicaLess, "test_an_empty_fleet_is_answered"),
    (NamesNoDetail, "test_its_answer_can_be_recorded"),
    (PredictsForScopes, "test_what_it_predicts_is_one_number_for_each_variant", 12),
    (PredictsForEver, "test_what_it_predicts_is_one_number_for_each_variant", 12),
    (PredictsFromMemory, "test_what_it_predicts_depends_on_what_it_is_given_alone"),
    (Undocumented, "test_its_class_says_what_it_does"),
    (AcceptsChanges, "test_its_parameters_cannot_be_changed_afterwards"),
    (Good, "test_a_page_beside_it_explains_it_and_all_its_parameters"),
]


@pytest.mark.parametrize(("plugin_class", "check", "arguments"), [(a, b, c) for a, b, *c in ANALYZER_FAULTS])
def test_a_faulty_analyzer_is_caught(plugin_class, check, arguments):
    assert caught(AnalyzerConformance, plugin_class, check, *arguments)


@pytest.mark.parametrize(
    ("check", "arguments"),
    sorted({(check, tuple(more)) for plugin_class, check, *more in ANALYZER_FAULTS if plugin_class is not Good}),
)
def test_a_good_analyzer_passes(check, arguments):
    assert not caught(AnalyzerConformance, Good, check, *arguments)


class Keeps:
    """Leaves everything as it is, as far as the limits allow."""

    api = "1"
    Parameters = NoParameters

    def __init__(self, parameters):
        self.parameters = parameters

    @hookimpl
    def allocate(self, observation, ballot, limits):
        return Allocation(np.clip(observation.variants.base, limits.low, limits.high))


class IgnoresLimits(Keeps):
    """Adds one to everything."""

    @hookimpl
    def allocate(self, observation, ballot):
        return Allocation(observation.variants.base + 1.0)


class GrowsTheUnknown(Keeps):
    """Adds one within the interval, whoever it is."""

    @hookimpl
    def allocate(self, observation, ballot, limits):
        return Allocation(np.clip(observation.variants.base + 1.0, limits.low, limits.high))


class ShrinksAlways(Keeps):
    """Takes one away within the interval, whatever is required."""

    @hookimpl
    def allocate(self, observation, ballot, limits):
        return Allocation(np.clip(observation.variants.base - 1.0, limits.low, limits.high))


class GrowsTheFirst(Keeps):
    """Lets names decide."""

    @hookimpl
    def allocate(self, observation, ballot, limits):
        first = np.zeros(len(observation.fleet))
        first[:1] = 1.0
        return Allocation(np.clip(observation.variants.base + first, limits.low, limits.high))


class AnswersInHalves(Keeps):
    """Has no whole numbers."""

    @hookimpl
    def allocate(self, observation, ballot, limits):
        return Allocation(observation.variants.base + 0.5)


class WritesToTheLimits(Keeps):
    """Works in place."""

    @hookimpl
    def allocate(self, observation, ballot, limits):
        low = limits.low
        low += 0.0
        return Allocation(np.clip(observation.variants.base, low, limits.high))


OPTIMIZER_FAULTS = [
    (WritesToTheLimits, "test_the_same_input_gives_the_same_answer", 0),
    (IgnoresLimits, "test_every_answer_keeps_the_interval_of_each_variant", 0),
    (IgnoresLimits, "test_every_answer_keeps_what_variants_share", 0, 4.0),
    (IgnoresLimits, "test_pinned_variants_stay_where_they_are_pinned", 0),
    (GrowsTheUnknown, "test_a_shared_limit_that_is_not_known_lets_nothing_grow", 0),
    (GrowsTheUnknown, "test_a_variant_of_unknown_capacity_gets_nothing_new", 0),
    (GrowsTheUnknown, "test_scopes_that_are_held_are_not_answered_or_stay", 0),
    (ShrinksAlways, "test_nothing_shrinks_where_something_is_required", 0),
    (GrowsTheFirst, "test_other_names_change_the_order_of_the_answer_only", 0),
    (AnswersInHalves, "test_ten_thousand_variants_are_answered"),
]


@pytest.mark.parametrize(("plugin_class", "check", "arguments"), [(a, b, c) for a, b, *c in OPTIMIZER_FAULTS])
def test_a_faulty_optimizer_is_caught(plugin_class, check, arguments):
    assert caught(OptimizerConformance, plugin_class, check, *arguments)


@pytest.mark.parametrize(("check", "arguments"), sorted({(check, tuple(more)) for _, check, *more in OPTIMIZER_FAULTS}))
def test_a_good_optimizer_passes(check, arguments):
    assert not caught(OptimizerConformance, Keeps, check, *arguments)


class MakesItsFleetAnew:
    """Lists the same variant in a new fleet every time, and signals for that fleet only."""

    api = "1"
    Parameters = NoParameters

    def __init__(self, parameters):
        self.parameters = parameters

    @hookimpl
    def discover(self):
        return FleetUpdate(Fleet([Variant("ns", "a", "m")]), VariantTable.of([1.0]))

    @hookimpl
    def collect(self, fleet):
        if len(fleet) != 1:
            raise KeyError(fleet.keys[0])
        return Signals()


@pytest.mark.parametrize(
    "check",
    [
        "test_the_fleet_is_the_same_object_while_nothing_appears_or_goes",
        "test_a_variant_that_another_collector_found_is_not_known_to_it",
    ],
)
def test_a_faulty_collector_is_caught(check):
    assert caught(CollectorConformance, MakesItsFleetAnew, check)


class WritesBehindTheFence:
    """Never looks at the fence, and cannot leave a variant alone."""

    api = "1"
    Parameters = NoParameters

    def __init__(self, parameters):
        self.parameters = parameters

    @hookimpl
    def act(self, plan):
        return ActuationReport(written=sum(int(desired) > 0 for desired in plan.desired))


@pytest.mark.parametrize(
    "check",
    ["test_nothing_is_written_behind_a_lowered_fence", "test_a_plan_that_says_nothing_of_any_variant_is_taken"],
)
def test_a_faulty_actuator_is_caught(check):
    assert caught(ActuatorConformance, WritesBehindTheFence, check)
