"""
Documents that a person wrote: read as plain data, and checked against a typed model with errors in the writer's words.

`read_document` brings a YAML or JSON file in, `validate` makes a pydantic model of it, `written` is the way back. They
speak the spelling of the documents: a model field `kv_cache_threshold` is typed `kvCacheThreshold`, unless the model
gives it an alias of its own. No other spelling is accepted.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, to_jsonable_python

from wva_core.errors import InputError
from wva_core.policy.key_paths import join_key

if TYPE_CHECKING:
    _SafeLoader = yaml.SafeLoader
else:  # the parser in C where it is built in: large observations notice
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

__all__ = ["camel_case", "parse_document", "read_document", "validate", "written"]

_Model = TypeVar("_Model", bound=BaseModel)

_MISSING: Any = object()
_NON_FINITE = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}
"""How `written` spells numbers that JSON has no words for."""


# --------------------------------------------------------------------------------------------------------------------
# Text to plain data


class _Loader(_SafeLoader):
    """Safe YAML in which a date stays text and 1e-3 is a number, as in YAML 1.2 and in JSON."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_document(path: str | Path, error_class: type[InputError]) -> Any:
    """
    What a file says, as plain data: JSON for names that end in `.json`, YAML for all others.

    An empty document is None; `validate` refuses it with a message.

    Args:
        path: of the file; errors name it as it is given here.
        error_class: what is raised, such as `PolicyError`.

    Raises:
        InputError: of that class. The file cannot be read, is not UTF-8, is not one YAML or JSON document (names line
            and column), gives a key twice, or holds what is neither text, number, truth value, list nor mapping.
    """
    source = str(path)
    try:
        content = Path(path).read_bytes()
    except OSError as exc:
        missing = isinstance(exc, FileNotFoundError)
        raise error_class(
            "does not exist" if missing else f"cannot be read: {exc.strerror or exc}",
            object=source,
            remedy="correct the path" if missing else "give a readable file",
        ) from exc
    return parse_document(content, source, error_class)


