"""
The conformance kit: what every plugin has to keep, as test classes to derive from.

    from wva_core.testing import AnalyzerConformance

    class TestMine(AnalyzerConformance):
        plugin = "mine"
        parameters = {"target": 8}

`plugin` is the name of the entry point, `parameters` what a policy would say, in its spelling. The plugin is found,
checked and called as the engine does it: by entry point, by keyword, on a thread of its own. What a test demands stands
in its name; why, in the documentation of the hook. Override `observation` where a plugin reads signals that policy
declares, and `runtime` where it needs a world.
"""

# ruff: noqa: D102 - the name of a check is its documentation

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from string import Formatter
from typing import Any, ClassVar

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from wva_core.domain import (
    REPLICA_SIGNALS,
    SCOPE_SIGNALS,
    Allocation,
    Assessment,
    Ballot,
    Fleet,
    FleetUpdate,
    LimitRows,
    Limits,
    Mode,
    Observation,
    Plan,
    Reason,
    Settings,
    SignalRequest,
    Signals,
    State,
    Variant,
    Verdict,
)
from wva_core.domain.arrays import booleans, floats, integers
from wva_core.domain.codec import decode, encode
from wva_core.domain.record import assessment_from_plain, assessment_to_plain
from wva_core.engine.ballot import vote_of
from wva_core.engine.verify import refusal
from wva_core.errors import PolicyError
from wva_core.hooks import ActuationReport, Fence, Prediction, Runtime, catalog
from wva_core.hooks.chain import Entry, tell_all
from wva_core.hooks.specs import SPECS
from wva_core.policy.documents import camel_case, validate
from wva_core.testing.builders import settings
from wva_core.testing.samples import (
    fully_loaded,
    partly_unknown,
    reordered_ballot,
    rows_in_reverse,
    sample_ballot,
    sample_limits,
    sample_observation,
)

__all__ = ["ActuatorConformance", "AnalyzerConformance", "CollectorConformance", "OptimizerConformance"]

_MANY = 10_000
_SEEDS = (0, 1, 2)


@dataclass(slots=True)
class _StandingClock:
    """A clock that shows what it was set to."""

    seconds: float = 1_000.0

    def now(self) -> float:
        return self.seconds


class _Conformance:
    """What plugins of every kind have to keep."""

    kind: ClassVar[str]
    plugin: ClassVar[str]
    parameters: ClassVar[Mapping[str, Any]] = {}

    # ---- what an author may override

    def runtime(self) -> Runtime:
        """What the plugin's `start` is given: a clock that stands still, an empty registry, no ports."""
        return Runtime(clock=_StandingClock(), metrics=CollectorRegistry())

    # ---- how the plugin is made and called

    @pytest.fixture
    def entry(self) -> Iterator[Entry]:
        """The plugin in service."""
        with self._in_service() as entry:
            yield entry

    def _in_service(self) -> _InService:
        return _InService(self._entry(), self.runtime())

    def _class(self) -> type:
        return catalog.load(self.kind, self.plugin)

    def _parameters(self) -> BaseModel:
        model = catalog.parameters_of(self._class())
        return validate(model, dict(self.parameters), "the conformance test", PolicyError, "parameters")

    def _entry(self) -> Entry:
        return Entry.of(self.kind, self._class(), self._parameters(), type_name=self.plugin)

    # ---- checks

    def test_it_keeps_the_contract_of_its_kind(self) -> None:
        assert catalog.hooks_of(self.kind, self._class()), f"{self.plugin} implements no hook of {self.kind}"
        catalog.make(self._class(), self._parameters())

    def test_its_hooks_ask_only_for_arguments_of_their_specification(self) -> None:
        spec, _ = SPECS[self.kind]
        for hook in catalog.hooks_of(self.kind, self._class()):
            offered = set(inspect.signature(getattr(spec, hook)).parameters)
            taken = set(inspect.signature(getattr(self._class(), hook)).parameters)
            assert taken <= offered, f"{hook} asks for {sorted(taken - offered)}"

    def test_it_refuses_a_parameter_it_does_not_know(self) -> None:
        model = catalog.parameters_of(self._class())
        with pytest.raises(PolicyError) as refused:
            validate(model, {**self.parameters, "noSuchParameter": 1}, "policy.yaml", PolicyError, "parameters")
        assert refused.value.key == "parameters.noSuchParameter"

    def test_its_parameters_cannot_be_changed_afterwards(self) -> None:
        assert catalog.parameters_of(self._class()).model_config.get("frozen"), "set frozen=True in its model_config"

    def test_its_class_says_what_it_does(self) -> None:
        assert (self._class().__doc__ or "").strip(), f"{self._class().__qualname__} has no docstring"

    def test_a_page_beside_it_explains_it_and_all_its_parameters(self) -> None:
        page = Path(inspect.getfile(self._class())).with_name("README.md")
        assert page.is_file(), f"{page} is missing"
        text = page.read_text(encoding="utf-8")
        for name, field in catalog.parameters_of(self._class()).model_fields.items():
            spelling = field.alias or camel_case(name)
            assert f"`{spelling}`" in text, f"{page} does not explain `{spelling}`"


