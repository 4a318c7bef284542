"""
The option `--policy` of commands that need a policy, and the layers it stands for.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from wva_core.policy.layers import Layer, environment_layers
from wva_core.policy.source import PolicySource

__all__ = ["policy_layers", "policy_option"]

policy_option = click.option(
    "--policy",
    type=click.Path(path_type=Path),
    metavar="FILE|DIR",
    help="A policy document, or a directory laid out like a mounted ConfigMap. Without it: profile saturation-v1.",
)


def policy_layers(path: Path | None) -> list[Layer]:
    """
    What the environment says of policy, and what a file or directory says; nothing but defaults without either.

    Raises:
        PolicyError: the file or directory, or a document in it, cannot be used.
    """
    environment = environment_layers(os.environ)
    return environment if path is None else [*environment, *(PolicySource(path).poll() or ())]
