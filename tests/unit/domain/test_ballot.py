"""A ballot as an optimizer reads it: who is served first."""

import numpy as np
import pytest

from wva_core.domain import LOWEST_PRIORITY
from wva_core.testing.builders import ballot, observe, vote

SEEN = observe(
    [
        {"name": "a", "model": "code"},
        {"name": "b", "model": "chat", "service_class": "free"},
        {"name": "c", "model": "chat", "service_class": "gold"},
    ]
)
CODE, FREE, GOLD = (
    next(row for row, scope in enumerate(SEEN.fleet.scopes) if (scope.service_class or scope.model) == name)
    for name in ("code", "free", "gold")
)


def priorities(given=None, said=None):
    column = np.full(3, np.nan)
    for row, value in (said or {}).items():
        column[row] = value
    asked = ballot(SEEN, vote(SEEN), priority=None if said is None else column)
    return asked.priorities(SEEN.fleet.scopes, given or {})


def test_without_a_word_everybody_comes_last():
    assert priorities().tolist() == [LOWEST_PRIORITY] * 3


def test_what_analyzers_say_counts_where_the_optimizer_was_told_nothing():
    result = priorities({"free": 3}, {GOLD: 1.0, FREE: 50.0})
    assert (result[GOLD], result[FREE], result[CODE]) == (1.0, 3.0, LOWEST_PRIORITY)


def test_a_model_is_named_only_where_it_has_no_class():
    result = priorities({"code": 2, "chat": 4})
    assert (result[CODE], result[GOLD], result[FREE]) == (2.0, LOWEST_PRIORITY, LOWEST_PRIORITY)


@pytest.mark.parametrize("said", [100.0, 250.0])
def test_beyond_the_lowest_there_is_no_lower(said):
    assert priorities(said={GOLD: said})[GOLD] == LOWEST_PRIORITY
