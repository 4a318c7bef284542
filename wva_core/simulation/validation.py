"""
The simulated engine held against the formula its profiles were fitted with, before anything is concluded from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wva_core.simulation.profiles import ServerProfile, closed_loop_seconds_per_token
from wva_core.simulation.server import RequestTable, Server

__all__ = ["ClosedLoopRow", "validate_profile"]


@dataclass(frozen=True, slots=True)
class ClosedLoopRow:
    """One line of the validation table: seconds per output token at a fixed number of requests in the loop."""

    batch: int
    predicted_s: float
    simulated_s: float

    @property
    def error(self) -> float:
        """Simulated over predicted, minus one."""
        return self.simulated_s / self.predicted_s - 1.0


def validate_profile(
    profile: ServerProfile,
    *,
    input_tokens: int = 1024,
    output_tokens: int = 512,
    batches: Sequence[int] = (1, 8, 32, 64),
    rounds: int = 8,
) -> list[ClosedLoopRow]:
    """
    The simulated engine against the closed-loop formula, before anything is concluded from a simulation.

    Each of `batch` clients sends its next request the moment the last is answered. They start spread over one answer,
    as they are in a loop that has run for a while. Batches above `max_batch`, or whose cache does not fit, are left
    out: there requests queue and the formula does not hold.

    Args:
        profile: the engine.
        input_tokens: of every prompt.
        output_tokens: of every answer.
        batches: requests in the loop, one line each.
        rounds: answers per client that are counted.

    Cost: about a millisecond per line.
    """
    return [
        ClosedLoopRow(
            batch,
            closed_loop_seconds_per_token(profile, batch, input_tokens, output_tokens),
            _closed_loop(profile, batch, input_tokens, output_tokens, rounds),
        )
        for batch in batches
        if batch <= profile.max_batch and batch * (input_tokens + output_tokens) <= profile.kv_capacity_tokens
    ]


def _closed_loop(profile: ServerProfile, batch: int, input_tokens: int, output_tokens: int, rounds: int) -> float:
    """Seconds per output token of `batch` clients in a closed loop, the first answer of each left out."""
    total = batch * (rounds + 2)
    # First answers of staggered length put the clients out of step with each other.
    outputs = [1 + (client * output_tokens) // batch for client in range(batch)]
    outputs += [output_tokens] * (total - batch)
    requests = RequestTable([input_tokens] * total, outputs, [0.0] * total)
    server = Server(profile, requests, [])
    for client in range(batch):
        server.arrive(client, 0.0)
    sent = batch
    started = tokens = 0
    start = end = 0.0
    while sent < total:
        end = server.end
        for _ in range(server.step()):
            if sent < total:
                server.arrive(sent, end)
                sent += 1
        if not started and sent >= 2 * batch:
            started, start = 1, end
            tokens = server.itl_count + server.ttft_count
    tokens = server.itl_count + server.ttft_count - tokens
    return batch * (end - start) / tokens
