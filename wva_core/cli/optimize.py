"""
`wva optimize`: the cheapest accelerators that keep the objectives of a written-down system.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from wva_core.cli.foreign_output import foreign_output_to_stderr
from wva_core.cli.json_numbers import known
from wva_core.cli.system_document import System, read_system
from wva_core.cli.system_question import Current, SystemQuestion, expected, question_of
from wva_core.domain import Allocation
from wva_core.engine.verify import refusal
from wva_core.errors import PolicyError
from wva_core.hooks import Runtime, catalog
from wva_core.hooks.chain import Entry, start_all
from wva_core.numerics.transition_value import CHANGE_PENALTY
from wva_core.policy.documents import camel_case, validate

__all__ = ["answer", "optimize", "told"]

_ROUNDING = 1e-9
"""Relative: capacity this little below the demand is capacity enough."""


class _Standstill:
    """The clock of a single question."""

    def now(self) -> float:
        """Seconds; always the same."""
        return 0.0


@click.command()
@click.argument("system", type=click.Path(path_type=Path))
@click.option("--optimizer", default="inferno", show_default=True, metavar="NAME", help="An installed optimizer.")
@click.option("--compat", is_flag=True, help="Repeat what the original did where this version does better.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Table or JSON.")
def optimize(system: Path, optimizer: str, output: str, *, compat: bool) -> None:
    """
    The cheapest accelerators that keep the objectives of every server.

    SYSTEM is a JSON or YAML file: accelerators, models, service classes, servers and capacity. Its keys are explained
    in docs/user-guide/optimize.md. Its times to first token have the first decode step in them (G2), unlike those of
    `wva size` and of a policy. Nothing outside this process is read or changed.
    """
    document = read_system(system)
    question = question_of(document, compat=compat)
    for notice in question.notices:
        click.echo(f"warning: {notice}", err=True)
    with foreign_output_to_stderr():
        allocation = answer(document, question, optimizer, compat=compat)
    result = told(question, allocation, optimizer)
    if output == "json":
        click.echo(json.dumps(result, indent=2, allow_nan=False))
    else:
        _print(result)


def answer(system: System, question: SystemQuestion, optimizer: str, *, compat: bool = False) -> Allocation:
    """
    What an optimizer answers, called and checked as in a cycle.

    Raises:
        UnknownPluginError: nothing of that name is installed.
        PluginFailure: it raised, or its answer does not keep the limits.
    """
    plugin = catalog.load("optimizers", optimizer)
    model = catalog.parameters_of(plugin)
    row = system.optimizer_data.optimizer
    settings: dict[str, Any] = {
        "saturation_policy": _policy_name(row.saturation_policy, model.model_fields.get("saturation_policy")),
        "delayed_best_effort": row.delayed_best_effort,
        "multi": row.heterogeneous,
        "replace_from": None,  # nothing runs that could be replaced
        "priorities": dict(question.priorities),
        "compat": compat,
    }
    given = {camel_case(name): value for name, value in settings.items() if name in model.model_fields}
    parameters = validate(model, given, f"optimizer {optimizer}", PolicyError, "parameters")
    entry = Entry.of("optimizers", plugin, parameters, type_name=optimizer)
    start_all([entry], Runtime(clock=_Standstill()))
    try:
        outcome = entry.call(
            "allocate", None, observation=question.observation, ballot=question.ballot, limits=question.limits
        )
    finally:
        entry.stop()
    if outcome.failure is not None:
        raise outcome.failure
    allocation: Allocation = outcome.value
    table, fleet = question.observation.variants, question.observation.fleet
    refused = refusal(allocation.replicas, table.base, question.limits, fleet, f"optimizer {optimizer}")
    if refused is not None:
        raise refused
    return allocation


def _policy_name(given: str, field: Any) -> str:
    """The policy as the optimizer knows it; what nobody knows means None, as upstream has it."""
    known = [str(one.value) for one in field.annotation] if field is not None else []
    return given if given in known else "None"


# ---------------------------------------------------------------------------------------------------------------------
# What is told, as plain data


def told(question: SystemQuestion, allocation: Allocation, optimizer: str) -> dict[str, Any]:
    """The answer for `--output json`: what is not known is null; servers stand in the order of their names."""
    replicas = np.nan_to_num(allocation.replicas)
    by_server: dict[str, list[int]] = {name: [] for name in sorted(question.servers)}
    reasons: dict[str, str] = {}
    for row, pair in enumerate(question.pairs):
        if replicas[row] > 0:
            by_server[pair.server.name].append(row)
        if allocation.reason is not None and (replicas[row] > 0 or pair.server.name not in reasons):
            reasons[pair.server.name] = allocation.reasons[allocation.reason[row]]
    parts = _parts(question, replicas, [row for rows in by_server.values() for row in rows])
    servers = {
        name: _server(question, name, [parts[row] for row in rows], reasons.get(name, ""))
        for name, rows in by_server.items()
    }
    return {
        "optimizer": optimizer,
        "status": allocation.status,
        "servers": servers,
        "total_cost": math.fsum(one["cost"] for one in servers.values()),
        "served": sum(one["served"] for one in servers.values()),
        "bound": known(allocation.bound),
        "gap": known(allocation.gap),
        "accelerators": _by_type(question, replicas),
    }


def _parts(question: SystemQuestion, replicas: np.ndarray[Any, Any], rows: list[int]) -> dict[int, dict[str, Any]]:
    """What each used pair gets and does; several accelerators of a server share its load by what they carry."""
    chosen = [question.pairs[row] for row in rows]
    carried: dict[str, float] = {}
    for row, pair in zip(rows, chosen, strict=True):
        carried[pair.server.name] = carried.get(pair.server.name, 0.0) + replicas[row] * question.capacity[row]
    share = np.array(
        [
            question.rate[pair.server.name] * question.capacity[row] / carried[pair.server.name]
            for row, pair in zip(rows, chosen, strict=True)
        ]
    )
    does = expected(chosen, share)
    return {
        row: {
            "accelerator": pair.accelerator.name,
            "replicas": int(replicas[row]),
            "batch": pair.batch,
            "cost": pair.cost * float(replicas[row]),
            "itl_ms": _milliseconds(does.itl[place]),
            "ttft_ms": _milliseconds(does.ttft[place]),
            "wait_ms": _milliseconds(does.wait[place]),
            "utilization": known(does.utilization[place]),
            "max_rate_per_min": known(question.capacity[row] * 60.0),
            "capacity": float(replicas[row] * question.capacity[row]),
        }
        for place, (row, pair) in enumerate(zip(rows, chosen, strict=True))
    }


_FIGURES = ("batch", "itl_ms", "ttft_ms", "wait_ms", "utilization", "max_rate_per_min")


def _server(question: SystemQuestion, name: str, parts: list[dict[str, Any]], why: str) -> dict[str, Any]:
    server, had = question.servers[name], question.current[name]
    cost, count = math.fsum(part["cost"] for part in parts), sum(part["replicas"] for part in parts)
    capacity = math.fsum(part["capacity"] for part in parts)
    rate = question.rate.get(name)
    served = (
        name not in question.problems
        and rate is not None
        and capacity >= rate * (1 - _ROUNDING)
        and count >= server.min_num_replicas
    )
    result: dict[str, Any] = {
        "accelerator": " + ".join(part["accelerator"] for part in parts),
        "replicas": count,
        "cost": cost,
        "value": _value(had, parts, cost),
        "served": served,
        **dict.fromkeys(_FIGURES),
    }
    if len(parts) == 1:
        result.update({figure: parts[0][figure] for figure in _FIGURES})
    elif parts:
        # the slowest of several is what a request may meet
        for figure in ("itl_ms", "ttft_ms", "wait_ms"):
            known = [part[figure] for part in parts if part[figure] is not None]
            result[figure] = max(known) if len(known) == len(parts) else None
        result["parts"] = [{key: value for key, value in part.items() if key != "capacity"} for part in parts]
    result["current"] = {"accelerator": had.accelerator, "replicas": had.replicas, "cost": had.cost}
    if not served:
        problem = question.problems.get(name)
        result["reason"] = problem or "; ".join(
            filter(None, [why or "gets less than its load needs", _needs(question, name)])
        )
    if excluded := question.excluded.get(name):
        result["excluded"] = dict(sorted(excluded.items()))
    return result


def _needs(question: SystemQuestion, name: str) -> str:
    """What a server would have to get to be served, where cards are limited: on the accelerator that lacks least."""
    best: tuple[float, str] | None = None
    for row, pair in enumerate(question.pairs):
        limit = question.available.get(pair.accelerator.card)
        if pair.server.name != name or limit is None or not question.capacity[row] > 0:
            continue
        load = math.ceil(question.rate[name] / question.capacity[row] * (1 - _ROUNDING))
        replicas = max(load, pair.server.min_num_replicas)
        cards = replicas * pair.cards
        text = (
            f"{replicas} replicas on {pair.accelerator.name} would do, which take {cards} cards of type"
            f" {pair.accelerator.card}, and there are {limit:g} for all servers"
        )
        if best is None or (cards - limit, text) < best:
            best = cards - limit, text
    return "" if best is None else best[1]


def _value(had: Current, parts: list[dict[str, Any]], cost: float) -> float:
    """What the change counts: the difference of costs, and a share of what is given up or started elsewhere."""
    stays = any(part["accelerator"] == had.accelerator for part in parts)
    given_up = 0.0 if stays else had.cost
    started = math.fsum(part["cost"] for part in parts if part["accelerator"] != had.accelerator)
    return cost - had.cost + CHANGE_PENALTY * (given_up + started)


def _by_type(question: SystemQuestion, replicas: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Cards and cost by type, and what there is of it; null where that is unlimited."""
    totals: dict[str, Any] = {
        name: {"count": 0, "limit": question.available.get(name), "cost": 0.0}
        for name in question.observation.fleet.accelerators
    }
    for row, pair in enumerate(question.pairs):
        mine = totals[pair.accelerator.card]
        mine["count"] += int(replicas[row]) * pair.cards
        mine["cost"] += float(replicas[row]) * pair.cost
    return totals


