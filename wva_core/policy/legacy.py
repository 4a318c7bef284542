"""
The saturation ConfigMap of upstream WVA, adapted to layers of policy.

Each data value is one entry, a YAML document; the key `default` holds what applies to all models, every other key an
override. What upstream documents but does not do is done here:

- an override is matched by its fields `model_id` and `namespace`; its key is free. A key `<model>#<namespace>`, which
  no ConfigMap can hold but a file can, stands in for missing fields;
- an override is merged over `default` as it was typed, and only then are the defaults filled in, so that setting one
  field never resets another;
- if the merged thresholds leave no room (up ≤ down), both are back at 0.85 and 0.70.

A number 0 means "not set", as upstream. An entry that is refused is skipped with a warning; the others count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wva_core.errors import PolicyError
from wva_core.policy.documents import camel_case, parse_document, validate
from wva_core.policy.layers import Layer

__all__ = ["SaturationAnalyzer", "SaturationEntry", "resolve_saturation_entry", "saturation_layers"]

DEFAULT_KEY = "default"

_SCALE_UP_THRESHOLD, _SCALE_DOWN_BOUNDARY = 0.85, 0.70
_V1_DEFAULTS = {
    "kv_cache_threshold": 0.80,
    "queue_length_threshold": 5.0,
    "kv_spare_trigger": 0.10,
    "queue_spare_trigger": 3.0,
}
_TYPES = {"saturation": "saturation-v2", "throughput": "throughput"}
"""The plugins behind upstream's analyzer types; it ignores other types, and so does this adapter, with a warning."""


@dataclass(frozen=True, slots=True)
class SaturationAnalyzer:
    """One item of an entry's `analyzers`; a threshold of None is the entry's."""

    type: str
    enabled: bool = True
    score: float = 1.0
    scale_up_threshold: float | None = None
    scale_down_boundary: float | None = None


@dataclass(frozen=True, slots=True)
class SaturationEntry:
    """What the saturation ConfigMap says of one model, every default filled in."""

    kv_cache_threshold: float
    queue_length_threshold: float
    kv_spare_trigger: float
    queue_spare_trigger: float
    scale_up_threshold: float
    scale_down_boundary: float
    priority: float
    analyzers: tuple[SaturationAnalyzer, ...]
    enable_limiter: bool
    enable_rescale: bool
    scale_to_zero: bool | None
    is_v2: bool

    def thresholds(self, analyzer: SaturationAnalyzer) -> tuple[float, float]:
        """What holds for one analyzer: its own thresholds, else those of the entry, reset if they leave no room."""
        return _with_room(
            analyzer.scale_up_threshold or self.scale_up_threshold,
            analyzer.scale_down_boundary or self.scale_down_boundary,
        )


def resolve_saturation_entry(entries: Mapping[str, Any], model_id: str, namespace: str) -> SaturationEntry:
    """
    What the entries say of one model: its override over `default`, then the defaults.

    Args:
        entries: plain data by key. Entries that would be refused count as if they were not there.
        model_id: of the model.
        namespace: of the model.
    """
    usable = _usable(entries, "")
    return _completed(_merged(usable.default, usable.overrides.get((model_id, namespace), ("", _Raw()))[1]))


def saturation_layers(contents: Mapping[str, bytes], origin: str) -> list[Layer]:
    """
    The ConfigMap as layers: the default entry, then one override for each model that has an entry.

    Without analyzers in the default entry the brain is saturation-v1 with stepwise, else saturation-v2 and what else
    it lists with cost-aware, or with greedy-by-score where the limiter is enabled.

    Args:
        contents: YAML by key, as in the `data` of the ConfigMap.
        origin: how warnings and origins name where the keys are.
    """
    entries, warnings = {}, []
    for key in sorted(contents):
        try:
            entries[key] = parse_document(contents[key], f"{origin}/{key}", PolicyError)
        except PolicyError as exc:
            warnings.append(_skipped(exc))
    usable = _usable(entries, f"{origin}/")
    adapt = _v2_layers if _is_v2(usable.default) else _v1_layers
    layers = adapt(usable, origin)
    warnings += [*usable.warnings, *(warning for layer in layers for warning in layer.warnings)]
    base = layers[0]
    return [Layer(base.origin, base.values, places=base.places, warnings=tuple(warnings)), *_silent(layers[1:])]