class _InService:
    """An entry between start and stop."""

    def __init__(self, entry: Entry, runtime: Runtime) -> None:
        self.entry, self.runtime = entry, runtime

    def __enter__(self) -> Entry:
        self.entry.start(self.runtime)
        return self.entry

    def __exit__(self, *_: object) -> None:
        failure = self.entry.stop()
        assert failure is None, f"stop raised {failure!r}"


def _answer(entry: Entry, hook: str, **arguments: Any) -> Any:
    """What the plugin returned; what it raised is raised here, with its own traceback as the cause."""
    outcome = entry.call(hook, None, **arguments)
    if outcome.failure is not None:
        raise outcome.failure
    return outcome.value


def _assert_same(one: Any, other: Any, where: str, *, rtol: float = 0.0) -> None:
    """Equal in every part, not known being equal to not known; numbers up to `rtol`."""
    if isinstance(one, np.ndarray):
        assert isinstance(other, np.ndarray), where
        assert one.shape == other.shape, where
        if one.dtype == object:
            assert one.tolist() == other.tolist(), where
        else:
            np.testing.assert_allclose(other, one, rtol=rtol, atol=rtol, equal_nan=True, err_msg=where)
    elif is_dataclass(one):
        assert type(one) is type(other), where
        for field in fields(one):
            _assert_same(getattr(one, field.name), getattr(other, field.name), f"{where}.{field.name}", rtol=rtol)
    elif isinstance(one, Mapping):
        assert set(one) == set(other), where
        for key in one:
            _assert_same(one[key], other[key], f"{where}[{key!r}]", rtol=rtol)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=rtol, abs=rtol, nan_ok=True), where
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for row, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            _assert_same(mine, theirs, f"{where}[{row}]", rtol=rtol)
    else:
        assert one == other, where


