"""
What the words mean: fleets, observations, assessments, plans and memory as pure data over numpy.
"""

from wva_core.domain.arrays import BoolArray, FloatArray, Groups, IntArray
from wva_core.domain.assessment import Assessment, State, Verdict
from wva_core.domain.ballot import LOWEST_PRIORITY, Ballot, Vote
from wva_core.domain.fleet import DEFAULT_COST, Fleet, Model, Scope, Variant, VariantStatus, VariantTable
from wva_core.domain.memory import History, Memory
from wva_core.domain.observation import (
    Columns,
    FleetUpdate,
    Inventory,
    Observation,
    Quality,
    ReplicaIndex,
    ReplicaTable,
    Signals,
)
from wva_core.domain.plan import Allocation, LimitRows, Limits, Mode, Notice, Plan, Reason
from wva_core.domain.settings import Settings
from wva_core.domain.signals import REPLICA_SIGNALS, SCOPE_SIGNALS, Signal, SignalRequest

__all__ = [
    "DEFAULT_COST",
    "LOWEST_PRIORITY",
    "REPLICA_SIGNALS",
    "SCOPE_SIGNALS",
    "Allocation",
    "Assessment",
    "Ballot",
    "BoolArray",
    "Columns",
    "Fleet",
    "FleetUpdate",
    "FloatArray",
    "Groups",
    "History",
    "IntArray",
    "Inventory",
    "LimitRows",
    "Limits",
    "Memory",
    "Mode",
    "Model",
    "Notice",
    "Observation",
    "Plan",
    "Quality",
    "Reason",
    "ReplicaIndex",
    "ReplicaTable",
    "Scope",
    "Settings",
    "Signal",
    "SignalRequest",
    "Signals",
    "State",
    "Variant",
    "VariantStatus",
    "VariantTable",
    "Verdict",
    "Vote",
]
