"""
One inference engine with continuous batching, simulated in closed form between events.

**Time.** An engine step with `n` decoding sequences that hold `K` tokens of key/value cache, and `p` prompt tokens to
process, takes `base + per_seq n + per_1k_kv K/1000 + per_prefill_token p` seconds. At its end each decoding sequence
has one token more, in its answer and in the cache; a sequence whose last prompt token was processed emits its first
token. `k` such steps with nothing else happening cost `k a + h k (k - 1)/2`, with `a` the first step and
`h = per_1k_kv n / 1000` the growth per step, so the work of this module grows with requests, not with tokens.

**What happens at the boundary between two steps**, in this order:

1. Finished sequences leave: their slot and their cache are free.
2. Each decoding sequence needs room for one token. While `cache used + n` exceeds the capacity, the most recently
   admitted sequence is preempted: its cache is dropped, it goes to the front of the waiting queue and will process its
   prompt and the tokens it has generated once more. Tokens already emitted stay emitted.
3. The step's budget of `max_batched_tokens` gives one token to every decoding sequence; the rest goes to prompts: first
   the one left unfinished by the last step, then the waiting queue in order. The head of the queue is admitted when
   budget is left, a slot (`max_batch`) is free and the cache holds `used + n + its whole prompt`; if it does not fit,
   nobody behind it is admitted either. (So nobody is admitted at a boundary that preempts: what was just too much still
   is.) A prompt longer than the budget continues in the next steps. The cache of the whole prompt is reserved from
   admission on.

A request that arrives at the very instant of a boundary takes part in it. One whose prompt and answer together exceed
the capacity can never run and is refused on arrival.

**Gauges.** A request that arrives while the engine decodes is admitted at the next boundary. That step is composed on
arrival, so until the boundary, for one step at most, the gauges already show it.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from math import ceil, inf, nan, sqrt
from typing import NamedTuple

from wva_core.simulation.profiles import ServerProfile

__all__ = ["RequestTable", "Server", "ServerCounters"]

# A decoding sequence is one integer, (step at whose end it finishes) << 32 | request: heaps of integers are the fastest
# that plain Python has, and ties go to the lower request number.
_SHIFT = 32
_MASK = (1 << _SHIFT) - 1
_NEVER = 1 << 120  # stands at the bottom of every heap, so that no loop asks whether the heap is empty


class RequestTable:
    """
    What is known of every request, as plain lists indexed by request number.

    Lists, because the simulator reads and writes single elements, which numpy does five times slower.

    Args:
        prompt: tokens of each prompt.
        output: tokens of each answer, at least 1.
        entered: when each request reached a server, s; starts as its arrival.
    """

    __slots__ = ("entered", "failed", "finish", "first", "output", "prompt", "replica")

    def __init__(self, prompt: list[int], output: list[int], entered: list[float]) -> None:
        self.prompt = prompt
        self.output = output
        self.entered = entered
        size = len(prompt)
        self.first = [nan] * size  # time of the first token, s
        self.finish = [nan] * size  # time of the last token, s
        self.failed = bytearray(size)
        self.replica = [-1] * size  # index of the replica that served it


class ServerCounters(NamedTuple):
    """What the metrics endpoint of one engine shows: gauges, then counters since its start."""

    kv_usage: float  # 0..1 of the capacity, prompts in progress included
    waiting: float
    running: float
    dispatched: float  # requests sent to this engine
    completed: float
    prompt_tokens: float  # of completed requests
    generation_tokens: float  # of completed requests
    ttft_sum: float  # s, from reaching the engine to the first token
    ttft_count: float
    itl_sum: float  # s, gaps between consecutive tokens of one answer
    itl_count: float


class Server:
    """
    One engine instance: sequences, waiting queue, cache and counters.

    It is driven from outside: `arrive` hands it a request, `step` ends the stretch of work under way and composes the
    next. `end` is when that is due, infinity when idle. `arrive` may move `end`, and then pushes `(end, index)` on
    `events`; entries that no longer match `end` are stale and to be skipped by the reader of that heap. `step` pushes
    nothing. Calls come in the order of time.

    Args:
        profile: times and limits.
        requests: the columns of all requests; first-token and finish times are written there.
        events: the heap of the driver.
        index: number under which it stands in that heap.

    Cost: about 2 µs per request and call; independent of the length of answers.
    """

    __slots__ = (
        "_K",
        "_R",
        "_S",
        "_a",
        "_base",
        "_budget",
        "_decoding",
        "_entered",
        "_events",
        "_finish",
        "_first",
        "_h",
        "_joinable",
        "_k",
        "_kv",
        "_left",
        "_n",
        "_order",
        "_output",
        "_partial",
        "_per_prefill",
        "_per_seq",
        "_prompt",
        "_pure",
        "_resumed",
        "_starters",
        "_t0",
        "_token_budget",
        "_waiting",
        "capacity",
        "completed",
        "dispatched",
        "end",
        "generation_tokens",
        "index",
        "itl_count",
        "itl_sum",
        "max_batch",
        "preemptions",
        "profile",
        "prompt_tokens",
        "ttft_count",
        "ttft_sum",
    )

    def __init__(
        self, profile: ServerProfile, requests: RequestTable, events: list[tuple[float, int]], index: int = 0
    ) -> None:
        self.profile = profile
        self.index = index
        self.capacity = profile.kv_capacity_tokens
        self.max_batch = profile.max_batch
        self._base = profile.base_s
        self._per_seq = profile.per_seq_s
        self._kv = profile.per_1k_kv_s / 1000.0
        self._per_prefill = profile.per_prefill_token_s
        self._token_budget = profile.max_batched_tokens
        self._prompt = requests.prompt
        self._output = requests.output
        self._entered = requests.entered
        self._first = requests.first
        self._finish = requests.finish
        self._events = events

        # The stretch of work under way: k equal compositions of a step, from t0 to end.
        self.end = inf
        self._t0 = -inf
        self._k = 0
        self._n = 0  # decoding sequences
        self._K = 0  # cache tokens of the decoding sequences at t0
        self._R = 0  # cache tokens reserved by prompts in progress
        self._S = 0  # steps made before t0
        self._a = 0.0  # s, first step of the stretch
        self._h = 0.0  # s, growth per step
        self._pure = False  # decoding only, so an arrival may cut it short
        self._joinable = False  # one step, composed, with budget left
        self._budget = 0  # what is left of the step's tokens
        self._starters: list[int] = []  # emit their first token, or the next after a preemption, at `end`
        self._partial = -1  # the request whose prompt goes on after `end`
        self._left = 0  # prompt tokens it has left then
        self._decoding = [_NEVER]
        self._waiting: deque[int] = deque()
        self._order: list[int] = []  # requests as admitted, finished ones still among them
        self._resumed: dict[int, tuple[int, float]] = {}  # preempted: tokens generated, time of the last of them

        self.dispatched = 0
        self.completed = 0
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.ttft_sum = 0.0
        self.ttft_count = 0
        self.itl_sum = 0.0
        self.itl_count = 0
        self.preemptions = 0

    def arrive(self, request: int, t: float) -> bool:
        """Take a request at time `t`; False if it could never fit the cache and is refused."""
        self.dispatched += 1
        need = self._prompt[request]
        capacity = self.capacity
        if need + self._output[request] > capacity:
            return False
        if self._waiting:
            self._waiting.append(request)
        elif self._pure:
            n = self._n
            if n < self.max_batch:
                # The first boundary at or after t: smallest j with j a + h j (j - 1)/2 >= t - t0.
                t0 = self._t0
                a = self._a
                h = self._h
                b = a - 0.5 * h
                d = t - t0
                j = ceil((d + d) / (b + sqrt(b * b + (h + h) * d)))
                K = self._K + n * j
                if j < self._k and K + n + need <= capacity:
                    dt = j * (a + 0.5 * h * (j - 1))
                    self.itl_sum += n * dt
                    self.itl_count += n * j
                    self._S += j
                    self._K = K
                    self._t0 = t0 = t0 + dt
                    budget = self._token_budget - n
                    if need <= budget:
                        self._order.append(request)
                        self._starters.append(request)
                        self._R = need
                        self._budget = budget - need
                        self._pure = False
                        self._joinable = True
                        self._k = 1
                        self._a = a + h * j + self._per_prefill * need
                        self.end = end = t0 + self._a
                        heappush(self._events, (end, self.index))
                        return True
                    self._waiting.append(request)
                    self._compose(t0)
                    heappush(self._events, (self.end, self.index))
                    return True
            self._waiting.append(request)
        elif t <= self._t0 or self.end == inf:
            self._join(request, t)
        else:
            self._waiting.append(request)
        return True

    def _join(self, request: int, t: float) -> None:
        """Start an idle engine, or add to a step that has not begun."""
        need = self._prompt[request]
        if self.end == inf:
            self._t0 = t
            if need <= self._token_budget:
                self._order.append(request)
                self._starters.append(request)
                self._R = need
                self._budget = self._token_budget - need
                self._joinable = True
                self._k = 1
                self._h = 0.0
                self._a = self._base + self._per_prefill * need
                self.end = t + self._a
            else:
                self._waiting.append(request)
                self._compose(t)
        else:
            n = self._n
            K = self._K
            if (
                not self._joinable
                or n + len(self._starters) >= self.max_batch
                or K + n + self._R + need > self.capacity
            ):
                self._waiting.append(request)
                return
            self._order.append(request)
            self._R += need
            budget = self._budget
            if need <= budget:
                self._starters.append(request)
                take = need
            else:
                self._partial = request
                self._left = need - budget
                take = budget
            self._budget = budget = budget - take
            self._joinable = budget > 0
            self._a += self._per_prefill * take
            self.end = self._t0 + self._a
        heappush(self._events, (self.end, self.index))

    def step(self) -> int:  # noqa: PLR0915 - the hot path: calls would double its cost
        """End the stretch of work that is due at `end`, compose the next; returns how many requests completed."""
        t = self.end
        n = self._n
        tokens = n * self._k
        S = self._S + self._k
        K = self._K + tokens
        decoding = self._decoding
        if n:
            self.itl_sum += n * (t - self._t0)
            self.itl_count += tokens
        starters = self._starters
        if starters:
            prompt = self._prompt
            output = self._output
            entered = self._entered
            first = self._first
            resumed = self._resumed
            R = self._R
            for request in starters:
                context = prompt[request]
                if resumed and request in resumed:
                    generated, last = resumed.pop(request)
                    context += generated
                    self.itl_sum += t - last
                    self.itl_count += 1
                    remaining = output[request] - generated - 1
                else:
                    first[request] = t
                    self.ttft_sum += t - entered[request]
                    self.ttft_count += 1
                    remaining = output[request] - 1
                K += context
                R -= context
                heappush(decoding, (S + remaining) << _SHIFT | request)
                n += 1
            self._R = R
            starters.clear()
        done = 0
        edge = (S + 1) << _SHIFT
        if decoding[0] < edge:
            prompt = self._prompt
            output = self._output
            finish = self._finish
            while decoding[0] < edge:
                request = heappop(decoding) & _MASK
                finish[request] = t
                context = prompt[request]
                answer = output[request]
                K -= context + answer - 1
                self.prompt_tokens += context
                self.generation_tokens += answer
                done += 1
            n -= done
            self.completed += done
        self._n = n
        self._K = K
        self._S = S
        self._t0 = t
        if self._waiting or self._partial >= 0:
            self._compose(t)
        elif n:
            k = (decoding[0] >> _SHIFT) - S
            if K + n * k > self.capacity:
                k = (self.capacity - K) // n
                if not k:
                    self._compose(t)
                    return done
            self._pure = True
            self._k = k
            self._h = h = self._kv * n
            self._a = a = self._base + self._per_seq * n + self._kv * K
            self.end = t + k * (a + 0.5 * h * (k - 1))
        else:
            self.end = inf
            self._pure = False
            self._k = 0
            self._order.clear()
        return done

    def _compose(self, t: float) -> None:  # noqa: PLR0912, PLR0915 - the rules of a boundary, in their order
        """Compose the work that starts at the boundary `t`, in every case; the short cuts above are special cases."""
        capacity = self.capacity
        while self._n > capacity - self._K - self._R:
            self._preempt(t)
        n = self._n
        K = self._K
        R = self._R
        chunk_limit = budget = self._token_budget - n
        starters = self._starters
        partial = self._partial
        left = 0
        if partial >= 0:
            left = self._left
            if left <= budget:
                starters.append(partial)
                budget -= left
                partial = -1
            else:
                left -= budget
                budget = 0
        waiting = self._waiting
        if waiting:
            slots = self.max_batch - n - len(starters) - (partial >= 0)
            prompt = self._prompt
            resumed = self._resumed
            while waiting and slots > 0 and budget > 0:
                request = waiting[0]
                need = prompt[request]
                if resumed and request in resumed:
                    need += resumed[request][0]
                if K + n + R + need > capacity:
                    break
                waiting.popleft()
                self._order.append(request)
                R += need
                slots -= 1
                if need <= budget:
                    starters.append(request)
                    budget -= need
                else:
                    partial = request
                    left = need - budget
                    budget = 0
        self._R = R
        self._partial = partial
        self._left = left
        self._budget = budget
        self._h = h = self._kv * n
        chunk = chunk_limit - budget
        self._a = a = self._base + self._per_seq * n + self._kv * K + self._per_prefill * chunk
        k = 1
        self._pure = False
        self._joinable = budget > 0
        if not starters:
            # Nothing changes until a sequence finishes, the cache is full or, for a long prompt, its last chunk is due.
            if n:
                k = min((self._decoding[0] >> _SHIFT) - self._S, (capacity - K - R) // n)
            if partial >= 0:
                more = (left - 1) // chunk  # whole chunks after this one that leave something for the last
                k = min(k, 1 + more) if n else 1 + more
                self._left = left - (k - 1) * chunk
            elif n:
                self._pure = True
                self._joinable = False
            else:
                self._k = 0
                self._joinable = False
                self.end = inf
                return
        self._k = k
        self.end = t + k * (a + 0.5 * h * (k - 1))

    def _preempt(self, t: float) -> None:
        """Send the most recently admitted sequence back to the front of the waiting queue."""
        order = self._order
        finish = self._finish
        request = order.pop()
        while finish[request] == finish[request]:  # not NaN: it has finished
            request = order.pop()
        self.preemptions += 1
        prompt = self._prompt[request]
        if request == self._partial:
            # It holds the reservation of its whole prompt, and of what it generated before an earlier preemption.
            self._R -= prompt + (self._resumed[request][0] if request in self._resumed else 0)
            self._partial = -1
        else:
            decoding = self._decoding
            place = next(i for i, key in enumerate(decoding) if key & _MASK == request and key != _NEVER)
            generated = self._output[request] - ((decoding[place] >> _SHIFT) - self._S)
            decoding[place] = decoding[-1]
            decoding.pop()
            heapify(decoding)
            self._K -= prompt + generated - 1
            self._n -= 1
            self._resumed[request] = (generated, t)
        self._waiting.appendleft(request)

    def abandon(self, request: int, t: float) -> bool:
        """
        Take a waiting request out of the queue at time `t`; False if it waits no more, and then nothing happens.

        If it held up others that fit, the engine takes them in at the next boundary.
        """
        try:
            self._waiting.remove(request)
        except ValueError:
            return False
        if self._pure and self._waiting:
            self._cut(t)
        return True

    def _cut(self, t: float) -> None:
        """End a decoding stretch at the first boundary at or after `t` and compose what follows."""
        a, h, n, t0 = self._a, self._h, self._n, self._t0
        b = a - 0.5 * h
        d = t - t0
        j = ceil((d + d) / (b + sqrt(b * b + (h + h) * d)))
        if j >= self._k:
            return
        dt = j * (a + 0.5 * h * (j - 1))
        self.itl_sum += n * dt
        self.itl_count += n * j
        self._S += j
        self._K += n * j
        self._t0 = t0 + dt
        self._compose(self._t0)
        heappush(self._events, (self.end, self.index))

    def stop(self) -> list[int]:
        """Drop everything; returns the requests that were inside, in the order of their numbers."""
        inside = [*self._waiting, *self._starters, *(key & _MASK for key in self._decoding if key != _NEVER)]
        if self._partial >= 0:
            inside.append(self._partial)
        self._waiting.clear()
        self._starters.clear()
        self._resumed.clear()
        self._order.clear()
        self._decoding = [_NEVER]
        self._partial = -1
        self._n = self._K = self._R = self._k = 0
        self._pure = self._joinable = False
        self.end = inf
        return sorted(inside)

    def counters(self, t: float) -> ServerCounters:
        """Gauges and counters at time `t`, which is not before the last call and not after `end`."""
        n = self._n
        K = self._K
        itl_sum = self.itl_sum
        itl_count = self.itl_count
        if self._k > 1 and t > self._t0:
            # Whole steps made since t0: largest j with j a + h j (j - 1)/2 <= t - t0.
            a, h = self._a, self._h
            b = a - 0.5 * h
            d = t - self._t0
            j = min(int((d + d) / (b + sqrt(b * b + (h + h) * d))), self._k - 1)
            K += n * j
            itl_sum += n * j * (a + 0.5 * h * (j - 1))
            itl_count += n * j
        # Called for every replica at every scrape: tuple.__new__ skips the keyword machinery of the named tuple.
        return tuple.__new__(
            ServerCounters,
            (
                (K + self._R) / self.capacity,
                len(self._waiting),
                n + len(self._starters) + (self._partial >= 0),
                self.dispatched,
                self.completed,
                self.prompt_tokens,
                self.generation_tokens,
                self.ttft_sum,
                self.ttft_count,
                itl_sum,
                itl_count,
            ),
        )
