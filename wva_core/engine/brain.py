"""
The brain: analyzers, optimizer and what policy says of them; built whole, checked, and swapped between two cycles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from wva_core.domain import BoolArray, Fleet, Settings, SignalRequest
from wva_core.errors import PolicyError
from wva_core.hooks import catalog
from wva_core.hooks.chain import Entry, start_all, stop_all
from wva_core.hooks.runtime import Runtime
from wva_core.policy.layers import Layer, resolve
from wva_core.policy.resolved import BoundsColumns, ResolvedPolicy

__all__ = ["Brain", "FleetSettings"]


@dataclass(frozen=True, slots=True, eq=False)
class FleetSettings:
    """
    Policy spread over one fleet: columns per scope, made again only when policy or fleet changes.

    Attributes:
        analyzers: what is asked of each analyzer, by entry name.
        enabled: (S,) where an analyzer is asked and votes, by entry name.
        needed: (S,) by signal, where nothing may shrink without it: an analyzer that keeps its veto reads it there.
        bounds: what holds answers back.
        refused: (S,) by entry name, where overrides meet that do not fit together, and what is wrong with the first.
    """

    analyzers: dict[str, Settings]
    enabled: dict[str, BoolArray]
    needed: dict[SignalRequest, BoolArray]
    bounds: BoundsColumns
    refused: dict[str, tuple[BoolArray, PolicyError]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Brain:
    """
    What decides: a policy and the plugins it names, in service.

    The same object serves every world; replacing it replaces everything that a policy can say.
    """

    policy: ResolvedPolicy
    analyzers: tuple[Entry, ...]
    optimizer: Entry
    _fleet: Fleet | None = field(default=None, repr=False)
    _settings: FleetSettings | None = field(default=None, repr=False)

    @classmethod
    def build(cls, layers: Sequence[Layer]) -> Brain:
        """
        A brain as policy describes it, not yet in service.

        Raises:
            PolicyError: policy does not validate.
            UnknownPluginError, DuplicatePluginError, PluginImportError, ContractError: a plugin it names is not usable.
        """
        classes: dict[tuple[str, str], type] = {}

        def load(kind: str, name: str) -> type:
            if (kind, name) not in classes:
                classes[kind, name] = catalog.load(kind, name)
            return classes[kind, name]

        def thresholds(name: str) -> tuple[float, float]:
            own = catalog.thresholds_of(load("analyzers", name))
            return own.scale_up, own.scale_down

        policy = resolve(layers, lambda kind, name: catalog.parameters_of(load(kind, name)), thresholds_of=thresholds)
        switched_on = {
            change.name for override in policy.spec.overrides for change in override.analyzers if change.enabled
        }
        analyzers = tuple(
            Entry.of(
                "analyzers",
                load("analyzers", spec.type),
                policy.parameters("analyzers", spec.name),
                type_name=spec.type,
                name=spec.name,
                required=spec.required,
            )
            for spec in policy.spec.analyzers
            if spec.enabled or spec.name in switched_on
        )
        spec = policy.spec.optimizer
        optimizer = Entry.of(
            "optimizers",
            load("optimizers", spec.type),
            policy.parameters("optimizers", spec.name),
            type_name=spec.type,
            name=spec.name,
        )
        return cls(policy, analyzers, optimizer)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All plugins of the brain, in the order they are called."""
        return (*self.analyzers, self.optimizer)

    @property
    def wanted(self) -> tuple[SignalRequest, ...]:
        """The signals its analyzers read, without duplicates."""
        return tuple(dict.fromkeys(signal for entry in self.analyzers for signal in entry.signals))

    def settings(self, fleet: Fleet) -> FleetSettings:
        """Policy as columns over this fleet, with what of it does not fit together."""
        if self._settings is None or self._fleet is not fleet:
            self._settings, self._fleet = self._spread(fleet), fleet
        return self._settings

    def check(self, fleet: Fleet) -> None:
        """
        Refuses what does not fit together on a fleet.

        Raises:
            PolicyError: overrides that meet on a model of this fleet do not fit together.
        """
        for _, error in self.settings(fleet).refused.values():
            raise error

    def _spread(self, fleet: Fleet) -> FleetSettings:
        enabled = {entry.name: self.policy.enabled(fleet, entry.name) for entry in self.analyzers}
        needed: dict[SignalRequest, BoolArray] = {}
        for entry in self.analyzers:
            for signal in entry.signals:
                if entry.required and signal.required:
                    before = needed.get(signal, np.zeros(len(fleet.scopes), dtype=bool))
                    needed[signal] = before | enabled[entry.name]
        settings = {}
        for entry in self.analyzers:
            own = entry.default_thresholds
            settings[entry.name] = self.policy.settings(fleet, entry.name, (own.scale_up, own.scale_down))
        found = {entry.name: self.policy.refused(fleet, entry.name) for entry in self.analyzers}
        refused = {name: one for name, one in found.items() if one is not None}
        return FleetSettings(settings, enabled, needed, self.policy.bounds(fleet), refused)

    def start(self, runtime: Runtime) -> None:
        """Puts every plugin into service, or none."""
        start_all(self.entries, runtime)

    def stop(self) -> dict[str, Exception]:
        """Takes every plugin out of service; what any of them raised, by name."""
        return stop_all(self.entries)