def _silent(layers: list[Layer]) -> list[Layer]:
    return [Layer(layer.origin, layer.values, places=layer.places) for layer in layers if layer.values]


# --------------------------------------------------------------------------------------------------------------------
# Entries as they were typed


class _RawModel(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, alias_generator=camel_case, populate_by_name=True)


class _RawTuning(_RawModel):
    """What may stand in an item of `analyzers` or inside its `parameters`."""

    enabled: bool | None = None
    score: float | None = Field(None, ge=0, allow_inf_nan=False)
    scale_up_threshold: float | None = Field(None, ge=0, le=1)
    scale_down_boundary: float | None = Field(None, ge=0, le=1)


class _RawAnalyzer(_RawTuning):
    type: str | None = None
    name: str | None = None
    parameters: _RawTuning | None = None

    @model_validator(mode="after")
    def _is_named(self) -> _RawAnalyzer:
        if not (self.type or self.name):
            raise ValueError("names no analyzer; give a type, such as saturation")
        return self

    def typed(self) -> SaturationAnalyzer:
        """With `parameters` folded in where the item itself says nothing."""
        inner = self.parameters or _RawTuning()
        enabled = self.enabled if self.enabled is not None else inner.enabled
        return SaturationAnalyzer(
            type=self.type or self.name or "",
            enabled=enabled is not False,
            score=self.score or inner.score or 1.0,
            scale_up_threshold=self.scale_up_threshold or inner.scale_up_threshold or None,
            scale_down_boundary=self.scale_down_boundary or inner.scale_down_boundary or None,
        )


class _RawScaleToZero(_RawModel):
    enabled: bool | None = None


