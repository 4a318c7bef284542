"""
One queue at a time by plain loops: weights of the states by their logarithms, means by their definitions.

Nothing of this is shared with the code it checks: every state up to the capacity is walked through, there is no closed
form, and service times are written out per generation.
"""

from __future__ import annotations

import math


def probabilities(lam, mu, capacity):
    """p[0..capacity] of one queue; `mu` lists service rates with 1, 2, … inside, the last one for all beyond."""
    logs = [0.0]
    for inside in range(1, capacity + 1):
        rate = mu[min(inside, len(mu)) - 1]
        logs.append(logs[-1] + math.log(lam / rate) if lam > 0 else -math.inf)
    largest = max(logs)
    weights = [math.exp(log - largest) for log in logs]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def occupancy(lam, mu, capacity):
    """Means of one queue, as a dictionary with the names of `Occupancy`."""
    p = probabilities(lam, mu, capacity)
    batch = len(mu)
    if lam == 0:
        idle = 1 / mu[0]
        return {
            **dict.fromkeys(("inside", "in_service", "queue", "throughput", "wait", "busy", "blocking"), 0.0),
            "response": idle,
            "service": idle,
        }
    inside = math.fsum(n * p[n] for n in range(capacity + 1))
    in_service = math.fsum(min(n, batch) * p[n] for n in range(capacity + 1))
    queue = math.fsum((n - batch) * p[n] for n in range(batch + 1, capacity + 1))
    throughput = math.fsum(mu[min(n, batch) - 1] * p[n] for n in range(1, capacity + 1))
    return {
        "inside": inside,
        "in_service": in_service,
        "queue": queue,
        "throughput": throughput,
        "response": inside / throughput,
        "service": in_service / throughput,
        "wait": queue / throughput,
        "busy": math.fsum(p[1:]),
        "blocking": p[-1],
    }


def wait_exceedance(lam, mu, capacity, seconds):
    """Probability that a request which is let in waits longer: one Erlang time for each state it may find."""
    p, batch = probabilities(lam, mu, capacity), len(mu)
    let_in = math.fsum(p[:-1])
    x = mu[-1] * seconds
    total = []
    term = math.exp(-x)  # probability of 0, 1, … departures meanwhile
    at_most = term
    for found in range(batch, capacity):
        ahead = found - batch  # departures that do not suffice yet
        if ahead:
            term *= x / ahead
            at_most += term
        total.append(p[found] / let_in * min(at_most, 1.0))
    return math.fsum(total)


def work(generation, inside, alpha, beta, gamma, delta, tokens_in, tokens_out):
    """Seconds of prefill and of one decode step, and the number of decode steps."""
    if generation == "g0":
        return 0.0, alpha + beta * inside, tokens_in + tokens_out
    if generation == "g1":
        first = gamma + delta * tokens_in * inside if tokens_in > 0 else 0.0
        steps = 1 if tokens_in == 0 and tokens_out == 1 else tokens_out - 1
        return first, alpha + beta * inside, steps
    compute = (tokens_in + tokens_out) / (tokens_out + 1)
    memory = tokens_in + tokens_out / 2
    iteration = alpha + inside * (beta * compute + gamma * memory)
    first = iteration + (beta + gamma) * tokens_in if tokens_in > 0 else 0.0
    return first, iteration + beta + gamma * memory, tokens_out


def rates(generation, batch, **parameters):
    """Service rates with 1 to `batch` inside."""
    found = []
    for inside in range(1, batch + 1):
        first, step, steps = work(generation, inside, **parameters)
        found.append(inside / (first + steps * step))
    return found


def latencies(generation, lam, batch, capacity, **parameters):
    """Mean wait, prefill and time between tokens of one replica."""
    mu = rates(generation, batch, **parameters)
    means = occupancy(lam, mu, capacity)
    if generation == "g0":
        return means["wait"], math.nan, means["service"] / (parameters["tokens_in"] + parameters["tokens_out"])
    if generation == "g1":
        low, high = 0.0, float(batch)  # the batch at which a request takes as long as it does on average
        for _ in range(200):
            middle = (low + high) / 2
            first, step, steps = work(generation, middle, **parameters)
            low, high = (middle, high) if first + steps * step < means["service"] else (low, middle)
        first, step, _ = work(generation, low, **parameters)
        return means["wait"], first, step
    first, _, steps = work(generation, means["in_service"], **parameters)
    return means["wait"], first, (means["service"] - first) / steps


def highest_rate(generation, batch, capacity, objective, target, **parameters):
    """
    The highest rate that keeps one objective (`ttft`, `itl` or `wait`), by bisection; None if there is none.
    """
    mu = rates(generation, batch, **parameters)

    def latency(lam):
        wait, first, step = latencies(generation, lam, batch, capacity, **parameters)
        return {"ttft": wait + first, "itl": step, "wait": wait}[objective]

    low, high = 0.001 * mu[0], 0.999 * mu[-1]
    if latency(low) > target:
        return None
    if latency(high) <= target:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if latency(middle) <= target else (low, middle)
    return low