def parse_document(content: bytes, source: str, error_class: type[InputError]) -> Any:
    """
    The content of a document as plain data; as `read_document`, for bytes that are already here.

    Args:
        content: the bytes.
        source: how errors name the document; a name that ends in `.json` is read as JSON.
        error_class: what is raised.

    Raises:
        InputError: of that class, as in `read_document`.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise error_class(f"is not UTF-8 text at byte {exc.start}", object=source, remedy="save it in UTF-8") from exc
    try:
        return _from_json(text, source, error_class) if source.endswith(".json") else _from_yaml(text)
    except yaml.YAMLError as exc:
        raise _yaml_error(exc, text, source, error_class) from exc
    except RecursionError as exc:
        raise error_class("is nested too deeply", object=source, remedy="write it with fewer levels") from exc
    except ValueError as exc:  # an explicit tag over a value that does not fit it, such as !!int x
        raise error_class(
            f"holds a value that cannot be read: {exc}", object=source, remedy="correct the value or remove its tag"
        ) from exc


def _from_json(text: str, source: str, error_class: type[InputError]) -> Any:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = dict(pairs)
        if len(keys) != len(pairs):
            names = [key for key, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise error_class(f"gives the key {twice!r} twice", object=source, remedy="keep one of them")
        return keys

    if not text.strip():
        return None
    try:
        return json.loads(text, object_pairs_hook=without_duplicates)
    except json.JSONDecodeError as exc:
        raise error_class(
            f"is not valid JSON: {exc.msg}",
            object=source,
            key=f"line {exc.lineno}, column {exc.colno}",
            remedy="correct the syntax there",
        ) from exc


def _from_yaml(text: str) -> Any:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _check_nodes(root, set(), set())
        data: Any = loader.construct_document(root)
        return data
    finally:
        loader.dispose()


def _check_nodes(node: yaml.Node, checked: set[int], above: set[int]) -> None:
    """
    Refuses keys given twice, nodes that contain themselves, and tags of what is not plain data.

    Before construction, because construction folds merged keys (`<<`) into the mapping that takes them.
    """
    if id(node) in above:
        raise yaml.constructor.ConstructorError(None, None, "an anchor is used inside itself", node.start_mark)
    if id(node) in checked:
        return
    checked.add(id(node))
    above.add(id(node))
    if node.tag in {"tag:yaml.org,2002:binary", "tag:yaml.org,2002:set", "tag:yaml.org,2002:timestamp"}:
        raise yaml.constructor.ConstructorError(
            None, None, f"!!{node.tag.rpartition(':')[2]} is not supported", node.start_mark
        )
    if isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in lines:
                    raise yaml.constructor.ConstructorError(
                        None,
                        None,
                        f"the key {key.value!r} is given twice, first on line {lines[key.tag, key.value]}",
                        key.start_mark,
                    )
                lines[key.tag, key.value] = key.start_mark.line + 1
            _check_nodes(value, checked, above)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_nodes(item, checked, above)
    above.discard(id(node))


def _yaml_error(exc: yaml.YAMLError, text: str, source: str, error_class: type[InputError]) -> InputError:
    mark = None
    problem = str(exc).splitlines()[0]
    if isinstance(exc, yaml.MarkedYAMLError):
        mark = exc.problem_mark or exc.context_mark
        problem = " ".join(part for part in (exc.context, exc.problem) if part)
    elif isinstance(exc, yaml.reader.ReaderError):
        problem = f"holds the character {exc.character!r}, which YAML does not allow"
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    if "given twice" in problem:
        return error_class(problem, object=source, key=where, remedy="keep one of them")
    line = text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""
    tab = "\t" in line[: len(line) - len(line.lstrip())]
    return error_class(
        f"is not valid YAML: {problem}",
        object=source,
        key=where,
        remedy="indent with spaces instead of tabs" if tab else "correct the syntax there",
    )


# --------------------------------------------------------------------------------------------------------------------
# Plain data to a typed model


@dataclass(frozen=True, slots=True)
class _Fault:
    """One thing that is wrong with a document."""

    path: str
    problem: str
    remedy: str
    value: Any = _MISSING


def validate(
    model_class: type[_Model],
    data: Any,
    source: str,
    error_class: type[InputError],
    key_prefix: str = "",
    *,
    spell: Callable[[str], str] = str,
) -> _Model:
    """
    `data` as an instance of `model_class`, every value of exactly the type that the model states.

    Keys are camelCase as described at the top of this module. Types are strict: text is no number, a number is no
    truth value; a whole number is taken where any number is. A validator of the model may raise
    `ValueError("problem; remedy")` and both parts end up in their places.

    Args:
        model_class: what the document has to be.
        data: plain data; nothing in it is changed.
        source: how errors name the document.
        error_class: what is raised.
        key_prefix: where `data` stands inside the document, such as `analyzers[0].parameters`.
        spell: turns a key path (prefix included) into the one that the writer sees in the document.

    Raises:
        InputError: of that class, for the first thing that is wrong, unknown keys before all others; names file, key
            path, value and remedy, and where else something is wrong.
    """
    model, faults = _checked(model_class, data, key_prefix)
    if model is not None:
        return model
    first = faults[0]
    if others := [spell(fault.path) or "the document as a whole" for fault in faults[1:]]:
        shown = ", ".join(others[:5]) + (", …" if len(others) > 5 else "")
        remedy = f"{first.remedy} ({len(others)} more {'faults' if len(others) > 1 else 'fault'}: {shown})"
    else:
        remedy = first.remedy
    given = {} if first.value is _MISSING else {"value": first.value}
    raise error_class(first.problem, object=source, key=spell(first.path), remedy=remedy, **given)


def _checked(model_class: type[_Model], data: Any, prefix: str) -> tuple[_Model | None, list[_Fault]]:
    """The model, or what is wrong: unknown keys first, because they are why others are missing."""
    faults: list[_Fault] = []
    translated = _translated(model_class, data, prefix, faults)
    try:
        # Through JSON, because strict means there what a document can say: a list may become a tuple, a word an Enum.
        model = model_class.model_validate_json(json.dumps(translated), strict=True)
    except ValidationError as exc:
        paths = {fault.path for fault in faults}
        for details in exc.errors(include_url=False):
            fault = _fault(model_class, data, prefix, details)
            if fault.path not in paths:  # the members of a union complain one by one
                paths.add(fault.path)
                faults.append(fault)
        return None, faults
    return (None, faults) if faults else (model, [])


def camel_case(name: str) -> str:
    """How a field is typed in a document: `kv_cache_threshold` is `kvCacheThreshold`."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


@dataclass(frozen=True, slots=True)
class _Key:
    """One key of a mapping: how the model takes it, and its field."""

    taken: str
    field: FieldInfo


@cache
def _keys(model: type[BaseModel]) -> dict[str, _Key]:
    """The keys of a model as they are typed, in the order of its fields."""
    keys: dict[str, _Key] = {}
    for name, field in model.model_fields.items():
        alias = field.validation_alias or field.alias
        if alias is None:
            keys[camel_case(name)] = _Key(name, field)
        elif isinstance(alias, str):
            keys[alias] = _Key(alias, field)
        else:
            choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
            for choice in choices:
                first = choice if isinstance(choice, str) else str(choice.path[0])
                keys[first] = _Key(first, field)
    return keys


