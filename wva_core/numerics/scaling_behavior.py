"""
The damping of a HorizontalPodAutoscaler v2 `behavior`: stabilisation windows and rate policies for many targets.

Names and rules are those of `autoscaling/v2`. Two independent things hold a recommendation back:

- a *stabilisation window* lets the replicas rise only to the lowest, and fall only to the highest recommendation of the
  recent past. It looks back on recommendations as they were before any damping; looking back on damped ones would make
  every hold its own justification;
- *policies* limit how far the replicas may move from where they stood when the policy's period began, which is
  reconstructed from the scale events inside the period.

Both answer with bounds instead of a clamped number, so that an optimizer can answer again within them.

Replica counts are float64 arrays with one element per variant; infinity is "no limit", NaN is "not known". Times are
seconds on any one clock; a sample or event exactly as old as its window or period no longer counts.

Source: Kubernetes, `pkg/controller/podautoscaler/horizontal.go` (`stabilizeRecommendationWithBehaviors`,
`convertDesiredReplicasWithBehaviorRate`, `calculateScaleUpLimitWithScalingRules`,
`calculateScaleDownLimitWithBehaviors`, `getReplicasChangePerPeriod`) and the defaults of `autoscaling/v2`, as they
are since both windows are looked at together and both directions of scale events count. The first releases with
`behavior` read only the window of the direction asked for and ignored events of the other direction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wva_core.errors import ParameterError

__all__ = [
    "HPA_DEFAULT_BEHAVIOR",
    "UNDAMPED",
    "Behavior",
    "PolicyKind",
    "ScalingPolicy",
    "ScalingRules",
    "SelectPolicy",
    "scale_down_limit",
    "scale_up_limit",
    "stabilization_bounds",
    "windowed_recommendations",
]

FloatArray: TypeAlias = NDArray[np.float64]
PolicyKind: TypeAlias = Literal["Pods", "Percent"]
SelectPolicy: TypeAlias = Literal["Max", "Min", "Disabled"]


def _require_at_least_zero(object: str, key: str, value: float) -> None:
    if not (value >= 0 and math.isfinite(value)):
        raise ParameterError(
            "is not a finite number of at least 0", object=object, key=key, value=value, remedy="give 0 or more"
        )


def _require_one_of(object: str, key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ParameterError(
            "is not known", object=object, key=key, value=value, remedy=f"use one of {', '.join(allowed)}"
        )


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """
    How far the replicas may move within one period.

    Attributes:
        kind: whether `value` is a number of pods or a percentage of the replicas at the start of the period.
        value: pods or percent, at least 0.
        period_seconds: length of the period, above 0.

    Raises:
        ParameterError: a field is outside its range.
    """

    kind: PolicyKind
    value: float
    period_seconds: float

    def __post_init__(self) -> None:
        _require_one_of("scaling policy", "type", self.kind, get_args(PolicyKind))
        _require_at_least_zero("scaling policy", "value", self.value)
        if not (self.period_seconds > 0 and math.isfinite(self.period_seconds)):
            raise ParameterError(
                "is not a period",
                object="scaling policy",
                key="periodSeconds",
                value=self.period_seconds,
                remedy="give a positive number of seconds",
            )


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """
    The damping of one direction.

    Attributes:
        stabilization_window_seconds: how far to look back on earlier recommendations; 0 looks at the current one only.
        select_policy: which policy rules when there are several: `Max` the one that allows the largest change, `Min`
            the smallest; `Disabled` forbids this direction altogether.
        policies: none means no limit. (An HPA fills in its defaults there; here that is `HPA_DEFAULT_BEHAVIOR`.)
        tolerance: relative deviation that is ignored in this direction; None leaves it to the autoscaler. Only an
            autoscaler that sees metrics can apply it, the functions of this module do not.

    Raises:
        ParameterError: a field is outside its range.
    """

    stabilization_window_seconds: float = 0.0
    select_policy: SelectPolicy = "Max"
    policies: tuple[ScalingPolicy, ...] = ()
    tolerance: float | None = None

    def __post_init__(self) -> None:
        _require_at_least_zero("scaling rules", "stabilizationWindowSeconds", self.stabilization_window_seconds)
        _require_one_of("scaling rules", "selectPolicy", self.select_policy, get_args(SelectPolicy))
        if self.tolerance is not None:
            _require_at_least_zero("scaling rules", "tolerance", self.tolerance)

    @property
    def longest_period_seconds(self) -> float:
        """The longest period of any policy, 0 without policies: older scale events never count here."""
        return max((policy.period_seconds for policy in self.policies), default=0.0)


@dataclass(frozen=True, slots=True)
class Behavior:
    """The damping of both directions."""

    scale_up: ScalingRules = field(default_factory=ScalingRules)
    scale_down: ScalingRules = field(default_factory=ScalingRules)


HPA_DEFAULT_BEHAVIOR = Behavior(
    scale_up=ScalingRules(
        stabilization_window_seconds=0.0,
        select_policy="Max",
        policies=(ScalingPolicy("Pods", 4, 15.0), ScalingPolicy("Percent", 100, 15.0)),
    ),
    scale_down=ScalingRules(
        stabilization_window_seconds=300.0,
        select_policy="Max",
        policies=(ScalingPolicy("Percent", 100, 15.0),),
    ),
)
"""What an HPA of `autoscaling/v2` uses for every part of `behavior` that is left out."""

UNDAMPED = Behavior()
"""No windows and no limits: every recommendation is followed at once."""


def windowed_recommendations(
    recommendation: ArrayLike,
    times: ArrayLike,
    history: ArrayLike,
    now: float,
    up_window: float | FloatArray,
    down_window: float | FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """
    The lowest recommendation of the up window and the highest of the down window.

    A sample counts while its time is strictly after `now - window`; the current recommendation always counts, so that
    with a window of 0 both results are the current recommendation.

    Args:
        recommendation: (V,) the current recommendation before damping. NaN yields NaN in both results.
        times: (H,) when the earlier recommendations were made, seconds, in any order.
        history: (H, V) earlier recommendations before damping. NaN does not count (the variant was not there yet).
        now: seconds, on the clock of `times`.
        up_window: seconds, one for all or (V,).
        down_window: seconds, one for all or (V,).

    Returns:
        Lowest of the up window (V,), highest of the down window (V,).

    Raises:
        ParameterError: shapes do not fit, or a window is negative or NaN.

    Cost: O(V) for each row inside a window, nothing for the others: 10 µs for a row of V=10,000.
    """
    current = np.asarray(recommendation, dtype=float)
    when, rows = _history("recommendation history", times, history, current)
    lowest = _extreme_of_window(np.fmin, current, when, rows, now, up_window, "up_window")
    highest = _extreme_of_window(np.fmax, current, when, rows, now, down_window, "down_window")
    return lowest, highest


def stabilization_bounds(
    base: ArrayLike, up_recommendation: ArrayLike, down_recommendation: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """
    The interval into which stabilisation clamps a recommendation: [min(base, down), max(base, up)].

    An HPA answers min(max(base, up), down), where up ≤ recommendation ≤ down. Clamping the recommendation into this
    interval gives the same number: for base < up both are up, for base > down both are down, in between both are base.

    Args:
        base: (V,) replicas at present. NaN yields NaN in both results.
        up_recommendation: (V,) the first result of `windowed_recommendations`.
        down_recommendation: (V,) its second result.

    Returns:
        Low (V,) and high (V,); low ≤ base ≤ high.
    """
    replicas = np.asarray(base, dtype=float)
    low: FloatArray = np.minimum(replicas, np.asarray(down_recommendation, dtype=float))
    high: FloatArray = np.maximum(replicas, np.asarray(up_recommendation, dtype=float))
    return low, high


def scale_up_limit(
    base: ArrayLike, rules: ScalingRules, times: ArrayLike, changes: ArrayLike, now: float
) -> FloatArray:
    """
    The most replicas that the policies allow now, never below `base`.

    With `start` the replicas at the beginning of a policy's period, `Pods` proposes start + value and `Percent`
    ceil(start·(1 + value/100)), rounded up because a small target could otherwise never grow. `Max` takes the largest
    proposal, `Min` the smallest.

    Args:
        base: (V,) replicas at present. NaN yields NaN.
        rules: of the upward direction.
        times: (E,) when scale events happened, seconds, in any order.
        changes: (E, V) replicas that the event added (above 0) or deleted (below 0). NaN counts as no change.
        now: seconds, on the clock of `times`.

    Returns:
        (V,) upper limits; infinity without policies, `base` when the direction is disabled.

    Raises:
        ParameterError: shapes do not fit.

    Cost: O(V) for each policy and for each event inside the period of one.
    """
    replicas = np.asarray(base, dtype=float)
    proposals = [
        start + policy.value if policy.kind == "Pods" else np.ceil(start * (1 + policy.value / 100))
        for policy, start in _period_starts(replicas, rules, times, changes, now)
    ]
    if rules.select_policy == "Disabled":
        return replicas.copy()
    if not proposals:
        return np.where(np.isnan(replicas), np.nan, np.inf)
    choose = np.minimum if rules.select_policy == "Min" else np.maximum
    limit: FloatArray = np.maximum(choose.reduce(proposals, axis=0), replicas)
    return limit


def scale_down_limit(
    base: ArrayLike, rules: ScalingRules, times: ArrayLike, changes: ArrayLike, now: float
) -> FloatArray:
    """
    The fewest replicas that the policies allow now, never above `base` and never below 0.

    With `start` the replicas at the beginning of a policy's period, `Pods` proposes start − value and `Percent`
    start·(1 − value/100) without its fraction. `Max` takes the proposal of the largest change, which is the smallest
    number, and `Min` the largest number. The percentage is computed in float64 in this order, so that it errs like the
    original: 90 % off 10 replicas is 0, because 1 − 0.9 is a little less than 0.1.

    Args:
        base: (V,) replicas at present. NaN yields NaN.
        rules: of the downward direction.
        times: (E,) when scale events happened, seconds, in any order.
        changes: (E, V) replicas that the event added (above 0) or deleted (below 0). NaN counts as no change.
        now: seconds, on the clock of `times`.

    Returns:
        (V,) lower limits; 0, which limits nothing, without policies; `base` when the direction is disabled.

    Raises:
        ParameterError: shapes do not fit.

    Cost: as `scale_up_limit`.
    """
    replicas = np.asarray(base, dtype=float)
    proposals = [
        start - policy.value if policy.kind == "Pods" else np.trunc(start * (1 - policy.value / 100))
        for policy, start in _period_starts(replicas, rules, times, changes, now)
    ]
    if rules.select_policy == "Disabled":
        return replicas.copy()
    if not proposals:
        return np.where(np.isnan(replicas), np.nan, 0.0)
    choose = np.maximum if rules.select_policy == "Min" else np.minimum
    limit: FloatArray = np.minimum(np.maximum(choose.reduce(proposals, axis=0), 0.0), replicas)
    return limit


def _extreme_of_window(
    extreme: np.ufunc,
    current: FloatArray,
    times: FloatArray,
    history: FloatArray,
    now: float,
    window: float | FloatArray,
    name: str,
) -> FloatArray:
    """`extreme` over the current recommendation and the samples of the window; it must skip NaN (`fmin`, `fmax`)."""
    length = np.asarray(window, dtype=float)
    if length.ndim and length.shape != current.shape:
        raise ParameterError(
            "has another shape than the recommendation", object=name, value=length.shape, remedy="one value or (V,)"
        )
    if not np.all(length >= 0):
        raise ParameterError(
            "is not a length of time",
            object=name,
            value=float(length[~(length >= 0)].flat[0]),
            remedy="give seconds, 0 for no window",
        )
    result = current.copy()
    # The oldest cutoff decides which rows are read at all; with a window of 0 that is none.
    rows = np.flatnonzero(times > now - length.max(initial=0.0))
    if not rows.size:
        return result
    cutoff = now - length
    for row in rows:
        counts = True if length.ndim == 0 else times[row] > cutoff
        extreme(result, history[row], out=result, where=counts)
    # fmin and fmax let a sample stand in for an unknown current recommendation; nothing may.
    result[np.isnan(current)] = np.nan
    return result


def _period_starts(
    base: FloatArray, rules: ScalingRules, times: ArrayLike, changes: ArrayLike, now: float
) -> list[tuple[ScalingPolicy, FloatArray]]:
    """Every policy with the replicas at the start of its period: base − added + deleted since then."""
    when, rows = _history("scale events", times, changes, base)
    starts: dict[float, FloatArray] = {}
    for policy in rules.policies:
        if policy.period_seconds not in starts:
            start = base.copy()
            for row in np.flatnonzero(when > now - policy.period_seconds):
                np.subtract(start, rows[row], out=start, where=~np.isnan(rows[row]))
            starts[policy.period_seconds] = start
    return [(policy, starts[policy.period_seconds]) for policy in rules.policies]


def _history(name: str, times: ArrayLike, matrix: ArrayLike, columns: FloatArray) -> tuple[FloatArray, FloatArray]:
    """`times` (H,) and `matrix` (H, V) as float arrays that fit each other and `columns` (V,)."""
    when = np.asarray(times, dtype=float)
    rows = np.asarray(matrix, dtype=float)
    if columns.ndim != 1:
        raise ParameterError(
            "is not one value per variant", object="replicas", value=columns.shape, remedy="give an array of shape (V,)"
        )
    if when.shape == (0,) and rows.size == 0:
        return when, np.empty((0, columns.size))
    if when.ndim != 1 or rows.shape != (when.size, columns.size):
        raise ParameterError(
            "does not have one row per time and one column per variant",
            object=name,
            value=rows.shape,
            remedy=f"give an array of shape ({when.size}, {columns.size})",
        )
    return when, rows
