"""
Performance profiles of served models and prices of accelerators, from the tables in `data/`.

A profile is one row of `data/profiles.csv`: a model on an accelerator at a tensor-parallel degree, with the four terms
of its engine step and its limits. `data/README.md` says where the rows come from and how good they are.
"""

from __future__ import annotations

import csv
import difflib
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from wva_core.errors import ParameterError, ScenarioError

__all__ = [
    "Accelerator",
    "ServerProfile",
    "closed_loop_seconds_per_token",
    "load_accelerator",
    "load_profile",
]

# Between rows that fit equally well: how far the numbers can be trusted.
_TRUST = {"measured": 0, "published": 1, "derived": 2, "fixture": 3}
_SHOWN = 6  # rows an error message lists


@dataclass(frozen=True, slots=True)
class ServerProfile:
    """
    How long one engine step takes and what one engine holds.

    Args:
        base_s: seconds of every step.
        per_seq_s: seconds per decoding sequence in the step.
        per_1k_kv_s: seconds per 1000 tokens in the key/value cache of those sequences.
        per_prefill_token_s: seconds per prompt token processed in the step.
        max_batch: sequences an engine runs at once.
        kv_capacity_tokens: tokens its key/value cache holds.
        max_batched_tokens: tokens one step processes at most, decoding and prompts together.
        mape: mean absolute error of the fit as a fraction; NaN if the row states none.

    Raises:
        ParameterError: a term is negative, a step could take no time, or a limit is not positive.
    """

    base_s: float
    per_seq_s: float
    per_1k_kv_s: float
    per_prefill_token_s: float
    max_batch: int
    kv_capacity_tokens: int
    max_batched_tokens: int = 8192
    model: str = ""
    accelerator: str = ""
    tp: int = 1
    precision: str = ""
    engine: str = ""
    kind: str = ""
    mape: float = math.nan

    def __post_init__(self) -> None:
        """Refuse what the simulator cannot run on."""
        for name in ("base_s", "per_seq_s", "per_1k_kv_s", "per_prefill_token_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ParameterError(
                    "must be a number of seconds, 0 or more", object=self.label, key=name, value=value, remedy="mend it"
                )
        # The second half keeps the closed form of `server` solvable for a sequence without a prompt.
        if self.base_s + self.per_seq_s <= self.per_1k_kv_s / 2000:
            raise ParameterError(
                "an engine step would take no time",
                object=self.label,
                key="base_s",
                value=self.base_s,
                remedy="make base_s or per_seq_s positive",
            )
        for name in ("max_batch", "kv_capacity_tokens"):
            value = getattr(self, name)
            if value < 1:
                raise ParameterError(
                    "must be at least 1", object=self.label, key=name, value=value, remedy="give a positive number"
                )
        if self.max_batched_tokens < self.max_batch:
            raise ParameterError(
                f"must be at least max_batch, which is {self.max_batch}",
                object=self.label,
                key="max_batched_tokens",
                value=self.max_batched_tokens,
                remedy="raise it, or lower max_batch",
            )

    @property
    def label(self) -> str:
        """Model, accelerator and parallelism in a few words."""
        name = f"{self.model or 'profile'} on {self.accelerator or 'accelerator'} TP {self.tp}"
        return f"{name} ({self.precision}, {self.engine}, {self.kind})" if self.kind else name


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One row of `data/accelerators.csv`; prices are for one accelerator, USD/h, NaN where none was quoted."""

    name: str
    vendor: str
    memory_gb: float
    price_usd_per_h: float
    price_low_usd_per_h: float
    price_high_usd_per_h: float
    price_confidence: str


@functools.cache
def _table(name: str) -> tuple[Mapping[str, str], ...]:
    source = resources.files("wva_core.simulation") / "data" / name
    return tuple(csv.DictReader(source.read_text(encoding="utf-8").splitlines()))


def _describe(row: Mapping[str, str]) -> str:
    return " ".join(row[key] for key in ("model", "accelerator")) + (
        f" TP {row['tp']} ({row['precision']}, {row['engine']}, {row['kind']})"
    )


def load_profile(
    model: str,
    accelerator: str,
    tp: int,
    engine: str | None = None,
    kind: str | None = None,
    *,
    precision: str | None = None,
    max_batch: int | None = None,
    max_batched_tokens: int = 8192,
) -> ServerProfile:
    """
    The profile of a model on an accelerator.

    What is left open prefers vLLM, then measured over published over derived over made-up rows.

    Args:
        model: as in the table; upper and lower case do not matter.
        accelerator: as in the table.
        tp: accelerators per engine.
        engine: `vllm`, `trtllm`, …
        kind: `measured`, `published`, `derived` or `fixture`.
        precision: `bf16`, `fp8`, …
        max_batch: sequences at once; if left out, the largest batch the row has seen.
        max_batched_tokens: tokens per engine step.

    Raises:
        ScenarioError: no row fits, none of the fitting rows has step times, or several precisions fit equally well;
            names the rows that come near.
    """
    wanted = {"model": model, "accelerator": accelerator, "tp": str(tp), "engine": engine, "kind": kind}
    wanted = {key: value for key, value in (wanted | {"precision": precision}).items() if value is not None}
    asked = ", ".join(f"{key}={value}" for key, value in wanted.items())
    rows = _table("profiles.csv")
    fitting = [row for row in rows if all(row[key].lower() == str(value).lower() for key, value in wanted.items())]
    usable = [row for row in fitting if row["iter_base_ms"] and row["kv_capacity_tokens"]]
    if not usable:
        raise ScenarioError(
            "has no four-term step times" if fitting else "is not in the table of profiles",
            object="profile",
            key=asked,
            remedy=f"choose a row with step times, such as: {'; '.join(_near(rows, wanted))}",
        )

    def rank(row: Mapping[str, str]) -> tuple[bool, int]:
        return row["engine"] != "vllm", _TRUST.get(row["kind"], len(_TRUST))

    best = min(map(rank, usable))
    equals = [row for row in usable if rank(row) == best]
    if len(equals) > 1:
        raise ScenarioError(
            "fits several rows equally well",
            object="profile",
            key=asked,
            remedy=f"say which precision: {'; '.join(map(_describe, equals))}",
        )
    row = equals[0]
    return ServerProfile(
        base_s=float(row["iter_base_ms"]) / 1000,
        per_seq_s=float(row["iter_per_seq_ms"]) / 1000,
        per_1k_kv_s=float(row["iter_per_1k_kv_tokens_ms"]) / 1000,
        per_prefill_token_s=float(row["iter_per_prefill_token_ms"]) / 1000,
        max_batch=int(row["max_batch"]) if max_batch is None else max_batch,
        kv_capacity_tokens=int(row["kv_capacity_tokens"]),
        max_batched_tokens=max_batched_tokens,
        model=row["model"],
        accelerator=row["accelerator"],
        tp=int(row["tp"]),
        precision=row["precision"],
        engine=row["engine"],
        kind=row["kind"],
        mape=float(row["iter_fit_mape_pct"]) / 100 if row["iter_fit_mape_pct"] else math.nan,
    )


def _near(rows: Sequence[Mapping[str, str]], wanted: Mapping[str, str | None]) -> list[str]:
    """The usable rows closest to what was asked for, best first."""

    def distance(row: Mapping[str, str]) -> float:
        likeness = difflib.SequenceMatcher(None, row["model"].lower(), str(wanted["model"]).lower()).ratio()
        agreeing = sum(row[key].lower() == str(value).lower() for key, value in wanted.items() if key != "model")
        return -4 * likeness - agreeing

    usable = [row for row in rows if row["iter_base_ms"] and row["kv_capacity_tokens"]]
    return [_describe(row) for row in sorted(usable, key=distance)[:_SHOWN]]


def load_accelerator(name: str) -> Accelerator:
    """
    Price and memory of an accelerator.

    Raises:
        ScenarioError: it is not in the table; names those that are.
    """
    rows = _table("accelerators.csv")
    for row in rows:
        if row["name"].lower() == name.lower():
            return Accelerator(
                name=row["name"],
                vendor=row["vendor"],
                memory_gb=float(row["memory_gb"]),
                price_usd_per_h=float(row["price_usd_per_h"] or "nan"),
                price_low_usd_per_h=float(row["price_low_usd_per_h"] or "nan"),
                price_high_usd_per_h=float(row["price_high_usd_per_h"] or "nan"),
                price_confidence=row["price_confidence"],
            )
    raise ScenarioError(
        "is not in the table of accelerators",
        object="accelerator",
        value=name,
        remedy=f"choose one of {', '.join(row['name'] for row in rows)}, or state the price",
    )


def closed_loop_seconds_per_token(profile: ServerProfile, batch: int, input_tokens: int, output_tokens: int) -> float:
    """
    Time per output token when `batch` requests are always in the engine, s.

    `base + per_seq b + per_1k_kv b (i + o/2)/1000 + per_prefill_token b i/o`: each step carries all sequences at the
    mean of their context, and on average the prompts of the requests that replace the finished ones.
    Source: the model the rows were fitted with, see `data/README.md`.
    """
    b, i, o = batch, input_tokens, output_tokens
    return (
        profile.base_s
        + profile.per_seq_s * b
        + profile.per_1k_kv_s * b * (i + o / 2) / 1000
        + profile.per_prefill_token_s * b * i / o
    )
