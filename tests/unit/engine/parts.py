"""Plugins that answer what a test tells them, and brains made of them."""

from dataclasses import replace

import numpy as np

from wva_core.domain import Allocation, Assessment, FleetUpdate, Memory, Signals, Verdict
from wva_core.engine import Brain
from wva_core.hooks import API, ActuationReport, Runtime, hookimpl
from wva_core.hooks.catalog import NoParameters
from wva_core.hooks.chain import Entry
from wva_core.numerics.scaling_behavior import UNDAMPED
from wva_core.policy.layers import Layer, resolve
from wva_core.policy.resolved import BoundsColumns

LONG = 30.0
NAN = float("nan")


class Clock:
    """Simulated time, set by the test."""

    def __init__(self, time=0.0):
        self.time = time

    def now(self):
        return self.time


def runtime(clock=None):
    return Runtime(clock or Clock())


def analyzer(answer, *, name="mine", required=True, signals=()):
    """An entry over an analyzer that answers with `answer(observation, settings, state)`."""

    class Mine:
        api = API

        def __init__(self, parameters):
            self.signals = tuple(signals)

        @hookimpl
        def assess(self, observation, settings, state):
            return answer(observation, settings, state)

    return Entry.of("analyzers", Mine, NoParameters(), type_name=name, required=required)


def optimizer(answer, *, name="chooser"):
    """An entry over an optimizer that answers with `answer(observation, ballot, limits)`."""

    class Chooser:
        api = API

        def __init__(self, parameters):
            pass

        @hookimpl
        def allocate(self, observation, ballot, limits):
            return answer(observation, ballot, limits)

    return Entry.of("optimizers", Chooser, NoParameters(), type_name=name)


def collector(discover=None, collect=None, *, name="eyes"):
    """An entry over a collector that has the hooks for which it is given answers."""
    hooks = {"api": API, "__init__": lambda self, parameters: None}
    if discover is not None:

        @hookimpl
        def discover_hook(self):
            return discover()

        hooks["discover"] = discover_hook
    if collect is not None:

        @hookimpl
        def collect_hook(self, fleet, wanted):
            return collect(fleet, wanted)

        hooks["collect"] = collect_hook
    return Entry.of("collectors", type("Eyes", (), hooks), NoParameters(), type_name=name)


def actuator(act=None, *, name="hands", stand_down=None, start=None, stop=None):
    """An entry over an actuator; what it is not given does nothing."""

    class Hands:
        api = API

        def __init__(self, parameters):
            pass

        @hookimpl
        def start(self, runtime):
            if start is not None:
                start()

        @hookimpl
        def stop(self):
            if stop is not None:
                stop()

        @hookimpl
        def act(self, plan, fence):
            answer = None if act is None else act(plan, fence)
            return ActuationReport(len(plan.fleet)) if answer is None else answer

        @hookimpl
        def stand_down(self):
            if stand_down is not None:
                stand_down()

    return Entry.of("actuators", Hands, NoParameters(), type_name=name)


def brain(analyzers, chooser, /, **policy):
    """A brain of these entries under a policy document; thresholds are .85 and .70 unless the document says more."""
    document = {
        "analyzers": [{"type": one.name, "required": one.required} for one in analyzers],
        "optimizer": {"type": chooser.name},
        **policy,
    }
    resolved = resolve([Layer("test", document)], lambda _kind, _name: NoParameters)
    return Brain(resolved, tuple(analyzers), chooser)


def shown(seen):
    """A collector that shows an observation as it is, whoever asks."""

    def discover():
        return FleetUpdate(seen.fleet, seen.variants, seen.inventory, seen.complete)

    return collector(discover, lambda _fleet, _wanted: Signals(seen.replicas, seen.scopes, seen.extra))


def steps(required=0.0, spare=0.0, *, verdict=None, capacity=1.0, demand=NAN, state=None):
    """An answer in steps that is the same in every scope; single numbers stand for every row."""

    def answer(observation, _settings, _state):
        fleet = observation.fleet
        scopes = len(fleet.scopes)
        columns = {"verdict": np.full(scopes, verdict)} if verdict is not None else {}
        return Assessment.of(
            fleet,
            unit="replicas",
            capacity=np.broadcast_to(np.asarray(capacity, dtype=float), (len(fleet),)),
            demand=np.full(scopes, demand),
            required=np.full(scopes, float(required)),
            spare=np.full(scopes, float(spare)),
            state=state or {},
            **columns,
        )

    return answer


def measured(demand, capacity):
    """An answer by demand and capacity; single numbers stand for every row."""

    def answer(observation, _settings, _state):
        fleet = observation.fleet
        return Assessment.of(
            fleet,
            unit="tokens",
            demand=np.array(np.broadcast_to(np.asarray(demand, dtype=float), (len(fleet.scopes),))),
            capacity=np.array(np.broadcast_to(np.asarray(capacity, dtype=float), (len(fleet),))),
        )

    return answer


def freezes(observation, _settings, _state):
    return Assessment.of(observation.fleet, unit="replicas", capacity=np.ones(len(observation.fleet)))


def says(verdict, **columns):
    return steps(verdict=Verdict[verdict.upper()], **columns)


def follows(observation, ballot, limits):
    """One replica up or down for every variant of a scope that grows or shrinks, within the interval."""
    scope = observation.fleet.scope_of_variant
    base = observation.variants.base
    held = (ballot.anchor < 0)[scope]
    moved = base + ballot.grow[scope] - (ballot.shrink[scope] & ~ballot.grow[scope])
    clipped = np.minimum(np.maximum(moved, limits.low), limits.high)
    return Allocation(np.where(held, np.nan, clipped))


def fixed(*replicas):
    """An optimizer with one wish, clipped into the interval."""

    def answer(_observation, _ballot, limits):
        return Allocation(np.clip(np.array(replicas, dtype=float), limits.low, limits.high))

    return answer


def bounds_of(seen, *, settle=300.0, stale=60.0, unavailable=300.0, behavior=None):
    """Bounds that are the same in every scope."""
    scopes = len(seen.fleet.scopes)
    return BoundsColumns(
        settle_seconds=np.full(scopes, settle),
        stale_after=np.full(scopes, stale),
        unavailable_after=np.full(scopes, unavailable),
        behavior_of_scope=np.full(scopes, 0 if behavior is None else 1, dtype=np.int64),
        behaviors=(UNDAMPED,) if behavior is None else (UNDAMPED, behavior),
    )


def remembering(fleet, *, target=None, since=0.0, **parts):
    """A memory with these targets."""
    memory = Memory.empty(fleet)
    if target is not None:
        goals = np.array(target, dtype=float)
        parts.update(target=goals, target_since=np.where(np.isnan(goals), np.nan, since))
    return replace(memory, **parts)
