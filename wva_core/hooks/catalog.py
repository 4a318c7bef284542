"""
Which plugins are installed, and whether a class keeps the contract of its kind.

Loading is by name: only what a chain names is imported. Listing reads entry points and imports nothing.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import pluggy
from pydantic import BaseModel, ConfigDict
from stevedore.driver import DriverManager
from stevedore.exception import MultipleMatches, NoMatches
from stevedore.extension import error_on_conflict

from wva_core.domain import REPLICA_SIGNALS, SCOPE_SIGNALS, SignalRequest
from wva_core.errors import (
    ContractError,
    DuplicatePluginError,
    PluginImportError,
    UnknownPluginError,
)
from wva_core.hooks.specs import API, SPECS, Thresholds

__all__ = [
    "Listing",
    "NoParameters",
    "check_contract",
    "hooks_of",
    "listing",
    "load",
    "make",
    "parameters_of",
    "signals_of",
    "thresholds_of",
]


class NoParameters(BaseModel):
    """Parameters of a plugin that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Listing:
    """One installed plugin as its distribution declares it; nothing is imported to know this."""

    kind: str
    name: str
    target: str
    distribution: str
    version: str


def listing(kind: str | None = None) -> list[Listing]:
    """Installed plugins of one kind or of all, sorted by kind and name."""
    found = []
    for each in [kind] if kind else list(SPECS):
        for entry in entry_points(group=f"wva.{each}"):
            dist = entry.dist
            found.append(
                Listing(each, entry.name, entry.value, dist.name if dist else "", dist.version if dist else "")
            )
    return sorted(set(found), key=lambda item: (item.kind, item.name, item.distribution))


def load(kind: str, name: str) -> type:
    """
    The class that an installed distribution offers under this name.

    Raises:
        UnknownPluginError: nobody offers it; names what is installed.
        DuplicatePluginError: two distributions do.
        PluginImportError: importing it failed; the cause is chained.
        ContractError: the class does not keep the contract.
    """
    offered = [item for item in listing(kind) if item.name == name]
    if not offered:  # asked here, because stevedore would log it first
        raise _unknown(kind, name)
    if len(offered) > 1:
        raise _duplicate(kind, name, [item.distribution for item in offered])
    try:
        manager = DriverManager(
            f"wva.{kind}",
            name,
            invoke_on_load=False,
            on_load_failure_callback=_raise_import_error,
            conflict_resolver=error_on_conflict,
        )
    except NoMatches as exc:
        raise UnknownPluginError(
            f"was installed after this process read which {kind} there are",
            object=kind,
            key=name,
            remedy="restart the process",
        ) from exc
    except MultipleMatches as exc:
        raise _duplicate(kind, name, [str(exc)]) from exc
    except (AssertionError, SystemExit) as exc:
        # the two that stevedore lets through from a module it imports
        raise _import_error(name, offered[0].target, exc) from exc
    return check_contract(kind, name, manager.driver)


def _unknown(kind: str, name: str) -> UnknownPluginError:
    known = [item.name for item in listing(kind)]
    close = difflib.get_close_matches(name, known, n=1)
    return UnknownPluginError(
        f"no installed {kind[:-1]} has this name",
        object=kind,
        key=name,
        remedy=(f"did you mean {close[0]!r}? " if close else "")
        + f"installed: {', '.join(known) or 'none'}; install the distribution that offers it or correct the name",
    )


def _raise_import_error(_manager: Any, entry: Any, error: BaseException) -> None:
    raise _import_error(entry.name, entry.value, error) from error


def _import_error(name: str, target: str, error: BaseException) -> PluginImportError:
    return PluginImportError(
        f"cannot be imported: {type(error).__name__}: {error}",
        object=f"plugin {name}",
        key=target,
        remedy="install what it needs, or report this to the author of its distribution",
    )


def _duplicate(kind: str, name: str, distributions: list[str]) -> DuplicatePluginError:
    return DuplicatePluginError(
        f"is offered by more than one distribution: {', '.join(sorted(distributions))}",
        object=kind,
        key=name,
        remedy="uninstall all but one of them",
    )


