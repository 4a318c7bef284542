"""The pages say what there is: links, scenario keys, hooks, signals, reasons, modules and commands."""

import inspect
import math
import re
import shlex
from pathlib import Path

import click
import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from wva_core import app
from wva_core.cli import main
from wva_core.domain import REPLICA_SIGNALS, SCOPE_SIGNALS, Quality, Reason, Verdict
from wva_core.hooks.specs import SPECS
from wva_core.policy.documents import camel_case
from wva_core.simulation import scenario_document
from wva_core.simulation.scenario import read_scenario

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "changelog.d").glob("*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def prose(name):
    """A page without its fenced and indented blocks."""
    return re.sub(r"^```.*?^```$|^ {4}[^\n]*$", "", text(name), flags=re.MULTILINE | re.DOTALL)


def sections(name, level):
    """The parts of a page under its headings of one level, by heading."""
    parts = re.split(rf"^{'#' * level} (.+)$", text(name), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def first_cells(part):
    """The cells of each row of the tables in a part whose first cell is code."""
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\| `.*$", part, re.MULTILINE)]


# ---------------------------------------------------------------------------------------------------------------------
# Links and modules


def anchor(heading):
    """How a heading is linked to: the rule of the usual renderers."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


LINKS = [
    (name, target)
    for name in NAMES
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(name))
    if not re.match(r"[a-z]+:", target)
]


@pytest.mark.parametrize(("name", "target"), LINKS)
def test_a_relative_link_leads_somewhere(name, target):
    path, _, fragment = target.partition("#")
    page = (ROOT / name).parent / path if path else ROOT / name
    assert page.exists(), f"{name} links to {target}"
    if fragment:
        headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert fragment in {anchor(heading) for heading in headings}, f"{name} links to {target}"


# The tutorial names files from the folder of its example, and has tests of its own.
@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("writing-a-plugin.md")])
def test_a_module_that_is_named_exists(name):
    named = re.findall(r"`((?:wva_core|plugins|tests|examples|docs|changelog\.d)/[\w./-]+)`", prose(name))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("folder", ["docs/user-guide", "docs/developer-guide", "docs/developer-guide/decisions"])
def test_every_page_is_in_the_index_of_its_folder(folder):
    listed = re.findall(r"\]\(([\w.-]+\.md)\)", text(f"{folder}/README.md"))
    present = {page.name for page in (ROOT / folder).glob("*.md")} - {"README.md"}
    assert set(listed) == present


def test_the_architecture_page_has_a_module_of_every_package():
    named = " ".join(re.findall(r"`(wva_core/[\w/.]+)`", text("docs/developer-guide/architecture.md")))
    packages = {path.parent.name for path in (ROOT / "wva_core").glob("*/__init__.py")}
    assert {package for package in packages if f"wva_core/{package}/" not in named} == set()


def test_every_oracle_is_listed():
    listed = re.findall(r"^\| `(tests/oracles/\w+\.py)`", text("docs/developer-guide/testing.md"), re.MULTILINE)
    assert listed
    assert set(listed) == {f"tests/oracles/{path.name}" for path in (ROOT / "tests/oracles").glob("*.py")}


# ---------------------------------------------------------------------------------------------------------------------
# Scenarios

SIMULATION = "docs/user-guide/simulation.md"

# Where the keys of each mapping of a scenario are explained. Pinned signals go by the list of signals.
KEYS_OF = {
    "ScenarioDocument": "The document",
    "ObjectivesSpec": "objectives",
    "StartUpSpec": "startUp",
    "ModelSpec": "models[]",
    "TraceFileSpec": "models[].trace",
    "ArrivalsSpec": "models[].arrivals",
    "VariantSpec": "models[].variants[]",
    "ProfileSpec": "models[].variants[].profile",
    "ContenderSpec": "contenders[]",
    "WvaSpec": "contenders[].wva",
    "PolicyChangeSpec": "contenders[].wva.policyChanges[]",
    "BehindSpec": "contenders[].wva.hpa",
    "HpaSpec": "contenders[].hpa",
    "StaticSpec": "contenders[].static",
    "BehaviorSpec": "behavior",
    "HpaRulesSpec": "behavior.scaleUp and behavior.scaleDown",
    "PolicyStepSpec": "behavior policies",
}
MODELS = {
    name: model
    for name, model in vars(scenario_document).items()
    if inspect.isclass(model) and issubclass(model, BaseModel) and not name.startswith("_") and model.model_fields
}


def shown_default(field):
    """What the page says in the column of defaults; None where it says it in words."""
    if field.default is PydanticUndefined:
        return "required" if field.default_factory is None else None
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    if isinstance(field.default, int | float):
        return f"`{field.default:g}`"
    return f"`{field.default}`" if isinstance(field.default, str) and field.default else None


def test_every_mapping_of_a_scenario_has_a_section():
    assert set(MODELS) == set(KEYS_OF)


@pytest.mark.parametrize("name", KEYS_OF)
def test_every_key_of_a_scenario_is_explained_with_its_default(name):
    rows = first_cells(sections(SIMULATION, 3)[KEYS_OF[name]].partition("\n## ")[0])
    fields = {camel_case(name): field for name, field in MODELS[name].model_fields.items()}
    assert sorted(row[0].strip("`") for row in rows) == sorted(fields)
    for key, *_, default, _ in rows:
        expected = shown_default(fields[key.strip("`")])
        assert (default == expected) if expected else (default != "required"), key


def test_the_scenario_on_the_page_can_be_read(tmp_path):
    shown = re.search(r"```yaml\n(.*?)```", text(SIMULATION), re.DOTALL)[1]
    path = tmp_path / "scenario.yaml"
    path.write_text(shown, encoding="utf-8")
    names = [contender.name for contender in read_scenario(path).contenders]
    assert names == [contender["name"] for contender in yaml.safe_load(shown)["contenders"]]


def test_the_contender_of_the_first_steps_can_be_added_to_the_demo(tmp_path):
    page = text("docs/user-guide/getting-started.md")
    added = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])["contenders"]
    demo = ROOT / "examples/scenarios/azure-conv-demo.yaml"
    document = yaml.safe_load(demo.read_text(encoding="utf-8"))
    document["models"][0]["trace"]["file"] = str(ROOT / "examples/traces/azure_2023_conv.csv.gz")
    path = tmp_path / "scenario.yaml"
    path.write_text(yaml.safe_dump({**document, "contenders": added}), encoding="utf-8")
    (contender,) = read_scenario(path).contenders
    assert app.contender_layers(read_scenario(path), contender)