class AnalyzerConformance(_Conformance):
    """What an analyzer has to keep; derive a test class from it and name the plugin."""

    kind = "analyzers"

    def observation(self, observation: Observation) -> Observation:
        """The observation a test looks at; add the signals here that policy declares for this analyzer."""
        return observation

    def _assess(
        self, entry: Entry, observation: Observation, state: Mapping[str, Any] | None = None
    ) -> tuple[Assessment, Settings]:
        thresholds = entry.default_thresholds
        asked = settings(entry.parameters, observation, scale_up=thresholds.scale_up, scale_down=thresholds.scale_down)
        answer = _answer(entry, "assess", observation=observation, settings=asked, state={} if state is None else state)
        self._check_shape(answer, observation.fleet)
        return answer, asked

    @staticmethod
    def _check_shape(answer: Assessment, fleet: Fleet) -> None:
        variants, scopes = len(fleet), len(fleet.scopes)
        assert isinstance(answer, Assessment), f"assess returned {type(answer).__name__}"
        assert answer.unit, "the unit has no name"
        assert answer.capacity.shape == (variants,)
        assert not np.any(answer.capacity <= 0), "a capacity is not positive; NaN is not known"
        assert answer.demand.shape == answer.verdict.shape == (scopes,)
        assert set(answer.verdict.tolist()) <= set(Verdict)
        for column in (answer.demand, answer.required, answer.spare):
            if column is not None:
                assert column.shape == (scopes,)
                assert not np.any(column < 0), "an amount is negative"
        if answer.priority is not None:
            assert answer.priority.shape == (scopes,)
            assert not np.any(answer.priority < 1), "a priority is not one from 1"
        for index, count in ((answer.reason, scopes), (answer.capacity_reason, variants)):
            if index is not None:
                assert index.shape == (count,)
                assert not np.any((index < 0) | (index >= len(answer.reasons))), "a reason is not listed"
        for name, column in answer.details.items():
            assert column.shape in {(variants,), (scopes,)}, f"details[{name!r}] is neither per variant nor per scope"
        for sentence in answer.reasons:
            places = {name for _, name, _, _ in Formatter().parse(sentence) if name}
            assert places <= set(answer.details), f"{sentence!r} needs {sorted(places - set(answer.details))}"

    @pytest.mark.parametrize("seed", _SEEDS)
    def test_the_same_input_gives_the_same_answer(self, entry: Entry, seed: int) -> None:
        seen = self.observation(sample_observation(seed))
        first, _ = self._assess(entry, seen)
        again, _ = self._assess(entry, seen)
        _assert_same(first, again, "second call")
        with self._in_service() as fresh:
            _assert_same(first, self._assess(fresh, seen)[0], "another object")

    def test_an_answer_depends_on_nothing_seen_before_but_the_state(self, entry: Entry) -> None:
        one, other = (self.observation(sample_observation(seed)) for seed in _SEEDS[:2])
        with self._in_service() as fresh:
            expected, _ = self._assess(fresh, other)
        self._assess(entry, one)
        _assert_same(expected, self._assess(entry, other)[0], "after another observation, without its state")

    def test_what_it_is_given_stays_as_it_was(self, entry: Entry) -> None:
        seen = self.observation(sample_observation())
        state = dict(self._assess(entry, seen)[0].state)
        before = encode(state)
        self._assess(entry, seen, state)  # columns are read-only: writing to one raises
        assert encode(state) == before, "the state it was given has changed; return a new one"

    def test_its_state_survives_a_checkpoint(self, entry: Entry) -> None:
        seen = self.observation(sample_observation())
        state = self._assess(entry, seen)[0].state
        if state:
            assert "version" in state, "a state carries the version of its form"
        assert set(state) == set(decode(encode(dict(state))))
        kept, _ = self._assess(entry, seen, state)
        restored, _ = self._assess(entry, seen, decode(encode(dict(state))))
        _assert_same(kept, restored, "with the state from a checkpoint")

    def test_its_answer_can_be_recorded(self, entry: Entry) -> None:
        answer, _ = self._assess(entry, self.observation(sample_observation()))
        read = assessment_from_plain(decode(encode(assessment_to_plain(answer))))
        _assert_same(replace(answer, state={}, details={}), replace(read, details={}), "read back")
        _assert_same(dict(answer.details), dict(read.details), "read back")
        _assert_same(answer, pickle.loads(pickle.dumps(answer)), "unpickled")  # noqa: S301 - made in this line

    def test_an_empty_fleet_is_answered(self, entry: Entry) -> None:
        self._assess(entry, self.observation(sample_observation(variants=0)))

    def test_scopes_without_replicas_are_answered_without_shrinking(self, entry: Entry) -> None:
        seen = sample_observation()
        nobody = Observation.of(seen.time, seen.fleet, seen.variants)
        answer, asked = self._assess(entry, self.observation(nobody))
        assert not np.any(vote_of("", answer, nobody, asked).spare > 0)

    @pytest.mark.parametrize("seed", _SEEDS)
    def test_nothing_known_of_the_load_shrinks_nothing(self, entry: Entry, seed: int) -> None:
        seen = self.observation(partly_unknown(sample_observation(seed), 1.0))
        bare = replace(seen, scopes=type(seen.scopes)(len(seen.fleet.scopes), SCOPE_SIGNALS))
        answer, asked = self._assess(entry, bare)
        spare = vote_of("", answer, bare, asked).spare
        assert not np.any(spare > 0), "a load that is not known was taken for none"

    @pytest.mark.parametrize("seed", range(10))
    def test_an_unknown_sample_shrinks_nothing_that_full_load_would_not(self, entry: Entry, seed: int) -> None:
        unsure = self.observation(partly_unknown(sample_observation(seed, 40), 0.2, seed))
        loaded = fully_loaded(unsure)
        answer, asked = self._assess(entry, unsure)
        bound, _ = self._assess(entry, loaded)
        shrinks = vote_of("", answer, unsure, asked).spare > 0
        may_shrink = vote_of("", bound, loaded, asked).spare > 0
        assert not np.any(shrinks & ~may_shrink)

    @pytest.mark.parametrize("seed", _SEEDS)
    def test_other_names_change_the_order_of_the_answer_only(self, entry: Entry, seed: int) -> None:
        seen, renamed = (self.observation(sample_observation(seed, 36, reverse=flip)) for flip in (False, True))
        variants, scopes = rows_in_reverse(seen.fleet, renamed.fleet)
        answer, _ = self._assess(entry, seen)
        other, _ = self._assess(entry, renamed)
        _assert_same(answer.capacity, other.capacity[variants], "capacity", rtol=1e-9)
        for name in ("demand", "verdict", "required", "spare", "priority"):
            column = getattr(answer, name)
            if column is not None:
                _assert_same(column, getattr(other, name)[scopes], name, rtol=1e-9)

    def test_ten_thousand_variants_are_answered(self, entry: Entry) -> None:
        self._assess(entry, self.observation(sample_observation(variants=_MANY)))

    def _predict(self, entry: Entry, seen: Observation, state: State, asked: Settings) -> Prediction:
        expected = _answer(
            entry,
            "predict",
            observation=seen,
            allocation=Allocation(seen.variants.base),
            settings=asked,
            state=state,
        )
        assert isinstance(expected, Prediction), f"predict returned {type(expected).__name__}"
        for name in ("ttft", "itl", "utilization"):
            column = getattr(expected, name)
            assert column.shape == (len(seen.fleet),), f"{name} is not one number for each variant"
            assert not np.any((column < 0) | np.isinf(column)), f"{name} is neither a finite number nor not known"
        return expected

    @pytest.mark.parametrize("variants", [0, 12])
    def test_what_it_predicts_is_one_number_for_each_variant(self, entry: Entry, variants: int) -> None:
        if entry.has("predict"):
            for unknown in (0.0, 0.3, 1.0):
                seen = self.observation(partly_unknown(sample_observation(variants=variants), unknown))
                answer, asked = self._assess(entry, seen)
                self._predict(entry, seen, answer.state, asked)

    def test_what_it_predicts_depends_on_what_it_is_given_alone(self, entry: Entry) -> None:
        if entry.has("predict"):
            seen = self.observation(sample_observation())
            answer, asked = self._assess(entry, seen)
            before = encode(dict(answer.state))
            first = self._predict(entry, seen, answer.state, asked)
            assert encode(dict(answer.state)) == before, "the state it was given has changed"
            with self._in_service() as fresh:
                other = self._predict(fresh, seen, decode(encode(dict(answer.state))), asked)
            _assert_same(first, other, "another object, with the state from a checkpoint")


