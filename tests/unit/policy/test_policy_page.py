"""The reference of policies: its examples work, its tables name every key with its default."""

from __future__ import annotations

import json
import re
from enum import Enum
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticUndefined

from wva_core.domain import Mode
from wva_core.errors import PolicyError
from wva_core.policy import PolicySource, ResolvedPolicy, profile_names, resolve, schema

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/user-guide/policy.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
ROWS = [(key, cell.strip()) for key, cell in re.findall(r"^\| `([^`]+)` \|([^|]*)\|", PAGE, re.MULTILINE)]

MODELS = [
    schema.PolicyDocument,
    schema.PluginSpec,
    schema.ThresholdsSpec,
    schema.BallotSpec,
    schema.BoundsSpec,
    schema.RulesSpec,
    schema.RateSpec,
]


class Levels(BaseModel):
    """The parameters of the analyzer `saturation-v1`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kv_cache_threshold: float = Field(0.80, ge=0, le=1)
    queue_length_threshold: float = 5.0
    kv_spare_trigger: float = 0.10
    queue_spare_trigger: float = 3.0


class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def resolved(text: str, folder: Path) -> ResolvedPolicy:
    (folder / "policy.yaml").write_text(text, encoding="utf-8")
    layers = PolicySource(folder / "policy.yaml").poll()
    assert layers is not None
    return resolve(layers, lambda kind, _: Levels if kind == "analyzers" else Nothing)


@pytest.mark.parametrize("example", EXAMPLES, ids=[f"example-{number}" for number in range(len(EXAMPLES))])
def test_every_example_is_a_policy_without_warnings(example: str, tmp_path: Path):
    assert resolved(example, tmp_path).warnings == ()


def test_the_two_ways_to_write_the_same_policy_are_the_same(tmp_path: Path):
    legacy, ours = (resolved(example, tmp_path) for example in EXAMPLES[-2:])
    for model, namespace in (("ibm/granite-13b", "production"), ("other", "production")):
        old, new = ({item.key: item.value for item in each.explain(model, namespace)} for each in (legacy, ours))
        new.pop("profile")
        assert old == new


@pytest.mark.parametrize("model", MODELS)
def test_every_key_is_in_a_table_with_its_default(model: type[BaseModel]):
    for name, field in model.model_fields.items():
        key = field.alias or name
        rows = [cell for row, cell in ROWS if row in {key, f"policies[].{key}"}]
        assert rows, f"{key} is in no table"
        default = field.default.value if isinstance(field.default, Enum) else field.default
        if default is PydanticUndefined:
            assert "required" in rows
        elif isinstance(default, str | int | float) and default != "":
            shown = {
                f"`{json.dumps(default).strip(chr(34))}`",
                f"`{default:g}`" if not isinstance(default, str) else "",
            }
            assert shown & set(rows), f"{key}: {default} is not the default in {rows}"


def test_keys_of_overrides_are_in_the_table():
    section = PAGE.partition("### overrides")[2].partition("\n## ")[0]
    for model in (schema.OverrideSpec, schema.MatchSpec, schema.AnalyzerOverride):
        for name, field in model.model_fields.items():
            assert f"`{field.alias or name}`" in section


def test_modes_and_profiles_are_on_the_page():
    for word in (*(mode.value for mode in Mode), *profile_names()):
        assert f"`{word}`" in PAGE


def test_the_refusal_on_the_page_is_the_one_that_is_raised(tmp_path: Path):
    (tmp_path / "policy.yaml").write_text(
        "profile: saturation-v1\nanalyzers: [{type: saturation-v1, parameters: {kvCacheThreshold: 1.5}}]\n"
    )
    layers = PolicySource(tmp_path / "policy.yaml").poll() or []
    with pytest.raises(PolicyError) as caught:
        resolve(layers, lambda kind, _: Levels if kind == "analyzers" else Nothing)
    shown = re.search(r"```text\n(.*?)\n```", PAGE, re.DOTALL)
    assert shown is not None
    assert shown[1].replace("/etc/wva", str(tmp_path)) == str(caught.value)
