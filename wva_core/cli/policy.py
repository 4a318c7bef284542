"""
`wva policy`: what holds for one model, and who said so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from wva_core.cli.observation_document import DEFAULT_NAMESPACE
from wva_core.cli.policy_choice import policy_layers, policy_option
from wva_core.hooks import Thresholds, catalog
from wva_core.policy.documents import written
from wva_core.policy.layers import resolve
from wva_core.policy.resolved import Setting

__all__ = ["policy"]


@click.command()
@click.argument("model")
@click.option(
    "--namespace", default=DEFAULT_NAMESPACE, show_default=True, metavar="NS", help="Namespace of the model's variants."
)
@policy_option
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Table or JSON.")
def policy(model: str, namespace: str, policy: Path | None, output: str) -> None:
    """
    The policy of one model, and where every value comes from.

    MODEL is the model's id, as in a variant; overrides that match it and its namespace are merged in.
    """
    resolved = resolve(
        policy_layers(policy),
        lambda kind, name: catalog.parameters_of(catalog.load(kind, name)),
        thresholds_of=_thresholds_of,
    )
    for warning in resolved.warnings:
        click.echo(f"warning: {warning}", err=True)
    settings = resolved.explain(model, namespace)
    if output == "json":
        rows = [{"key": one.key, "value": written(one.value), "origin": one.origin} for one in settings]
        click.echo(json.dumps({"model": model, "namespace": namespace, "settings": rows}, indent=2, allow_nan=False))
        return
    from wva_core.cli.text_table import print_table, print_text

    print_text(f"policy of {model} in namespace {namespace}")
    print_table(("key", "value", "origin"), _rows(settings), whole=("key",))


def _thresholds_of(analyzer: str) -> tuple[float, float]:
    """What an analyzer brings itself."""
    own: Thresholds = getattr(catalog.load("analyzers", analyzer), "default_thresholds", Thresholds())
    return own.scale_up, own.scale_down


def _rows(settings: Iterable[Setting]) -> list[tuple[str, str, str]]:
    """A row for each value and one for each key above it, indented: whole key paths would be broken over lines."""
    rows: list[tuple[str, str, str]] = []
    above: list[str] = []
    for one in settings:
        *parents, key = re.split(r"\.(?![^\[]*\])", one.key)
        same = next(
            (i for i, (a, b) in enumerate(zip(above, parents, strict=False)) if a != b), min(len(above), len(parents))
        )
        rows += [(f"{'  ' * depth}{parents[depth]}", "", "") for depth in range(same, len(parents))]
        above = parents
        # a document says it where one would look for it, unless an override does
        rows.append((f"{'  ' * len(parents)}{key}", _shown(one.value), one.origin.removesuffix(f": {one.key}")))
    return rows


def _shown(value: Any) -> str:
    """A value as it is typed in a document; text without quotes."""
    value = written(value)
    return value if isinstance(value, str) and value else json.dumps(value)
