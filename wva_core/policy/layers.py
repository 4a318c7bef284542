"""
Layers of policy, merged key by key with the origin of every value.

What a layer does not say comes from the layer below it:

    default  <  environment  <  profile  <  cluster document  <  overrides for some models

`analyzers` and `optimizer` are taken from the highest layer that gives them, as a whole; inside an override they are
merged key by key into the entry of the same name. The overrides of all layers are kept, those of a higher layer after
those of a lower one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from importlib import resources
from typing import Any

from wva_core.errors import PolicyError
from wva_core.policy.documents import parse_document, validate
from wva_core.policy.key_paths import ancestors, is_below, merge_keys, nodes, says
from wva_core.policy.resolved import Origins, ParametersOf, ResolvedPolicy, ThresholdsOf
from wva_core.policy.schema import PolicyDocument, PolicySpec, parse_duration

__all__ = [
    "DEFAULT_PROFILE",
    "Layer",
    "Precedence",
    "check_layer",
    "environment_layers",
    "profile_layer",
    "profile_names",
    "resolve",
]

DEFAULT_PROFILE = "saturation-v1"
"""The profile of a policy that names neither a profile nor a brain: what upstream does without configuration."""


class Precedence(IntEnum):
    """The order of layers; the higher wins."""

    ENVIRONMENT = 0
    PROFILE = 1
    DOCUMENT = 2


@dataclass(frozen=True)
class Layer:
    """
    What one source says.

    Attributes:
        origin: the source, as a person knows it: a file, `profile saturation-v1`, `environment GLOBAL_OPT_INTERVAL`.
        values: plain data in the form of a policy document.
        precedence: where the layer stands among the others.
        places: how the writer names what stands at a key path here, where that differs: `{"overrides[0]": ""}` for a
            file that is one override. The longest path that fits counts; what it stands for is put in its place.
        warnings: what the source also says and what cannot be used, as sentences.
    """

    origin: str
    values: Mapping[str, Any]
    precedence: Precedence = Precedence.DOCUMENT
    places: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def spelled(self, path: str) -> str:
        """The key path as the writer of this layer knows it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.places and (end == len(path) or path[end] in ".["):
                beginning, rest = self.places[path[:end]], path[end:]
                return beginning + rest if beginning else rest.removeprefix(".")
        return path

    def origin_of(self, path: str) -> str:
        """Where the value at a key path comes from, for a person."""
        if self.precedence != Precedence.DOCUMENT:
            return self.origin
        place = self.spelled(path)
        return f"{self.origin}: {place}" if place else self.origin


@cache
def profile_names() -> tuple[str, ...]:
    """The built-in profiles, sorted."""
    folder = resources.files("wva_core.policy") / "profiles"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def profile_layer(name: str, *, origin: str = "", key: str = "profile") -> Layer:
    """
    A built-in profile.

    Args:
        name: of the profile.
        origin: the document that asks for it, for the error.
        key: where that document does.

    Raises:
        PolicyError: there is no such profile; names those there are.
    """
    if name not in profile_names():
        raise PolicyError(
            "is not a profile", object=origin, key=key, value=name, remedy=f"give one of {', '.join(profile_names())}"
        )
    content = (resources.files("wva_core.policy") / "profiles" / f"{name}.yaml").read_bytes()
    return Layer(f"profile {name}", parse_document(content, f"profile {name}", PolicyError), Precedence.PROFILE)


def environment_layers(environ: Mapping[str, str]) -> list[Layer]:
    """
    The variables of the environment that belong to policy, one layer each.

    `GLOBAL_OPT_INTERVAL` is the interval, a duration with a unit. A value that is not one, or is below one second, is
    a warning and leaves the interval to the other layers, as in upstream WVA v0.9.
    """
    name = "GLOBAL_OPT_INTERVAL"
    text = environ.get(name, "").strip()
    if not text:
        return []
    origin = f"environment {name}"
    try:
        parse_duration(text)
        layer = Layer(origin, {"interval": text}, Precedence.ENVIRONMENT, {"interval": ""})
        check_layer(layer)
    except (ValueError, PolicyError):
        warning = (
            f"{origin}: is not a duration of at least 1s (got {text!r}) and is left out;"
            " give a number with a unit, such as 15s or 1m"
        )
        return [Layer(origin, {}, Precedence.ENVIRONMENT, warnings=(warning,))]
    return [layer]


def check_layer(layer: Layer) -> PolicyDocument:
    """
    A layer as a typed document, checked as far as it can be on its own.

    Raises:
        PolicyError: an unknown key, a wrong type, a value out of range, two entries of one name, no enabled analyzer.
    """

    def refuse(problem: str, path: str, remedy: str, **given: Any) -> PolicyError:
        return PolicyError(problem, object=layer.origin, key=layer.spelled(path), remedy=remedy, **given)

    document = validate(PolicyDocument, layer.values, layer.origin, PolicyError, spell=layer.spelled)
    if "analyzers" in document.model_fields_set and not any(entry.enabled for entry in document.analyzers):
        raise refuse(
            "has no analyzer that is enabled",
            "analyzers",
            "enable at least one, or leave the key out for the profile's",
        )
    _refuse_duplicates("analyzers", [entry.name for entry in document.analyzers], refuse)
    for row, override in enumerate(document.overrides):
        _refuse_duplicates(f"overrides[{row}].analyzers", [entry.name for entry in override.analyzers], refuse)
    return document


