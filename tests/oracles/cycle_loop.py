"""
One cycle from assessment to verification as plain loops over objects: one replica, one variant, one scope at a time.

Independent of the engine and written from the rules alone, for the brain `saturation-v1` + `stepwise` with one type of
limit (GPUs) and without damping. It does the whole job: samples age and may be unknown, targets settle, votes are
judged, missing data holds, figures are kept for explaining, the answer is verified, and memory comes out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor, inf, isnan, nan


@dataclass(slots=True)
class Pod:
    """One replica: what it reports and how old that is."""

    kv: float
    waiting: float
    kv_age: float = 0.0
    waiting_age: float = 0.0


@dataclass(slots=True)
class Variant:
    """One scale target, and what is remembered of it."""

    name: str
    cost: float
    gpus: float
    accelerator: str
    current: float
    pending: float
    least: float
    most: float
    pods: list[Pod] = field(default_factory=list)
    target: float = nan
    target_since: float = nan
    pending_since: float = nan


@dataclass(slots=True)
class Answer:
    """What a cycle says of one variant, with the figures behind it and what is remembered."""

    desired: float
    reason: str
    stalled: bool
    low: float
    high: float
    avg_kv: float
    max_kv: float
    max_waiting: float
    target: float
    target_since: float
    pending_since: float


K, Q, KS, QS = 0.80, 5.0, 0.10, 3.0
SETTLE, STALE, GONE = 300.0, 60.0, 300.0


def known(value: float, age: float) -> float:
    """The sample, or not known where it is too old."""
    return nan if age >= GONE else value


def cycle(scopes: list[list[Variant]], capacity: dict[str, float], used: dict[str, float], now: float) -> list[Answer]:
    """
    Answers in the order of the scopes and their variants.

    Args:
        scopes: variants of each scope, sorted by name.
        capacity, used: accelerators by type; `used` by anyone.
        now: seconds.

    Raises:
        ValueError: an answer breaks a limit; that would be a bug here.
    """
    room = _room(scopes, capacity, used, now)
    answers: list[Answer] = []
    for variants in scopes:
        answers.extend(_scope(variants, room, now))
    _verify(scopes, answers, capacity, used, now)
    return answers


def _base(variant: Variant, now: float) -> tuple[float, bool, float]:
    """Replicas a plan starts from, whether the variant settles, and since when replicas are pending."""
    pending_since = nan
    if variant.pending > 0:
        pending_since = now if isnan(variant.pending_since) else variant.pending_since
    unreached = not isnan(variant.target) and variant.target != variant.current
    reaching = unreached and now - variant.target_since < SETTLE
    starting = variant.pending > 0 and now - pending_since < SETTLE
    return (variant.target if reaching else variant.current), reaching or starting, pending_since


def _room(
    scopes: list[list[Variant]], capacity: dict[str, float], used: dict[str, float], now: float
) -> dict[str, float]:
    """What each type has left for growth, others' use and what is not released yet taken off."""
    occupied: dict[str, float] = {}
    counted: dict[str, float] = {}
    for variants in scopes:
        for variant in variants:
            base, _, _ = _base(variant, now)
            kind = variant.accelerator
            occupied[kind] = occupied.get(kind, 0.0) + variant.gpus * variant.current
            counted[kind] = counted.get(kind, 0.0) + variant.gpus * max(base, variant.current)
    return {
        kind: capacity[kind] - max(0.0, used[kind] - occupied[kind]) - counted[kind]
        for kind in capacity
        if kind in occupied
    }