class OptimizerConformance(_Conformance):
    """What an optimizer has to keep; derive a test class from it and name the plugin."""

    kind = "optimizers"

    def _allocate(self, entry: Entry, observation: Observation, ballot: Ballot, limits: Limits) -> Allocation:
        answer = _answer(entry, "allocate", observation=observation, ballot=ballot, limits=limits)
        assert isinstance(answer, Allocation), f"allocate returned {type(answer).__name__}"
        assert answer.replicas.shape == (len(observation.fleet),)
        refused = refusal(answer.replicas, observation.variants.base, limits, observation.fleet, self.plugin)
        assert refused is None, str(refused)
        for column in (answer.reason, answer.binding_row):
            assert column is None or column.shape == answer.replicas.shape
        if answer.reason is not None:
            assert not np.any((answer.reason < 0) | (answer.reason >= len(answer.reasons))), "a reason is not listed"
        if answer.binding_row is not None:
            assert not np.any(answer.binding_row >= len(limits.rows)), "a binding row does not exist"
        return answer

    @staticmethod
    def _problem(seed: int, variants: int = 36, known: float = 0.9) -> tuple[Observation, Ballot, Limits]:
        seen = sample_observation(seed, variants)
        return seen, sample_ballot(seen, seed, known=known), sample_limits(seen)

    @staticmethod
    def _one_row(observation: Observation, upper: float) -> LimitRows:
        """GPUs of all variants together."""
        count = len(observation.fleet)
        return LimitRows(
            ("GPUs",),
            integers([0, count]),
            integers(np.arange(count)),
            observation.variants.gpus,
            floats([-np.inf]),
            floats([upper]),
        )

    @pytest.mark.parametrize("seed", _SEEDS)
    def test_the_same_input_gives_the_same_answer(self, entry: Entry, seed: int) -> None:
        problem = self._problem(seed)
        first = self._allocate(entry, *problem)
        self._allocate(entry, *self._problem(seed + 100))
        _assert_same(first, self._allocate(entry, *problem), "second call")
        with self._in_service() as fresh:
            _assert_same(first, self._allocate(fresh, *problem), "another object")

    @pytest.mark.parametrize("seed", range(10))
    def test_every_answer_keeps_the_interval_of_each_variant(self, entry: Entry, seed: int) -> None:
        seen, ballot, limits = self._problem(seed)
        rng = np.random.default_rng(seed)
        low = floats(np.floor(seen.variants.base * rng.uniform(0.0, 1.4, len(seen.fleet))))
        high = floats(low + rng.integers(0, 4, len(seen.fleet)))
        self._allocate(entry, seen, ballot, replace(limits, low=low, high=high))  # checked as the engine does

    @pytest.mark.parametrize("free", [-3.0, 0.0, 4.0, 1e6])
    @pytest.mark.parametrize("seed", _SEEDS)
    def test_every_answer_keeps_what_variants_share(self, entry: Entry, seed: int, free: float) -> None:
        seen, ballot, limits = self._problem(seed)
        used = float(seen.variants.gpus @ seen.variants.base)
        self._allocate(entry, seen, ballot, replace(limits, rows=self._one_row(seen, used + free)))

    @pytest.mark.parametrize("seed", _SEEDS)
    def test_a_shared_limit_that_is_not_known_lets_nothing_grow(self, entry: Entry, seed: int) -> None:
        seen, ballot, limits = self._problem(seed)
        answer = self._allocate(entry, seen, ballot, replace(limits, rows=self._one_row(seen, np.nan)))
        assert not np.any(answer.replicas > seen.variants.base)

    @pytest.mark.parametrize("seed", _SEEDS)
    def test_scopes_that_are_held_are_not_answered_or_stay(self, entry: Entry, seed: int) -> None:
        seen, ballot, limits = self._problem(seed)
        nobody = replace(ballot, anchor=integers(np.full(len(seen.fleet.scopes), -1)))
        replicas = self._allocate(entry, seen, nobody, limits).replicas
        assert np.all(np.isnan(replicas) | (replicas == seen.variants.base))

    @pytest.mark.parametrize("seed", _SEEDS)
    def test_pinned_variants_stay_where_they_are_pinned(self, entry: Entry, seed: int) -> None:
        seen, ballot, limits = self._problem(seed)
        self._allocate(entry, seen, ballot, replace(limits, low=seen.variants.base, high=seen.variants.base))

    @pytest.mark.parametrize("seed", _SEEDS)
    def test_a_variant_of_unknown_capacity_gets_nothing_new(self, entry: Entry, seed: int) -> None:
        seen, ballot, limits = self._problem(seed, known=0.5)
        unknown = np.isnan(ballot.votes[0].capacity)
        replicas = self._allocate(entry, seen, ballot, limits).replicas
        assert unknown.any()
        assert not np.any(unknown & (replicas > seen.variants.base))

    @pytest.mark.parametrize("seed", _SEEDS)
    def test_nothing_shrinks_where_something_is_required(self, entry: Entry, seed: int) -> None:
        seen, ballot, limits = self._problem(seed, known=1.0)
        grows = ballot.grow[seen.fleet.scope_of_variant]
        replicas = self._allocate(entry, seen, ballot, limits).replicas
        by_scope = seen.fleet.by_scope
        capacity = ballot.votes[0].capacity
        then = np.where(np.isnan(replicas), seen.variants.base, replicas)
        assert grows.any()
        gained = by_scope.sum((then - seen.variants.base) * capacity)
        assert np.all(gained[ballot.grow] >= 0)

    @pytest.mark.parametrize("seed", _SEEDS)
    def test_other_names_change_the_order_of_the_answer_only(self, entry: Entry, seed: int) -> None:
        seen, ballot, limits = self._problem(seed)
        renamed = sample_observation(seed, len(seen.fleet), reverse=True)
        variants, scopes = rows_in_reverse(seen.fleet, renamed.fleet)
        answer = self._allocate(entry, seen, ballot, limits)
        other = self._allocate(entry, renamed, reordered_ballot(ballot, variants, scopes), sample_limits(renamed))
        _assert_same(answer.replicas, other.replicas[variants], "replicas")

    def test_an_empty_fleet_is_answered(self, entry: Entry) -> None:
        self._allocate(entry, *self._problem(0, 0))

    def test_ten_thousand_variants_are_answered(self, entry: Entry) -> None:
        self._allocate(entry, *self._problem(0, _MANY))

    def test_its_answer_can_be_recorded(self, entry: Entry) -> None:
        answer = self._allocate(entry, *self._problem(0))
        plain = {field.name: getattr(answer, field.name) for field in fields(answer)}
        _assert_same(Allocation(**{**plain, "reasons": list(answer.reasons)}), Allocation(**decode(encode(plain))), "")
        _assert_same(answer, pickle.loads(pickle.dumps(answer)), "unpickled")  # noqa: S301 - made in this line


