"""Numbers of a JSON answer."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from wva_core.cli.json_numbers import known


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (0.0, "0.0"), (np.float64(2.5), "2.5"), (math.nan, "null"), (math.inf, "null"), (-math.inf, "null")],
)
def test_what_is_not_known_or_has_no_end_is_null(value, text):
    assert json.dumps(known(value), allow_nan=False) == text
