"""
Keeps standard output for answers: what compiled libraries print there on their own goes to standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["foreign_output_to_stderr"]


@contextmanager
def foreign_output_to_stderr() -> Iterator[None]:
    """
    While it lasts, file descriptor 1 leads to standard error.

    A solver written in C may print a line past Python, which would make `--output json` no JSON any more. What Python
    itself prints in the meantime goes to standard error too.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
