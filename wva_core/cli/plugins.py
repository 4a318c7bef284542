"""
`wva plugins`: what is installed, what a plugin takes and reads, and whether it keeps the contract.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import click

from wva_core.errors import ContractError, PluginError, UnknownPluginError, WvaError
from wva_core.hooks import catalog
from wva_core.hooks.specs import SPECS, Thresholds
from wva_core.policy.documents import camel_case

__all__ = ["plugins"]

_KINDS = click.Choice(list(SPECS))
_KIND = click.option("--kind", type=_KINDS, help="Only plugins of this kind.")
_OUTPUT = click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Table or JSON."
)


@click.group()
def plugins() -> None:
    """Installed plugins: what they are and whether they fit."""


# ---------------------------------------------------------------------------------------------------------------------
# list


@plugins.command("list")
@_KIND
@_OUTPUT
def list_(kind: str | None, output: str) -> None:
    """
    What is installed.

    Read from what the distributions declare; no plugin is imported, so a broken one is listed too.
    """
    found = catalog.listing(kind)
    if output == "json":
        click.echo(json.dumps([asdict(item) for item in found], indent=2))
        return
    from wva_core.cli.text_table import print_table

    rows = [(item.kind, item.name, item.distribution, item.version) for item in found]
    print_table(("kind", "name", "distribution", "version"), rows)
    if not found:
        click.echo("No plugin is installed: install wva-collectors, wva-analyzers, wva-optimizers and wva-actuators.")


# ---------------------------------------------------------------------------------------------------------------------
# show


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One parameter in the words of a policy document."""

    name: str
    type: str
    default: Any
    required: bool
    constraint: str
    description: str


@plugins.command()
@click.argument("name")
@_KIND
@_OUTPUT
def show(name: str, kind: str | None, output: str) -> None:
    """
    What the plugin NAME takes and reads.

    Shown for every kind in which there is a plugin of this name.
    """
    told = [_description(item) for item in _installed(name, kind)]
    if output == "json":
        click.echo(json.dumps(told, indent=2))
        return
    for number, description in enumerate(told):
        if number:
            click.echo()
        _print_description(description)


def _installed(name: str, kind: str | None) -> list[catalog.Listing]:
    """What is installed under a name; one entry for each kind."""
    found = [item for item in catalog.listing(kind) if item.name == name]
    if not found:
        known = sorted({item.name for item in catalog.listing(kind)})
        raise UnknownPluginError(
            "no installed plugin has this name",
            object=kind or "plugins",
            key=name,
            remedy=f"installed: {', '.join(known) or 'none'}; see wva plugins list",
        )
    return list({item.kind: item for item in found}.values())


def _description(item: catalog.Listing) -> dict[str, Any]:
    """Everything that can be said of a plugin without making one, as plain data."""
    plugin = catalog.load(item.kind, item.name)
    told: dict[str, Any] = {
        **asdict(item),
        "summary": _first_paragraph(plugin),
        "hooks": catalog.hooks_of(item.kind, plugin),
        "parameters": [asdict(parameter) for parameter in _parameters(plugin)],
    }
    if item.kind == "analyzers":
        thresholds: Thresholds = getattr(plugin, "default_thresholds", Thresholds())
        told["thresholds"] = {"scaleUp": thresholds.scale_up, "scaleDown": thresholds.scale_down}
        told["signals"] = [
            {
                "signal": request.signal,
                "level": request.level,
                "windowSeconds": request.window_seconds,
                "retentionSeconds": request.retention_seconds,
                "required": request.required,
            }
            for request in getattr(plugin, "signals", ())
        ]
    return told


def _first_paragraph(plugin: type) -> str:
    """The first paragraph of the README in the plugin's folder, else of the class; empty if there is neither."""
    text, package = plugin.__doc__ or "", plugin.__module__.rpartition(".")[0]
    if package:
        readme = resources.files(package) / "README.md"
        text = readme.read_text(encoding="utf-8") if readme.is_file() else text
    for paragraph in text.strip().split("\n\n"):
        if not paragraph.startswith("#"):
            return " ".join(paragraph.split())
    return ""


def _parameters(plugin: type) -> list[_Parameter]:
    model = catalog.parameters_of(plugin)
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    required = set(schema.get("required", ()))
    return [
        _Parameter(
            name=camel_case(name),  # as it is; a field without an alias is in snake case
            type=_type(one, definitions),
            default=one.get("default"),
            required=name in required,
            constraint=_constraint(one, definitions),
            description=" ".join(str(one.get("description", "")).split()),
        )
        for name, one in schema.get("properties", {}).items()
    ]


