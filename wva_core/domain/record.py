"""
What one cycle leaves behind, and its parts as plain data: enough to explain the plan, and to compute it again.

Plain data is mappings, lists, text, numbers and numpy arrays. Arrays come back equal to the bit, NaN included, with the
same type; everything else comes back equal. Names are never guessed from positions, so a part may gain fields.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from wva_core.domain.arrays import FloatArray, IntArray, integers
from wva_core.domain.assessment import Assessment
from wva_core.domain.ballot import Ballot, Vote
from wva_core.domain.fleet import Fleet, VariantTable
from wva_core.domain.memory import Memory, fleet_row, variant_of_row
from wva_core.domain.observation import Columns, Inventory, Observation, ReplicaIndex, ReplicaTable
from wva_core.domain.plan import LimitRows, Limits, Mode, Notice, Plan
from wva_core.domain.signals import REPLICA_SIGNALS, SCOPE_SIGNALS, Signal

__all__ = [
    "Record",
    "assessment_from_plain",
    "assessment_to_plain",
    "ballot_from_plain",
    "ballot_to_plain",
    "fleet_from_plain",
    "fleet_to_plain",
    "index_from_plain",
    "index_to_plain",
    "limits_from_plain",
    "limits_to_plain",
    "observation_from_plain",
    "observation_to_plain",
    "plan_from_plain",
    "plan_to_plain",
    "variants_from_plain",
    "variants_to_plain",
]


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """
    One cycle: what was seen, what was asked, what was answered.

    Attributes:
        cycle: number of the cycle in its memory.
        time: of the observation, seconds.
        policy: the resolved policy as plain data; the same object while it does not change.
        observation: as the collectors gave it, before the engine completed it from memory.
        failures: why an entry had no say in this cycle, by entry name.
        assessments: by entry name, without their state.
        ballot, limits, plan: what the engine made of them; all in the order of the observation's fleet.
        memory: what the cycle started from, where it is kept (the checkpoints of a store); None elsewhere.
        base: (V,) replicas the plan started from; None where it was not written down.
        observed: False where only the decision is left: the observation then holds the variants and no signal.
    """

    cycle: int
    time: float
    policy: Mapping[str, Any]
    observation: Observation
    failures: Mapping[str, str]
    assessments: Mapping[str, Assessment]
    ballot: Ballot
    limits: Limits
    plan: Plan
    memory: Memory | None = None
    base: FloatArray | None = None
    observed: bool = True

    def to_plain(self) -> dict[str, Any]:
        """The whole record as plain data, complete in itself."""
        return {
            "cycle": self.cycle,
            "time": self.time,
            "policy": self.policy,
            "fleet": fleet_to_plain(self.observation.fleet),
            "index": index_to_plain(self.observation.replicas.index),
            "variants": variants_to_plain(self.observation.variants),
            "observation": observation_to_plain(self.observation),
            "failures": dict(self.failures),
            "assessments": {name: assessment_to_plain(one) for name, one in self.assessments.items()},
            "ballot": ballot_to_plain(self.ballot),
            "limits": limits_to_plain(self.limits),
            "plan": plan_to_plain(self.plan),
            "memory": None if self.memory is None else self.memory.to_bytes(),
            "base": self.base,
            "observed": self.observed,
        }

    @classmethod
    def from_plain(
        cls, plain: Mapping[str, Any], *, fleet: Fleet | None = None, index: ReplicaIndex | None = None
    ) -> Record:
        """
        The record that `to_plain` made plain.

        Args:
            plain: as `to_plain` gives it. Without `observation` and `index` every signal is not known.
            fleet: used in place of `plain["fleet"]`, so that records of one fleet share it.
            index: used in place of `plain["index"]`, likewise.
        """
        fleet = fleet_from_plain(plain["fleet"]) if fleet is None else fleet
        variants = variants_from_plain(plain["variants"])
        if plain.get("observation") is None:
            observation = Observation.of(plain["time"], fleet, variants)
        else:
            index = index_from_plain(plain["index"], fleet) if index is None else index
            observation = observation_from_plain(plain["observation"], fleet, index, variants)
        return cls(
            cycle=plain["cycle"],
            time=plain["time"],
            policy=plain["policy"],
            observation=observation,
            failures=plain["failures"],
            assessments={name: assessment_from_plain(one) for name, one in plain["assessments"].items()},
            ballot=ballot_from_plain(plain["ballot"]),
            limits=limits_from_plain(plain["limits"]),
            plan=plan_from_plain(plain["plan"], fleet),
            memory=None if plain.get("memory") is None else Memory.from_bytes(plain["memory"]),
            base=plain.get("base"),
            observed=plain.get("observed", True),
        )

    def restricted(self, models: Collection[str]) -> Record:
        """
        The record of some models only, in every namespace: a record to read, not to replay, hence without memory.

        Limits that several models share keep their bounds and lose the entries of the others.
        """
        whole = self.observation.fleet
        variants = np.array([row for row, one in enumerate(whole.variants) if one.model in models], dtype=np.int64)
        scopes = np.array([row for row, one in enumerate(whole.scopes) if one.model in models], dtype=np.int64)
        fleet = Fleet(whole.variants[row] for row in variants)
        cut = _Cut(fleet, variants, scopes, len(whole))
        return replace(
            self,
            observation=cut.observation(self.observation),
            assessments={
                name: replace(
                    cut.columns(one),
                    details={
                        key: cut.column(column, "variant" if one.is_per_variant(key) else "scope")
                        for key, column in one.details.items()
                    },
                )
                for name, one in self.assessments.items()
            },
            ballot=replace(cut.columns(self.ballot), votes=tuple(cut.columns(vote) for vote in self.ballot.votes)),
            limits=cut.limits(self.limits),
            plan=replace(cut.columns(self.plan), fleet=fleet),
            memory=None,
            base=None if self.base is None else cut.column(self.base, per="variant"),
        )


_PER_VARIANT = frozenset(
    {"capacity", "capacity_reason", "sized", "low", "high"}  # of assessments, votes, ballots and limits
    | {column.name for column in fields(VariantTable)}
)


_Part = TypeVar("_Part", Assessment, Ballot, Vote, Limits, Plan)


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """Some rows of every column: which variants and scopes stay, out of how many."""

    fleet: Fleet
    variants: IntArray
    scopes: IntArray
    variant_count: int

    def column(self, values: Any, per: str) -> Any:
        """A column per variant or per scope, cut to what stays."""
        kept = values[self.variants if per == "variant" else self.scopes]
        kept.flags.writeable = False
        return kept

    def columns(self, part: _Part) -> _Part:
        """A dataclass with each of its arrays cut."""
        of_plan = isinstance(part, Plan)
        arrays = {one.name: getattr(part, one.name) for one in fields(part)}
        return replace(
            part,
            **{
                name: self.column(array, "variant" if of_plan or name in _PER_VARIANT else "scope")
                for name, array in arrays.items()
                if isinstance(array, np.ndarray)
            },
        )

    def signals(self, columns: Columns, known: Mapping[str, Signal] | None, rows: IntArray) -> Columns:
        """Signals of some rows."""
        return Columns(
            len(rows),
            known,
            {name: values[rows] for name, values in columns.items()},
            {name: ages[rows] for name, ages in columns.ages().items()},
        )

    def observation(self, whole: Observation) -> Observation:
        """What was seen of the models that stay; the inventory is everybody's and stays whole."""
        row_of_variant = np.full(self.variant_count, -1, dtype=np.int64)
        row_of_variant[self.variants] = np.arange(len(self.variants))
        index = whole.replicas.index
        kept = np.flatnonzero(row_of_variant[index.variant_of_replica] >= 0)
        smaller = ReplicaIndex(
            self.fleet,
            integers(row_of_variant[index.variant_of_replica[kept]]),
            tuple(index.pods[row] for row in kept),
            tuple(index.instances[row] for row in kept),
        )
        return replace(
            whole,
            fleet=self.fleet,
            variants=whole.variants.take(self.variants),
            replicas=ReplicaTable(smaller, self.signals(whole.replicas.columns, REPLICA_SIGNALS, kept)),
            scopes=self.signals(whole.scopes, SCOPE_SIGNALS, self.scopes),
            extra=None if whole.extra is None else self.signals(whole.extra, None, self.scopes),
            conflicts={name: self.column(column, "scope") for name, column in whole.conflicts.items()},
        )

    def limits(self, whole: Limits) -> Limits:
        """The limits of the variants that stay."""
        row_of_variant = np.full(self.variant_count, -1, dtype=np.int64)
        row_of_variant[self.variants] = np.arange(len(self.variants))
        rows = whole.rows
        kept = row_of_variant[rows.variant] >= 0
        counts = np.bincount(rows.row_of_entry[kept], minlength=len(rows))
        groups = (row_of_variant[group] for group in whole.together)
        return replace(
            self.columns(whole),
            rows=replace(
                rows,
                offsets=integers(np.concatenate(([0], np.cumsum(counts)))),
                variant=integers(row_of_variant[rows.variant[kept]]),
                coefficient=rows.coefficient[kept],
            ),
            together=tuple(integers(group[group >= 0]) for group in groups if np.any(group >= 0)),
        )


