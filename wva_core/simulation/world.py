"""
One contender's world: the cluster under traffic, what is scraped of it, and who scales it, on one simulated clock.

Everything that happens at one instant happens in this order: traffic, scrape, control cycle, HPA. So an HPA acts on
advice as old as the last scrape, as it does behind a real metrics store.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from wva_core.domain.arrays import FloatArray
from wva_core.errors import ParameterError
from wva_core.simulation.cluster import Cluster
from wva_core.simulation.hpa import SYNC_PERIOD_SECONDS, AverageValueMetric, HorizontalPodAutoscaler, HpaReason
from wva_core.simulation.notices import Notices
from wva_core.simulation.report import ContenderResult, Series, VariantSeries
from wva_core.simulation.scenario import Contender, HpaContender, Scenario, StaticContender, WvaContender
from wva_core.simulation.scrape import Scraper

__all__ = ["DRAIN_LIMIT_S", "UNLIMITED_REPLICAS", "SimulatedClock", "World"]

DRAIN_LIMIT_S = 1800.0
"""After the traffic ends, requests still inside get this long to finish; nothing scales any more, nothing is billed."""

UNLIMITED_REPLICAS = 10_000
"""Maximum of an HPA where a variant has none, since an HPA must have one."""

_METRICS = {"waiting": "waiting", "running": "running", "kvUsage": "kv_usage"}
"""Signal behind each metric that an HPA may follow."""


class SimulatedClock:
    """The clock of one world."""

    __slots__ = ("time",)

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        """Seconds since the world began."""
        return self.time


@dataclass(slots=True, eq=False)
class World:
    """
    What plugins of a simulation see as the port `simulation`, and the loop that moves its time.

    Args:
        scenario: traffic, deployments, limits.
        contender: who scales.

    Attributes:
        cluster, scraper, clock: the parts.
        cycle: called at every control interval; what a WVA contender decides with. Set by whoever builds the engine.
        advice: reads the published targets by variant key, as a scrape of the engine would. Set likewise where an
            HPA stands behind.
        interval_s: of `cycle`.
        notices: what a reader of the result must know.
    """

    scenario: Scenario
    contender: Contender
    cluster: Cluster = field(init=False)
    scraper: Scraper = field(init=False)
    clock: SimulatedClock = field(init=False, default_factory=SimulatedClock)
    cycle: Callable[[], None] | None = None
    advice: Callable[[], Mapping[str, float]] | None = None
    interval_s: float = 15.0
    notices: Notices = field(init=False, default_factory=Notices)
    _wanted: dict[str, int] = field(init=False, default_factory=dict)
    _autoscalers: dict[str, HorizontalPodAutoscaler] = field(init=False, default_factory=dict)
    _published: Mapping[str, float] = field(init=False, default_factory=dict)
    _queued: dict[str, int] = field(init=False, default_factory=dict)
    _changes: dict[str, list[tuple[float, int]]] = field(init=False, default_factory=dict)
    _desired: list[list[float]] = field(init=False, default_factory=list)
    _billed_before: dict[str, float] | None = field(init=False, default=None)
    _billed: dict[str, float] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        scenario = self.scenario
        deployments = scenario.deployments
        if isinstance(self.contender, StaticContender):
            counts = self.contender.replicas
            deployments = tuple(
                replace(deployment, initial_replicas=counts[deployment.variant]) for deployment in deployments
            )
        self.cluster = Cluster(
            deployments,
            scenario.traces,
            gpus=scenario.gpus,
            seed=scenario.seed,
            router=scenario.router,
            request_timeout_s=scenario.request_timeout_s,
        )
        self.scraper = Scraper(self.cluster, scenario.scrape_s)
        self._wanted = {deployment.variant: deployment.initial_replicas for deployment in deployments}
        self._changes = {variant: [] for variant in self._wanted}
        if isinstance(self.contender, HpaContender):
            metric = AverageValueMetric(self.contender.metric, self.contender.target)
            behavior, tolerance = self.contender.behavior, self.contender.tolerance
        elif isinstance(self.contender, WvaContender) and self.contender.hpa is not None:
            metric = AverageValueMetric("advice", 1.0)
            behavior, tolerance = self.contender.hpa, self.contender.tolerance
        else:
            return
        for deployment in deployments:
            variant = deployment.variant
            most = scenario.max_replicas[variant]
            self._autoscalers[variant] = HorizontalPodAutoscaler(
                (metric,),
                # Scaling to zero is behind a feature gate of Kubernetes that is off.
                min_replicas=max(1, scenario.min_replicas[variant]),
                max_replicas=UNLIMITED_REPLICAS if most is None else most,
                behavior=behavior,
                tolerance=tolerance,
            )
            if not deployment.initial_replicas:
                self.notices.add(f"{variant} has no replica to begin with, and an HPA leaves it at that")
            elif not scenario.min_replicas[variant]:
                self.notices.add(f"{variant} may have no replicas, but an HPA keeps at least one")

    def scale(self, variant: str, replicas: int) -> None:
        """
        Sets the replicas a variant should have, now.

        Raises:
            ParameterError: the variant is not deployed here.
        """
        before = self._wanted.get(variant)
        if before is None:
            raise ParameterError(
                "is not deployed here", object=f"variant {variant}", remedy=f"name one of {', '.join(self._wanted)}"
            )
        if replicas != before:
            self._wanted[variant] = replicas
            self._changes[variant].append((self.cluster.now, replicas - before))
        self.cluster.scale(variant, replicas)

    @property
    def wanted(self) -> Mapping[str, int]:
        """Replicas each variant should have, as last set."""
        return self._wanted

    def run(self, progress: Callable[[float], None] | None = None) -> None:
        """
        Runs the traffic from the first to the last second, then lets what is inside finish.

        Args:
            progress: told the simulated time after every instant at which something was due. What it raises ends the
                run there, and what has happened so far stays readable; whoever wants to interrupt a run does it here.
        """
        end = self.scenario.duration_s
        ticks = _Ticks(self.scenario.scrape_s, self.interval_s, SYNC_PERIOD_SECONDS)
        while (due := ticks.next_time()) <= end:
            self._advance(due)
            self.clock.time = due
            scrape, cycle, sync = ticks.take(due)
            if scrape:
                self._scrape(due)
            if cycle and self.cycle is not None:
                self.cycle()
            if sync:
                self._sync(due)
            if progress is not None:
                progress(due)
        self._advance(end)
        self._billed = self._billed_so_far()
        limit = end + DRAIN_LIMIT_S
        while self.cluster.in_flight() and self.cluster.now < limit:
            self.cluster.advance(min(self.cluster.now + 60.0, limit))
            if progress is not None:
                progress(end)

    def _advance(self, until: float) -> None:
        """Traffic up to `until`; on the way the bill starts at the end of the warm-up."""
        warmup = self.scenario.rule.warmup_s
        if self._billed_before is None and until >= warmup:
            self.cluster.advance(warmup)
            self._billed_before = self._billed_so_far()
        self.cluster.advance(until)

    def _billed_so_far(self) -> dict[str, float]:
        return {variant: self.cluster.billed_s(variant) for variant in self._wanted}

    def _scrape(self, now: float) -> None:
        cluster = self.cluster
        self.scraper.sample()
        self._queued = {model: cluster.queue(model)[0] for model in cluster.models}
        if self.advice is not None:
            self._published = self.advice()
        self._desired.append([float(count) for count in self._wanted.values()])
        for variant in self._wanted if self.scenario.gpus else ():
            if cluster.counts(variant).unschedulable:
                kind = cluster.deployments[variant].accelerator
                self.notices.add(f"a replica of {variant} waited for free {kind} GPUs", now)

    def _sync(self, now: float) -> None:
        for variant, autoscaler in self._autoscalers.items():
            counts = self.cluster.counts(variant)
            decision = autoscaler.sync(now, self._wanted[variant], counts.current, self._metrics(variant))
            if decision.reason is HpaReason.TOO_MANY:
                self.notices.add(f"{variant} was at maxReplicas, and its HPA wanted more", now)
            self.scale(variant, decision.desired)

    def _metrics(self, variant: str) -> dict[str, float]:
        """
        What the metrics store shows an HPA of one variant: sums over its ready replicas at the last scrape.

        What waits in front of all replicas counts in full for every variant of the model, as one queue metric would.
        """
        if not isinstance(self.contender, HpaContender):
            return {"advice": self._published.get(variant, math.nan)}
        metric = self.contender.metric
        newest = self.scraper.newest(variant)
        deployment = self.cluster.deployments[variant]
        pinned = deployment.pinned_signals.get(_METRICS[metric])
        if pinned is not None:
            return {metric: pinned * self.cluster.counts(variant).ready}
        if metric == "waiting":
            return {metric: newest.waiting + self._queued.get(deployment.model, 0)}
        return {metric: newest.running if metric == "running" else newest.kv_usage}

    # ----------------------------------------------------------------------------------------------------------------
    # What came of it

    def result(self, *, partial: bool = False) -> ContenderResult:
        """The contender's score, cost and time series; of what has happened so far if it was interrupted."""
        scenario, cluster = self.scenario, self.cluster
        log = cluster.requests()
        score = scenario.rule.score(log)
        done = int(np.count_nonzero(~np.isnan(log.finish_s)))
        failed = int(np.count_nonzero(log.failed))
        hours = self._billed_hours()
        deployments = cluster.deployments
        warmup = scenario.rule.warmup_s
        changes = [[change for time, change in mine if time >= warmup] for mine in self._changes.values()]
        scored_hours = (min(cluster.now, scenario.duration_s) - warmup) / 3600
        return ContenderResult(
            name=self.contender.name,
            kind=self.contender.kind,
            description=self.contender.description,
            attainment=score.attainment,
            cost_usd=sum(hours[variant] * deployments[variant].cost_usd_per_h for variant in hours),
            gpu_hours=sum(hours[variant] * deployments[variant].gpus_per_replica for variant in hours),
            requests_in=len(log),
            done=done,
            failed=failed,
            in_flight=len(log) - done - failed,
            ttft_s=(score.ttft.p50, score.ttft.p95, score.ttft.p99),
            tpot_s=(score.tpot.p50, score.tpot.p95, score.tpot.p99),
            scale_actions=sum(map(len, changes)),
            reversals_per_hour=sum(map(_reversals, changes)) / scored_hours if scored_hours > 0 else math.nan,
            partial=partial,
            notices=(*self.notices.sentences, *self._leftovers(failed, len(log) - done - failed, partial=partial)),
            series=self._series(),
        )

    def _billed_hours(self) -> dict[str, float]:
        """Replica-hours by variant from the end of the warm-up to the end of the traffic."""
        if self._billed_before is None:
            return dict.fromkeys(self._wanted, 0.0)
        billed = self._billed_so_far() if self._billed is None else self._billed
        return {variant: (billed[variant] - self._billed_before[variant]) / 3600 for variant in self._wanted}

    def _leftovers(self, failed: int, in_flight: int, *, partial: bool) -> list[str]:
        """What became of requests that were not answered."""
        notices: list[str] = []
        if failed:
            notices.append(f"{_requests(failed)} failed: refused, timed out or lost; that counts as missed")
        if in_flight and not partial:
            notices.append(
                f"{_requests(in_flight)} had no answer {DRAIN_LIMIT_S / 60:.0f} minutes after the end of the traffic;"
                " that counts as missed"
            )
        return notices

    def _series(self) -> Series:
        seen = self.scraper.series()
        times = seen.t
        log = self.cluster.requests()
        edges = np.concatenate((times, [np.inf]))
        arrived = np.searchsorted(edges, log.arrival_s, side="left")  # the sample at or after the arrival
        counts = _floats(np.bincount(arrived, minlength=len(edges))[: len(times)])
        gaps = np.diff(times, prepend=np.nan)  # nothing was sampled before the first sample
        attained = self.scenario.rule.attained(log)
        met = _floats(np.bincount(arrived, weights=attained, minlength=len(edges))[: len(times)])
        desired = np.array(self._desired, dtype=np.float64).reshape(len(times), -1)
        waiting = seen.waiting.sum(axis=1) + seen.queue_size.sum(axis=1)
        return Series(
            time_s=times,
            demand_rps=counts / gaps,
            queue=waiting,
            attainment=np.divide(met, counts, out=np.full_like(met, np.nan), where=counts > 0),
            variants={
                variant: VariantSeries(
                    current=_floats(seen.current[:, column]),
                    ready=_floats(seen.ready[:, column]),
                    desired=desired[:, column],
                )
                for column, variant in enumerate(seen.variants)
            },
        )


def _floats(values: object) -> FloatArray:
    return np.asarray(values, dtype=np.float64)


def _requests(number: int) -> str:
    return f"{number:,} request{'' if number == 1 else 's'}"


def _reversals(changes: list[int]) -> int:
    """Changes whose direction is the opposite of the one before."""
    return sum(before * after < 0 for before, after in itertools.pairwise(changes))


class _Ticks:
    """Multiples of three periods, merged; all start at 0."""

    def __init__(self, *periods: float) -> None:
        self._periods = periods
        self._counts = [0] * len(periods)

    def next_time(self) -> float:
        return min(period * count for period, count in zip(self._periods, self._counts, strict=True))

    def take(self, now: float) -> tuple[bool, ...]:
        """Which periods are due at `now`; they move on to their next time."""
        due = tuple(period * count <= now for period, count in zip(self._periods, self._counts, strict=True))
        self._counts = [count + is_due for count, is_due in zip(self._counts, due, strict=True)]
        return due