def _members(schema: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives a parameter's schema allows, references resolved, null left out."""
    if "$ref" in schema:
        return _members(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return [member for part in schema["anyOf"] for member in _members(part, definitions)]
    return [] if schema.get("type") == "null" else [schema]


_WORDS = {
    "array": "list",
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "object": "mapping",
    "string": "text",
}


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    words = [_WORDS.get(str(member.get("type")), "value") for member in _members(schema, definitions)]
    return " or ".join(dict.fromkeys(words)) or "value"


def _constraint(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """The range or the choices, in words; empty if there is neither."""
    told = []
    for member in _members(schema, definitions):
        choices = member.get("enum") or ([member["const"]] if "const" in member else [])
        if choices:
            told.append(f"one of {', '.join(str(choice) for choice in choices)}")
            continue
        words = {
            "minimum": "at least {}",
            "exclusiveMinimum": "above {}",
            "maximum": "at most {}",
            "exclusiveMaximum": "below {}",
            "minLength": "at least {} characters",
            "minItems": "at least {} entries",
        }
        told.append(", ".join(text.format(f"{member[key]:g}") for key, text in words.items() if key in member))
    return " or ".join(text for text in told if text)


def _print_description(told: dict[str, Any]) -> None:
    from wva_core.cli.text_table import print_table, print_text

    print_text(f"{told['kind'][:-1]} {told['name']}  ({told['distribution']} {told['version']}, {told['target']})")
    if told["summary"]:
        print_text(told["summary"])
    print_text(f"hooks: {', '.join(told['hooks'])}")
    if "signals" in told:
        reads = [f"{one['signal']} ({one['level']}, {one['windowSeconds']:g} s)" for one in told["signals"]]
        print_text(f"reads: {', '.join(reads) or 'no signal'}")
        print_text("thresholds: scaleUp {scaleUp:g}, scaleDown {scaleDown:g}".format(**told["thresholds"]))
    if not told["parameters"]:
        print_text("parameters: none")
        return
    rows = [
        (
            one["name"],
            one["type"],
            "(required)" if one["required"] else json.dumps(one["default"]),
            one["constraint"],
            one["description"],
        )
        for one in told["parameters"]
    ]
    print_table(("parameter", "type", "default", "range", "meaning"), rows)


# ---------------------------------------------------------------------------------------------------------------------
# check


@dataclass(frozen=True, slots=True)
class _Checked:
    """One plugin and what is to be mended; an empty problem means it is ok."""

    kind: str
    name: str
    distribution: str
    ok: bool
    problem: str


@plugins.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "every", is_flag=True, help="Check every installed plugin.")
@_KIND
@_OUTPUT
@click.pass_context
def check(ctx: click.Context, names: Sequence[str], every: bool, kind: str | None, output: str) -> None:  # noqa: FBT001 - click passes flags by name
    """
    Whether plugins keep the contract.

    Each NAME is imported, its class checked, and one made with its default parameters. Ends with exit code 1 if
    something is to be mended.
    """
    if every == bool(names):
        raise click.UsageError("give the names of plugins, or --all")
    chosen = catalog.listing(kind) if every else [item for name in names for item in _installed(name, kind)]
    unique = {(item.kind, item.name): item for item in chosen}
    told = [_checked(item) for item in unique.values()]
    if output == "json":
        click.echo(json.dumps([asdict(one) for one in told], indent=2))
    else:
        for one in told:
            click.echo(f"{one.kind[:-1]} {one.name}: {'ok' if one.ok else one.problem}")
    if not all(one.ok for one in told):
        ctx.exit(1)


def _checked(item: catalog.Listing) -> _Checked:
    try:
        _try(item)
    except PluginError as error:
        return _Checked(item.kind, item.name, item.distribution, ok=False, problem=str(error))
    return _Checked(item.kind, item.name, item.distribution, ok=True, problem="")


def _try(item: catalog.Listing) -> None:
    """Loads a plugin and makes one, where it needs no parameter that only an operator can give."""
    plugin = catalog.load(item.kind, item.name)
    model = catalog.parameters_of(plugin)
    if any(field.is_required() for field in model.model_fields.values()):
        return
    try:
        parameters = model()
    except ValueError as exc:
        raise ContractError(
            f"refuses its own defaults: {' '.join(str(exc).split())}",
            object=f"{item.kind[:-1]} {item.name}",
            key="Parameters",
            remedy="give every parameter a default that the model accepts, or none",
        ) from exc
    try:
        catalog.make(plugin, parameters)
    except WvaError as exc:
        raise ContractError(
            exc.problem, object=f"{item.kind[:-1]} {item.name}", key="__init__", remedy=exc.remedy
        ) from exc
