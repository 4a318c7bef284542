"""
What the operator asked for: documents, layers of policy with the origin of every value, and where they are read from.
"""

from wva_core.policy.documents import parse_document, read_document, validate, written
from wva_core.policy.layers import (
    DEFAULT_PROFILE,
    Layer,
    Precedence,
    check_layer,
    environment_layers,
    profile_layer,
    profile_names,
    resolve,
)
from wva_core.policy.legacy import SaturationEntry, resolve_saturation_entry, saturation_layers
from wva_core.policy.resolved import BoundsColumns, ResolvedPolicy, Setting
from wva_core.policy.schema import (
    BallotSpec,
    BehaviorSpec,
    BoundsSpec,
    OptimizerSpec,
    OverrideSpec,
    PluginSpec,
    PolicySpec,
    ThresholdsSpec,
    parse_duration,
)
from wva_core.policy.source import PolicySource

__all__ = [
    "DEFAULT_PROFILE",
    "BallotSpec",
    "BehaviorSpec",
    "BoundsColumns",
    "BoundsSpec",
    "Layer",
    "OptimizerSpec",
    "OverrideSpec",
    "PluginSpec",
    "PolicySource",
    "PolicySpec",
    "Precedence",
    "ResolvedPolicy",
    "SaturationEntry",
    "Setting",
    "ThresholdsSpec",
    "check_layer",
    "environment_layers",
    "parse_document",
    "parse_duration",
    "profile_layer",
    "profile_names",
    "read_document",
    "resolve",
    "resolve_saturation_entry",
    "saturation_layers",
    "validate",
    "written",
]