# ---------------------------------------------------------------------------------------------------------------------
# Parts as plain data. Fleet, replica index and variants stand apart: what refers to them is written without them.


def _plain(part: Any, *, without: Collection[str] = ()) -> dict[str, Any]:
    values = {one.name: getattr(part, one.name) for one in fields(part) if one.name not in without}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def fleet_to_plain(fleet: Fleet) -> list[dict[str, Any]]:
    """The variants of a fleet."""
    return [fleet_row(variant) for variant in fleet.variants]


def fleet_from_plain(plain: list[dict[str, Any]]) -> Fleet:
    """The fleet that `fleet_to_plain` made plain."""
    return Fleet(variant_of_row(row) for row in plain)


def index_to_plain(index: ReplicaIndex) -> dict[str, Any]:
    """Which rows a replica table has."""
    return {"variant": index.variant_of_replica, "pods": list(index.pods), "instances": list(index.instances)}


def index_from_plain(plain: Mapping[str, Any], fleet: Fleet) -> ReplicaIndex:
    """The index that `index_to_plain` made plain, over the same fleet."""
    return ReplicaIndex(fleet, plain["variant"], tuple(plain["pods"]), tuple(plain["instances"]))


def variants_to_plain(table: VariantTable) -> dict[str, Any]:
    """The columns of a variant table."""
    return _plain(table)


