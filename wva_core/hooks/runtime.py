"""
What a plugin is given when it goes into service: the clock, a metrics registry and the ports of this world.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from wva_core.errors import ContractError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Clock", "Fence", "Runtime"]


class Clock(Protocol):
    """Where time comes from; in a simulation it is the simulated one."""

    def now(self) -> float:
        """Seconds of this world's clock."""
        ...


class Fence:
    """
    Whether the plan an actuator holds is still the newest.

    Lowered once and for all when a newer plan exists or leadership is lost.
    """

    __slots__ = ("_lowered",)

    def __init__(self) -> None:
        self._lowered = False

    @property
    def current(self) -> bool:
        """True until the fence is lowered."""
        return not self._lowered

    def lower(self) -> None:
        """Forbids every further write under the plan of this fence."""
        self._lowered = True


@dataclass(frozen=True, slots=True)
class Runtime:
    """
    The world as a plugin may touch it.

    Attributes:
        clock: the only source of time.
        metrics: registry of this process, for plugins that publish metrics; None where nothing is served.
        ports: what this world offers by name, such as `simulation`.
    """

    clock: Clock
    metrics: CollectorRegistry | None = None
    ports: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def port(self, name: str, wanted_by: str) -> Any:
        """
        What this world offers under `name`.

        Raises:
            ContractError: this world does not offer it; the plugin belongs to another one.
        """
        if name not in self.ports:
            raise ContractError(
                f"needs the port {name!r}, which this world does not offer",
                object=wanted_by,
                remedy=f"use it in a world that offers {name!r}"
                + (f" (this one offers {', '.join(sorted(self.ports))})" if self.ports else ""),
            )
        return self.ports[name]