def _scope(variants: list[Variant], room: dict[str, float], now: float) -> list[Answer]:
    n, kv_spare, queue_spare, saturated_pods, doubtful = 0, 0.0, 0.0, 0, 0
    reporting: list[bool] = []
    figures: list[tuple[float, float, float]] = []
    any_kv, any_waiting, any_stale = False, False, False
    for variant in variants:
        m, spare_kv, spare_queue = 0, 0.0, 0.0
        kv_sum, kv_count, kv_most, waiting_most, reports = 0.0, 0, nan, nan, False
        for pod in variant.pods:
            kv, waiting = known(pod.kv, pod.kv_age), known(pod.waiting, pod.waiting_age)
            has_kv, has_waiting = not isnan(kv), not isnan(waiting)
            if has_kv:
                any_kv = reports = True
                any_stale = any_stale or pod.kv_age >= STALE
                kv_sum += kv
                kv_count += 1
                kv_most = kv if isnan(kv_most) or kv > kv_most else kv_most
            if has_waiting:
                any_waiting = reports = True
                any_stale = any_stale or pod.waiting_age >= STALE
                waiting_most = waiting if isnan(waiting_most) or waiting > waiting_most else waiting_most
            if (has_kv and kv >= K) or (has_waiting and waiting >= Q):
                saturated_pods += 1
            elif has_kv and has_waiting:
                spare_kv += K - kv
                spare_queue += Q - waiting
                m += 1
            else:
                doubtful += 1
        reporting.append(reports)
        figures.append((kv_sum / kv_count if kv_count else nan, kv_most, waiting_most))
        if m:
            kv_spare += spare_kv / m * m
            queue_spare += spare_queue / m * m
        n += m
    grow, shrink = _judged(n, doubtful, saturated_pods, kv_spare, queue_spare)
    judged = n + saturated_pods > 0

    starts = [_base(variant, now) for variant in variants]
    moving = any(settles and reports for (_, settles, _), reports in zip(starts, reporting, strict=True))
    held = not judged or moving
    no_shrink = not (any_kv and any_waiting) or any_stale
    chosen, step = _chosen(variants, starts, reporting, grow=grow and not held, shrink=shrink and not held)

    answers = []
    for row, variant in enumerate(variants):
        base, settles, pending_since = starts[row]
        keep = variant.current if isnan(variant.target) else variant.target
        most = max(variant.most, variant.least)
        low, high = (keep, keep) if held else (variant.least, most)
        if no_shrink and not held:
            low, high = max(low, keep), max(high, keep)
        low, high = min(max(low, variant.least), most), min(max(high, variant.least), most)
        free_to_move = reporting[row] and not held
        wanted = base + (step if row == chosen else 0.0) if free_to_move else keep
        desired, reason = min(max(wanted, low), high), "held" if held else "steady"
        if free_to_move and desired > base:
            desired, reason = _fitted(variant, base, desired, room)
        if reason == "steady" and (desired != base or row == chosen):
            reason = "grow" if desired > base else "shrink" if desired < base else "bound"
        moved = variant.target != desired
        unreached = not isnan(variant.target) and variant.target != variant.current
        answers.append(
            Answer(
                desired=desired,
                reason=reason,
                stalled=(unreached or variant.pending > 0) and not settles,
                low=low,
                high=high,
                avg_kv=figures[row][0],
                max_kv=figures[row][1],
                max_waiting=figures[row][2],
                target=desired,
                target_since=now if moved else variant.target_since,
                pending_since=pending_since,
            )
        )
    return answers


def _fitted(variant: Variant, base: float, desired: float, room: dict[str, float]) -> tuple[float, str]:
    """What the GPUs of its type leave of a variant's growth; what it gets is gone for those after it."""
    free = room.get(variant.accelerator, inf)
    if free == inf:
        return desired, "steady"
    granted = min(desired - base, float(floor(max(free, 0.0) / variant.gpus)))
    room[variant.accelerator] = free - granted * variant.gpus
    return base + granted, "row" if granted < desired - base else "steady"


def _judged(n: int, doubtful: int, saturated: int, kv_spare: float, queue_spare: float) -> tuple[bool, bool]:
    """Whether a replica more is needed, and whether one fewer would do."""
    if n + saturated == 0:
        return False, False
    mean_kv, mean_queue = (kv_spare / n, queue_spare / n) if n else (0.0, 0.0)
    grow = mean_kv < KS or mean_queue < QS
    if n < 2:
        return grow, False

    def enough(count: int) -> bool:
        # with those in doubt as well, as if they had nothing to spare
        share = count / (count - 1)
        return K - (K - kv_spare / count) * share >= KS and Q - (Q - queue_spare / count) * share >= QS

    return grow, enough(n) and enough(n + doubtful) and not grow


def _chosen(
    variants: list[Variant],
    starts: list[tuple[float, bool, float]],
    reporting: list[bool],
    *,
    grow: bool,
    shrink: bool,
) -> tuple[int, float]:
    """The row of the variant that moves, -1 for none, and by how much."""
    chosen = -1
    for row, variant in enumerate(variants):
        if not reporting[row]:
            continue
        if grow:
            better = variant.pending == 0 and (chosen < 0 or variant.cost < variants[chosen].cost)
        else:
            better = shrink and starts[row][0] > 1 and (chosen < 0 or variant.cost >= variants[chosen].cost)
        chosen = row if better else chosen
    return chosen, (1.0 if grow else -1.0)


def _verify(
    scopes: list[list[Variant]],
    answers: list[Answer],
    capacity: dict[str, float],
    used: dict[str, float],
    now: float,
) -> None:
    before = _room(scopes, capacity, used, now)
    row = 0
    for variants in scopes:
        for variant in variants:
            answer = answers[row]
            row += 1
            if answer.desired != floor(answer.desired) or not answer.low <= answer.desired <= answer.high:
                raise ValueError(f"{variant.name} would get {answer.desired}")
            base, _, _ = _base(variant, now)
            if variant.accelerator in before:
                before[variant.accelerator] -= variant.gpus * max(answer.desired - max(base, variant.current), 0.0)
    for kind, left in before.items():
        if left < -1e-9:
            raise ValueError(f"{kind} is exceeded by {-left}")