def _milliseconds(seconds: float) -> float | None:
    return known(seconds * 1000.0)


# ---------------------------------------------------------------------------------------------------------------------
# The same for a person


def _print(result: Mapping[str, Any]) -> None:
    from wva_core.cli.text_table import print_table, print_text

    rows = [
        (
            name,
            row["accelerator"] or "-",
            str(row["replicas"]),
            f"{row['cost']:g}",
            f"{row['value']:g}",
            _figure(row["itl_ms"]),
            _figure(row["ttft_ms"] if row["ttft_ms"] is not None else row["wait_ms"]),
        )
        for name, row in result["servers"].items()
    ]
    columns = ("server", "accelerator", "replicas", "cost", "value", "ITL ms", "TTFT ms")
    print_table(columns, rows, right=columns[2:])
    print_text(f"{result['served']} of {len(rows)} servers served for {result['total_cost']:g} USD/h, {_proof(result)}")
    for name, row in result["servers"].items():
        if not row["served"]:
            excluded = "; ".join(f"{on}: {why}" for on, why in row.get("excluded", {}).items())
            print_text(f"{name}: {row['reason']}" + (f" ({excluded})" if excluded else ""))


def _proof(result: Mapping[str, Any]) -> str:
    if result["bound"] is None:
        return str(result["status"])
    gap = "" if result["gap"] is None else f", gap {result['gap']:.2%}"
    whole = all(row["served"] for row in result["servers"].values())
    others = "no answer" if whole else "no answer that serves as much"
    return f"{result['status']}: {others} costs less than {result['bound']:g}{gap}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