class CollectorConformance(_Conformance):
    """What a collector has to keep; derive a test class from it, name the plugin and give it its world."""

    kind = "collectors"

    wanted: ClassVar[tuple[SignalRequest, ...]] = (
        *(SignalRequest(name) for name in REPLICA_SIGNALS),
        *(SignalRequest(name, level="scope", retention_seconds=600.0) for name in SCOPE_SIGNALS),
    )

    def _discover(self, entry: Entry) -> FleetUpdate | None:
        if not entry.has("discover"):
            return None
        update = _answer(entry, "discover")
        assert isinstance(update, FleetUpdate), f"discover returned {type(update).__name__}"
        assert len(update.variants) == len(update.fleet)
        inventory = update.inventory
        assert len(inventory.accelerators) == len(inventory.capacity) == len(inventory.used)
        return update

    def _fleet(self, entry: Entry) -> Fleet:
        update = self._discover(entry)
        return Fleet([Variant("ns", "variant", "model")]) if update is None else update.fleet

    def _collect(self, entry: Entry, fleet: Fleet, wanted: tuple[SignalRequest, ...]) -> Signals:
        signals = _answer(entry, "collect", fleet=fleet, wanted=wanted)
        assert isinstance(signals, Signals), f"collect returned {type(signals).__name__}"
        if signals.replicas is not None:
            assert len(signals.replicas.index.by_variant) == len(fleet), "the replica table is for another fleet"
            for name in signals.replicas.columns:
                assert not np.any(signals.replicas.age(name) < 0), f"{name} was measured in the future"
        for columns in (signals.scopes, signals.extra):
            if columns is not None:
                assert columns.rows == len(fleet.scopes), "the scope columns are for another fleet"
        return signals

    def test_it_discovers_or_collects(self) -> None:
        assert {"discover", "collect"} & set(catalog.hooks_of(self.kind, self._class()))

    def test_the_fleet_is_the_same_object_while_nothing_appears_or_goes(self, entry: Entry) -> None:
        if entry.has("discover"):
            first, again = self._discover(entry), self._discover(entry)
            assert first is not None
            assert again is not None
            assert first.fleet is again.fleet

    def test_signals_fit_the_fleet_they_were_asked_for(self, entry: Entry) -> None:
        if entry.has("collect"):
            self._collect(entry, self._fleet(entry), self.wanted)

    def test_nothing_wanted_is_answered(self, entry: Entry) -> None:
        if entry.has("collect"):
            self._collect(entry, self._fleet(entry), ())

    def test_a_variant_that_another_collector_found_is_not_known_to_it(self, entry: Entry) -> None:
        if entry.has("collect"):
            stranger = Variant("another-namespace", "stranger", "another-model")
            fleet = Fleet([*self._fleet(entry).variants, stranger])
            signals = self._collect(entry, fleet, self.wanted)
            row, scope = fleet.index[stranger.key], fleet.scopes.index(stranger.scope)
            if signals.replicas is not None:
                assert not len(signals.replicas.index.by_variant.rows(row))
            if signals.scopes is not None:
                assert all(np.isnan(column[scope]) for column in signals.scopes.values())

    def test_what_it_saw_can_be_recorded(self, entry: Entry) -> None:
        update = self._discover(entry)
        if update is not None:
            assert pickle.loads(pickle.dumps(update.fleet)) == update.fleet  # noqa: S301 - made in this line
            for field in fields(update.variants):
                assert decode(encode(getattr(update.variants, field.name))).shape == (len(update.fleet),)


