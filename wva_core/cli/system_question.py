"""
What an optimizer is asked about a written-down system: every server on every accelerator, sized for its objectives.

A pair of a server and an accelerator is a variant with status *candidate*, a server is a scope, and one vote says how
many requests a second come and how many of them one replica serves within the objectives. What cannot be asked about
is told with its reason, by server or by pair; the other servers go on.

The plan replaces what runs: `variants.current` says what runs, for the price of a change, but nothing occupies cards
(`variants.base` is 0).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from wva_core.cli.system_document import (
    SATURATION_POLICIES,
    AcceleratorRow,
    LoadRow,
    PerformanceRow,
    ServerRow,
    System,
    TargetRow,
    latest_by_name,
)
from wva_core.domain import (
    LOWEST_PRIORITY,
    Ballot,
    BoolArray,
    Fleet,
    FloatArray,
    LimitRows,
    Limits,
    Observation,
    Variant,
    VariantStatus,
    VariantTable,
    Vote,
)
from wva_core.domain.arrays import booleans, floats, integers
from wva_core.numerics.service_times import GENERATIONS, ServiceTimes
from wva_core.numerics.sizing import WAIT_MARGIN, AnalysisStatus, Sizing, SizingStatus, analyze, size, zero_load

__all__ = ["Current", "Expectation", "Pair", "SystemQuestion", "expected", "question_of"]

_ROUNDING = 1e-12
"""Relative: what divides a rate into equal shares fills it."""

_FIRST_DECODE_COUNTS = frozenset({"g2"})
"""
Generations whose `slo-ttft` in a system file, and whose time to first token in the answer, has a decode step more.

The definition of that format, without which the published solutions are others; everywhere else the time to first token
is wait and prefill.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One server on one accelerator: what it would need there."""

    server: ServerRow
    accelerator: AcceleratorRow
    performance: PerformanceRow
    target: TargetRow
    load: LoadRow
    batch: int

    @property
    def key(self) -> str:
        """Key of the variant that stands for it."""
        return f"{self.server.name}/{self.accelerator.name}"

    @property
    def cost(self) -> float:
        """USD/h of one replica; what a unit has inside is in its price."""
        return self.accelerator.cost * self.performance.units

    @property
    def cards(self) -> int:
        """Cards of its type that one replica takes."""
        return self.performance.units * self.accelerator.multiplicity

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to size for: no requests, or requests without a token."""
        return self.load.arrival_rate == 0 or _tokens(self.load) == 0


@dataclass(frozen=True, slots=True)
class Current:
    """What a server has now; nothing where the accelerator is empty."""

    accelerator: str = ""
    replicas: int = 0
    cost: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """
    Latencies of replicas, (P,) seconds, and the fill of their batch; NaN not known.

    The time to first token is that of the format: with the first decode step where the parameters know one (G2), in the
    objectives and here. G0 knows the wait only.
    """

    itl: FloatArray
    ttft: FloatArray
    wait: FloatArray
    utilization: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class SystemQuestion:
    """
    The arguments of an optimizer's `allocate`, and what the answer is told with.

    Attributes:
        observation, ballot, limits: the arguments.
        pairs: (V,) what each variant stands for.
        servers: all of them by name, those without a candidate, too.
        current: what each server has.
        rate: requests/s of each server that has candidates.
        capacity: (V,) requests/s of one replica within the objectives; NaN where they cannot be kept.
        available: cards there are, by type; empty where they are unlimited.
        priorities: of the service classes.
        problems: why a server has no candidate, by server.
        excluded: why a server cannot run on an accelerator, by server and accelerator.
        notices: what an operator should hear of besides.
    """

    observation: Observation
    ballot: Ballot
    limits: Limits
    pairs: tuple[Pair, ...]
    servers: Mapping[str, ServerRow]
    current: Mapping[str, Current]
    rate: Mapping[str, float]
    capacity: FloatArray
    available: Mapping[str, float]
    priorities: Mapping[str, int]
    problems: Mapping[str, str]
    excluded: Mapping[str, Mapping[str, str]]
    notices: tuple[str, ...] = ()


