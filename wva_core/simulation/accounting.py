"""
The score of a simulated run: which requests met their latency objectives, and what the fleet cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wva_core.domain.arrays import BoolArray, FloatArray, IntArray
from wva_core.errors import ParameterError
from wva_core.simulation.cluster import Cluster, RequestLog

__all__ = ["AttainmentSeries", "CostRow", "Percentiles", "Score", "SloRule", "fleet_cost"]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Median and tails of a latency, s; NaN without requests, infinity where that many never came so far."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True, eq=False)
class AttainmentSeries:
    """
    Attainment over time, by arrival.

    Args:
        start_s: (B,) start of each bucket.
        requests: (B,) requests that arrived in it.
        attainment: (B,) share of them that met their objectives; NaN in a bucket without requests.
    """

    start_s: FloatArray
    requests: IntArray
    attainment: FloatArray


@dataclass(frozen=True, slots=True)
class Score:
    """
    What became of the scored requests.

    Args:
        requests: that arrived after the warm-up.
        attained: met their objectives.
        failed: refused, timed out or lost.
        unfinished: neither failed nor finished when the run ended.
        ttft: time to first token, over all scored requests; one that never got a token counts as infinite.
        tpot: mean time per token after the first, over finished answers of two tokens or more.
    """

    requests: int
    attained: int
    failed: int
    unfinished: int
    ttft: Percentiles
    tpot: Percentiles

    @property
    def attainment(self) -> float:
        """Share of the scored requests that met their objectives; NaN without requests."""
        return self.attained / self.requests if self.requests else math.nan


@dataclass(frozen=True, slots=True)
class SloRule:
    """
    When a request has met its objectives.

    Args:
        ttft_s: objective for the time from arrival to the first token.
        tpot_s: objective for the mean time per token after the first.
        min_tokens_for_mean: answers shorter than this are judged by when their last token came, because one foreign
            prompt step would otherwise decide their mean.
        warmup_s: requests that arrive before this are left out of the score.
    """

    ttft_s: float
    tpot_s: float
    min_tokens_for_mean: int = 16
    warmup_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse objectives nobody can meet."""
        for name, low in (("ttft_s", 0.0), ("tpot_s", 0.0)):
            if not getattr(self, name) > low:
                raise ParameterError(
                    "must be positive", object="objectives", key=name, value=getattr(self, name), remedy="give seconds"
                )
        if not self.warmup_s >= 0:
            raise ParameterError(
                "must be 0 or more", object="objectives", key="warmup_s", value=self.warmup_s, remedy="give seconds"
            )

    @property
    def text(self) -> str:
        """The rule in one sentence."""
        warm_up = f"; requests of the first {self.warmup_s:g} s are not scored" if self.warmup_s else ""
        return (
            f"A request attains its objectives if its first token comes within {self.ttft_s:g} s and, for answers of "
            f"{self.min_tokens_for_mean} tokens or more, the mean time per token after the first is at most "
            f"{self.tpot_s * 1000:g} ms; a shorter answer of n tokens is judged by its last token alone, due "
            f"{self.ttft_s:g} s + (n - 1) × {self.tpot_s * 1000:g} ms after arrival; a request that fails or never "
            f"finishes misses{warm_up}."
        )

    def attained(self, log: RequestLog) -> BoolArray:
        """(N,) whether each request met its objectives, warm-up included."""
        after_first = (log.output_tokens - 1).astype(np.float64)
        decode = log.finish_s - log.first_token_s
        # NaN (no token, not finished) compares as False: such a request misses.
        by_mean = (log.first_token_s - log.arrival_s <= self.ttft_s) & (decode <= self.tpot_s * after_first)
        by_last = log.finish_s <= log.arrival_s + self.ttft_s + after_first * self.tpot_s
        result: BoolArray = np.where(log.output_tokens >= self.min_tokens_for_mean, by_mean, by_last) & ~log.failed
        return result

    def score(self, log: RequestLog) -> Score:
        """
        The score of a run.

        Cost: about 50 ms for a million requests.
        """
        scored = log.arrival_s >= self.warmup_s
        attained = self.attained(log) & scored
        finished = np.isfinite(log.finish_s)
        ttft = np.where(np.isnan(log.first_token_s), np.inf, log.first_token_s - log.arrival_s)[scored]
        several = scored & finished & (log.output_tokens > 1)
        tpot = (log.finish_s - log.first_token_s)[several] / (log.output_tokens[several] - 1)
        return Score(
            requests=int(scored.sum()),
            attained=int(attained.sum()),
            failed=int((scored & log.failed).sum()),
            unfinished=int((scored & ~finished & ~log.failed).sum()),
            ttft=_percentiles(ttft),
            tpot=_percentiles(tpot),
        )

    def over_time(self, log: RequestLog, bucket_s: float = 60.0) -> AttainmentSeries:
        """Attainment of the requests of each `bucket_s` seconds, warm-up included, up to the last arrival."""
        if not bucket_s > 0:
            raise ParameterError(
                "must be positive", object="attainment", key="bucket_s", value=bucket_s, remedy="give seconds"
            )
        bucket = (log.arrival_s // bucket_s).astype(np.int64)
        size = int(bucket[-1]) + 1 if len(log) else 0
        requests: IntArray = np.bincount(bucket, minlength=size)
        attained = np.bincount(bucket, weights=self.attained(log), minlength=size)
        share: FloatArray = np.divide(attained, requests, out=np.full(size, np.nan), where=requests > 0)
        return AttainmentSeries(np.arange(size, dtype=np.float64) * bucket_s, requests, share)


def _percentiles(values: FloatArray) -> Percentiles:
    if not values.size:
        return Percentiles(math.nan, math.nan, math.nan)
    # A value that occurred, not one between two: infinities stay meaningful.
    p50, p95, p99 = np.quantile(values, (0.50, 0.95, 0.99), method="inverted_cdf").tolist()
    return Percentiles(p50, p95, p99)


@dataclass(frozen=True, slots=True)
class CostRow:
    """What one variant cost, from scheduling to release of each replica."""

    variant: str
    replica_hours: float
    gpu_hours: float
    usd: float


def fleet_cost(cluster: Cluster) -> list[CostRow]:
    """What each variant has cost so far."""
    rows = []
    for variant, deployment in cluster.deployments.items():
        hours = cluster.billed_s(variant) / 3600
        rows.append(CostRow(variant, hours, hours * deployment.gpus_per_replica, hours * deployment.cost_usd_per_h))
    return rows
