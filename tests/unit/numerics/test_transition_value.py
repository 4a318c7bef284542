"""
What a transition counts for: upstream's vectors.
"""

import numpy as np
import pytest

from wva_core.numerics.transition_value import transition_value


@pytest.mark.parametrize(
    ("same", "before", "after", "value"),
    [
        pytest.param(True, (2, 100), (2, 100), 0, id="B6-1"),
        pytest.param(True, (2, 100), (3, 150), 50, id="B6-2"),
        pytest.param(False, (2, 100), (2, 120), 42, id="B6-3"),
        pytest.param(True, (1, 40), (2, 80), 40, id="B6-log-up"),
        pytest.param(True, (2, 80), (1, 40), -40, id="B6-log-down"),
        pytest.param(True, (1, 40), (1, 40), 0, id="B6-log-same"),
        pytest.param(False, (0, 0), (1, 100), 110, id="B6-fresh"),
    ],
)
def test_a_transition_has_the_published_value(same, before, after, value):
    assert transition_value(same, *before, *after) == pytest.approx(value, rel=1e-12)


def test_many_transitions_at_once():
    # One allocation, two candidates: (gpu-a, 3, 150) and (gpu-b, 2, 120) against (gpu-a, 2, 100).
    values = transition_value(np.array([True, False]), 2, 100, np.array([3, 2]), np.array([150, 120]))
    assert values.tolist() == pytest.approx([50, 42])


def test_without_a_penalty_only_cost_counts():
    assert transition_value(False, 2, 100, 2, 120, penalty=0) == 20
