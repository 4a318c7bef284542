"""
The plugins in service: their order, their parameters, and one call to one of them at a time.

A chain is a sequence of entries in the configured order. Each entry has a pluggy manager of its own, so a call reaches
exactly one plugin, by keyword, and the plugin may take fewer arguments than the specification; and a thread of its own,
on which every hook runs, so that a plugin that hangs costs nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pluggy
from pydantic import BaseModel

from wva_core.domain import SignalRequest
from wva_core.errors import PluginFailure, WvaError
from wva_core.hooks import catalog
from wva_core.hooks.isolation import Call, IsolatedPlugin, Outcome
from wva_core.hooks.runtime import Runtime
from wva_core.hooks.specs import SPECS, Thresholds

__all__ = ["Entry", "start_all", "stop_all", "tell_all"]

_PATIENCE = 30.0
"""Seconds of real time a plugin may take to start, to stop or to stand down; longer than any sensible connect."""


@dataclass(slots=True, eq=False)
class Entry:
    """
    One plugin of a chain under the name that policy gives it.

    Make one with `Entry.of`; it is in service after `start`.
    """

    kind: str
    type_name: str
    name: str
    plugin: Any
    parameters: BaseModel
    required: bool = True
    _hooks: Mapping[str, pluggy.HookCaller] = field(repr=False, default_factory=dict)
    _isolated: IsolatedPlugin = field(repr=False, default_factory=lambda: IsolatedPlugin(""))

    @classmethod
    def of(
        cls,
        kind: str,
        plugin_class: type,
        parameters: BaseModel,
        *,
        type_name: str,
        name: str = "",
        required: bool = True,
    ) -> Entry:
        """
        An entry over a checked class.

        Raises:
            ContractError: the class cannot be made with its parameters alone, or the object states signals or
                thresholds that are none.
        """
        name = name or type_name
        plugin = catalog.make(plugin_class, parameters)
        if kind == "analyzers":
            catalog.signals_of(plugin)
            catalog.thresholds_of(plugin)
        manager = pluggy.PluginManager("wva")
        spec, _ = SPECS[kind]
        manager.add_hookspecs(spec)
        manager.register(plugin, name)
        manager.check_pending()
        hooks = {hook: getattr(manager.hook, hook) for hook in catalog.hooks_of(kind, plugin_class)}
        isolated = IsolatedPlugin(f"{kind[:-1]} {name}")
        return cls(kind, type_name, name, plugin, parameters, required, hooks, isolated)

    @property
    def label(self) -> str:
        """How messages and records name it: kind and name, such as `analyzer saturation-v1`."""
        return f"{self.kind[:-1]} {self.name}"

    @property
    def signals(self) -> tuple[SignalRequest, ...]:
        """What an analyzer reads."""
        return catalog.signals_of(self.plugin)

    @property
    def default_thresholds(self) -> Thresholds:
        """An analyzer's thresholds where policy gives none."""
        return catalog.thresholds_of(self.plugin)

    @property
    def state_key(self) -> str:
        """Under which memory keeps its state: an entry of the same name but another plugin starts without."""
        return self.name if self.name == self.type_name else f"{self.type_name}/{self.name}"

    def has(self, hook: str) -> bool:
        """Whether the plugin implements a hook."""
        return hook in self._hooks

    def begin(self, hook: str, *, here: bool = False, **arguments: Any) -> Call:
        """Starts a call on the plugin's thread, or with `here` carries it out on the caller's."""
        return self._isolated.begin(hook, self._answer, {"hook": hook, "arguments": arguments}, here=here)

    def call(self, hook: str, timeout: float | None, **arguments: Any) -> Outcome:
        """Calls and waits, at most `timeout` seconds; with None on the caller's thread, for as long as it takes."""
        return self.begin(hook, here=timeout is None, **arguments).outcome(timeout)

    def _answer(self, hook: str, arguments: dict[str, Any]) -> Any:
        answers = self._hooks[hook](**arguments)
        # pluggy leaves None out of the list; None from a hook that must answer is a broken contract, not consent
        if not answers:
            raise PluginFailure("returned None", object=self.label, key=hook, remedy="return the type the hook names")
        return answers[0]

    def misfit(self, hook: str, key: str, value: object, wanted: str) -> PluginFailure:
        """The failure of an answer that is not what its hook returns: which part, what it is, and what to return."""
        return PluginFailure(
            "is not what the hook returns",
            object=self.label,
            key=f"{hook}.{key}",
            value=value,
            remedy=f"return {wanted}",
        )

    def start(self, runtime: Runtime) -> None:
        """
        Puts the plugin into service.

        Raises:
            Exception: what the plugin raised, or a PluginFailure where it did not answer.
        """
        failure = self._told(self._send("start", runtime=runtime))
        if failure is not None:
            raise failure

    def stop(self) -> Exception | None:
        """
        Takes the plugin out of service and returns what that raised, if anything.

        A plugin that is stuck in a late call is stopped when that comes back; nothing waits for it.
        """
        call = self._send("stop")
        failure = self._stuck("stop") if self._isolated.is_stuck else self._told(call)
        self._isolated.close()
        return failure

    def _send(self, hook: str, **arguments: Any) -> Call | None:
        """Starts a call of a hook that answers nothing, in quarantine too; None where the plugin does without it."""
        if not self.has(hook):
            return None
        return self._isolated.begin(hook, self._hooks[hook], arguments, in_quarantine=True)

    def _told(self, call: Call | None) -> Exception | None:
        """What a sent call raised, if anything."""
        failure = None if call is None else call.outcome(_PATIENCE).failure
        cause = None if failure is None else failure.__cause__
        return cause if isinstance(cause, Exception) else failure

    def _stuck(self, hook: str) -> PluginFailure:
        return PluginFailure(
            "is still in a late call",
            object=self.label,
            key=hook,
            remedy="it is told when that call comes back; find out what it waits for",
        )


def tell_all(entries: Iterable[Entry], hook: str) -> dict[str, Exception]:
    """
    Calls a hook without arguments or answer on all entries at once; what any of them raised, by label.

    One that is stuck in a late call is told when that comes back.
    """
    calls = [(entry, entry._send(hook)) for entry in entries]  # noqa: SLF001 - a chain is made of its entries
    failures = {
        entry.label: entry._stuck(hook) if entry._isolated.is_stuck else entry._told(call)  # noqa: SLF001 - as above
        for entry, call in calls
    }
    return {label: failure for label, failure in failures.items() if failure is not None}


def start_all(entries: Iterable[Entry], runtime: Runtime) -> None:
    """
    Puts all entries into service, or none: what was started is stopped again when one refuses.

    Raises:
        PluginFailure: names the entry that refused; the cause is chained.
    """
    started: list[Entry] = []
    for entry in entries:
        try:
            entry.start(runtime)
        except Exception as exc:
            stop_all([entry, *reversed(started)])
            detail = str(exc) if isinstance(exc, WvaError) else f"{type(exc).__name__}: {exc}"
            raise PluginFailure(
                f"cannot go into service: {detail}",
                object=entry.label,
                key="start",
                remedy="mend what it names, or take the entry out",
            ) from exc
        started.append(entry)


def stop_all(entries: Iterable[Entry]) -> dict[str, Exception]:
    """Takes entries out of service, one after the other; what any of them raised, by label."""
    failures = {entry.label: entry.stop() for entry in entries}
    return {label: failure for label, failure in failures.items() if failure is not None}
