"""
The engine in service: when a cycle runs, policy swapped between two cycles, ends changed, leadership lost.

`Engine.run_cycle` is the whole cycle with the world at both ends. Everything it does to the world goes through plugins;
everything it knows of time comes from the runtime's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wva_core.domain import Memory, Mode, Observation, Plan
from wva_core.domain.record import Record
from wva_core.engine.brain import Brain
from wva_core.engine.cycle import Decision, decide
from wva_core.engine.deadline import Deadline
from wva_core.engine.merge import Observer
from wva_core.errors import PluginFailure, WvaError
from wva_core.hooks.chain import Entry, start_all, stop_all, tell_all
from wva_core.hooks.runtime import Fence, Runtime
from wva_core.hooks.specs import ActuationReport
from wva_core.policy.layers import Layer

__all__ = ["CycleResult", "Engine", "PolicyRefused", "Subscriber"]


@dataclass(frozen=True, slots=True, eq=False)
class PolicyRefused:
    """A policy that did not take effect; the one in force goes on."""

    error: WvaError


@dataclass(frozen=True, slots=True, eq=False)
class CycleResult:
    """
    What one cycle did; what subscribers are told.

    Attributes:
        decision: what it worked out.
        failures: by entry label, of collectors, brain and actuators together; and of subscribers and of plugins that
            left service, since the result before.
        reports: by actuator.
        record: what it leaves behind.
        policy_changed: whether this is the first cycle of a new policy.
    """

    decision: Decision
    failures: Mapping[str, PluginFailure]
    reports: Mapping[str, ActuationReport]
    record: Record
    policy_changed: bool = False

    @property
    def plan(self) -> Plan:
        """The verified plan."""
        return self.decision.plan


Subscriber = Callable[[CycleResult | PolicyRefused], None]
"""
Told of every cycle and of every refused policy, on the engine's thread.

