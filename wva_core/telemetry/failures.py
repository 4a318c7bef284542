"""
What a failure of a plugin is counted as: a component and a fixed phrase, so that labels stay few.
"""

from __future__ import annotations

from wva_core.errors import PluginFailure
from wva_core.telemetry.names import ErrorType

__all__ = ["component_of", "error_type_of", "kind_and_name"]

_COMPONENTS = frozenset({"collector", "analyzer", "optimizer", "actuator"})

_PHRASES = (
    ("did not answer", ErrorType.LATE),
    ("is quarantined", ErrorType.QUARANTINED),
    ("is still in a late call", ErrorType.QUARANTINED),
)
"""How the problem of a call begins that did not come back in time."""


def kind_and_name(label: str) -> tuple[str, str]:
    """Kind and name in an entry's label, such as `analyzer` and `saturation-v1`."""
    kind, _, name = label.partition(" ")
    return kind, name


def component_of(label: str) -> str:
    """The component an entry's failures are counted under; `controller` for what is no plugin."""
    kind, _ = kind_and_name(label)
    return kind if kind in _COMPONENTS else "controller"


def error_type_of(failure: PluginFailure) -> ErrorType:
    """The fixed phrase for a failure."""
    cause = failure.__cause__
    if cause is not None:
        # the engine wraps what a hook raised; a PluginFailure inside says that the hook returned nothing
        return ErrorType.UNUSABLE_ANSWER if isinstance(cause, PluginFailure) else ErrorType.RAISED
    for beginning, phrase in _PHRASES:
        if failure.problem.startswith(beginning):
            return phrase
    return ErrorType.UNUSABLE_ANSWER
