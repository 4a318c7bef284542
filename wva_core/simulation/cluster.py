"""
A fleet of engines: deployments, replicas and their phases, GPUs, routing, and the loop that advances time.

**Phases.** A replica that `scale` adds is *starting* at once if enough GPUs of its type are free, otherwise *pending*
(unschedulable) until they are; GPUs that become free go to pending replicas in the order in which they were asked for,
skipping those that need more than is free. A starting replica is *ready* after a time drawn from the start-up law. On
scale-down pending replicas go first, then starting ones, then ready ones, each newest first; a ready one is *draining*:
it takes no new request, finishes what runs and what waits, then releases its GPUs and is *gone*. With a drain timeout,
what is left by then fails. A replica is billed from scheduling to release.

**Routing.** A request goes to a ready replica of its model. `least-loaded`: the fewest requests inside, running and
waiting; ties go to the lowest slot. A replica takes the lowest free slot when it becomes ready and leaves it when it is
gone. `sticky`: the lowest slot that has fewer than `max_batch` inside, and least-loaded when all are full. Without a
ready replica requests wait in the gateway in the order of arrival, and all go out when a replica becomes ready.

**Order at one instant.** Arrivals, in the order of the trace, traces in the order of their models; then ends of engine
steps, by slot; then the fleet's own events (ready, drain timeout, in the order in which they were set); then request
time-outs; then whatever the caller does after `advance`. The same seed and calls give the same run, to the bit.
"""

from __future__ import annotations

import enum
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace
from math import inf, isfinite
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wva_core.errors import ParameterError
from wva_core.simulation.profiles import ServerProfile
from wva_core.simulation.server import RequestTable, Server
from wva_core.simulation.workload import Trace

__all__ = ["Cluster", "Deployment", "Phase", "Replica", "ReplicaCounts", "RequestLog", "StartUp"]

Router: TypeAlias = Literal["least-loaded", "sticky"]

_BYTES_PER_TOKEN = 4  # of a queued prompt, the usual estimate for English text