@dataclass(slots=True)
class _Read:
    """A system with its lists by name, and what was found wrong on the way."""

    accelerators: dict[str, AcceleratorRow]
    servers: dict[str, ServerRow]
    performance: dict[str, dict[str, PerformanceRow]] = field(default_factory=dict)
    targets: dict[tuple[str, str], TargetRow] = field(default_factory=dict)
    priorities: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    excluded: dict[str, dict[str, str]] = field(default_factory=dict)


def question_of(system: System, *, compat: bool = False) -> SystemQuestion:
    """
    The question about a system.

    Args:
        system: a valid one.
        compat: as upstream, a throughput objective stands in for the measured load, however small it is.

    Cost: sizing decides; about a second for 10,000 pairs with batches of 256.
    """
    read = _read(system)
    pairs = sorted(_pairs(read), key=lambda pair: (pair.server.name, pair.accelerator.name))
    fleet = Fleet(
        Variant(
            namespace=pair.server.name,
            name=pair.accelerator.name,
            model=pair.server.model,
            accelerator=pair.accelerator.card,
            service_class=pair.server.class_label,
        )
        for pair in pairs
    )
    capacity = _capacities(pairs, read)
    current = {name: _current(server, read) for name, server in read.servers.items()}
    rate = {pair.server.name: _rate(pair, compat=compat) for pair in pairs}
    unlimited = system.optimizer_data.optimizer.unlimited
    available = {} if unlimited else {name: float(read.counts.get(name, 0)) for name in fleet.accelerators}
    observation = Observation.of(0.0, fleet, _variant_table(pairs, current))
    return SystemQuestion(
        observation=observation,
        ballot=_ballot(fleet, capacity, rate, read),
        limits=_limits(fleet, pairs, available),
        pairs=tuple(pairs),
        servers=read.servers,
        current=current,
        rate=rate,
        capacity=capacity,
        available=available,
        priorities=read.priorities,
        problems=read.problems,
        excluded=read.excluded,
        notices=tuple(read.notices),
    )


def expected(pairs: Sequence[Pair], rate: FloatArray) -> Expectation:
    """
    What one replica of each pair does at a rate.

    Args:
        pairs: P of them.
        rate: (P,) requests/s arriving at a replica. Beyond what it can serve, every figure is NaN.
    """
    columns = {name: np.full(len(pairs), np.nan) for name in ("itl", "ttft", "wait", "utilization")}
    for generation in GENERATIONS:
        for idle in (True, False):
            rows = [
                row
                for row, pair in enumerate(pairs)
                if pair.performance.generation == generation and pair.is_idle is idle
            ]
            if not rows:
                continue
            times = _times([pairs[row] for row in rows], generation)
            if idle:
                nobody = zero_load(times)
                columns["itl"][rows], columns["ttft"][rows] = nobody.itl, nobody.ttft
                columns["wait"][rows] = columns["utilization"][rows] = 0.0
                continue
            told = analyze(times, rate[rows])
            served = told.status == AnalysisStatus.OK
            first = told.ttft + told.itl if generation in _FIRST_DECODE_COUNTS else told.ttft
            figures = {"itl": told.itl, "ttft": first, "wait": told.wait, "utilization": told.utilization}
            for name, figure in figures.items():
                columns[name][rows] = np.where(served, figure, np.nan)
    return Expectation(**columns)


# ---------------------------------------------------------------------------------------------------------------------
# The lists by name


