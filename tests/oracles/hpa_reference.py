"""
The decisions of a HorizontalPodAutoscaler v2, one target at a time, in plain loops over lists.

Written from the published description of the algorithm and kept apart from the package on purpose: it shares no code
with it, uses Python integers and floats only, and keeps added and deleted replicas in two lists.
"""

from __future__ import annotations

import math


def stabilized(base, recommendation, samples, now, up_window, down_window):
    """`samples` are (time, recommendation before damping)."""
    up = recommendation
    down = recommendation
    for time, value in samples:
        if time > now - up_window and value < up:
            up = value
        if time > now - down_window and value > down:
            down = value
    answer = base
    if answer < up:
        answer = up
    if answer > down:
        answer = down
    return answer


def period_start(base, added, deleted, period, now):
    """`added` and `deleted` are (time, number of replicas)."""
    start = base
    for time, replicas in added:
        if time > now - period:
            start -= replicas
    for time, replicas in deleted:
        if time > now - period:
            start += replicas
    return start


def up_limit(base, select, policies, added, deleted, now):
    """`policies` are (kind, value, period); None is no limit."""
    if select == "Disabled":
        return base
    limit = None
    for kind, value, period in policies:
        start = period_start(base, added, deleted, period, now)
        proposed = start + value if kind == "Pods" else math.ceil(float(start) * (1 + float(value) / 100))
        if limit is None or (proposed < limit if select == "Min" else proposed > limit):
            limit = proposed
    return None if limit is None else max(limit, base)


def down_limit(base, select, policies, added, deleted, now):
    """`policies` are (kind, value, period); 0 is no limit."""
    if select == "Disabled":
        return base
    limit = None
    for kind, value, period in policies:
        start = period_start(base, added, deleted, period, now)
        proposed = start - value if kind == "Pods" else int(float(start) * (1 - float(value) / 100))
        if limit is None or (proposed > limit if select == "Min" else proposed < limit):
            limit = proposed
    return 0 if limit is None else min(max(limit, 0), base)


class ReferenceHpa:
    """One HPA with `AverageValue` metrics; rules are dicts with window, select, policies and tolerance."""

    def __init__(self, targets, minimum, maximum, up, down):
        self.targets = targets
        self.minimum = minimum
        self.maximum = maximum
        self.up = up
        self.down = down
        self.recommendations = None
        self.added = []
        self.deleted = []

    def sync(self, now, spec, status, totals):
        if self.recommendations is None:
            self.recommendations = [(now, spec)]
        desired = self.decide(now, spec, status, totals)
        if desired > spec:
            self.store(self.added, self.up, now, desired - spec)
        if desired < spec:
            self.store(self.deleted, self.down, now, spec - desired)
        return desired

    def decide(self, now, spec, status, totals):
        if spec == 0 and self.minimum != 0:
            return 0
        if spec > self.maximum:
            return self.maximum
        if spec < self.minimum:
            return self.minimum
        recommendation = 0
        missing = 0
        for total, target in zip(totals, self.targets, strict=True):
            if math.isnan(total):
                missing += 1
                continue
            proposal = math.ceil(total / target)
            if status > 0 and 1.0 - self.down["tolerance"] <= total / (target * status) <= 1.0 + self.up["tolerance"]:
                proposal = status
            recommendation = max(recommendation, proposal)
        if missing == len(totals) or (missing > 0 and recommendation < spec):
            return spec
        answer = stabilized(spec, recommendation, self.recommendations, now, self.up["window"], self.down["window"])
        self.recommendations.append((now, recommendation))
        if answer > spec:
            limit = up_limit(spec, self.up["select"], self.up["policies"], self.added, self.deleted, now)
            answer = min(answer, self.maximum)
            if limit is not None:
                answer = min(answer, limit)
        elif answer < spec:
            limit = down_limit(spec, self.down["select"], self.down["policies"], self.added, self.deleted, now)
            answer = max(answer, self.minimum, limit)
        return answer

    def store(self, events, rules, now, replicas):
        """An event takes the place of the last one that its own direction's longest period has passed."""
        longest = 0
        for _, _, period in rules["policies"]:
            longest = max(longest, period)
        place = None
        for index, (time, _) in enumerate(events):
            if time < now - longest:
                place = index
        if place is None:
            events.append((now, replicas))
        else:
            events[place] = (now, replicas)
