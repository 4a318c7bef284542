"""What a compiled library prints on its own does not get into an answer."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os
from wva_core.cli.foreign_output import foreign_output_to_stderr
print("before")
with foreign_output_to_stderr():
    os.write(1, b"noise of a library\\n")
    try:
        with foreign_output_to_stderr():
            raise ValueError
    except ValueError:
        os.write(1, b"more noise\\n")
print("after")
"""


def test_what_is_written_past_python_goes_to_standard_error():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "before\nafter\n"
    assert done.stderr == "noise of a library\nmore noise\n"