def _read(system: System) -> _Read:
    accelerators, again = latest_by_name(system.accelerator_data.accelerators)
    servers, again_servers = latest_by_name(system.server_data.servers)
    read = _Read(accelerators, servers)
    read.notices += [f"accelerator {name} is listed more than once; the last entry counts" for name in again]
    read.notices += [f"server {name} is listed more than once; the last entry counts" for name in again_servers]
    for row in system.model_data.models:
        of_model = read.performance.setdefault(row.name, {})
        if row.acc in of_model:
            read.notices.append(f"model {row.name} on {row.acc} is listed more than once; the last entry counts")
        if row.acc not in accelerators:
            known = _known(row.acc, accelerators)
            read.notices.append(f"model {row.name}: {row.acc} is not a listed accelerator; {known}")
        of_model[row.acc] = row
    for promised in system.service_class_data.service_classes:
        within = 1 <= promised.priority <= LOWEST_PRIORITY
        read.priorities[promised.label] = promised.priority if within else LOWEST_PRIORITY
        if not within:
            read.notices.append(
                f"service class {promised.label}: priority {promised.priority} is not from 1 to {LOWEST_PRIORITY} and"
                f" counts as {LOWEST_PRIORITY}"
            )
        for target in promised.targets:
            if (promised.label, target.model) in read.targets:
                read.notices.append(
                    f"service class {promised.label} has several objectives for {target.model}; the last entry counts"
                )
            read.targets[promised.label, target.model] = target
    for count in system.capacity_data.count:
        read.counts[count.type] = count.count
    optimizer = system.optimizer_data.optimizer
    if optimizer.saturation_policy not in SATURATION_POLICIES:
        read.notices.append(
            f"saturation policy {optimizer.saturation_policy!r} is not known and counts as None; use one of"
            f" {', '.join(SATURATION_POLICIES)}"
        )
    if not optimizer.unlimited:
        types = sorted({accelerator.card for accelerator in accelerators.values()} - set(read.counts))
        read.notices += [f"there is no count of accelerators of type {name}: it counts as 0" for name in types]
    return read


def _pairs(read: _Read) -> list[Pair]:
    """Every server on every accelerator it may run on; what may not is noted with its reason."""
    return [pair for server in read.servers.values() for pair in _pairs_of(server, read)]


def _pairs_of(server: ServerRow, read: _Read) -> list[Pair]:
    load, label = server.current_alloc.load, server.class_label
    target = read.targets.get((label, server.model))
    of_model = read.performance.get(server.model, {})
    problem = ""
    if not of_model:
        problem = f"model {server.model} has no performance data; {_known(server.model, read.performance)}"
    elif label not in read.priorities:
        problem = f"service class {label} is not listed; {_known(label, read.priorities)}"
    elif target is None:
        models = {model for name, model in read.targets if name == label}
        problem = f"service class {label} has no objectives for {server.model}; {_known(server.model, models)}"
    elif load is None:
        problem = "has no load; give currentAlloc.load"
    names = list(read.accelerators)
    kept = server.current_alloc.accelerator
    if not problem and server.keep_accelerator and kept:
        names = [kept]
        if kept not in read.accelerators:
            problem = f"keeps accelerator {kept}, which is not listed; {_known(kept, read.accelerators)}"
    if problem or target is None or load is None:
        read.problems[server.name] = problem
        return []
    excluded = read.excluded.setdefault(server.name, {})
    made = []
    for name in names:
        row = of_model.get(name)
        if row is None:
            excluded[name] = f"model {server.model} has no performance data on it"
        elif why := _unusable(row, load, target):
            excluded[name] = why
        else:
            batch = _batch(server, row, load)
            made.append(Pair(server, read.accelerators[name], row, target, load, batch))
    if not made:
        read.problems[server.name] = "no accelerator can serve it"
    return made


def _unusable(row: PerformanceRow, load: LoadRow, target: TargetRow) -> str:
    """Why a performance row cannot answer for a load and an objective; empty where it can."""
    if row.generation == "g0":
        if target.slo_ttft and not target.slo_ttw:
            return "its parameters say nothing of the time to first token; give slo-ttw, or parameters of G1 or G2"
    elif load.avg_length and not load.avg_out_tokens:
        return "its parameters need both lengths; give avgInTokens and avgOutTokens"
    return ""


def _tokens(load: LoadRow) -> float:
    """Tokens a request is paid for in a throughput and in a batch: its output, in G0 all."""
    return load.avg_out_tokens if load.avg_length is None else load.avg_length


