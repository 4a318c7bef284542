"""
Everything that can go wrong, by who can mend it.

    WvaError
      OperatorError            whoever writes policy, scenarios, observations and traces
        InputError             a document: file, key path, value, remedy
          PolicyError
          ScenarioError
          ObservationError
          TraceError           also carries line and column
          RecordError          a record directory that cannot be read or replayed
        UnknownPluginError     a name no installed distribution offers
        InfeasibleError        a scenario that no allowed fleet could serve
      PluginError              the author of a plugin
        ContractError          the class does not speak our hooks
        PluginImportError      the entry point cannot be imported
        DuplicatePluginError   two distributions offer one name
        PluginFailure          a call raised, was late or returned what it may not
      EnvironmentFault         the cluster, the metrics store, the disk
      ParameterError           a caller inside this process passed what the callee does not accept

Foreign exceptions are wrapped where they enter, with their cause kept; above that line only this tree is seen.
`str()` of an error is one line: the object, the key, the value, what is wrong, and what to do about it.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ContractError",
    "DuplicatePluginError",
    "EnvironmentFault",
    "InfeasibleError",
    "InputError",
    "ObservationError",
    "OperatorError",
    "ParameterError",
    "PluginError",
    "PluginFailure",
    "PluginImportError",
    "PolicyError",
    "RecordError",
    "ScenarioError",
    "TraceError",
    "UnknownPluginError",
    "WvaError",
]

_UNSET: Any = object()
_VALUE_WIDTH = 120


class WvaError(Exception):
    """
    Root of every error this project raises on purpose.

    Args:
        problem: what is wrong, as a clause without a full stop.
        object: what it is wrong with (a file, a plugin, a variant).
        key: the path inside that object, such as `analyzers[0].parameters.kvCacheThreshold`.
        value: the offending value; left out when there is none.
        remedy: what to do about it, as an imperative clause without a full stop.
    """

    def __init__(self, problem: str, *, object: str = "", key: str = "", value: Any = _UNSET, remedy: str = "") -> None:
        self.problem = problem
        self.object = object
        self.key = key
        self.has_value = value is not _UNSET
        self.value = None if value is _UNSET else value
        self.remedy = remedy
        super().__init__(problem)

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.object, self.key) if part)
        text = f"{place}: {self.problem}" if place else self.problem
        if self.has_value:
            shown = repr(self.value)
            if len(shown) > _VALUE_WIDTH:
                shown = shown[: _VALUE_WIDTH - 1] + "…"
            text += f" (got {shown})"
        return f"{text}; {self.remedy}" if self.remedy else text


class OperatorError(WvaError):
    """Something a person wrote or asked for; commands end with exit code 2."""


class InputError(OperatorError):
    """A document that a person wrote cannot be used; `object` is the file."""


class PolicyError(InputError):
    """A scaling policy is refused; the one in force goes on."""


class ScenarioError(InputError):
    """A simulation scenario is refused before it runs."""


class ObservationError(InputError):
    """A written-down observation is refused."""


class TraceError(InputError):
    """
    A request trace has a malformed row; no simulation starts on it.

    `line` counts from 1 and includes the header.
    """

    def __init__(
        self, problem: str, *, object: str = "", line: int = 0, column: str = "", value: Any = _UNSET, remedy: str = ""
    ) -> None:
        self.line = line
        self.column = column
        key = ", ".join(part for part in (f"line {line}" if line else "", f"column {column}" if column else "") if part)
        super().__init__(problem, object=object, key=key, value=value, remedy=remedy)


class RecordError(InputError):
    """A record directory cannot be read, or does not hold what was asked for."""


class UnknownPluginError(OperatorError):
    """No installed distribution offers a plugin of that name."""


class InfeasibleError(OperatorError):
    """The demand is beyond what the largest allowed fleet can serve."""


class PluginError(WvaError):
    """Something only the author of a plugin can mend."""


class ContractError(PluginError):
    """A plugin class does not keep the contract: api, Parameters, hook names or arguments."""


class PluginImportError(PluginError):
    """The entry point exists but importing it failed; the cause is chained."""


class DuplicatePluginError(PluginError):
    """Two installed distributions offer the same name for the same kind."""


class PluginFailure(PluginError):
    """One call to a plugin raised, came late, or returned what the contract does not allow."""


class EnvironmentFault(WvaError):
    """The world outside the process failed: cluster, metrics store, disk."""


class ParameterError(WvaError):
    """An argument is outside what the function accepts."""
