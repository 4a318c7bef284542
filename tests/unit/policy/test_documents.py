"""Documents: what is read, what is refused, and in which words."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from wva_core.errors import ObservationError, PolicyError, ScenarioError
from wva_core.policy import parse_document, read_document, validate, written
from wva_core.policy.documents import camel_case


class Speed(StrEnum):
    SLOW = "slow"
    FAST = "fast"


class Leg(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    max_length: float = Field(1.0, gt=0)


class Plain(BaseModel):
    """As a plugin author writes it: snake_case, no aliases."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kv_cache_threshold: float = Field(0.8, ge=0, le=1)
    window: int = 3
    speed: Speed = Speed.SLOW
    kind: Literal["a", "b"] = "a"
    legs: tuple[Leg, ...] = ()
    by_name: dict[str, Leg] = {}
    limit: float | None = None
    either: int | str = 0
    shares: frozenset[str] = frozenset()
    flag: bool = False

    @field_validator("window")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("is even; give an odd number")
        return value

    @model_validator(mode="after")
    def _flag_needs_limit(self) -> Plain:
        if self.flag and self.limit is None:
            raise ValueError("a flag needs a limit")
        return self


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    model: str = Field(alias="modelID")
    max_rate: float = Field(1.0, alias="maxRate")


def refusal(data: Any, model: type[BaseModel] = Plain, **arguments: Any) -> str:
    with pytest.raises(PolicyError) as caught:
        validate(model, data, "p.yaml", PolicyError, **arguments)
    return str(caught.value)


def unreadable(content: bytes | str, name: str = "p.yaml") -> str:
    with pytest.raises(PolicyError) as caught:
        parse_document(content.encode() if isinstance(content, str) else content, name, PolicyError)
    return str(caught.value)


# Reading


@pytest.mark.parametrize("name", ["d.yaml", "d.yml", "default", "d.json"])
def test_suffix_chooses_between_json_and_yaml(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_text('{"a": [1, 2.5, true, null, "x"]}')
    assert read_document(path, PolicyError) == {"a": [1, 2.5, True, None, "x"]}


def test_json_that_is_not_yaml_is_read_as_json(tmp_path: Path):
    path = tmp_path / "d.json"
    path.write_text('{\n\t"a": 1\n}')
    assert read_document(path, PolicyError) == {"a": 1}


@pytest.mark.parametrize("name", ["d.yaml", "d.json"])
def test_an_empty_document_is_none(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_text("\n")
    assert read_document(path, PolicyError) is None


def test_dates_stay_text_and_exponents_are_numbers():
    data = parse_document(b"day: 2024-01-31\nrate: 1e-3\nbig: 2E6\nword: e5\n", "d", PolicyError)
    assert data == {"day": "2024-01-31", "rate": 0.001, "big": 2e6, "word": "e5"}


def test_anchors_and_merge_keys_are_understood():
    data = parse_document(b"x: {y: &b {<<: &a {k: 1}, k: 2}}\nc: {<<: *b, z: 3}\n", "d", PolicyError)
    assert data["c"] == {"k": 2, "z": 3}


def test_a_byte_order_mark_is_not_content():
    assert parse_document("\ufeffa: 1".encode(), "d", PolicyError) == {"a": 1}


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ScenarioError) as caught:
        read_document(tmp_path / "none.yaml", ScenarioError)
    assert str(caught.value) == f"{tmp_path}/none.yaml: does not exist; correct the path"


def test_a_directory_is_not_a_document(tmp_path: Path):
    with pytest.raises(ObservationError) as caught:
        read_document(tmp_path, ObservationError)
    assert str(caught.value) == f"{tmp_path}: cannot be read: Is a directory; give a readable file"


def test_a_syntax_error_names_line_and_column():
    message = unreadable("a: 1\nb: [1, 2\nc: 3\n")
    assert message.startswith("p.yaml: line 3, column 2: is not valid YAML: while parsing a flow sequence ")
    assert message.endswith("; correct the syntax there")


def test_a_tab_gets_its_own_remedy():
    assert unreadable("a:\n\tb: 1\n").endswith("; indent with spaces instead of tabs")


def test_a_key_given_twice_names_both_lines():
    assert unreadable("mode: act\nbounds: {}\nmode: observe\n") == (
        "p.yaml: line 3, column 1: the key 'mode' is given twice, first on line 1; keep one of them"
    )


def test_a_json_key_given_twice_is_refused():
    assert unreadable('{"a": 1, "a": 2}', "p.json") == "p.json: gives the key 'a' twice; keep one of them"


def test_a_json_syntax_error_names_line_and_column():
    assert unreadable('{\n  "a": }', "p.json") == (
        "p.json: line 2, column 8: is not valid JSON: Expecting value; correct the syntax there"
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a: \xff\xfe", "is not UTF-8 text at byte 3"),
        (b"a: !!python/object:os.system x", "could not determine a constructor for the tag"),
        (b"a: !!binary aGk=", "!!binary is not supported"),
        (b"a: !!int x", "holds a value that cannot be read"),
        (b"a: &a [*a]", "an anchor is used inside itself"),
        (b"a: 1\n---\nb: 2\n", "expected a single document"),
        (b"a: \x07", "p.yaml"),
        (b"[" * 5000, "p.yaml"),
        (b"? [1]\n: 2", "unhashable key"),
    ],
)
def test_what_is_no_plain_document_is_refused_in_one_line(content: bytes, problem: str):
    message = unreadable(content)
    assert problem in message
    assert "\n" not in message