def _batch(server: ServerRow, row: PerformanceRow, load: LoadRow) -> int:
    """Requests served together at most: as the server says, else the row's, which holds at so many tokens."""
    if server.max_batch_size > 0:
        return server.max_batch_size
    if row.generation != "g0":
        tokens = load.avg_out_tokens
    else:
        tokens = load.avg_in_tokens + load.avg_out_tokens if load.avg_length is None else load.avg_length
    if row.at_tokens is None or tokens == 0:
        return max(row.max_batch_size, 1)
    return max(int(row.max_batch_size * row.at_tokens // tokens), 1)


def _known(given: str, names: Iterable[str]) -> str:
    names = sorted(names)
    close = difflib.get_close_matches(given, names, n=1)
    return (f"did you mean {close[0]}? " if close else "") + f"known: {', '.join(names) or 'none'}"


# ---------------------------------------------------------------------------------------------------------------------
# Sizing


def _times(pairs: Sequence[Pair], generation: str) -> ServiceTimes:
    def column(letter: str) -> FloatArray:
        return np.array([pair.performance.parameters_ms.get(letter, 0.0) for pair in pairs]) / 1000.0

    loads = [pair.load for pair in pairs]
    whole = [one.avg_length is not None and generation == "g0" for one in loads]
    return ServiceTimes.of(
        generation,
        alpha=column("alpha"),
        beta=column("beta"),
        gamma=column("gamma"),
        delta=column("delta"),
        max_batch=np.array([pair.batch for pair in pairs], dtype=np.int64),
        input_tokens=np.array([0.0 if all_ else one.avg_in_tokens for one, all_ in zip(loads, whole, strict=True)]),
        output_tokens=np.array(
            [(one.avg_length or 0.0) if all_ else one.avg_out_tokens for one, all_ in zip(loads, whole, strict=True)]
        ),
    )


def _capacities(pairs: Sequence[Pair], read: _Read) -> FloatArray:
    """(V,) requests/s of one replica within the objectives; NaN where they cannot be kept, with the reason noted."""
    capacity = np.full(len(pairs), np.nan)
    for generation in GENERATIONS:
        rows = [row for row, pair in enumerate(pairs) if pair.performance.generation == generation]
        idle = [row for row in rows if pairs[row].is_idle]
        busy = [row for row in rows if not pairs[row].is_idle]
        if idle:
            capacity[idle] = zero_load(_times([pairs[row] for row in idle], generation)).max_rate
        if busy:
            asked = [pairs[row] for row in busy]
            sized = _sized(asked, generation)
            # G0 plans with what may arrive, the later ones with what of it is served
            capacity[busy] = sized.rate if generation == "g0" else sized.throughput
            for number, pair in enumerate(asked):
                if sized.status[number] in {SizingStatus.BELOW, SizingStatus.UNUSABLE}:
                    read.excluded[pair.server.name][pair.accelerator.name] = _why_not(pair, sized, number)
    capacity[~(capacity > 0)] = np.nan
    sized_well = {pair.server.name for one, pair in zip(capacity, pairs, strict=True) if one > 0}
    for pair in pairs:
        if pair.server.name not in sized_well:
            read.problems[pair.server.name] = "no accelerator can serve it"
    return floats(capacity)


def _sized(pairs: Sequence[Pair], generation: str) -> Sizing:
    def seconds(name: str) -> FloatArray:
        return np.array([getattr(pair.target, name) for pair in pairs]) / 1000.0

    return size(
        _times(pairs, generation),
        ttft=None if generation == "g0" else seconds("slo_ttft"),
        itl=seconds("slo_itl"),
        wait=seconds("slo_ttw") / WAIT_MARGIN,
        tps=np.array([pair.target.slo_tps for pair in pairs]),
        compat=generation in _FIRST_DECODE_COUNTS,
    )


def _why_not(pair: Pair, sized: Sizing, number: int) -> str:
    if sized.status[number] == SizingStatus.UNUSABLE:
        return "its parameters or the lengths describe no replica; give positive times and at least one output token"
    idle = {
        "slo-ttft": (pair.target.slo_ttft, sized.idle_ttft[number] * 1000.0),
        "slo-itl": (pair.target.slo_itl, sized.idle_itl[number] * 1000.0),
        "slo-ttw": (pair.target.slo_ttw, sized.idle_wait[number] * 1000.0 * WAIT_MARGIN),
    }
    missed = [
        f"{name} {given:g} ms is below {least:.6g} ms, which it takes without load"
        for name, (given, least) in idle.items()
        if 0 < given < least
    ]
    return "; ".join(missed) or "an objective cannot be kept"


def _rate(pair: Pair, *, compat: bool) -> float:
    """Requests/s of a server: those that are measured, or those that its throughput objective stands for."""
    if pair.is_idle:
        return 0.0
    measured = pair.load.arrival_rate / 60.0
    if not pair.target.slo_tps:
        return measured
    promised = pair.target.slo_tps / _tokens(pair.load)
    return promised if compat else max(measured, promised)


# ---------------------------------------------------------------------------------------------------------------------
# The arguments of an optimizer


def _current(server: ServerRow, read: _Read) -> Current:
    """What a server has; its price is that of its accelerators now, whatever the file says it was."""
    has = server.current_alloc
    if not has.accelerator or not has.num_replicas:
        return Current()
    accelerator = read.accelerators.get(has.accelerator)
    row = read.performance.get(server.model, {}).get(has.accelerator)
    if accelerator is None or row is None:
        read.notices.append(
            f"server {server.name} runs on {has.accelerator}, which is not known for its model; what it gives up is"
            f" priced as currentAlloc.cost says, {has.cost:g}"
        )
        return Current(has.accelerator, has.num_replicas, has.cost)
    return Current(has.accelerator, has.num_replicas, accelerator.cost * row.units * has.num_replicas)


def _variant_table(pairs: Sequence[Pair], current: Mapping[str, Current]) -> VariantTable:
    runs = []
    for pair in pairs:
        has = current[pair.server.name]
        runs.append(float(has.replicas) if has.accelerator == pair.accelerator.name else 0.0)
    table = VariantTable.of(
        runs,
        ready=np.zeros(len(pairs)),
        pending=np.zeros(len(pairs)),
        cost=[pair.cost for pair in pairs],
        gpus=[pair.cards for pair in pairs],
        status=[VariantStatus.CANDIDATE] * len(pairs),
    )
    return table.with_columns(base=np.zeros(len(pairs)))


def _ballot(fleet: Fleet, capacity: FloatArray, rate: Mapping[str, float], read: _Read) -> Ballot:
    """
    One vote: requests/s of every server, all of which are required, because the plan starts from nothing.

    The fewest replicas a server must have are load, too: no replica counts for more than that share of the rate, so
    that any mix which carries the rate has so many; without requests each carries one of as many as there must be.
    """
    scopes = len(fleet.scopes)
    demand = np.array([rate[scope.namespace] for scope in fleet.scopes])
    least = np.array([float(read.servers[scope.namespace].min_num_replicas) for scope in fleet.scopes])
    idle = (demand == 0) & (least > 0)
    share = np.divide(demand, least, out=np.full(scopes, np.inf), where=least > 0) * (1 + _ROUNDING)
    counts = np.where(idle[fleet.by_scope.of], 1.0, np.minimum(capacity, share[fleet.by_scope.of]))
    demand = np.where(idle, least, demand)
    informative = fleet.by_scope.any(~np.isnan(capacity))
    needed: BoolArray = informative & (demand > 0)
    nothing = floats(np.zeros(scopes))
    vote = Vote(
        analyzer="sizing",
        unit="requests/s",
        capacity=floats(np.where(np.isnan(capacity), np.nan, counts)),
        required=floats(np.where(needed, demand, 0.0)),
        spare=nothing,
        demand=floats(demand),
        supply=nothing,
        gates_shrink=booleans(np.ones(scopes, dtype=bool)),
        informative=booleans(informative),
        score=floats(np.ones(scopes)),
    )
    return Ballot(
        votes=(vote,),
        anchor=integers(np.where(informative, 0, -1)),
        grow=booleans(needed),
        shrink=booleans(np.zeros(scopes, dtype=bool)),
        frozen=booleans(np.zeros(scopes, dtype=bool)),
    )


def _limits(fleet: Fleet, pairs: Sequence[Pair], available: Mapping[str, float]) -> Limits:
    """One row for the cards of each type of which there are so many."""
    cards = np.array([float(pair.cards) for pair in pairs])
    variants = [fleet.by_accelerator.rows(row) for row, name in enumerate(fleet.accelerators) if name in available]
    entries = integers(np.concatenate([np.empty(0, dtype=np.int64), *variants]))
    count = len(fleet)
    return Limits(
        low=floats(np.zeros(count)),
        high=floats(np.full(count, np.inf)),
        rows=LimitRows(
            labels=tuple(f"GPUs of type {name}" for name in available),
            offsets=integers(np.cumsum([0, *(len(rows) for rows in variants)])),
            variant=entries,
            coefficient=floats(cards[entries]),
            lower=floats(np.full(len(available), -np.inf)),
            upper=floats(list(available.values())),
        ),
    )