def test_every_scenario_is_listed_for_newcomers():
    shown = set(re.findall(r"`?([a-z-]+\.yaml)`", text("docs/user-guide/getting-started.md")))
    present = {path.name for path in (ROOT / "examples/scenarios").glob("*.yaml")}
    assert present - shown == {"azure-conv-demo.yaml"}


# ---------------------------------------------------------------------------------------------------------------------
# Hooks, signals, reasons

HOOKS = "docs/developer-guide/hooks.md"
LIFECYCLE = {"start", "stop"}


def signature(spec, hook):
    arguments = [name for name in inspect.signature(getattr(spec, hook)).parameters if name != "self"]
    return f"`{hook}({', '.join(arguments)})`"


def headed_hooks(heading):
    return re.findall(r"^### (.+)$", sections(HOOKS, 2)[heading], re.MULTILINE)


@pytest.mark.parametrize("kind", SPECS)
def test_every_hook_of_a_kind_stands_in_its_section_with_its_arguments(kind):
    spec, _ = SPECS[kind]
    hooks = [name for name in dir(spec) if not name.startswith("_")]
    assert set(headed_hooks(kind.capitalize())) == {signature(spec, hook) for hook in hooks if hook not in LIFECYCLE}
    assert set(headed_hooks("Every plugin")) == {signature(spec, hook) for hook in hooks if hook in LIFECYCLE}


def test_every_signal_is_listed_with_its_unit():
    rows = {(row[0].strip("`"), row[1], row[2]) for row in first_cells(sections(HOOKS, 2)["Signals"])}
    signals = [*REPLICA_SIGNALS.values(), *SCOPE_SIGNALS.values()]
    assert rows == {(signal.name, signal.unit, signal.meaning) for signal in signals}