def variants_from_plain(plain: Mapping[str, Any]) -> VariantTable:
    """The table that `variants_to_plain` made plain."""
    return VariantTable(**plain)


def _signals_to_plain(columns: Columns) -> dict[str, Any]:
    return {"rows": columns.rows, "values": dict(columns.items()), "ages": dict(columns.ages())}


def _signals_from_plain(plain: Mapping[str, Any], known: Mapping[str, Signal] | None) -> Columns:
    return Columns(plain["rows"], known, plain["values"], plain["ages"])


def observation_to_plain(observation: Observation) -> dict[str, Any]:
    """What was seen, without fleet, replica index and variants."""
    return {
        "time": observation.time,
        "replicas": _signals_to_plain(observation.replicas.columns),
        "scopes": _signals_to_plain(observation.scopes),
        "extra": None if observation.extra is None else _signals_to_plain(observation.extra),
        "inventory": _plain(observation.inventory),
        "complete": observation.complete,
        "conflicts": dict(observation.conflicts),
    }


def observation_from_plain(
    plain: Mapping[str, Any], fleet: Fleet, index: ReplicaIndex, variants: VariantTable
) -> Observation:
    """The observation that `observation_to_plain` made plain."""
    inventory = plain["inventory"]
    return Observation(
        time=plain["time"],
        fleet=fleet,
        variants=variants,
        replicas=ReplicaTable(index, _signals_from_plain(plain["replicas"], REPLICA_SIGNALS)),
        scopes=_signals_from_plain(plain["scopes"], SCOPE_SIGNALS),
        extra=None if plain["extra"] is None else _signals_from_plain(plain["extra"], None),
        inventory=Inventory(**{**inventory, "accelerators": tuple(inventory["accelerators"])}),
        complete=plain["complete"],
        conflicts=plain["conflicts"],
    )


def assessment_to_plain(assessment: Assessment) -> dict[str, Any]:
    """One analyzer's answer without its state, which is memory."""
    return {**_plain(assessment, without=("state", "details")), "details": dict(assessment.details)}


def assessment_from_plain(plain: Mapping[str, Any]) -> Assessment:
    """The answer that `assessment_to_plain` made plain; its state is empty."""
    names = {"per_variant": tuple(plain["per_variant"])} if "per_variant" in plain else {}  # older records name none
    return Assessment(**{**plain, "reasons": tuple(plain["reasons"]), **names})


def ballot_to_plain(ballot: Ballot) -> dict[str, Any]:
    """All votes of a cycle; votes by their position."""
    votes = {str(position): _plain(vote) for position, vote in enumerate(ballot.votes)}
    return {**_plain(ballot, without=("votes",)), "votes": votes}


def ballot_from_plain(plain: Mapping[str, Any]) -> Ballot:
    """The ballot that `ballot_to_plain` made plain."""
    votes = plain["votes"]
    return Ballot(**{**plain, "votes": tuple(Vote(**votes[str(position)]) for position in range(len(votes)))})


def limits_to_plain(limits: Limits) -> dict[str, Any]:
    """Limits; the groups that go together as one array and where each starts."""
    groups = limits.together
    return {
        **_plain(limits, without=("rows", "together")),
        "rows": _plain(limits.rows),
        "together": {
            "members": integers(np.concatenate([np.empty(0, dtype=np.int64), *groups])),
            "offsets": integers(np.cumsum([0, *(len(group) for group in groups)])),
        },
    }


def limits_from_plain(plain: Mapping[str, Any]) -> Limits:
    """The limits that `limits_to_plain` made plain."""
    rows, together = plain["rows"], plain["together"]
    bounds = together["offsets"].tolist()
    groups = tuple(together["members"][start:stop] for start, stop in pairwise(bounds))
    return Limits(**{**plain, "rows": LimitRows(**{**rows, "labels": tuple(rows["labels"])}), "together": groups})


def plan_to_plain(plan: Plan) -> dict[str, Any]:
    """The engine's answer, without its fleet."""
    return {
        **_plain(plan, without=("fleet", "mode", "notices")),
        "mode": plan.mode.value,
        "notices": [[one.code, one.subject, one.text] for one in plan.notices],
    }


def plan_from_plain(plain: Mapping[str, Any], fleet: Fleet) -> Plan:
    """The plan that `plan_to_plain` made plain."""
    return Plan(
        **{
            **plain,
            "fleet": fleet,
            "mode": Mode(plain["mode"]),
            "limits": tuple(plain["limits"]),
            "notices": tuple(Notice(*one) for one in plain["notices"]),
        }
    )