class _Raw(_RawModel):
    """An entry as it was typed; 0, an empty text and an empty list mean that nothing was said."""

    model_id: str | None = Field(None, alias="model_id")
    namespace: str | None = None
    kv_cache_threshold: float | None = Field(None, ge=0, le=1)
    queue_length_threshold: float | None = Field(None, ge=0, allow_inf_nan=False)
    kv_spare_trigger: float | None = Field(None, ge=0, le=1)
    queue_spare_trigger: float | None = Field(None, ge=0, allow_inf_nan=False)
    enable_limiter: bool | None = None
    enable_rescale: bool | None = None
    analyzer_name: str | None = None
    scale_up_threshold: float | None = Field(None, ge=0, le=1)
    scale_down_boundary: float | None = Field(None, ge=0, le=1)
    priority: float | None = Field(None, ge=0, allow_inf_nan=False)
    analyzers: tuple[_RawAnalyzer, ...] | None = None
    scale_to_zero: _RawScaleToZero | None = None
    limiters: tuple[Any, ...] | None = None

    @model_validator(mode="after")
    def _thresholds_leave_room(self) -> _Raw:
        pairs = [(self.scale_up_threshold, self.scale_down_boundary)]
        for item in self.analyzers or ():
            typed = item.typed()
            up = typed.scale_up_threshold or self.scale_up_threshold
            pairs.append((up, typed.scale_down_boundary or self.scale_down_boundary))
        for up, down in pairs:
            if up and down and up <= down:
                raise ValueError(
                    f"leaves no room between scaleUpThreshold {up:g} and scaleDownBoundary {down:g};"
                    " give a scaleUpThreshold above scaleDownBoundary"
                )
        return self

    def said(self) -> dict[str, Any]:
        """What counts as said, by field."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in fields.items() if value}


class _Usable(NamedTuple):
    """Entries that are not refused."""

    default: _Raw
    overrides: dict[tuple[str, str], tuple[str, _Raw]]
    warnings: list[str]


def _usable(entries: Mapping[str, Any], prefix: str) -> _Usable:
    default = _Raw()
    overrides: dict[tuple[str, str], tuple[str, _Raw]] = {}
    warnings: list[str] = []
    # The default first: whether an override fits depends on it. Then by key: of duplicates the first one counts.
    for key in sorted(entries, key=lambda key: (key != DEFAULT_KEY, key)):
        place = f"{prefix}{key}"
        try:
            raw = validate(_Raw, {} if entries[key] is None else entries[key], place, PolicyError)
            _refuse_endless_growth(raw if key == DEFAULT_KEY else _merged(default, raw), place)
        except PolicyError as exc:
            warnings.append(_skipped(exc))
            continue
        if raw.model_extra:
            warnings.append(f"{place}: {_are(sorted(raw.model_extra), 'not known')} and left out")
        if key == DEFAULT_KEY:
            default = raw
            continue
        model, _, namespace = key.rpartition("#")
        named = (raw.model_id, raw.namespace) if raw.model_id and raw.namespace else (model, namespace)
        if not all(named):
            warnings.append(f"{place}: says of no model what it is for, and is skipped; give model_id and namespace")
            continue
        identity = (str(named[0]), str(named[1]))
        if identity in overrides:
            warnings.append(
                f"{place}: is for the model of {prefix}{overrides[identity][0]} and is skipped; remove one of them"
            )
            continue
        overrides[identity] = (key, raw)
    return _Usable(default, overrides, warnings)


def _refuse_endless_growth(merged: _Raw, place: str) -> None:
    entry = _completed(merged)
    if entry.kv_cache_threshold < entry.kv_spare_trigger:
        raise PolicyError(
            f"leaves kvSpareTrigger {entry.kv_spare_trigger:g} above kvCacheThreshold {entry.kv_cache_threshold:g}",
            object=place,
            remedy="lower the trigger",
        )


def _merged(default: _Raw, override: _Raw) -> _Raw:
    # model_copy, because the merged pair may leave no room: that is mended when it is completed.
    return default.model_copy(update=override.said())


def _is_v2(raw: _Raw) -> bool:
    return bool(raw.analyzers) or raw.analyzer_name == "saturation"


def _completed(raw: _Raw) -> SaturationEntry:
    v1 = {name: getattr(raw, name) or default for name, default in _V1_DEFAULTS.items()}
    up, down = _with_room(
        raw.scale_up_threshold or _SCALE_UP_THRESHOLD, raw.scale_down_boundary or _SCALE_DOWN_BOUNDARY
    )
    analyzers = tuple(item.typed() for item in raw.analyzers or ())
    if _is_v2(raw) and not analyzers:
        analyzers = (SaturationAnalyzer("saturation"),)
    return SaturationEntry(
        **v1,
        scale_up_threshold=up,
        scale_down_boundary=down,
        priority=raw.priority or 1.0,
        analyzers=analyzers,
        enable_limiter=bool(raw.enable_limiter),
        enable_rescale=bool(raw.enable_rescale),
        scale_to_zero=raw.scale_to_zero.enabled if raw.scale_to_zero else None,
        is_v2=_is_v2(raw),
    )


def _with_room(up: float, down: float) -> tuple[float, float]:
    return (up, down) if up > down else (_SCALE_UP_THRESHOLD, _SCALE_DOWN_BOUNDARY)


# --------------------------------------------------------------------------------------------------------------------
# Entries as layers

_IDENTITY = {"model_id", "namespace"}
_UNSUPPORTED = {"enable_limiter", "enable_rescale", "scale_to_zero", "limiters", "priority"}


def _v1_layers(usable: _Usable, origin: str) -> list[Layer]:
    brain: dict[str, Any] = {"analyzers": [{"type": "saturation-v1"}], "optimizer": {"type": "stepwise"}}
    layers = [_default_layer(usable.default, brain, list(_V1_DEFAULTS), origin, "saturation-v1")]
    for identity, (key, raw) in usable.overrides.items():
        given = _parameters(raw, list(_V1_DEFAULTS))
        change = {"name": "saturation-v1", "parameters": given} if given else {}
        layers.append(_override_layer(identity, key, raw, [change] if change else [], origin, "saturation-v1"))
    return layers


_V2_PARAMETERS = ["kv_cache_threshold", "queue_length_threshold"]


def _v2_layers(usable: _Usable, origin: str) -> list[Layer]:
    entry = _completed(usable.default)
    analyzers: dict[str, dict[str, Any]] = {}
    warnings = []
    for item in entry.analyzers:
        plugin = _TYPES.get(item.type)
        if plugin is None or plugin in analyzers:
            why = "is not known" if plugin is None else "is listed twice"
            warnings.append(f"{origin}/{DEFAULT_KEY}: the analyzer {item.type!r} {why} and is left out")
            continue
        analyzers[plugin] = {"type": plugin, **_tuning(entry, item)}
    if not analyzers:
        analyzers["saturation-v2"] = {"type": "saturation-v2"}
    brain = {
        "analyzers": sorted(analyzers.values(), key=lambda item: item["type"] != "saturation-v2"),
        "optimizer": {"type": "greedy-by-score" if entry.enable_limiter else "cost-aware"},
    }
    layers = [_default_layer(usable.default, brain, _V2_PARAMETERS, origin, "saturation-v2", warnings)]
    for identity, (key, raw) in usable.overrides.items():
        merged = _completed(_merged(usable.default, raw))
        listed = {_TYPES.get(item.type, item.type): item for item in reversed(merged.analyzers)}
        changes = []
        for plugin in analyzers:
            change: dict[str, Any] = _tuning(merged, listed[plugin]) if plugin in listed else {"enabled": False}
            if plugin == "saturation-v2" and (given := _parameters(raw, _V2_PARAMETERS)):
                change["parameters"] = given
            changes.append({"name": plugin, **change})
        layers.append(_override_layer(identity, key, raw, changes, origin, "saturation-v2"))
    return layers


def _tuning(entry: SaturationEntry, item: SaturationAnalyzer) -> dict[str, Any]:
    up, down = entry.thresholds(item)
    return {"enabled": item.enabled, "score": item.score, "thresholds": {"scaleUp": up, "scaleDown": down}}


def _parameters(raw: _Raw, names: list[str]) -> dict[str, float]:
    said = raw.said()
    return {camel_case(name): said[name] for name in names if name in said}


def _default_layer(
    raw: _Raw,
    brain: dict[str, Any],
    parameters: list[str],
    origin: str,
    plugin: str,
    warnings: list[str] | None = None,
) -> Layer:
    place = f"{origin}/{DEFAULT_KEY}"
    if given := _parameters(raw, parameters):
        first = {**brain["analyzers"][0], "parameters": given}
        brain = {**brain, "analyzers": [first, *brain["analyzers"][1:]]}
    places = {"analyzers[0].parameters": "", "analyzers[0].type": "", "optimizer.type": ""}
    return Layer(place, brain, places=places, warnings=(*(warnings or ()), *_unused(raw, place, plugin)))


def _override_layer(
    identity: tuple[str, str],
    key: str,
    raw: _Raw,
    changes: list[dict[str, Any]],
    origin: str,
    plugin: str,
) -> Layer:
    place = f"{origin}/{key}"
    model, namespace = identity
    override = {"name": key, "match": {"modelID": model, "namespace": namespace}, "analyzers": changes}
    places = {
        "overrides[0]": "",
        "overrides[0].match.modelID": "model_id",
        **{f"overrides[0].analyzers[{row}].parameters": "" for row in range(len(changes))},
    }
    warnings = _unused(raw, place, plugin, is_override=True)
    return Layer(place, {"overrides": [override]} if changes else {}, places=places, warnings=warnings)


def _unused(raw: _Raw, place: str, plugin: str, *, is_override: bool = False) -> tuple[str, ...]:
    """What an entry says without any effect on the brain it ends up in."""
    if plugin == "saturation-v1":
        without = {*_UNSUPPORTED, "scale_up_threshold", "scale_down_boundary"}
        without |= {"analyzers", "analyzer_name"} if is_override else set()
    else:
        without = {*_UNSUPPORTED, "kv_spare_trigger", "queue_spare_trigger"}
        without -= set() if is_override else {"enable_limiter"}
    said = raw.said()
    if said.get("priority") == 1.0:
        del said["priority"]
    names = [camel_case(name) for name in said if name in without]
    return (f"{place}: {_are(names, 'without effect')} with {plugin}",) if names else ()


def _are(names: list[str], what: str) -> str:
    return f"{', '.join(names)} {'are' if len(names) > 1 else 'is'} {what}"


def _skipped(exc: PolicyError) -> str:
    return f"{exc}; the entry is skipped"
