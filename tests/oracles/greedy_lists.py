"""
Servers that compete for cards, as the original optimizer does it: a list kept in order, and one card count per type.

Plain loops over lists and dicts; written from the published description of the algorithm, independently of the product.
"""

import math


def solve(servers, cards, policy="None", delayed=False):
    """
    What each server gets.

    Args:
        servers: by name: {"priority": p, "candidates": [(accelerator, value, replicas, type, cards per replica)]}.
        cards: by type.
        policy: one of the four names.
        delayed: best effort only after everybody had a turn.

    Returns:
        by server: (accelerator, replicas); the names of those that were not allocated as a whole, in order; cards left.
    """
    entries = []
    for name in sorted(servers):
        candidates = sorted(servers[name]["candidates"], key=lambda one: (one[1], one[0]))
        if candidates:
            entries.append({"name": name, "priority": servers[name]["priority"], "at": 0, "of": candidates})
    entries.sort(key=_order)
    market = _Market(cards)
    groups = [entries] if delayed else _runs(entries)
    for group in groups:
        market.best_effort(market.allocate(group), policy)
    return market.result, market.unallocated, market.left


def _order(entry):
    of, at = entry["of"], entry["at"]
    delta = of[at + 1][1] - of[at][1] if at + 1 < len(of) else math.inf
    return (entry["priority"], -delta, -of[at][1])


def _runs(entries):
    runs = []
    for entry in entries:
        if runs and runs[-1][0]["priority"] == entry["priority"]:
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return runs


class _Market:
    def __init__(self, cards):
        self.left, self.result, self.unallocated = dict(cards), {}, []

    def allocate(self, entries):
        queue, unallocated = list(entries), []
        while queue:
            entry = queue.pop(0)
            accelerator, _, replicas, card, each = entry["of"][entry["at"]]
            if self.left[card] >= replicas * each:
                self.left[card] -= replicas * each
                self.result[entry["name"]] = (accelerator, replicas)
                continue
            entry["at"] += 1
            if entry["at"] == len(entry["of"]):
                unallocated.append(entry)
                continue
            place = next((i for i, other in enumerate(queue) if not _order(other) < _order(entry)), len(queue))
            queue.insert(place, entry)
        self.unallocated += [entry["name"] for entry in unallocated]
        return unallocated

    def best_effort(self, entries, policy):
        if policy == "PriorityExhaustive":
            self.exhaust(entries)
        elif policy == "RoundRobin":
            self.deal(entries)
        elif policy == "PriorityRoundRobin":
            for run in _runs(entries):
                self.deal(run)

    def room(self, candidate):
        _, _, replicas, card, each = candidate
        return min(self.left[card] // each, replicas)

    def exhaust(self, entries):
        for entry in entries:
            for candidate in entry["of"]:
                granted = self.room(candidate)
                if granted > 0:
                    self.left[candidate[3]] -= granted * candidate[4]
                    self.result[entry["name"]] = (candidate[0], granted)
                    break

    def deal(self, entries):
        ticket, active = {}, list(entries)
        while active:
            for entry in list(active):
                name = entry["name"]
                if name not in ticket:
                    ticket[name] = next((one for one in entry["of"] if self.room(one) > 0), None)
                candidate = ticket[name]
                if candidate is None or self.room(candidate) <= 0:
                    active.remove(entry)
                    continue
                self.left[candidate[3]] -= candidate[4]
                self.result[name] = (candidate[0], self.result.get(name, ("", 0))[1] + 1)
