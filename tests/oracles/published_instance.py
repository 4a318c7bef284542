"""
The published small instance of the allocation problem, and a plain-loop sizing of its candidates.

Fifteen servers (five models in three service classes), six accelerators of four types in limited numbers. Times are in
milliseconds, rates in requests per second. The queue is solved state by state in log weights, without a closed tail.
"""

from __future__ import annotations

import math

import numpy as np

from wva_core.numerics.assignment import Problem

ACCELERATORS = {
    "L4": ("L4", 1, 6.0),
    "A100": ("A100", 1, 40.0),
    "AIU2": ("AIU2", 1, 3.75),
    "G2": ("G2", 1, 23.0),
    "2xAIU2": ("AIU2", 2, 7.5),
    "4xA100": ("A100", 4, 160.0),
}
"""By name: type, cards, cost of a unit."""

CAPACITY = {"L4": 1024, "A100": 768, "AIU2": 1024, "G2": 512}

CLASSES = (("Premium", 1, 60, 1000, 40, 80), ("Bronze", 2, 120, 2000, 80, 160), ("Free", 3, 240, 4000, 160, 320))
"""Name, priority, requests per minute, TTFT, ITL of granite_13b, ITL of the others."""

INPUT, OUTPUT, AT_TOKENS = 128, 1024, 512

PROFILES = (
    ("granite_13b", "AIU2", 1, 205.8, 0.41, 0.0128125, 102),
    ("granite_13b", "L4", 2, 137.2, 0.273, 0.00853125, 18),
    ("granite_13b", "A100", 1, 20.58, 0.041, 0.00128125, 64),
    ("granite_13b", "G2", 1, 17.15, 0.034, 0.0010625, 76),
    ("granite_13b", "2xAIU2", 1, 147, 0.293, 0.00915625, 102),
    ("granite_13b", "4xA100", 1, 10.29, 0.021, 0.00065625, 64),
    ("granite_34b", "AIU2", 1, 487.7, 0.82, 0.025625, 38),
    ("granite_34b", "L4", 4, 325.13, 0.547, 0.01709375, 6),
    ("granite_34b", "A100", 2, 48.77, 0.082, 0.0025625, 24),
    ("granite_34b", "G2", 2, 40.64, 0.068, 0.002125, 28),
    ("granite_34b", "2xAIU2", 1, 348.36, 0.586, 0.0183125, 38),
    ("granite_34b", "4xA100", 1, 24.39, 0.041, 0.00128125, 24),
    ("llama_13b", "AIU2", 1, 201.3, 0.87, 0.0271875, 102),
    ("llama_13b", "L4", 2, 134.2, 0.58, 0.018125, 18),
    ("llama_13b", "A100", 1, 20.13, 0.087, 0.00271875, 64),
    ("llama_13b", "G2", 1, 16.78, 0.073, 0.00228125, 76),
    ("llama_13b", "2xAIU2", 1, 143.79, 0.621, 0.01940625, 102),
    ("llama_13b", "4xA100", 1, 10.07, 0.044, 0.001375, 64),
    ("llama_70b", "AIU2", 2, 274.1, 7.07, 0.2209375, 16),
    ("llama_70b", "L4", 8, 182.73, 4.713, 0.14728125, 2),
    ("llama_70b", "A100", 4, 27.41, 0.707, 0.02209375, 10),
    ("llama_70b", "G2", 4, 22.84, 0.589, 0.01840625, 12),
    ("llama_70b", "2xAIU2", 1, 195.79, 5.05, 0.1578125, 16),
    ("llama_70b", "4xA100", 1, 13.71, 0.354, 0.0110625, 10),
    ("mixtral_8_7b", "AIU2", 2, 296.3, 6.01, 0.1878125, 24),
    ("mixtral_8_7b", "L4", 8, 197.53, 4.007, 0.12521875, 4),
    ("mixtral_8_7b", "A100", 4, 29.63, 0.601, 0.01878125, 16),
    ("mixtral_8_7b", "G2", 2, 24.69, 0.501, 0.01565625, 18),
    ("mixtral_8_7b", "2xAIU2", 1, 211.64, 4.293, 0.13415625, 24),
    ("mixtral_8_7b", "4xA100", 1, 14.82, 0.301, 0.00940625, 16),
)
"""Model, accelerator, units per replica, alpha, beta, gamma, batch at 512 tokens."""