@cache
def _spellings(model: type[BaseModel]) -> dict[str, str]:
    """How each field of a model is typed; the first of several aliases."""
    names = {id(field): name for name, field in model.model_fields.items()}
    spellings: dict[str, str] = {}
    for typed, key in _keys(model).items():
        spellings.setdefault(names[id(key.field)], typed)
    return spellings


def _translated(annotation: Any, data: Any, path: str, faults: list[_Fault]) -> Any:
    """`data` with the keys that the model takes; what the model does not know is left out and reported."""
    model = _model_in(annotation)
    if model is not None and isinstance(data, Mapping):
        keys = _keys(model)
        open_ended = model.model_config.get("extra") != "forbid"
        result = {}
        for typed, value in data.items():
            here = join_key(path, typed)
            if typed in keys:
                result[keys[typed].taken] = _translated(keys[typed].field.annotation, value, here, faults)
            elif open_ended:
                result[typed] = value
            else:
                faults.append(_unknown_key(str(typed), value, here, keys))
        return result
    if isinstance(data, list):
        return [
            _translated(_item_annotation(annotation, row), item, f"{path}[{row}]", faults)
            for row, item in enumerate(data)
        ]
    if isinstance(data, Mapping):
        values = _value_annotation(annotation)
        return {key: _translated(values, value, join_key(path, key), faults) for key, value in data.items()}
    if isinstance(data, str) and data in _NON_FINITE and float in _members(annotation):
        return _NON_FINITE[data]
    return data