def _refuse_duplicates(path: str, names: list[str], refuse: Callable[..., PolicyError]) -> None:
    for row, name in enumerate(names):
        if name in names[:row]:
            raise refuse(
                f"has the name of {path}[{names.index(name)}]",
                f"{path}[{row}].name",
                "give each a name of its own",
                value=name,
            )


def resolve(
    layers: Iterable[Layer], parameters_of: ParametersOf, *, thresholds_of: ThresholdsOf | None = None
) -> ResolvedPolicy:
    """
    The policy that the layers make together, checked as a whole.

    A policy whose layers name neither a profile nor a plugin gets `DEFAULT_PROFILE`.

    Args:
        layers: in any order of precedence; those of equal precedence with the winning one last.
        parameters_of: the `Parameters` model of a plugin, by kind (`analyzers` or `optimizers`) and type.
        thresholds_of: the thresholds (up, down) that an analyzer brings itself, by type. With it a threshold that does
            not fit them is refused here; without, where settings are asked for.

    Raises:
        PolicyError: a value is refused; names the document that gave it, key path, value and remedy.
        WvaError: whatever `parameters_of` raises for a plugin it does not have.
    """
    given = list(layers)
    documents = [(layer, check_layer(layer)) for layer in given]
    documents.sort(key=lambda pair: pair[0].precedence)
    asking = next(((layer, doc.profile) for layer, doc in reversed(documents) if doc.profile is not None), None)
    names_plugin = any(doc.analyzers or doc.optimizer for _, doc in documents)
    if asking or not names_plugin:
        layer, name = asking or (None, DEFAULT_PROFILE)
        profile = (
            profile_layer(name, origin=layer.origin, key=layer.spelled("profile")) if layer else profile_layer(name)
        )
        documents.append((profile, check_layer(profile)))
        documents.sort(key=lambda pair: pair[0].precedence)
    merge = _Merge()
    for layer, document in documents:
        merge.put(layer, document)
    values = {**merge.values, "overrides": merge.overrides}
    if not asking and not names_plugin:
        values["profile"] = DEFAULT_PROFILE
    for key in ("analyzers", "optimizer"):
        if key not in values:
            raise PolicyError(
                "is missing",
                object=documents[-1][0].origin,
                key=key,
                remedy=f"name the {key} beside the rest of the brain, or start from a profile:"
                f" {', '.join(profile_names())}",
            )
    return ResolvedPolicy(
        PolicySpec.model_validate(values),
        parameters_of,
        origins=merge,
        thresholds_of=thresholds_of,
        warnings=[warning for layer in given for warning in layer.warnings],
    )


class _Merge(Origins):
    """Layers on top of each other, and who said what."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.overrides: list[Any] = []
        self._said: dict[str, tuple[Any, bool]] = {}
        self._layer_of: dict[str, Layer] = {}
        self._place_of_override: list[tuple[Layer, str]] = []

    def put(self, layer: Layer, document: PolicyDocument) -> None:
        """Adds a layer on top of those that are here."""
        values = document.model_dump(exclude_unset=True, exclude_none=True, by_alias=True)
        for row, override in enumerate(values.pop("overrides", ())):
            self.overrides.append(override)
            self._place_of_override.append((layer, f"overrides[{row}]"))
        optimizer = values.pop("optimizer", None)
        self.values = merge_keys(self.values, values)
        if optimizer is not None:
            self._forget("optimizer")
            values["optimizer"] = self.values["optimizer"] = optimizer
        for path, value, is_leaf in nodes(values):
            if not isinstance(value, Mapping):
                self._forget(path)
            self._said[path] = (value, is_leaf)
            self._layer_of[path] = layer

    def _forget(self, above: str) -> None:
        for path in [path for path in self._said if is_below(path, above)]:
            del self._said[path], self._layer_of[path]

    def locate(self, path: str) -> tuple[str, str]:
        """The document that gives what is at a merged key path, and the path as its writer knows it."""
        layer, local = self._override(path) or (None, path)
        if layer is None:
            layer = next((self._layer_of[above] for above in ancestors(path) if above in self._layer_of), None)
        return (layer.origin, layer.spelled(local)) if layer else ("policy", path)

    def of(self, path: str) -> str:
        """Where the value at a merged key path comes from, for a person."""
        if found := self._override(path):
            layer, local = found
            return layer.origin_of(local)
        place = says(self._said, path)
        return self._layer_of[place].origin_of(path) if place else "default"

    def _override(self, path: str) -> tuple[Layer, str] | None:
        found = re.match(r"overrides\[(\d+)\]", path)
        if found is None:
            return None
        layer, local = self._place_of_override[int(found[1])]
        return layer, local + path[found.end() :]
