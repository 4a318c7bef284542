"""
A fleet of engines simulated one step at a time, in plain loops: the slow truth for `wva_core.simulation`.

Written from the rules of continuous batching, not from the code under test: no closed form, no event heap, one object
per request and one pass over all of them per step.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class NaiveProfile:
    base: float
    per_seq: float
    per_kv_token: float
    per_prefill_token: float
    max_batch: int
    kv_capacity: int
    token_budget: int


@dataclass
class NaiveRequest:
    number: int
    arrival: float
    prompt: int
    output: int
    emitted: int = 0
    to_prefill: int = 0  # prompt tokens, or prompt and generated tokens after a preemption, not processed yet
    kv: int = 0  # tokens held or reserved in the cache
    token_times: list[float] = field(default_factory=list)
    failed: bool = False
    replica: int = -1


class NaiveServer:
    """One engine; `boundary` is the time at which the next step may begin, `step_end` that of the one under way."""

    def __init__(self, profile: NaiveProfile) -> None:
        self.profile = profile
        self.waiting: list[NaiveRequest] = []
        self.running: list[NaiveRequest] = []  # in the order of admission
        self.boundary = 0.0
        self.step_end: float | None = None
        self.chunks: dict[int, int] = {}
        self.decoders: list[NaiveRequest] = []
        self.preemptions = 0

    @property
    def load(self) -> int:
        return len(self.waiting) + len(self.running)

    def accept(self, request: NaiveRequest, now: float) -> None:
        if request.prompt + request.output > self.profile.kv_capacity:
            request.failed = True
            return
        request.to_prefill = request.prompt
        if self.load == 0:
            self.boundary = now
        self.waiting.append(request)

    def run_until(self, now: float) -> None:
        """Make every step that ends before `now` and begin every step whose boundary lies before `now`."""
        while True:
            if self.step_end is None:
                if self.load == 0 or self.boundary >= now:
                    return
                self.begin()
            if self.step_end >= now:
                return
            self.finish()

    def begin(self) -> None:
        profile = self.profile

        def used() -> int:
            return sum(request.kv for request in self.running)

        def decoding() -> list[NaiveRequest]:
            return [request for request in self.running if request.to_prefill == 0]

        preempted = False
        while used() + len(decoding()) > profile.kv_capacity:
            victim = self.running.pop()
            victim.kv = 0
            victim.to_prefill = victim.prompt + victim.emitted
            self.waiting.insert(0, victim)
            preempted = True
            self.preemptions += 1

        self.decoders = decoding()
        kv_read = sum(request.kv for request in self.decoders)
        growth = len(self.decoders)
        budget = profile.token_budget - len(self.decoders)
        self.chunks = {}
        for request in self.running:
            if request.to_prefill > 0:
                take = min(request.to_prefill, budget)
                self.chunks[request.number] = take
                budget -= take
        while not preempted and self.waiting and budget > 0 and len(self.running) < profile.max_batch:
            head = self.waiting[0]
            if used() + growth + head.to_prefill > profile.kv_capacity:
                break
            self.waiting.pop(0)
            self.running.append(head)
            head.kv = head.to_prefill
            take = min(head.to_prefill, budget)
            self.chunks[head.number] = take
            budget -= take
        duration = (
            profile.base
            + profile.per_seq * len(self.decoders)
            + profile.per_kv_token * kv_read
            + profile.per_prefill_token * sum(self.chunks.values())
        )
        self.step_end = self.boundary + duration

    def finish(self) -> None:
        now = self.step_end
        for request in self.decoders:
            request.kv += 1
            request.emitted += 1
            request.token_times.append(now)
        for request in self.running:
            if request.number in self.chunks:
                request.to_prefill -= self.chunks[request.number]
                if request.to_prefill == 0:
                    request.emitted += 1
                    request.token_times.append(now)
        self.running = [request for request in self.running if request.emitted < request.output]
        self.boundary = now
        self.step_end = None


def simulate(
    profiles: list[NaiveProfile], arrivals: list[tuple[float, int, int]], until: float
) -> tuple[list[NaiveRequest], list[NaiveServer]]:
    """Requests (arrival, prompt, output) over one engine per profile, each to the one with the fewest inside."""
    servers = [NaiveServer(profile) for profile in profiles]
    requests = [NaiveRequest(number, *row) for number, row in enumerate(arrivals)]
    for request in requests:
        for server in servers:
            server.run_until(request.arrival)
        loads = [server.load for server in servers]
        request.replica = loads.index(min(loads))
        servers[request.replica].accept(request, request.arrival)
    for server in servers:
        server.run_until(until)
    return requests, servers