class ActuatorConformance(_Conformance):
    """What an actuator has to keep; derive a test class from it, name the plugin and give it its world."""

    kind = "actuators"

    def fleet(self) -> Fleet:
        """The variants of the plans a test hands over; override it where the actuator knows only some."""
        return Fleet(Variant("ns", f"variant-{number}", "model") for number in range(3))

    def _plan(self, fleet: Fleet, desired: float, *, time: float = 1_000.0, mode: Mode = Mode.ACT) -> Plan:
        count = len(fleet)
        column = floats(np.full(count, desired))
        return Plan(
            time=time,
            fleet=fleet,
            current=floats(np.ones(count)),
            desired=column,
            wanted=column,
            low=floats(np.zeros(count)),
            high=floats(np.full(count, np.inf)),
            reason=integers(np.full(count, Reason.STEADY)),
            binding_row=integers(np.full(count, -1)),
            stalled=booleans(np.zeros(count, dtype=bool)),
            mode=mode,
        )

    def _act(self, entry: Entry, plan: Plan, fence: Fence | None = None) -> ActuationReport:
        report = _answer(entry, "act", plan=plan, fence=Fence() if fence is None else fence)
        assert isinstance(report, ActuationReport), f"act returned {type(report).__name__}"
        assert 0 <= report.written <= len(plan.fleet)
        assert set(report.failed) <= set(plan.fleet.keys)
        return report

    @pytest.mark.parametrize("mode", Mode)
    def test_a_plan_is_taken_in_every_mode(self, entry: Entry, mode: Mode) -> None:
        assert not self._act(entry, self._plan(self.fleet(), 2.0, mode=mode)).failed

    def test_nothing_is_written_behind_a_lowered_fence(self, entry: Entry) -> None:
        fence = Fence()
        fence.lower()
        assert self._act(entry, self._plan(self.fleet(), 2.0), fence).written == 0

    def test_a_plan_that_says_nothing_of_any_variant_is_taken(self, entry: Entry) -> None:
        assert not self._act(entry, self._plan(self.fleet(), np.nan)).failed

    def test_a_plan_of_an_empty_fleet_is_taken(self, entry: Entry) -> None:
        assert self._act(entry, self._plan(Fleet(()), 0.0)).written == 0

    def test_the_same_plan_may_come_twice(self, entry: Entry) -> None:
        plan = self._plan(self.fleet(), 2.0)
        self._act(entry, plan)
        assert not self._act(entry, plan).failed

    def test_it_acts_again_after_standing_down(self, entry: Entry) -> None:
        self._act(entry, self._plan(self.fleet(), 2.0))
        assert tell_all([entry], "stand_down") == {}
        assert not self._act(entry, self._plan(self.fleet(), 3.0, time=1_015.0)).failed