def _unknown_key(typed: str, value: Any, path: str, keys: Mapping[str, _Key]) -> _Fault:
    close = difflib.get_close_matches(typed, keys, n=1) or difflib.get_close_matches(camel_case(typed), keys, n=1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return _Fault(path, "is not a known key", f"{guess}known keys: {', '.join(keys) or 'none'}", value)


# --------------------------------------------------------------------------------------------------------------------
# Faults in the writer's words


def _fault(model_class: type[BaseModel], data: Any, prefix: str, details: ErrorDetails) -> _Fault:
    path, value, annotation, metadata = _located(model_class, data, prefix, details["loc"])
    kind = details["type"]
    accepted = _accepted(annotation, metadata)
    if kind == "missing":
        return _Fault(path, "is missing", f"add it: {accepted}")
    if value is None and not path:
        return _Fault(path, "is empty", f"write {accepted}")
    if kind in {"value_error", "assertion_error"}:
        context = details.get("ctx", {})
        problem, _, remedy = str(context.get("error", details["msg"])).partition("; ")
        fallback = "change what does not fit" if _model_in(annotation) else f"give {accepted}"
        return _Fault(path, problem, remedy or fallback, value)
    if value is None:
        return _Fault(path, "has no value", f"give {accepted}, or remove the key", value)
    if kind in {"literal_error", "enum"}:
        close = difflib.get_close_matches(str(value), _choices(annotation), n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        return _Fault(path, "is not known", f"{guess}give {accepted}", value)
    if kind in {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}:
        return _Fault(path, "is out of range", f"give {accepted}", value)
    if kind in {"string_too_short", "too_short"}:
        return _Fault(path, "is empty" if not value else "is too short", f"give {accepted}", value)
    if kind.endswith(("_type", "_parsing", "_from_float", "_unit")):
        quotes = ", in quotes" if kind == "string_type" and not isinstance(value, Mapping | list) else ""
        kind_of_value = "a mapping" if _model_in(annotation) else _accepted(annotation, ())
        return _Fault(path, f"is not {kind_of_value}", f"give {accepted}{quotes}", value)
    message = details["msg"]
    return _Fault(path, message[:1].lower() + message[1:], f"give {accepted}", value)


def _located(
    model_class: type[BaseModel], data: Any, prefix: str, loc: Sequence[int | str]
) -> tuple[str, Any, Any, Sequence[Any]]:
    """Where pydantic's `loc` is in the document: typed path, value, annotation and constraints."""
    path, value = prefix, data
    annotation: Any = model_class
    metadata: Sequence[Any] = ()
    for step in loc:
        model = _model_in(annotation)
        if isinstance(step, str) and model is not None and isinstance(value, Mapping):
            found = next(((typed, key.field) for typed, key in _keys(model).items() if key.taken == step), None)
            if found is None:
                continue  # the name of a union's member
            typed, field = found
            path, value = join_key(path, typed), value.get(typed)
            annotation, metadata = field.annotation, field.metadata
        elif isinstance(value, Mapping) and step in value:
            path, value = join_key(path, step), value[step]
            annotation, metadata = _value_annotation(annotation), ()
        elif isinstance(step, int) and isinstance(value, list) and step < len(value):
            path, value = f"{path}[{step}]", value[step]
            annotation, metadata = _item_annotation(annotation, step), ()
        while get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            for one in more:
                metadata = (*metadata, *(one.metadata if isinstance(one, FieldInfo) else (one,)))
    return path, value, annotation, metadata


def _accepted(annotation: Any, metadata: Sequence[Any]) -> str:
    """What a key takes, as a noun phrase."""
    described = next((item for item in metadata if isinstance(item, str)), "")
    if described:
        return described
    phrases = [_phrase(member) + _range(member, metadata) for member in _members(annotation)]
    return " or ".join(dict.fromkeys(phrases)) or "a value"


def _phrase(annotation: Any) -> str:
    origin = get_origin(annotation) or annotation
    if choices := _choices(annotation):
        return f"one of {', '.join(choices)}"
    if origin is bool:
        return "true or false"
    if origin is int:
        return "a whole number"
    if origin is float:
        return "a number"
    if origin is str:
        return "a text"
    if isinstance(origin, type) and issubclass(origin, BaseModel):
        return f"a mapping with the keys {', '.join(_keys(origin))}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping"
    if isinstance(origin, type) and issubclass(origin, Sequence | AbstractSet):
        return "a list"
    return "a value"


def _range(annotation: Any, metadata: Sequence[Any]) -> str:
    if annotation is str:
        return " that is not empty" if any(getattr(item, "min_length", None) for item in metadata) else ""
    if annotation not in {int, float}:
        return ""
    limits = {}
    for name in ("ge", "gt", "le", "lt"):
        found = [getattr(item, name) for item in metadata if getattr(item, name, None) is not None]
        if found:
            limits[name] = f"{found[-1]:g}"
    if "ge" in limits and "le" in limits:
        return f" from {limits['ge']} to {limits['le']}"
    words = {"ge": "of at least {}", "gt": "above {}", "le": "of at most {}", "lt": "below {}"}
    parts = [words[name].format(limit) for name, limit in limits.items()]
    return " " + " and ".join(parts).replace("and of", "and") if parts else ""


def _choices(annotation: Any) -> list[str]:
    choices: list[str] = []
    for member in _members(annotation):
        if get_origin(member) is Literal:
            choices += [str(choice) for choice in get_args(member)]
        elif isinstance(member, type) and issubclass(member, Enum):
            choices += [str(choice.value) for choice in member]
    return choices


# --------------------------------------------------------------------------------------------------------------------
# Annotations


def _members(annotation: Any) -> list[Any]:
    """The types an annotation stands for, without None and without what `Annotated` adds."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return [member for part in get_args(annotation) for member in _members(part)]
    return [] if annotation in {None, NoneType, Any} else [annotation]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model an annotation stands for, if there is exactly one."""
    models = [member for member in _members(annotation) if isinstance(member, type) and issubclass(member, BaseModel)]
    return models[0] if len(models) == 1 else None


def _arguments(annotation: Any, kind: type | tuple[type, ...]) -> Iterator[tuple[Any, ...]]:
    for member in _members(annotation):
        origin = get_origin(member)
        if isinstance(origin, type) and issubclass(origin, kind):
            yield get_args(member)


def _item_annotation(annotation: Any, row: int) -> Any:
    for arguments in _arguments(annotation, (Sequence, AbstractSet)):
        items = [argument for argument in arguments if argument is not Ellipsis]
        if items:
            return items[min(row, len(items) - 1)]
    return Any


def _value_annotation(annotation: Any) -> Any:
    return next((arguments[1] for arguments in _arguments(annotation, Mapping) if len(arguments) == 2), Any)


# --------------------------------------------------------------------------------------------------------------------
# A typed model to plain data


def written(value: Any) -> Any:
    """
    A model as the JSON-able data that `validate` makes an equal model of, every default written out.

    Numbers that JSON has no words for are written as `Infinity`, `-Infinity` and `NaN`. Sets are sorted.
    """
    if isinstance(value, BaseModel):
        return {typed: written(getattr(value, name)) for name, typed in _spellings(type(value)).items()}
    if isinstance(value, Mapping):
        return {str(key): written(item) for key, item in value.items()}
    if isinstance(value, AbstractSet):
        return sorted((written(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [written(item) for item in value]
    if isinstance(value, Enum):
        return written(value.value)
    if isinstance(value, float) and not math.isfinite(value):
        return next(word for word, number in _NON_FINITE.items() if number == value or math.isnan(number))
    return to_jsonable_python(value)
