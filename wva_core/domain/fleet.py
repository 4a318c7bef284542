"""
What is being scaled: variants, the scopes in which their demand is counted, and the numbers that change every cycle.

`Variant` and `Scope` are identity; `Fleet` holds them in one order with the integer indexes between them and is kept
while no variant appears or goes; `VariantTable` holds what is new every cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from wva_core.domain.arrays import BoolArray, FloatArray, Groups, IntArray, booleans, floats, integers
from wva_core.errors import ParameterError

__all__ = ["DEFAULT_COST", "Fleet", "Model", "Scope", "Variant", "VariantStatus", "VariantTable"]

DEFAULT_COST = 10.0
"""Cost of a replica, USD/h, where its variant states none (upstream WVA v0.9, annotation `variant-cost`)."""

_ROLES = ("", "prefill", "decode")


class Model(NamedTuple):
    """All variants that serve one model in one namespace for one service class: what an optimizer plans as a whole."""

    namespace: str
    model: str
    service_class: str


class Scope(NamedTuple):
    """The unit in which demand is counted: one role of one model. Class and role are empty unless used."""

    namespace: str
    model: str
    service_class: str
    role: str

    @property
    def label(self) -> str:
        """How a person reads it: `namespace/model`, then class and role where they are used."""
        return "/".join(part for part in self if part)


@dataclass(frozen=True, slots=True)
class Variant:
    """
    One way of serving a model: a scale target on one accelerator type, in one role.

    Made when the variant appears and kept while it lives; nothing here changes from cycle to cycle.
    `role` is `prefill`, `decode` or empty for both.
    """

    namespace: str
    name: str
    model: str
    accelerator: str = ""
    role: str = ""
    service_class: str = ""
    scale_target: str = ""
    pool: str = ""
    engine: str = "vllm"
    launch: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.role == "both":
            object.__setattr__(self, "role", "")
        if self.role not in _ROLES:
            raise ParameterError(
                "is not a role", object=self.key, key="role", value=self.role, remedy="use prefill, decode or both"
            )

    @property
    def key(self) -> str:
        """`namespace/name`, unique in a fleet."""
        return f"{self.namespace}/{self.name}"

    @property
    def scope(self) -> Scope:
        """The scope whose demand this variant serves."""
        return Scope(self.namespace, self.model, self.service_class, self.role)


class VariantStatus(IntEnum):
    """Where a variant stands: serving, parked at zero, or only asked for and not in the cluster yet."""

    ACTIVE = 0
    PARKED = 1
    CANDIDATE = 2


class Fleet:
    """
    Variants sorted by key, their scopes and models, and the indexes between them.

    Sorting makes the order in which the world lists things irrelevant. Build one with `Fleet(variants)`; two fleets
    of equal variants are interchangeable, and the engine compares them by identity first.

    Raises:
        ParameterError: two variants have one key.
    """

    def __init__(self, variants: Iterable[Variant]) -> None:
        self.variants: tuple[Variant, ...] = tuple(
            sorted(variants, key=lambda variant: (variant.namespace, variant.name))
        )
        self.keys: tuple[str, ...] = tuple(variant.key for variant in self.variants)
        self.index: dict[str, int] = {key: row for row, key in enumerate(self.keys)}
        if len(self.index) != len(self.keys):
            twice = next(a for a, b in zip(self.keys, self.keys[1:], strict=False) if a == b)
            raise ParameterError(
                "two variants have this key", object="fleet", key=twice, remedy="give every variant a name of its own"
            )
        scope_of_row = [variant.scope for variant in self.variants]
        self.scopes: tuple[Scope, ...] = tuple(sorted(set(scope_of_row)))
        scope_index = {scope: row for row, scope in enumerate(self.scopes)}
        self.by_scope: Groups = Groups.by(
            np.array([scope_index[scope] for scope in scope_of_row], dtype=np.int64), len(self.scopes)
        )
        model_of_row = [Model(*scope[:3]) for scope in self.scopes]
        self.models: tuple[Model, ...] = tuple(sorted(set(model_of_row)))
        model_index = {model: row for row, model in enumerate(self.models)}
        self.scopes_by_model: Groups = Groups.by(
            np.array([model_index[model] for model in model_of_row], dtype=np.int64), len(self.models)
        )
        self.accelerators: tuple[str, ...] = tuple(sorted({variant.accelerator for variant in self.variants}))
        accelerator_index = {name: row for row, name in enumerate(self.accelerators)}
        self.by_accelerator: Groups = Groups.by(
            np.array([accelerator_index[variant.accelerator] for variant in self.variants], dtype=np.int64),
            len(self.accelerators),
        )

    def __len__(self) -> int:
        return len(self.variants)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Fleet) and self.variants == other.variants)

    __hash__ = None  # type: ignore[assignment]
    # compared by content, so never a key

    @property
    def scope_of_variant(self) -> IntArray:
        """(V,) scope of each variant."""
        return self.by_scope.of

    @property
    def model_of_scope(self) -> IntArray:
        """(S,) model of each scope."""
        return self.scopes_by_model.of

    @cached_property
    def model_of_variant(self) -> IntArray:
        """(V,) model of each variant."""
        return integers(self.model_of_scope[self.scope_of_variant])

    def rows_in(self, other: Fleet) -> IntArray:
        """(V,) row of each of these variants in `other`, -1 where it does not have it."""
        if self is other:
            return np.arange(len(self))
        return np.array([other.index.get(key, -1) for key in self.keys], dtype=np.int64)

    def scope_rows_in(self, other: Fleet) -> IntArray:
        """(S,) row of each of these scopes in `other`, -1 where it does not have it."""
        if self is other:
            return np.arange(len(self.scopes))
        index = {scope: row for row, scope in enumerate(other.scopes)}
        return np.array([index.get(scope, -1) for scope in self.scopes], dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class VariantTable:
    """
    What is known of each variant this cycle; (V,) columns in the order of the fleet, read-only, NaN = not known.

    Attributes:
        cost: USD per hour of one replica.
        gpus: accelerators one replica occupies.
        min_replicas, max_replicas: what the operator allows; infinity is no upper limit.
        current: replicas the scale target has (ready or not).
        ready: replicas that serve.
        pending: replicas asked for that do not serve yet.
        target: the last published target; NaN if none ever was. Filled by the engine from its memory.
        target_since: when that target was first published, seconds.
        pending_since: since when replicas have been pending without a pause, seconds; NaN while none are.
        settling: a target not reached or a replica pending, for less than the settle time. Filled by the engine.
        base: replicas from which a plan starts: the last target while it is being reached, else what is there (a
            target not reached within the settle time no longer counts). Filled by the engine.
        status: `VariantStatus`.
    """

    cost: FloatArray
    gpus: FloatArray
    min_replicas: FloatArray
    max_replicas: FloatArray
    current: FloatArray
    ready: FloatArray
    pending: FloatArray
    target: FloatArray
    target_since: FloatArray
    pending_since: FloatArray
    settling: BoolArray
    base: FloatArray
    status: IntArray

    @classmethod
    def of(
        cls,
        current: Sequence[float] | FloatArray,
        *,
        ready: Sequence[float] | FloatArray | None = None,
        pending: Sequence[float] | FloatArray | None = None,
        cost: Sequence[float] | FloatArray | float = DEFAULT_COST,
        gpus: Sequence[float] | FloatArray | float = 1.0,
        min_replicas: Sequence[float] | FloatArray | float = 0.0,
        max_replicas: Sequence[float] | FloatArray | float = np.inf,
        target: Sequence[float] | FloatArray | float = np.nan,
        status: Sequence[int] | IntArray | None = None,
    ) -> VariantTable:
        """
        A table from the columns a world reports; single numbers stand for every row.

        `ready` and `pending` complete each other from `current` (pending = max(0, current - ready)); with neither
        given every replica counts as ready. A missing max is infinity; GPUs below one count as one.
        """
        now = np.array(current, dtype=float)
        count = len(now)

        def column(value: Any) -> FloatArray:
            array = np.array(value, dtype=float)
            return floats(array if array.shape == (count,) else np.array(np.broadcast_to(array, (count,))))

        if ready is None:
            ready = now if pending is None else np.maximum(now - np.asarray(pending, dtype=float), 0.0)
        if pending is None:
            pending = np.maximum(now - np.asarray(ready, dtype=float), 0.0)
        accelerators = column(gpus)
        unknown = column(np.nan)
        return cls(
            cost=column(cost),
            gpus=column(np.where(accelerators >= 1.0, accelerators, 1.0)),
            min_replicas=column(min_replicas),
            max_replicas=column(np.where(np.isnan(column(max_replicas)), np.inf, column(max_replicas))),
            current=column(now),
            ready=column(ready),
            pending=column(pending),
            target=column(target),
            target_since=unknown,
            pending_since=unknown,
            settling=booleans(np.zeros(count, dtype=bool)),
            base=column(now),
            status=integers(np.zeros(count, dtype=np.int64) if status is None else status),
        )

    def __len__(self) -> int:
        return len(self.current)

    def with_columns(self, **columns: Any) -> VariantTable:
        """The same table with some columns replaced."""
        return replace(self, **{name: _COLUMN_MAKERS[name](value) for name, value in columns.items()})

    def take(self, rows: IntArray) -> VariantTable:
        """The table of some rows, in the order given."""
        return VariantTable(**{name: make(getattr(self, name)[rows]) for name, make in _COLUMN_MAKERS.items()})


_COLUMN_MAKERS: dict[str, Callable[[object], Any]] = {
    column.name: {"settling": booleans, "status": integers}.get(column.name, floats) for column in fields(VariantTable)
}
