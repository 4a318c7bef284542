"""
A policy with every layer merged and every value checked: what was asked of which model, and where that was said.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType, NoneType
from typing import Any, NamedTuple, TypeAlias, get_args

import numpy as np
from pydantic import BaseModel

from wva_core.domain import BoolArray, Fleet, FloatArray, IntArray, Settings
from wva_core.domain.arrays import booleans, floats, integers
from wva_core.errors import InputError, ParameterError, PolicyError
from wva_core.numerics.scaling_behavior import UNDAMPED, Behavior
from wva_core.policy.documents import validate, written
from wva_core.policy.key_paths import is_below, leaves, merge_keys, nodes, says
from wva_core.policy.matching import Matcher
from wva_core.policy.schema import AnalyzerOverride, BoundsSpec, PolicySpec, ThresholdsSpec

__all__ = ["BoundsColumns", "Origins", "ParametersOf", "ResolvedPolicy", "Setting", "ThresholdsOf"]

ParametersOf: TypeAlias = Callable[[str, str], type[BaseModel]]
"""`(kind, type) -> Parameters`; kind is `analyzers` or `optimizers`. Raises for a plugin that nobody offers."""

ThresholdsOf: TypeAlias = Callable[[str], tuple[float, float]]
"""`type -> (scale_up, scale_down)`: the thresholds an analyzer brings itself."""


class Origins:
    """
    Which source said what, by key path of the merged policy; as it is here, nobody said anything.

    `wva_core.policy.layers` derives the one that knows.
    """

    def locate(self, path: str) -> tuple[str, str]:
        """The document that gives what is at a path, and the path as its writer knows it."""
        return "policy", path

    def of(self, path: str) -> str:
        """Where the value at a path comes from, for a person; `default` if nobody gave it."""
        return "default" if path else ""


@dataclass(frozen=True, slots=True, eq=False)
class BoundsColumns:
    """
    What holds answers back, as columns per scope.

    Attributes:
        settle_seconds: (S,) how long a target not reached, or a pending replica, freezes the scope.
        stale_after: (S,) age in seconds from which on a signal allows no shrinking.
        unavailable_after: (S,) age in seconds from which on a signal counts as missing.
        behavior_of_scope: (S,) index into `behaviors`.
        behaviors: the different dampings; the first is none at all.
    """

    settle_seconds: FloatArray
    stale_after: FloatArray
    unavailable_after: FloatArray
    behavior_of_scope: IntArray
    behaviors: tuple[Behavior, ...]


class Setting(NamedTuple):
    """One value of the policy of a model: its key path, the value, and where it was said."""

    key: str
    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class _Change:
    """What one override says of one analyzer."""

    path: str
    spec: AnalyzerOverride


@dataclass(frozen=True, slots=True)
class _Entry:
    """One analyzer as some models see it."""

    enabled: bool
    score: float
    thresholds: tuple[float | None, float | None]
    parameters: BaseModel


class ResolvedPolicy:
    """
    A policy that can be acted on. Made by `wva_core.policy.layers.resolve`; two are equal if they ask for the same.

    Columns are worked out for a fleet when they are asked for: do so when policy or fleet changes, not once per cycle.

    Attributes:
        spec: the policy after merging, overrides beside it.
        warnings: what its sources also said and what could not be used.
    """

    def __init__(
        self,
        spec: PolicySpec,
        parameters_of: ParametersOf,
        *,
        origins: Origins | None = None,
        thresholds_of: ThresholdsOf | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        self.spec = spec
        self.warnings = tuple(warnings)
        self._places = origins or Origins()
        self._thresholds_of = thresholds_of
        self._entries = {entry.name: (row, entry) for row, entry in enumerate(spec.analyzers)}
        self._models = {entry.name: parameters_of("analyzers", entry.type) for entry in spec.analyzers}
        self._optimizer = self._checked(
            parameters_of("optimizers", spec.optimizer.type), spec.optimizer.parameters, "optimizer.parameters"
        )
        self._changes = [self._changes_of(row) for row in range(len(spec.overrides))]
        self._matcher = Matcher([override.match for override in spec.overrides])
        self._entry_cache: dict[tuple[str, tuple[int, ...]], _Entry] = {}
        self._refusals: dict[tuple[str, tuple[int, ...]], PolicyError] = {}
        self._groups_cache: tuple[Fleet, IntArray, list[tuple[int, ...]]] | None = None
        # Every override alone and every two that can meet: conditions between two values are all seen here.
        for rows in [(), *((row,) for row in range(len(spec.overrides))), *self._matcher.overlapping()]:
            self._check(rows)
        self._plain = self._written()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ResolvedPolicy) and self._plain == other._plain

    def __hash__(self) -> int:
        return hash(self.digest)

    # ---------------------------------------------------------------------------------------------------------------
    # The policy as a whole

    @property
    def plain(self) -> dict[str, Any]:
        """
        The policy as JSON-able data with every default written out.

        As the values of a layer it resolves to an equal policy, whatever becomes of profiles and defaults.
        """
        copy: dict[str, Any] = json.loads(json.dumps(self._plain))
        return copy

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that differ between policies that ask for different things."""
        text = json.dumps(self._plain, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def origins(self) -> Mapping[str, str]:
        """The origin of every value of `plain`, by key path."""
        return MappingProxyType({path: self._places.of(path) for path, _ in leaves(self._plain)})

    def parameters(self, kind: str, name: str) -> BaseModel:
        """
        The parameters of one plugin where no override applies.

        Args:
            kind: `analyzers` or `optimizers`.
            name: of the entry.

        Raises:
            ParameterError: the policy has no such entry.
        """
        if kind == "optimizers" and name == self.spec.optimizer.name:
            return self._optimizer
        if kind == "analyzers" and name in self._entries:
            return self._entry(name, ()).parameters
        raise self._no_entry(kind, name)

    def explain(self, model: str, namespace: str) -> list[Setting]:
        """
        Every value that applies to one model, in the order of the schema, with where it was said.

        The thresholds an analyzer brings itself are among them if `thresholds_of` was given.
        """
        rows = self._matcher.of(namespace, model)
        effective = self._written(rows)
        del effective["overrides"]
        if self.spec.profile is not None:
            effective = {"profile": self.spec.profile, **effective}
        if self._thresholds_of:
            for item in effective["analyzers"]:
                name, parameters = item["name"], item.pop("parameters")
                default = self._thresholds_of(item["type"])
                up, down = self._thresholds(name, self._entry(name, rows), rows, default)
                item.update(thresholds={"scaleUp": up, "scaleDown": down}, parameters=parameters)
        changes = [
            (changed, place, {path: (value, is_leaf) for path, value, is_leaf in nodes(data, changed)})
            for row in reversed(rows)
            for changed, place, data in self._said_by(row)
        ]
        return [Setting(path, value, self._origin(path, changes)) for path, value in leaves(effective)]

    # ---------------------------------------------------------------------------------------------------------------
    # Columns per scope

    def enabled(self, fleet: Fleet, analyzer: str) -> BoolArray:
        """
        (S,) whether an analyzer is asked and votes there; it is, where overrides do not fit together (see `refused`).

        Raises:
            ParameterError: the policy has no such analyzer.
        """
        group_of, entries = self._by_group(fleet, analyzer)
        return booleans(np.array([entry.enabled for entry in entries], dtype=bool)[group_of])

    def refused(self, fleet: Fleet, analyzer: str) -> tuple[BoolArray, PolicyError] | None:
        """
        (S,) where three or more overrides meet that do not fit together, and what the first says; None where all do.

        Two that can meet were checked together when the policy was resolved. `settings` has the analyzer's own
        parameters there, without any override: nothing to judge by.
        """
        group_of, groups = self._groups(fleet)
        errors = [self._entry_or_error(analyzer, rows) for rows in groups]
        wrong = np.array([isinstance(one, PolicyError) for one in errors], dtype=bool)
        first = next((one for one in errors if isinstance(one, PolicyError)), None)
        return None if first is None else (booleans(wrong[group_of]), first)

    def settings(self, fleet: Fleet, analyzer: str, default_thresholds: tuple[float, float] | None = None) -> Settings:
        """
        What is asked of one analyzer, as columns per scope.

        Args:
            fleet: whose scopes.
            analyzer: name of its entry.
            default_thresholds: the thresholds (up, down) it brings itself; those of `thresholds_of` if left out.

        Raises:
            ParameterError: the policy has no such analyzer, or its thresholds are not known.

        Cost: one `Parameters` per combination of overrides that exists, then one row access per column; about 30 ms
        for 10,000 scopes and ten overrides, and under 1 ms for every other analyzer of the same fleet.
        """
        group_of, entries = self._by_group(fleet, analyzer)
        _, spec = self._entries[analyzer]
        default = default_thresholds or (self._thresholds_of(spec.type) if self._thresholds_of else None)
        if default is None:
            raise ParameterError(
                "has no thresholds of its own here", object=f"analyzer {analyzer}", remedy="pass default_thresholds"
            )
        _, groups = self._groups(fleet)
        thresholds = np.array(
            [self._thresholds(analyzer, entry, rows, default) for entry, rows in zip(entries, groups, strict=True)]
        ).reshape(-1, 2)
        columns = {
            name: _column([getattr(entry.parameters, name) for entry in entries], field.annotation, group_of)
            for name, field in self._models[analyzer].model_fields.items()
        }
        return Settings(
            parameters=MappingProxyType(columns),
            scale_up=floats(thresholds[group_of, 0]),
            scale_down=floats(thresholds[group_of, 1]),
            score=floats(np.array([entry.score for entry in entries], dtype=float)[group_of]),
        )

    def bounds(self, fleet: Fleet) -> BoundsColumns:
        """What holds answers back, as columns per scope."""
        group_of, groups = self._groups(fleet)
        specs = [self._bounds(rows) for rows in groups]
        behaviors: dict[Behavior, int] = {UNDAMPED: 0}
        index = [behaviors.setdefault(spec.behavior.behavior(), len(behaviors)) for spec in specs]

        def column(values: list[float]) -> FloatArray:
            return floats(np.array(values, dtype=float)[group_of])

        return BoundsColumns(
            settle_seconds=column([spec.settle_seconds for spec in specs]),
            stale_after=column([spec.stale_after_seconds for spec in specs]),
            unavailable_after=column([spec.unavailable_after_seconds for spec in specs]),
            behavior_of_scope=integers(np.array(index, dtype=np.int64)[group_of]),
            behaviors=tuple(behaviors),
        )

    # ---------------------------------------------------------------------------------------------------------------
    # Overrides

    def _changes_of(self, row: int) -> dict[str, _Change]:
        """What an override says, by the name of the analyzer."""
        changes = {}
        for position, spec in enumerate(self.spec.overrides[row].analyzers):
            path = f"overrides[{row}].analyzers[{position}]"
            if spec.name not in self._entries:
                raise self._refused(
                    f"{path}.name",
                    "is not an analyzer of this policy",
                    f"give one of {', '.join(self._entries)}",
                    value=spec.name,
                )
            changes[spec.name] = _Change(path, spec)
        return changes

    def _groups(self, fleet: Fleet) -> tuple[IntArray, list[tuple[int, ...]]]:
        if self._groups_cache is None or self._groups_cache[0] is not fleet:
            self._groups_cache = (fleet, *self._matcher.groups(fleet))
        return self._groups_cache[1:]

    def _by_group(self, fleet: Fleet, analyzer: str) -> tuple[IntArray, list[_Entry]]:
        if analyzer not in self._entries:
            raise self._no_entry("analyzers", analyzer)
        group_of, groups = self._groups(fleet)
        found = [self._entry_or_error(analyzer, rows) for rows in groups]
        base = self._entry(analyzer, ())
        return group_of, [replace(base, enabled=True) if isinstance(one, PolicyError) else one for one in found]

    def _entry_or_error(self, name: str, rows: tuple[int, ...]) -> _Entry | PolicyError:
        rows = tuple(row for row in rows if name in self._changes[row])
        known = self._refusals.get((name, rows))
        if known is not None:
            return known
        try:
            return self._entry(name, rows)
        except PolicyError as error:
            self._refusals[name, rows] = error
            return error

    def _entry(self, name: str, rows: tuple[int, ...]) -> _Entry:
        rows = tuple(row for row in rows if name in self._changes[row])
        entry = self._entry_cache.get((name, rows))
        if entry is None:
            entry = self._entry_cache[name, rows] = self._made(name, rows)
        return entry

    def _made(self, name: str, rows: tuple[int, ...]) -> _Entry:
        position, base = self._entries[name]
        changes = [self._changes[row][name] for row in rows]
        enabled, score, given = base.enabled, base.score, base.parameters
        thresholds = _over((None, None), base.thresholds)
        for change in changes:
            enabled = enabled if change.spec.enabled is None else change.spec.enabled
            score = score if change.spec.score is None else change.spec.score
            thresholds = _over(thresholds, change.spec.thresholds)
            given = merge_keys(given, change.spec.parameters)
        path = f"{changes[-1].path if changes else f'analyzers[{position}]'}.parameters"
        return _Entry(enabled, score, thresholds, self._checked(self._models[name], given, path))

    def _checked(self, model: type[BaseModel], given: Mapping[str, Any], path: str) -> BaseModel:
        """Parameters as their plugin wants them; `path` is where the last of them were given."""
        document, _ = self._places.locate(path)
        try:
            return validate(
                model, given, document, PolicyError, path, spell=lambda local: self._places.locate(local)[1]
            )
        except InputError:
            raise
        except Exception as exc:  # whatever a plugin's own validator raises
            raise self._refused(
                path,
                f"cannot be checked: {type(exc).__name__}: {exc}",
                "change them, or report this to the author of the plugin",
            ) from exc

    def _thresholds(
        self, name: str, entry: _Entry, rows: Sequence[int], default: tuple[float, float] | None
    ) -> tuple[float, float]:
        """Thresholds (up, down) after every layer; 0 where they are not known."""
        up, down = (
            given if given is not None else brought
            for given, brought in zip(entry.thresholds, default or (0.0, 0.0), strict=True)
        )
        if entry.thresholds != (None, None) and up > 0.0 and down > 0.0 and up <= down:
            position, _ = self._entries[name]
            places = [
                self._changes[row][name].path
                for row in rows
                if name in self._changes[row] and self._changes[row][name].spec.thresholds is not None
            ]
            raise self._refused(
                f"{places[-1] if places else f'analyzers[{position}]'}.thresholds",
                f"leaves no room between scaleUp {up:g} and scaleDown {down:g}",
                "give a scaleUp above scaleDown; what is left out comes from the layer below or from the analyzer",
            )
        return up, down

    def _bounds(self, rows: tuple[int, ...]) -> BoundsSpec:
        given = _stated(self.spec.bounds)
        changed = [row for row in rows if self.spec.overrides[row].bounds is not None]
        for row in changed:
            given = merge_keys(given, _stated(self.spec.overrides[row].bounds))
        spec = BoundsSpec.model_validate(given)
        if spec.unavailable_after_seconds < spec.stale_after_seconds:
            path = f"overrides[{changed[-1]}].bounds" if changed else "bounds"
            said = _stated(self.spec.overrides[changed[-1]].bounds) if changed else given
            key = "unavailableAfterSeconds" if "unavailableAfterSeconds" in said else "staleAfterSeconds"
            raise self._refused(
                f"{path}.{key}",
                f"lets signals be missing after {spec.unavailable_after_seconds:g} s,"
                f" before they are stale after {spec.stale_after_seconds:g} s",
                "give an unavailableAfterSeconds of at least staleAfterSeconds",
            )
        return spec

    def _check(self, rows: tuple[int, ...]) -> None:
        """Refuses what does not fit together where exactly these overrides apply."""
        for name, (_, spec) in self._entries.items():
            if len(rows) > 1 and not all(name in self._changes[row] for row in rows):
                continue  # nothing that was not checked already
            default = self._thresholds_of(spec.type) if self._thresholds_of else None
            self._thresholds(name, self._entry(name, rows), rows, default)
        self._bounds(rows)
        if not any(self._entry(name, rows).enabled for name in self._entries):
            raise self._refused(
                f"overrides[{rows[-1]}].analyzers", "leaves no analyzer enabled", "leave at least one enabled"
            )

    # ---------------------------------------------------------------------------------------------------------------
    # Writing and explaining

    def _written(self, rows: tuple[int, ...] = ()) -> dict[str, Any]:
        """The policy where some overrides apply, as JSON-able data in the spelling of the documents."""
        spec = self.spec
        analyzers = []
        for name, (_, base) in self._entries.items():
            entry = self._entry(name, rows)
            up, down = entry.thresholds
            thresholds = {key: value for key, value in (("scaleUp", up), ("scaleDown", down)) if value is not None}
            analyzers.append(
                {
                    "type": base.type,
                    "name": name,
                    "enabled": entry.enabled,
                    "required": base.required,
                    "score": entry.score,
                    **({"thresholds": thresholds} if thresholds else {}),
                    "parameters": written(entry.parameters),
                }
            )
        return {
            "mode": spec.mode.value,
            "interval": spec.interval,
            "analyzers": analyzers,
            "optimizer": {
                "type": spec.optimizer.type,
                "name": spec.optimizer.name,
                "parameters": written(self._optimizer),
            },
            "ballot": written(spec.ballot),
            "bounds": written(self._bounds(rows)),
            "overrides": [written(_stated(override)) for override in spec.overrides],
        }

    def _said_by(self, row: int) -> list[tuple[str, str, dict[str, Any]]]:
        """What an override changes: path in the effective policy, path in the override, what is given there."""
        said = [("bounds", f"overrides[{row}].bounds", _stated(self.spec.overrides[row].bounds))]
        for name, change in self._changes[row].items():
            position, _ = self._entries[name]
            given = {key: value for key, value in _stated(change.spec).items() if key != "name"}
            said.append((f"analyzers[{position}]", change.path, given))
        return said

    def _origin(self, path: str, changes: Sequence[tuple[str, str, Mapping[str, tuple[Any, bool]]]]) -> str:
        """Where the value at an effective path was said; `changes` from the winning override down."""
        for changed, place, said in changes:
            if is_below(path, changed):
                found = says(said, path)
                if found is not None:
                    return self._places.of(place + found[len(changed) :]) if found else "default"
        return self._places.of(path)

    def _refused(self, path: str, problem: str, remedy: str, **given: Any) -> PolicyError:
        document, key = self._places.locate(path)
        return PolicyError(problem, object=document, key=key, remedy=remedy, **given)

    def _no_entry(self, kind: str, name: str) -> ParameterError:
        names = self._entries if kind == "analyzers" else [self.spec.optimizer.name]
        return ParameterError("is not in this policy", object=kind, key=name, remedy=f"give one of {', '.join(names)}")


def _over(below: tuple[float | None, float | None], above: ThresholdsSpec | None) -> tuple[float | None, float | None]:
    if above is None:
        return below
    up, down = below
    return (up if above.scale_up is None else above.scale_up, down if above.scale_down is None else above.scale_down)


def _stated(spec: BaseModel | None) -> dict[str, Any]:
    """What a document says, in its own spelling, without what it leaves out or leaves empty."""
    return {} if spec is None else spec.model_dump(exclude_unset=True, exclude_none=True, by_alias=True)


def _column(values: Sequence[Any], annotation: Any, group_of: IntArray) -> np.ndarray[Any, Any]:
    """One parameter per scope: float64 for numbers, with NaN for None; objects for everything else."""
    known = [value for value in values if value is not None]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool | Enum) for value in known)
    if numeric and (known or _is_number(annotation)):
        return floats(np.array([np.nan if value is None else value for value in values], dtype=float)[group_of])
    distinct = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        distinct[row] = value
    column = distinct[group_of]
    column.flags.writeable = False
    return column


def _is_number(annotation: Any) -> bool:
    members = set(get_args(annotation) or (annotation,)) - {NoneType}
    return bool(members) and members <= {int, float}