def check_contract(kind: str, name: str, plugin: Any) -> type:
    """
    The plugin class itself, after checking everything that can be checked without calling it.

    Raises:
        ContractError: names the first part of the contract that is not kept, and how to keep it.
    """
    subject = f"{kind[:-1]} {name}"
    if not inspect.isclass(plugin):
        raise ContractError(
            f"is {'a module' if inspect.ismodule(plugin) else 'an object'}, not a class",
            object=subject,
            remedy="let the entry point name the class; the engine makes the object",
        )
    if getattr(plugin, "api", None) != API:
        raise ContractError(
            "is written for another contract",
            object=subject,
            key="api",
            value=getattr(plugin, "api", None),
            remedy=f'state api = "{API}" once it keeps that contract, or install a release of it that does',
        )
    parameters = parameters_of(plugin)
    if parameters.model_config.get("extra") != "forbid":
        raise ContractError(
            "accepts unknown keys",
            object=subject,
            key="Parameters",
            remedy='add model_config = ConfigDict(extra="forbid") so that a misspelled key is refused',
        )
    spec, required = SPECS[kind]
    manager = pluggy.PluginManager("wva")
    manager.add_hookspecs(spec)
    hooks = {hook for hook in dir(spec) if not hook.startswith("_")}
    for hook in sorted(hooks):
        method = getattr(plugin, hook, None)
        if callable(method) and not hasattr(method, "wva_impl"):
            raise ContractError(
                "is not marked as a hook and would never be called",
                object=subject,
                key=hook,
                remedy="put @hookimpl above it",
            )
    if inspect.isabstract(plugin):
        raise ContractError(
            "is abstract and no object can be made of it",
            object=subject,
            key=", ".join(sorted(getattr(plugin, "__abstractmethods__", ()))),
            remedy="let the entry point name a class that implements these",
        )
    try:
        manager.register(object.__new__(plugin), name)
        manager.check_pending()
    except pluggy.PluginValidationError as exc:
        raise ContractError(
            " ".join(str(exc).split()),
            object=subject,
            remedy=f"hooks of {kind} are {', '.join(sorted(hooks))}; use their names and argument names",
        ) from exc
    for hook in required:
        if getattr(plugin, hook, None) is None:
            raise ContractError(
                "is missing",
                object=subject,
                key=hook,
                remedy=f"every plugin in wva.{kind} implements {hook} and marks it with @hookimpl",
            )
    if not required and not set(hooks_of(kind, plugin)) - {"start", "stop"}:
        raise ContractError(
            "has no hook and would never be called",
            object=subject,
            remedy=f"implement one of {', '.join(sorted(hooks - {'start', 'stop'}))} and mark it with @hookimpl",
        )
    if kind == "analyzers":
        signals_of(plugin)
        thresholds_of(plugin)
    return plugin


def hooks_of(kind: str, plugin: type) -> list[str]:
    """Names of the hooks a checked class implements."""
    spec, _ = SPECS[kind]
    return sorted(hook for hook in dir(spec) if not hook.startswith("_") and hasattr(plugin, hook))


def parameters_of(plugin: type) -> type[BaseModel]:
    """The `Parameters` model of a plugin class."""
    model = getattr(plugin, "Parameters", NoParameters)
    if not (inspect.isclass(model) and issubclass(model, BaseModel)):
        raise ContractError(
            "is not a pydantic model",
            object=plugin.__qualname__,
            key="Parameters",
            remedy="derive it from pydantic.BaseModel",
        )
    return model


def thresholds_of(plugin: Any) -> Thresholds:
    """
    The thresholds an analyzer brings itself; the project's where it brings none.

    Raises:
        ContractError: what it states is something else.
    """
    thresholds = getattr(plugin, "default_thresholds", Thresholds())
    if not isinstance(thresholds, Thresholds):
        raise _refused_attribute(plugin, "default_thresholds", thresholds, "give Thresholds(scale_up=…, scale_down=…)")
    return thresholds


def signals_of(plugin: Any) -> tuple[SignalRequest, ...]:
    """
    The signals an analyzer reads.

    Raises:
        ContractError: it is not a sequence of requests, or no collector can know a signal of that name.
    """
    signals = getattr(plugin, "signals", ())
    if not isinstance(signals, Sequence) or not all(isinstance(one, SignalRequest) for one in signals):
        raise _refused_attribute(plugin, "signals", signals, "give a tuple of SignalRequest(…)")
    for one in signals:
        known = {"replica": REPLICA_SIGNALS, "scope": SCOPE_SIGNALS}.get(one.level, {})
        if one.signal not in known:
            raise _refused_attribute(
                plugin,
                "signals",
                one.signal,
                f"use one of {', '.join(known)}" if known else "use level replica or scope",
            )
    return tuple(signals)


def _refused_attribute(plugin: Any, key: str, value: Any, remedy: str) -> ContractError:
    name = plugin.__qualname__ if inspect.isclass(plugin) else type(plugin).__qualname__
    return ContractError("is not what an analyzer states", object=name, key=key, value=value, remedy=remedy)


def make(plugin: type, parameters: BaseModel) -> Any:
    """
    The object the engine calls.

    Raises:
        ContractError: the constructor does not take the parameters alone, or raises.
    """
    try:
        return plugin(parameters)
    except Exception as exc:
        raise ContractError(
            f"cannot be made: {type(exc).__name__}: {exc}",
            object=plugin.__qualname__,
            remedy="let __init__ take the parameters alone and touch nothing outside; use start(runtime) for that",
        ) from exc