class Phase(enum.Enum):
    """Where a replica is in its life."""

    PENDING = "pending"  # no GPUs free; not billed
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class StartUp:
    """
    The law of the time from scheduling to ready, s.

    Args:
        law: `constant` (always `mean_s`), `lognormal` (mean `mean_s`, coefficient of variation `cv`) or `uniform`
            (between `low_s` and `high_s`).
        mean_s: of `constant` and `lognormal`.
        cv: of `lognormal`.
        low_s: of `uniform`.
        high_s: of `uniform`.
    """

    law: Literal["constant", "lognormal", "uniform"] = "constant"
    mean_s: float = 120.0
    cv: float = 0.3
    low_s: float = 60.0
    high_s: float = 180.0

    def __post_init__(self) -> None:
        """Refuse a law that could draw a negative time."""
        for name in ("mean_s", "cv", "low_s", "high_s"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise ParameterError(
                    "must be 0 or more", object="start-up", key=name, value=value, remedy="give seconds"
                )
        if self.low_s > self.high_s:
            raise ParameterError(
                f"is above high_s, {self.high_s:g}",
                object="start-up",
                key="low_s",
                value=self.low_s,
                remedy="swap them",
            )

    def draw(self, rng: np.random.Generator) -> float:
        """One start-up time, s."""
        if self.law == "uniform":
            return float(rng.uniform(self.low_s, self.high_s))
        if self.law == "lognormal" and self.mean_s > 0:
            variance = np.log1p(self.cv**2)
            return float(rng.lognormal(np.log(self.mean_s) - variance / 2, np.sqrt(variance)))
        return self.mean_s


@dataclass(frozen=True, slots=True)
class Deployment:
    """
    One variant as it is deployed.

    Args:
        variant: `namespace/name`.
        model: the model it serves; deployments of one model share its requests.
        profile: the engine of each replica.
        accelerator: type of its GPUs; that of the profile if left empty.
        gpus_per_replica: taken from the type's inventory.
        cost_usd_per_h: per replica.
        start_up: law of the time from scheduling to ready.
        initial_replicas: ready at time 0.
        drain_timeout_s: a draining replica has this long.
        pinned_signals: signals that the scrape shows for every replica in place of what happened, by name; for
            scenarios without load.
    """

    variant: str
    model: str
    profile: ServerProfile
    accelerator: str = ""
    gpus_per_replica: int = 1
    cost_usd_per_h: float = 0.0
    start_up: StartUp = StartUp()
    initial_replicas: int = 0
    drain_timeout_s: float = inf
    pinned_signals: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in the accelerator and refuse what cannot be."""
        if not self.accelerator:
            object.__setattr__(self, "accelerator", self.profile.accelerator)
        for name, low in (
            ("gpus_per_replica", 0),
            ("cost_usd_per_h", 0),
            ("initial_replicas", 0),
            ("drain_timeout_s", 0),
        ):
            if not getattr(self, name) >= low:
                raise ParameterError(
                    f"must be {low} or more",
                    object=f"deployment {self.variant}",
                    key=name,
                    value=getattr(self, name),
                    remedy="mend it",
                )

    @property
    def name(self) -> str:
        """The variant without its namespace."""
        return self.variant.rpartition("/")[2]


@dataclass(slots=True, eq=False)
class Replica:
    """One replica and the times of its life, s; infinity where it has not come to that."""

    index: int
    deployment: Deployment
    ordinal: int
    phase: Phase = Phase.PENDING
    requested_s: float = 0.0
    scheduled_s: float = inf
    ready_s: float = inf
    draining_s: float = inf
    released_s: float = inf
    slot: int = -1
    server: _Instance | None = None

    @property
    def pod(self) -> str:
        """Name of its pod; never used again for another."""
        return f"{self.deployment.name}-{self.ordinal}"

    def billed_s(self, now: float) -> float:
        """Seconds from scheduling to release, or to `now`."""
        return max(0.0, min(now, self.released_s) - self.scheduled_s)


@dataclass(frozen=True, slots=True)
class ReplicaCounts:
    """Replicas of a variant as its scale target shows them; draining ones are no longer counted as current."""

    current: int
    ready: int
    pending: int  # not ready yet: starting, or unschedulable
    unschedulable: int
    draining: int


@dataclass(frozen=True, slots=True, eq=False)
class RequestLog:
    """
    One row per request that has arrived, in the order of arrival.

    Args:
        arrival_s: (N,) s.
        input_tokens: (N,).
        output_tokens: (N,).
        first_token_s: (N,) time of the first token; NaN if it has none.
        finish_s: (N,) time of the last token; NaN if it is not finished.
        failed: (N,) bool: refused, timed out, or lost when a drain ran out of time.
        replica: (N,) index of the replica it was sent to, -1 if to none.
        variant: (N,) index into `variants`, -1 if to none.
        model: (N,) index into `models`.
        variants: keys of the deployments.
        models: names.
        end_s: time up to which the simulation has run.
    """

    arrival_s: NDArray[np.float64]
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    first_token_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    failed: NDArray[np.bool_]
    replica: NDArray[np.int64]
    variant: NDArray[np.int64]
    model: NDArray[np.int64]
    variants: tuple[str, ...]
    models: tuple[str, ...]
    end_s: float

    def __len__(self) -> int:
        return int(self.arrival_s.size)


class _Instance(Server):
    """An engine with what the router knows of it."""

    __slots__ = ("bit", "load", "pool", "replica")

    def __init__(self, replica: Replica, pool: _Pool, requests: RequestTable, events: list[tuple[float, int]]) -> None:
        super().__init__(replica.deployment.profile, requests, events, replica.slot)
        self.replica = replica.index
        self.pool = pool
        self.bit = 1 << replica.slot  # 0 once it takes no more requests
        self.load = 0  # requests inside, running and waiting


class _Pool:
    """The ready replicas of one model by load, its gateway queue and its counters."""

    __slots__ = ("by_bit", "dispatched", "gateway", "gateway_tokens", "low", "mask", "model")

    def __init__(self, model: str, size: int) -> None:
        self.model = model
        # mask[load] has one bit per ready replica with that many requests inside; low is at or below the lowest load.
        self.mask = [0] * (size + 2)
        self.low = 0
        self.by_bit: dict[int, _Instance] = {}
        self.gateway: deque[int] = deque()
        self.gateway_tokens = 0
        self.dispatched = 0


class Cluster:
    """
    Deployments that serve traces on a limited set of GPUs.

    Args:
        deployments: each variant once.
        traces: requests per model; a model without a trace gets none.
        gpus: GPUs per accelerator type; a type that is not named is unlimited.
        seed: of the start-up times. The n-th replica of a variant draws the same time whatever else happens, so that
            policies compared under one seed meet the same luck.
        router: how requests choose a replica.
        request_timeout_s: a request that still waits, in the gateway or in an engine's queue, this long after its
            arrival fails. One whose prompt is being processed goes on.

    Raises:
        ParameterError: a variant twice, a trace for a model nobody serves, or initial replicas beyond the GPUs.

    Cost: 3 to 6 µs per request on one core; nothing per token, nothing per replica but its own events.
    """

    def __init__(
        self,
        deployments: Sequence[Deployment],
        traces: Mapping[str, Trace] | None = None,
        *,
        gpus: Mapping[str, int] | None = None,
        seed: int = 0,
        router: Router = "least-loaded",
        request_timeout_s: float = inf,
    ) -> None:
        traces = {} if traces is None else traces
        self.deployments = {deployment.variant: deployment for deployment in deployments}
        self.models = tuple(dict.fromkeys(deployment.model for deployment in deployments))
        self._check(deployments, traces, router, request_timeout_s)
        self.now = 0.0
        self.seed = seed
        self.router = router
        self.request_timeout_s = request_timeout_s
        self.gpu_capacity = dict(gpus or {})
        self.gpu_used = {deployment.accelerator: 0 for deployment in deployments}
        self.gpu_used |= dict.fromkeys(self.gpu_capacity, 0) | self.gpu_used
        self.replicas: list[Replica] = []  # every replica there ever was, in the order of creation
        self._alive: dict[str, list[Replica]] = {variant: [] for variant in self.deployments}
        self._draining: dict[str, list[Replica]] = {variant: [] for variant in self.deployments}
        self._created = dict.fromkeys(self.deployments, 0)
        self._billed_gone = dict.fromkeys(self.deployments, 0.0)
        self._preempted_gone = 0
        self._completed_gone = dict.fromkeys(self.models, 0)
        self._unschedulable: list[Replica] = []

        self._merge([traces.get(model) for model in self.models])
        sizes = [len(traces[model]) if model in traces else 0 for model in self.models]
        self._pools = [_Pool(model, size) for model, size in zip(self.models, sizes, strict=True)]
        pools = dict(zip(self.models, self._pools, strict=True))
        self._pool_of = {variant: pools[deployment.model] for variant, deployment in self.deployments.items()}
        self._next = 0  # the first request that has not arrived
        self._oldest = 0  # the first request that may still time out
        self._events: list[tuple[float, int]] = [(inf, -1)]
        self._slots: list[Replica] = []
        self._servers: list[_Instance] = []
        self._free_slots: list[int] = []
        self._control: list[tuple[float, int, Replica]] = []
        self._control_sequence = 0

        for deployment in deployments:
            for _ in range(deployment.initial_replicas):
                replica = self._create(deployment, 0.0)
                if not self._fits(deployment):
                    raise ParameterError(
                        "the initial replicas need more GPUs than there are",
                        object=f"deployment {deployment.variant}",
                        key="initial_replicas",
                        value=deployment.initial_replicas,
                        remedy=f"lower it, or give more {deployment.accelerator}",
                    )
                self._take_gpus(replica, 0.0)
                self._make_ready(replica, 0.0)

    @staticmethod
    def _check(
        deployments: Sequence[Deployment], traces: Mapping[str, Trace], router: Router, request_timeout_s: float
    ) -> None:
        variants = [deployment.variant for deployment in deployments]
        if len(set(variants)) < len(variants):
            twice = next(variant for variant in variants if variants.count(variant) > 1)
            raise ParameterError("is deployed twice", object=f"variant {twice}", remedy="give each variant one name")
        for model in traces:
            if all(deployment.model != model for deployment in deployments):
                raise ParameterError(
                    "has a trace but no deployment", object=f"model {model}", remedy="deploy it, or drop the trace"
                )
        if router not in ("least-loaded", "sticky"):
            raise ParameterError(
                "is no router", object="cluster", key="router", value=router, remedy="use least-loaded or sticky"
            )
        if not request_timeout_s > 0:
            raise ParameterError(
                "must be positive",
                object="cluster",
                key="request_timeout_s",
                value=request_timeout_s,
                remedy="leave it out for no time-out",
            )

    def _merge(self, traces: list[Trace | None]) -> None:
        """Bring the traces of all models into one order of arrival."""
        present = [(model, trace) for model, trace in enumerate(traces) if trace is not None and len(trace)]
        if present:
            arrival = np.concatenate([trace.arrival_s for _, trace in present])
            order = np.argsort(arrival, kind="stable")
            self._arrival = arrival[order]
            self._input = np.concatenate([trace.input_tokens for _, trace in present])[order]
            self._output = np.concatenate([trace.output_tokens for _, trace in present])[order]
            self._model = np.concatenate([np.full(len(trace), model) for model, trace in present])[order]
        else:
            self._arrival = np.empty(0)
            self._input = self._output = self._model = np.empty(0, dtype=np.int64)
        arrivals = self._arrival.tolist()
        self._requests = RequestTable(self._input.tolist(), self._output.tolist(), arrivals.copy())
        arrivals.append(inf)
        self._arrivals: list[float] = arrivals
        self._model_of: list[int] = self._model.tolist()

    # ----------------------------------------------------------------------------------------------------------------
    # Time

    def advance(self, until: float) -> None:
        """
        Run to time `until`, s, everything that happens at that instant included.

        Raises:
            ParameterError: `until` lies in the past.
        """
        if not until >= self.now:
            raise ParameterError(
                f"lies before the present, {self.now:g} s",
                object="cluster",
                key="until",
                value=until,
                remedy="time only goes forward",
            )
        while True:
            control = self._control[0][0] if self._control else inf
            deadline = self._next_deadline()
            stop = min(until, control, deadline)
            reached = self._run(stop)
            if not reached:
                continue  # GPUs became free before `stop`, which may have set an earlier event
            if control <= stop:
                self.now = control
                self._fire(heappop(self._control)[2], control)
            elif deadline <= stop:
                self.now = deadline
                self._expire(deadline)
            else:
                self.now = until
                return

    def _run(self, stop: float) -> bool:  # noqa: C901, PLR0912, PLR0915 - hot, calls cost double
        """Process arrivals and ends of steps up to `stop`; False if it came back early because GPUs became free."""
        arrivals = self._arrivals
        requests = self._requests
        replica_of = requests.replica
        model_of = self._model_of
        pools = self._pools
        events = self._events
        servers = self._servers
        sticky = self.router == "sticky"
        several = len(pools) > 1
        if not pools:
            return True
        pool = pools[0]
        request = self._next
        arrival = arrivals[request]
        due = events[0][0]
        while True:
            if arrival <= due:
                if arrival > stop:
                    break
                if several:
                    pool = pools[model_of[request]]
                by_bit = pool.by_bit
                if by_bit:
                    mask = pool.mask
                    low = pool.low
                    bits = mask[low]
                    while not bits:
                        low += 1
                        bits = mask[low]
                    pool.low = low
                    server = _first_with_room(pool) if sticky else by_bit[bits & -bits]
                    pool.dispatched += 1
                    replica_of[request] = server.replica
                    if server.arrive(request, arrival):
                        load = server.load
                        bit = server.bit
                        mask[load] ^= bit
                        load += 1
                        mask[load] |= bit
                        server.load = load
                        due = events[0][0]
                    else:
                        requests.failed[request] = 1
                else:
                    pool.gateway.append(request)
                    pool.gateway_tokens += requests.prompt[request]
                request += 1
                arrival = arrivals[request]
            else:
                if due > stop:
                    break
                slot = events[0][1]
                server = servers[slot]
                if server.end != due:
                    heappop(events)
                    due = events[0][0]
                    continue
                done = server.step()
                end = server.end
                if end < inf:
                    heapreplace(events, (end, slot))
                else:
                    heappop(events)
                if done:
                    load = server.load
                    bit = server.bit
                    if bit:
                        owner = server.pool
                        mask = owner.mask
                        mask[load] ^= bit
                        load -= done
                        mask[load] |= bit
                        server.load = load
                        if load < owner.low:  # noqa: PLR1730 - twice as fast as min
                            owner.low = load
                    else:
                        server.load = load = load - done
                        if not load:
                            self._next = request
                            self.now = due
                            self._release(self._slots[slot], due)
                            return False
                due = events[0][0]
        self._next = request
        return True

    def _dispatch(self, request: int, pool: _Pool, t: float) -> None:
        """Send a request to a replica outside the hot loop; the pool has one that is ready."""
        while not pool.mask[pool.low]:
            pool.low += 1
        bits = pool.mask[pool.low]
        server = _first_with_room(pool) if self.router == "sticky" else pool.by_bit[bits & -bits]
        pool.dispatched += 1
        self._requests.replica[request] = server.replica
        self._requests.entered[request] = t
        if server.arrive(request, t):
            _change_load(server, 1)
        else:
            self._requests.failed[request] = 1

    def _next_deadline(self) -> float:
        """When the oldest request that still waits would time out."""
        if self.request_timeout_s == inf:
            return inf
        first = self._requests.first
        failed = self._requests.failed
        while self._oldest < self._next and (first[self._oldest] == first[self._oldest] or failed[self._oldest]):
            self._oldest += 1
        return self._arrivals[self._oldest] + self.request_timeout_s

    def _expire(self, t: float) -> None:
        """Let the oldest request fail if it still waits."""
        request = self._oldest
        self._oldest += 1
        requests = self._requests
        if requests.first[request] == requests.first[request] or requests.failed[request]:
            return
        if requests.replica[request] < 0:
            pool = self._pools[self._model_of[request]]
            pool.gateway.remove(request)
            pool.gateway_tokens -= requests.prompt[request]
            requests.failed[request] = 1
            return
        replica = self.replicas[requests.replica[request]]
        server = replica.server
        if server is not None and server.abandon(request, t):
            requests.failed[request] = 1
            _change_load(server, -1)
            if replica.phase is Phase.DRAINING and not server.load:
                self._release(replica, t)

    def _fire(self, replica: Replica, t: float) -> None:
        """A replica becomes ready, or its drain has run out of time; nothing if it is past that."""
        if replica.phase is Phase.STARTING:
            self._make_ready(replica, t)
        elif replica.phase is Phase.DRAINING and replica.server is not None:
            for request in replica.server.stop():
                self._requests.failed[request] = 1
            replica.server.load = 0
            self._release(replica, t)

    # ----------------------------------------------------------------------------------------------------------------
    # Replicas

    def scale(self, variant: str, replicas: int, now: float | None = None) -> None:
        """
        Set the number of replicas a variant should have, at time `now` (the present if left out).

        Raises:
            ParameterError: the variant is not deployed here, the number is negative, or `now` lies in the past.
        """
        if now is not None:
            self.advance(now)
        alive = self._alive.get(variant)
        if alive is None:
            raise ParameterError(
                "is not deployed here",
                object=f"variant {variant}",
                remedy=f"name one of {', '.join(self.deployments)}",
            )
        if replicas < 0:
            raise ParameterError(
                "must be 0 or more", object=f"variant {variant}", key="replicas", value=replicas, remedy="mend it"
            )
        for _ in range(replicas - len(alive)):
            self._unschedulable.append(self._create(self.deployments[variant], self.now))
        for _ in range(len(alive) - replicas):
            victim = min(alive, key=lambda replica: (_REMOVAL[replica.phase], -replica.ordinal))
            alive.remove(victim)
            self._remove(victim, self.now)
        self._schedule_pending(self.now)

    def _create(self, deployment: Deployment, t: float) -> Replica:
        ordinal = self._created[deployment.variant]
        self._created[deployment.variant] += 1
        replica = Replica(len(self.replicas), deployment, ordinal, requested_s=t)
        self.replicas.append(replica)
        self._alive[deployment.variant].append(replica)
        return replica

    def _fits(self, deployment: Deployment) -> bool:
        kind = deployment.accelerator
        return self.gpu_used[kind] + deployment.gpus_per_replica <= self.gpu_capacity.get(kind, inf)

    def _take_gpus(self, replica: Replica, t: float) -> None:
        self.gpu_used[replica.deployment.accelerator] += replica.deployment.gpus_per_replica
        replica.scheduled_s = t

    def _schedule_pending(self, t: float) -> None:
        """Start the pending replicas that fit, in the order in which they were asked for."""
        still: list[Replica] = []
        for replica in self._unschedulable:
            if replica.phase is not Phase.PENDING:
                continue
            if not self._fits(replica.deployment):
                still.append(replica)
                continue
            self._take_gpus(replica, t)
            replica.phase = Phase.STARTING
            deployment = replica.deployment
            # One generator per replica: its luck does not depend on what was drawn before.
            rng = np.random.default_rng([self.seed, zlib.crc32(deployment.variant.encode()), replica.ordinal])
            self._at(t + deployment.start_up.draw(rng), replica)
        self._unschedulable = still

    def _at(self, t: float, replica: Replica) -> None:
        """Have `_fire` called for a replica at time `t`."""
        self._control_sequence += 1
        heappush(self._control, (t, self._control_sequence, replica))

    def _make_ready(self, replica: Replica, t: float) -> None:
        replica.phase = Phase.READY
        replica.ready_s = t
        pool = self._pool_of[replica.deployment.variant]
        if self._free_slots:
            replica.slot = heappop(self._free_slots)
        else:
            replica.slot = len(self._slots)
        server = replica.server = _Instance(replica, pool, self._requests, self._events)
        if replica.slot == len(self._slots):
            self._slots.append(replica)
            self._servers.append(server)
        else:
            self._slots[replica.slot] = replica
            self._servers[replica.slot] = server
        pool.by_bit[server.bit] = server
        pool.mask[0] |= server.bit
        pool.low = 0
        while pool.gateway:
            self._dispatch(pool.gateway.popleft(), pool, t)
        pool.gateway_tokens = 0

    def _remove(self, replica: Replica, t: float) -> None:
        """Take a replica out of service; what it holds is released at once or after draining."""
        server = replica.server
        if server is None:
            self._release(replica, t)
            return
        replica.phase = Phase.DRAINING
        replica.draining_s = t
        del server.pool.by_bit[server.bit]
        server.pool.mask[server.load] ^= server.bit
        server.bit = 0
        self._draining[replica.deployment.variant].append(replica)
        if not server.load:
            self._release(replica, t)
        elif replica.deployment.drain_timeout_s < inf:
            self._at(t + replica.deployment.drain_timeout_s, replica)

    def _release(self, replica: Replica, t: float) -> None:
        """Give back the GPUs of a replica that is done, which may start a pending one."""
        deployment = replica.deployment
        if replica.phase is Phase.DRAINING:
            self._draining[deployment.variant].remove(replica)
            heappush(self._free_slots, replica.slot)
        scheduled = replica.scheduled_s < inf
        replica.phase = Phase.GONE
        replica.released_s = t
        if replica.server is not None:
            self._preempted_gone += replica.server.preemptions
            self._completed_gone[deployment.model] += replica.server.completed
            replica.server = None
        self._billed_gone[deployment.variant] += replica.billed_s(t)
        if scheduled:
            self.gpu_used[deployment.accelerator] -= deployment.gpus_per_replica
            self._schedule_pending(t)

    # ----------------------------------------------------------------------------------------------------------------
    # What can be seen

    def counts(self, variant: str) -> ReplicaCounts:
        """Replicas of a variant by phase, now."""
        alive = self._alive[variant]
        ready = sum(replica.phase is Phase.READY for replica in alive)
        return ReplicaCounts(
            current=len(alive),
            ready=ready,
            pending=len(alive) - ready,
            unschedulable=sum(replica.phase is Phase.PENDING for replica in alive),
            draining=len(self._draining[variant]),
        )

    def ready_replicas(self, variant: str) -> list[Replica]:
        """Ready replicas of a variant, oldest first."""
        return [replica for replica in self._alive[variant] if replica.phase is Phase.READY]

    def billed_s(self, variant: str) -> float:
        """Replica-seconds of a variant so far, each replica from scheduling to release; exact."""
        running = (*self._alive[variant], *self._draining[variant])
        return self._billed_gone[variant] + sum(replica.billed_s(self.now) for replica in running)

    def queue(self, model: str) -> tuple[int, int]:
        """Requests of a model in the gateway, and the bytes of their prompts at 4 bytes per token."""
        pool = self._pools[self.models.index(model)]
        return len(pool.gateway), pool.gateway_tokens * _BYTES_PER_TOKEN

    def dispatched(self, model: str) -> int:
        """Requests of a model sent to a replica so far."""
        return self._pools[self.models.index(model)].dispatched

    def completed(self, model: str) -> int:
        """Requests of a model answered in full so far."""
        done = self._completed_gone[model]
        for variant, deployment in self.deployments.items():
            if deployment.model == model:
                for replica in (*self._alive[variant], *self._draining[variant]):
                    if replica.server is not None:
                        done += replica.server.completed
        return done

    def in_flight(self) -> int:
        """Requests in the gateways and in the engines, waiting or running."""
        inside = sum(
            replica.server.load
            for replicas in (*self._alive.values(), *self._draining.values())
            for replica in replicas
            if replica.server is not None
        )
        return inside + sum(len(pool.gateway) for pool in self._pools)

    @property
    def last_arrival_s(self) -> float:
        """Time of the last arrival of all traces, s; 0 without requests."""
        return float(self._arrival[-1]) if self._arrival.size else 0.0

    @property
    def preemptions(self) -> int:
        """Sequences sent back to the queue so far, because a cache was full."""
        running = (replica.server for replica in self.replicas if replica.server is not None)
        return self._preempted_gone + sum(server.preemptions for server in running)

    def requests(self) -> RequestLog:
        """What became of every request that has arrived so far."""
        stop = self._next
        requests = self._requests
        replica = np.array(requests.replica[:stop], dtype=np.int64)
        keys = list(self.deployments)
        variant_of_replica = np.array([keys.index(one.deployment.variant) for one in self.replicas] + [-1])
        return RequestLog(
            arrival_s=self._arrival[:stop],
            input_tokens=self._input[:stop],
            output_tokens=self._output[:stop],
            first_token_s=np.array(requests.first[:stop]),
            finish_s=np.array(requests.finish[:stop]),
            failed=np.frombuffer(bytes(requests.failed[:stop]), dtype=np.bool_),
            replica=replica,
            variant=variant_of_replica[replica],  # -1 finds the -1 at the end
            model=self._model[:stop],
            variants=tuple(keys),
            models=self.models,
            end_s=self.now,
        )


_REMOVAL = {Phase.PENDING: 0, Phase.STARTING: 1, Phase.READY: 2}  # who goes first on scale-down


def _change_load(server: _Instance, change: int) -> None:
    """Move a server to another load in its pool; a draining one (bit 0) is in none."""
    pool = server.pool
    pool.mask[server.load] ^= server.bit
    server.load += change
    pool.mask[server.load] |= server.bit
    pool.low = min(pool.low, server.load)


def _first_with_room(pool: _Pool) -> _Instance:
    """The lowest slot with a free place in its batch; the least loaded if none has."""
    for bit in sorted(pool.by_bit):
        server = pool.by_bit[bit]
        if server.load < server.max_batch:
            return server
    while not pool.mask[pool.low]:
        pool.low += 1
    bits = pool.mask[pool.low]
    return pool.by_bit[bits & -bits]