EXPLAIN = "docs/user-guide/explain-and-replay.md"


def test_every_reason_is_explained_in_the_words_of_the_product():
    rows = first_cells(sections(EXPLAIN, 3)["Reasons"])
    assert {(row[0].strip("`"), row[1]) for row in rows} == {(reason.name, reason.sentence) for reason in Reason}


@pytest.mark.parametrize(("heading", "words"), [("Verdicts", Verdict), ("Qualities", Quality)])
def test_every_word_of_an_explanation_is_explained(heading, words):
    named = {row[0].strip("`") for row in first_cells(sections(EXPLAIN, 3)[heading].partition("\n## ")[0])}
    assert named == {word.name for word in words}


def test_the_hook_reference_names_every_verdict():
    assert [verdict.name for verdict in Verdict if f"`{verdict.name}`" not in text(HOOKS)] == []


# ---------------------------------------------------------------------------------------------------------------------
# Commands


def shown_commands(name):
    """Lines that a reader would type: after a prompt, or indented, with the folder of the environment or without."""
    return re.findall(r"^(?:\$ | {4}(?:\.venv/bin/)?)(wva .+)$", text(name), re.MULTILINE)


COMMANDS = [(name, line) for name in NAMES for line in shown_commands(name)]


def test_there_are_commands_to_check():
    assert {name for name, _ in COMMANDS} >= {"README.md", SIMULATION, EXPLAIN, "docs/user-guide/getting-started.md"}


@pytest.mark.parametrize(("name", "line"), COMMANDS)
def test_a_shown_command_parses(name, line):
    command, words = main, shlex.split(line)
    context = click.Context(main, info_name=words[0])
    while isinstance(command, click.Group):
        words = words[1:]
        found = command.get_command(context, words[0])
        assert found is not None, f"{name} shows {line}"
        command = found
    command.make_context(words[0], words[1:], parent=context, resilient_parsing=False)


@pytest.mark.parametrize(("name", "line"), COMMANDS)
def test_a_file_that_a_shown_command_reads_is_there(name, line):
    named = [word for word in shlex.split(line) if word.startswith(("examples/", "docs/"))]
    assert [word for word in named if not (ROOT / word).exists()] == [], f"{name} shows {line}"


def test_every_target_of_make_that_is_shown_exists():
    targets = set(re.findall(r"^([a-z]+):.*## ", text("Makefile"), re.MULTILINE))
    shown = {target for name in NAMES for target in re.findall(r"(?:`|^ {4})make ([a-z]+)", text(name), re.MULTILINE)}
    assert shown <= targets


def test_the_replay_on_the_page_finds_identical_plans(tmp_path, monkeypatch, capsys):
    scenario = read_scenario(ROOT / "examples/scenarios/kv-ladder.yaml")
    for contender in scenario.contenders:
        app.run_contender(scenario, contender, records=tmp_path / "ladder" / "records" / contender.name)
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", text(EXPLAIN), re.DOTALL)[1], {})
    cycles = math.floor(scenario.duration_s / 15.0) + 1
    assert capsys.readouterr().out == f"{cycles} of {cycles} cycles give the same plan\n"


def test_the_readme_shows_what_the_demo_gives():
    scenario = read_scenario(ROOT / "examples/scenarios/azure-conv-demo.yaml")
    shown = {
        name: (float(in_time) / 100, float(cost))
        for name, in_time, cost in re.findall(
            r"^ (\S.*?) {2,}([\d.]+)\*? +([\d.]+)\*? ", text("README.md"), re.MULTILINE
        )
    }
    given = {result.name: (result.attainment, result.cost_usd) for result in app.run_scenario(scenario)}
    # about what a request more or less at a boundary may change; the page is a shortened example, not a report
    assert {name: pytest.approx(numbers, rel=0.005) for name, numbers in given.items()} == shown


# ---------------------------------------------------------------------------------------------------------------------
# News


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("changelog.d/") and "README" not in name])
def test_a_news_fragment_is_one_sentence_of_a_known_kind(name):
    assert Path(name).suffixes[-2] in {".added", ".changed", ".fixed", ".deprecated", ".removed"}
    body = text(name)
    assert body.endswith(".\n")
    assert body.count("\n") == 1