What it raises stops neither the cycle nor the others; it is among the failures of the next result.
"""


@dataclass(slots=True, eq=False)
class Engine:
    """
    One control loop over one world.

    Args:
        runtime: clock, metrics and ports, handed to every plugin.
        brain: decides; replaced with `replace_brain`.
        collectors, actuators: the ends; replaced with `replace_ends`.
        policy_source: asked before every cycle for a changed policy; returns None while there is none.
        memory: to continue from, such as a checkpoint.
        has_deadline: whether a cycle has to end within its interval of real time. Where the world's clock is not the
            real one, nothing may depend on how fast this machine is, and nothing is ever late.
        subscribers: told of every result.
    """

    runtime: Runtime
    brain: Brain
    collectors: tuple[Entry, ...]
    actuators: tuple[Entry, ...]
    policy_source: Callable[[], Sequence[Layer] | None] | None = None
    memory: Memory = field(default_factory=Memory.empty)
    has_deadline: bool = True
    subscribers: list[Subscriber] = field(default_factory=list)
    _observer: Observer = field(init=False, repr=False)
    _fence: Fence = field(init=False, repr=False, default_factory=Fence)
    _policy_changed: bool = field(init=False, repr=False, default=True)
    _policy: dict[str, Any] = field(init=False, repr=False, default_factory=dict)
    _aside: dict[str, PluginFailure] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._observer = Observer(self.collectors, self.memory.fleet)
        self._policy = self.brain.policy.plain

    def start(self) -> None:
        """
        Puts every plugin into service, or none.

        Raises:
            PluginFailure: names the one that refused.
        """
        start_all((*self.collectors, *self.brain.entries, *self.actuators), self.runtime)

    def stop(self) -> dict[str, Exception]:
        """Takes every plugin out of service; what any of them raised, by label."""
        self._fence.lower()
        return stop_all((*self.actuators, *self.brain.entries, *self.collectors))

    def run_cycle(self) -> CycleResult:
        """
        One cycle, from observation to record.

        A failing part costs its own vote; the cycle itself ends with a plan whatever a plugin does.
        """
        self._reload()
        deadline = Deadline(self.brain.policy.spec.interval if self.has_deadline else None)
        began_with = self.memory
        seen, failures = self._observer.observe(self.runtime.clock.now(), self.brain.wanted, deadline)
        decision = decide(seen, self.brain, self.memory, deadline)
        self.memory = decision.memory
        reports, unacted = self._act(decision.plan, deadline)
        aside, self._aside = self._aside, {}
        result = CycleResult(
            decision,
            {**aside, **failures, **decision.failures, **unacted},
            reports,
            self._record(seen, decision, began_with),
            self._policy_changed,
        )
        self._policy_changed = False
        self._tell(result)
        return result

    def _act(self, plan: Plan, deadline: Deadline) -> tuple[dict[str, ActuationReport], dict[str, PluginFailure]]:
        """Hands the plan to every actuator; from here on the plan before it may write nothing more."""
        self._fence.lower()
        self._fence = Fence()
        reports: dict[str, ActuationReport] = {}
        failures: dict[str, PluginFailure] = {}
        if plan.mode is Mode.OBSERVE:
            return reports, failures
        calls = [
            (entry, entry.begin("act", here=deadline.is_endless, plan=plan, fence=self._fence))
            for entry in self.actuators
        ]
        for entry, call in calls:
            outcome = call.outcome(deadline.remaining())
            if outcome.failure is not None:
                failures[entry.label] = outcome.failure
            elif isinstance(outcome.value, ActuationReport):
                reports[entry.label] = outcome.value
            else:
                given = type(outcome.value).__name__
                failures[entry.label] = entry.misfit("act", "answer", given, ActuationReport.__name__)
        return reports, failures

    def _record(self, seen: Observation, decision: Decision, began_with: Memory) -> Record:
        return Record(
            cycle=began_with.cycle,
            time=seen.time,
            policy=self._policy,
            observation=seen,
            failures={label: failure.problem for label, failure in decision.failures.items()},
            assessments=decision.assessments,
            ballot=decision.ballot,
            limits=decision.limits,
            plan=decision.plan,
            memory=began_with,
            base=decision.observation.variants.base,
        )

    def _tell(self, result: CycleResult | PolicyRefused) -> None:
        for subscriber in self.subscribers:
            try:
                subscriber(result)
            except Exception as exc:  # noqa: BLE001 - who listens must not stop what it listens to
                name = f"subscriber {getattr(subscriber, '__qualname__', type(subscriber).__qualname__)}"
                self._set_aside(name, "raised", exc, "what it was told is lost to it; mend what it names")

    def _set_aside(self, label: str, what: str, error: Exception, remedy: str) -> None:
        """Keeps a failure outside the cycle for the next result."""
        detail = str(error) if isinstance(error, WvaError) else f"{type(error).__name__}: {error}"
        failure = PluginFailure(f"{what} {detail}", object=label, remedy=remedy)
        failure.__cause__ = error
        self._aside[label] = failure

    def _reload(self) -> None:
        """Swaps the brain if policy changed; a bad one is refused and the old one goes on."""
        if self.policy_source is None:
            return
        try:
            layers = self.policy_source()
            if layers is not None:
                self.replace_brain(layers)
        except WvaError as error:
            self._tell(PolicyRefused(error))

    def replace_brain(self, layers: Sequence[Layer]) -> None:
        """
        Builds a brain beside the one in service, puts it into service, then takes the old one out.

        Memory stays: an entry of the same name and plugin continues with the state it left.

        Raises:
            WvaError: the new policy is not usable; nothing has changed.
        """
        brain = Brain.build(layers)
        brain.check(self.memory.fleet)  # what does not fit the fleet is refused here too
        brain.start(self.runtime)
        old, self.brain = self.brain, brain
        self._policy, self._policy_changed = brain.policy.plain, True
        for label, error in old.stop().items():
            self._set_aside(label, "left service and raised", error, "nothing waits for it; mend what it names")

    def replace_ends(self, collectors: tuple[Entry, ...], actuators: tuple[Entry, ...]) -> None:
        """
        Takes the collectors and actuators in service out, then puts others in; the old ones come back on failure.

        Who there was is remembered until the new collectors have told who there is.

        Raises:
            PluginFailure: a new end refused to start, and the old ones are in service again; or an old one refused to
                come back, and no end is in service.
        """
        self._fence.lower()
        for label, error in stop_all((*self.actuators, *self.collectors)).items():
            self._set_aside(label, "left service and raised", error, "nothing waits for it; mend what it names")
        try:
            start_all((*collectors, *actuators), self.runtime)
        except PluginFailure:
            start_all((*self.collectors, *self.actuators), self.runtime)
            raise
        self.collectors, self.actuators = collectors, actuators
        self._observer = Observer(collectors, self.memory.fleet)

    def stand_down(self) -> dict[str, Exception]:
        """
        Leadership is lost: no actuator writes or publishes until the next cycle. What any of them raised, by label.
        """
        self._fence.lower()
        return tell_all(self.actuators, "stand_down")