def latencies(alpha, beta, gamma, batch, rate):
    """TTFT (wait, prefill and one decode step), ITL and throughput of one replica; rates in requests/ms."""
    compute, memory = (INPUT + OUTPUT) / (OUTPUT + 1), INPUT + OUTPUT / 2

    def iteration(n):
        return alpha + n * (beta * compute + gamma * memory)

    def prefill(n):
        return iteration(n) + (beta + gamma) * INPUT

    def decode(n):
        return iteration(n) + beta + gamma * memory

    mu = [n / (prefill(n) + OUTPUT * decode(n)) for n in range(1, batch + 1)]
    most = 11 * batch
    weights = [0.0]
    for n in range(1, most + 1):
        weights.append(weights[-1] + math.log(rate) - math.log(mu[min(n, batch) - 1]))
    top = max(weights)
    p = [math.exp(weight - top) for weight in weights]
    total = math.fsum(p)
    inside = math.fsum(n * w for n, w in enumerate(p)) / total
    serving = math.fsum(min(n, batch) * w for n, w in enumerate(p)) / total
    throughput = rate * (1 - p[-1] / total)
    wait = max((inside - serving) / throughput, 0.0)
    itl = (serving / throughput - prefill(serving)) / OUTPUT
    return wait + prefill(serving) + itl, itl, throughput, mu


def rate_of_replica(alpha, beta, gamma, batch, ttft, itl):
    """Requests/s at which one replica just keeps both objectives; None if it cannot."""
    mu = latencies(alpha, beta, gamma, batch, 1e-9)[3]
    ends = 0.001 * mu[0], 0.999 * mu[-1]
    found = []
    for which, target in ((0, ttft), (1, itl)):
        low, high = ends
        if latencies(alpha, beta, gamma, batch, low)[which] > target:
            return None
        if latencies(alpha, beta, gamma, batch, high)[which] > target:
            for _ in range(45):
                middle = 0.5 * (low + high)
                if latencies(alpha, beta, gamma, batch, middle)[which] > target:
                    high = middle
                else:
                    low = middle
            found.append(low)
        else:
            found.append(high)
    return 1000 * latencies(alpha, beta, gamma, batch, min(found))[2]


def published_problem(*, limited=True):
    """The instance as an assignment problem, and the names of its servers and pairs."""
    servers, pairs = [], []
    for name, priority, rpm, ttft, itl_granite, itl in CLASSES:
        for model in sorted({row[0] for row in PROFILES}):
            servers.append((f"{name}-{model}", priority, rpm / 60))
            for row in (row for row in PROFILES if row[0] == model):
                _, accelerator, units, alpha, beta, gamma, batch = row
                target = itl_granite if model == "granite_13b" else itl
                rate = rate_of_replica(alpha, beta, gamma, max(batch * AT_TOKENS // OUTPUT, 1), ttft, target)
                if rate is not None:
                    pairs.append((len(servers) - 1, accelerator, units, rate))
    types = sorted(CAPACITY)
    problem = Problem.of(
        [server for server, *_ in pairs],
        [ACCELERATORS[accelerator][2] * units for _, accelerator, units, _ in pairs],
        [rate for *_, rate in pairs],
        [demand for *_, demand in servers],
        priority=[priority for _, priority, _ in servers],
        units=[ACCELERATORS[accelerator][1] * units for _, accelerator, units, _ in pairs],
        type_of_pair=[types.index(ACCELERATORS[accelerator][0]) for _, accelerator, *_ in pairs],
        capacity=[CAPACITY[name] if limited else np.inf for name in types],
    )
    return problem, [name for name, *_ in servers], [accelerator for _, accelerator, *_ in pairs]