# Checking


def test_keys_are_camel_case_at_every_depth():
    found = validate(
        Plain,
        {"kvCacheThreshold": 0.5, "legs": [{"maxLength": 2}], "byName": {"some_leg": {"maxLength": 3}}},
        "p.yaml",
        PolicyError,
    )
    assert found == Plain(kv_cache_threshold=0.5, legs=(Leg(max_length=2),), by_name={"some_leg": Leg(max_length=3)})


def test_the_result_is_of_the_model_itself():
    assert type(validate(Plain, {}, "p.yaml", PolicyError)) is Plain


@pytest.mark.parametrize("name", ["kv_cache_threshold", "kvcacheThreshold", "kvCacheTreshold"])
def test_any_other_spelling_is_refused_with_the_right_one(name: str):
    assert refusal({name: 0.5}) == (
        f"p.yaml: {name}: is not a known key (got 0.5); did you mean 'kvCacheThreshold'? known keys: kvCacheThreshold,"
        " window, speed, kind, legs, byName, limit, either, shares, flag"
    )


def test_the_range_of_values_under_any_key_is_told():
    class Ranked(BaseModel):
        model_config = ConfigDict(extra="forbid")
        ranks: dict[str, Annotated[int, Field(ge=1, le=100)]] = {}

    assert refusal({"ranks": {"gold": 0}}, Ranked) == (
        "p.yaml: ranks.gold: is out of range (got 0); give a whole number from 1 to 100"
    )


