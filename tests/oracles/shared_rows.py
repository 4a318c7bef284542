"""
Growth fitted into shared limits one replica at a time, in plain loops over lists.

Takes exact numbers only (whole numbers, fractions.Fraction or None for not known), so it needs no rounding rule.
"""

from __future__ import annotations


def fit_one_by_one(base, wanted, order, entries, upper):
    """
    `entries` are (row, variant, coefficient); returns the replicas of each variant.

    Every variant in turn takes one more replica as long as it wants one and no row of its own is exceeded by it.
    """
    used = [0] * len(upper)
    for row, variant, coefficient in entries:
        used[row] += base[variant] * coefficient
    have = list(base)
    for variant in order:
        mine = [(row, coefficient) for row, other, coefficient in entries if other == variant and coefficient != 0]
        if wanted[variant] < base[variant]:
            have[variant] = wanted[variant]
            continue
        while have[variant] < wanted[variant] and all(
            upper[row] is not None and used[row] + coefficient <= upper[row]
            for row, coefficient in mine
            if coefficient > 0
        ):
            have[variant] += 1
            for row, coefficient in mine:
                used[row] += coefficient
    return have