def test_an_alias_of_the_model_is_the_only_spelling():
    assert validate(Aliased, {"modelID": "m", "maxRate": 2}, "p", PolicyError).max_rate == 2
    assert refusal({"model": "m", "maxRate": 2}, Aliased) == (
        "p.yaml: model: is not a known key (got 'm'); did you mean 'modelID'? known keys: modelID, maxRate"
        " (1 more fault: modelID)"
    )
    assert "max_rate: is not a known key (got 2); did you mean 'maxRate'?" in refusal(
        {"modelID": "m", "max_rate": 2}, Aliased
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kvCacheThreshold": 1.5}, "kvCacheThreshold: is out of range (got 1.5); give a number from 0 to 1"),
        ({"kvCacheThreshold": "0.5"}, "kvCacheThreshold: is not a number (got '0.5'); give a number from 0 to 1"),
        ({"kvCacheThreshold": True}, "kvCacheThreshold: is not a number (got True); give a number from 0 to 1"),
        (
            {"kvCacheThreshold": None},
            "kvCacheThreshold: has no value (got None); give a number from 0 to 1, or remove the key",
        ),
        ({"window": 2.5}, "window: is not a whole number (got 2.5); give a whole number"),
        ({"window": 4}, "window: is even (got 4); give an odd number"),
        ({"speed": "fats"}, "speed: is not known (got 'fats'); did you mean 'fast'? give one of slow, fast"),
        ({"kind": 3}, "kind: is not known (got 3); give one of a, b"),
        ({"legs": {}}, "legs: is not a list (got {}); give a list"),
        ({"legs": [{}, {"maxLength": 0}]}, "legs[1].maxLength: is out of range (got 0); give a number above 0"),
        ({"legs": [3]}, "legs[0]: is not a mapping (got 3); give a mapping with the keys maxLength"),
        (
            {"byName": {"a.b": {"maxLength": 0}}},
            'byName["a.b"].maxLength: is out of range (got 0); give a number above 0',
        ),
        ({"limit": "x"}, "limit: is not a number (got 'x'); give a number"),
        (
            {"either": [1]},
            "either: is not a whole number or a text (got [1]); give a whole number or a text",
        ),
        ({"flag": "yes"}, "flag: is not true or false (got 'yes'); give true or false"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_accepted(data: dict[str, Any], message: str):
    assert refusal(data) == f"p.yaml: {message}"


def test_text_that_looks_like_a_number_is_asked_for_in_quotes():
    assert refusal({"modelID": 405}, Aliased) == ("p.yaml: modelID: is not a text (got 405); give a text, in quotes")


def test_a_condition_between_values_is_reported_where_they_are():
    assert refusal({"flag": True}, key_prefix="analyzers[0].parameters") == (
        "p.yaml: analyzers[0].parameters: a flag needs a limit (got {'flag': True}); change what does not fit"
    )


def test_a_missing_key_says_what_to_add():
    assert refusal({}, Aliased) == "p.yaml: modelID: is missing; add it: a text"


@pytest.mark.parametrize(("data", "problem"), [(None, "is empty; write"), ([], "is not a mapping (got [])")])
def test_what_is_no_mapping_is_refused(data: Any, problem: str):
    assert refusal(data).startswith(f"p.yaml: {problem}")


def test_several_faults_are_one_error_with_the_unknown_key_first():
    assert refusal({"window": "x", "kvCacheThreshold": 2, "windw": 3}).endswith(
        "flag (2 more faults: kvCacheThreshold, window)"
    )


def test_an_error_carries_its_parts():
    with pytest.raises(PolicyError) as caught:
        validate(Plain, {"legs": [{"maxLength": "x"}]}, "p.yaml", PolicyError, "analyzers[1].parameters")
    assert (caught.value.object, caught.value.key, caught.value.value, caught.value.remedy) == (
        "p.yaml",
        "analyzers[1].parameters.legs[0].maxLength",
        "x",
        "give a number above 0",
    )


def test_input_is_not_changed():
    data = {"legs": [{"maxLength": 2}], "kvCacheThreshold": 0.5}
    before = json.dumps(data)
    validate(Plain, data, "p", PolicyError)
    assert json.dumps(data) == before


def test_a_model_with_open_keys_keeps_them():
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        some_key: int = 0

    found = validate(Open, {"someKey": 1, "other": 2}, "p", PolicyError)
    assert (found.some_key, found.model_extra) == (1, {"other": 2})


def test_text_among_the_metadata_describes_what_is_accepted():
    class Described(BaseModel):
        size: Annotated[float, "a size in m²"] = 0.0

    assert refusal({"size": "x"}, Described) == "p.yaml: size: is not a number (got 'x'); give a size in m²"


# Writing

plains = st.builds(
    Plain,
    kv_cache_threshold=st.floats(0, 1),
    window=st.integers(0, 50).map(lambda n: 2 * n + 1),
    speed=st.sampled_from(Speed),
    legs=st.lists(st.builds(Leg, max_length=st.floats(0.1)), max_size=3).map(tuple),
    by_name=st.dictionaries(st.text(max_size=4), st.builds(Leg), max_size=2),
    limit=st.none() | st.floats(allow_nan=False),
    either=st.integers() | st.text(max_size=4),
    shares=st.frozensets(st.sampled_from("abcdef")),
)


@given(plains)
def test_what_is_written_reads_back_equal(model: Plain):
    text = json.dumps(written(model), allow_nan=False)
    assert validate(Plain, json.loads(text), "p", PolicyError) == model


def test_numbers_without_json_words_are_written_as_words():
    assert written([math.inf, -math.inf, math.nan]) == ["Infinity", "-Infinity", "NaN"]
    assert written(Plain(limit=math.inf))["limit"] == "Infinity"


@pytest.mark.parametrize(
    ("name", "typed"),
    [("type", "type"), ("kv_cache_threshold", "kvCacheThreshold"), ("ttft_ms", "ttftMs"), ("p_99", "p99")],
)
def test_camel_case(name: str, typed: str):
    assert camel_case(name) == typed
