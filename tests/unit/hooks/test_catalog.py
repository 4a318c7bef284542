"""Finding plugins by name, and what is said of a class that does not keep the contract."""

import abc
import types

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict

from tests.unit.hooks.distributions import Site
from wva_core.domain import Assessment, SignalRequest
from wva_core.errors import ContractError, DuplicatePluginError, PluginImportError, UnknownPluginError
from wva_core.hooks import API, Thresholds, hookimpl
from wva_core.hooks.catalog import (
    NoParameters,
    check_contract,
    hooks_of,
    listing,
    load,
    make,
    parameters_of,
    signals_of,
    thresholds_of,
)

GOOD = """
    from wva_core.hooks import hookimpl

    class Mine:
        api = "1"

        def __init__(self, parameters):
            self.parameters = parameters

        @hookimpl
        def assess(self, observation):
            return None
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    return Site(tmp_path, monkeypatch)


def refusal(kind, name):
    with pytest.raises((UnknownPluginError, DuplicatePluginError, PluginImportError, ContractError)) as caught:
        load(kind, name)
    return caught.value


def refused(plugin, kind="analyzers"):
    with pytest.raises(ContractError) as caught:
        check_contract(kind, "mine", plugin)
    return str(caught.value)


class Good:
    api = API

    def __init__(self, parameters):
        self.parameters = parameters

    @hookimpl
    def assess(self, observation):
        return Assessment.of(observation.fleet, unit="replicas")


# ---------------------------------------------------------------------------------------------------------------------
# Finding


def test_an_installed_plugin_is_loaded_by_its_name(site):
    module = site.install("wva-mine", GOOD)
    plugin = load("analyzers", "mine")
    assert (plugin.__module__, plugin.__qualname__) == (module, "Mine")


def test_listing_names_the_distribution_and_imports_nothing(site):
    module = site.install("wva-broken", "raise RuntimeError('imported')", name="broken-one")
    found = [item for item in listing("analyzers") if item.name == "broken-one"]
    assert [(item.target, item.distribution, item.version) for item in found] == [
        (f"{module}:Mine", "wva-broken", "1.0")
    ]
    assert [item.kind for item in listing() if item.name == "broken-one"] == ["analyzers"]


def test_a_name_nobody_offers_is_refused_with_the_closest_one_and_all_that_are_installed(site):
    site.install("wva-mine", GOOD, kind="actuators", name="first-one")
    site.install("wva-other", GOOD, kind="actuators", name="second-one")
    error = refusal("actuators", "frist-one")
    installed = ", ".join(item.name for item in listing("actuators"))
    assert str(error) == (
        "actuators: frist-one: no installed actuator has this name; did you mean 'first-one'? "
        f"installed: {installed}; install the distribution that offers it or correct the name"
    )


def test_a_name_like_no_other_is_refused_without_a_suggestion(site):
    site.install("wva-mine", GOOD, kind="collectors", name="first-one")
    assert "did you mean" not in str(refusal("collectors", "zzz"))


def test_a_plugin_that_cannot_be_imported_is_told_with_its_cause(site):
    module = site.install("wva-mine", "import a_library_nobody_has")
    error = refusal("analyzers", "mine")
    assert isinstance(error, PluginImportError)
    assert str(error) == (
        f"plugin mine: {module}:Mine: cannot be imported: ModuleNotFoundError: No module named 'a_library_nobody_has';"
        " install what it needs, or report this to the author of its distribution"
    )
    assert isinstance(error.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize("statement", ["raise RuntimeError('no')", "assert False, 'no'", "raise SystemExit('no')"])
def test_whatever_an_import_raises_is_an_import_error(site, statement):
    site.install("wva-mine", statement)
    error = refusal("analyzers", "mine")
    assert isinstance(error, PluginImportError)
    assert error.__cause__ is not None


def test_a_class_that_is_not_in_its_module_is_an_import_error(site):
    site.install("wva-mine", GOOD, target="Yours")
    assert "AttributeError" in str(refusal("analyzers", "mine"))


def test_one_name_from_two_distributions_is_refused_with_both(site):
    site.install("wva-one", GOOD)
    site.install("wva-two", GOOD)
    error = refusal("analyzers", "mine")
    assert isinstance(error, DuplicatePluginError)
    assert str(error) == (
        "analyzers: mine: is offered by more than one distribution: wva-one, wva-two; uninstall all but one of them"
    )


def test_one_name_for_two_kinds_is_no_conflict(site):
    site.install("wva-one", GOOD)
    site.install("wva-two", GOOD.replace("assess(self, observation)", "allocate(self, limits)"), kind="optimizers")
    assert hooks_of("analyzers", load("analyzers", "mine")) == ["assess"]
    assert hooks_of("optimizers", load("optimizers", "mine")) == ["allocate"]


def test_a_plugin_installed_while_the_process_runs_needs_a_restart(site):
    site.install("wva-mine", GOOD)
    load("analyzers", "mine")
    site.install("wva-other", GOOD, name="later-one")
    assert str(refusal("analyzers", "later-one")) == (
        "analyzers: later-one: was installed after this process read which analyzers there are; restart the process"
    )


def test_what_is_loaded_is_checked(site):
    site.install("wva-mine", GOOD.replace('api = "1"', 'api = "2"'))
    assert isinstance(refusal("analyzers", "mine"), ContractError)


# ---------------------------------------------------------------------------------------------------------------------
# The contract


def test_a_class_that_keeps_the_contract_is_handed_back():
    assert check_contract("analyzers", "mine", Good) is Good


def test_an_object_is_refused():
    assert refused(Good(None)) == (
        "analyzer mine: is an object, not a class; let the entry point name the class; the engine makes the object"
    )


def test_a_module_is_refused():
    assert refused(types.ModuleType("mine")) == (
        "analyzer mine: is a module, not a class; let the entry point name the class; the engine makes the object"
    )


def test_another_api_is_refused():
    class Mine(Good):
        api = "2"

    assert refused(Mine) == (
        "analyzer mine: api: is written for another contract (got '2');"
        ' state api = "1" once it keeps that contract, or install a release of it that does'
    )


def test_a_class_without_an_api_is_refused():
    class Mine:
        pass

    assert "api: is written for another contract (got None)" in refused(Mine)


def test_parameters_that_let_unknown_keys_pass_are_refused():
    class Mine(Good):
        class Parameters(BaseModel):
            level: float = 1.0

    assert refused(Mine) == (
        "analyzer mine: Parameters: accepts unknown keys;"
        ' add model_config = ConfigDict(extra="forbid") so that a misspelled key is refused'
    )


def test_parameters_that_are_no_model_are_refused():
    class Mine(Good):
        Parameters = dict

    assert "Parameters: is not a pydantic model; derive it from pydantic.BaseModel" in refused(Mine)


def test_a_class_without_parameters_has_none_to_set():
    assert parameters_of(Good) is NoParameters


def test_a_hook_without_its_marker_is_refused():
    class Mine:
        api = API

        def assess(self, observation):
            pass

    assert refused(Mine) == (
        "analyzer mine: assess: is not marked as a hook and would never be called; put @hookimpl above it"
    )


def test_a_marked_hook_that_is_overridden_without_the_marker_is_refused():
    class Mine(Good):
        def assess(self, observation):
            pass

    assert "assess: is not marked as a hook" in refused(Mine)


def test_a_misspelled_hook_is_refused():
    class Mine(Good):
        @hookimpl
        def predcit(self, observation):
            pass

    text = refused(Mine)
    assert "unknown hook 'predcit' in plugin" in text
    assert text.endswith("hooks of analyzers are assess, predict, start, stop; use their names and argument names")


def test_an_argument_the_hook_does_not_have_is_refused():
    class Mine:
        api = API

        @hookimpl
        def assess(self, observations):
            pass

    text = refused(Mine)
    assert "'observations'" in text
    assert "declared in the hookimpl but can not be found in the hookspec" in text


def test_a_missing_hook_is_refused():
    class Mine:
        api = API

        @hookimpl
        def predict(self, observation):
            pass

    assert refused(Mine) == (
        "analyzer mine: assess: is missing; every plugin in wva.analyzers implements assess and marks it with @hookimpl"
    )


def test_a_collector_that_collects_nothing_is_refused():
    class Mine:
        api = API

        @hookimpl
        def stop(self):
            pass

    assert refused(Mine, "collectors") == (
        "collector mine: has no hook and would never be called;"
        " implement one of collect, discover and mark it with @hookimpl"
    )


def test_an_abstract_class_is_refused():
    class Mine(Good, abc.ABC):
        @abc.abstractmethod
        def fit(self):
            pass

    assert refused(Mine) == (
        "analyzer mine: fit: is abstract and no object can be made of it;"
        " let the entry point name a class that implements these"
    )


def test_checking_a_class_runs_none_of_its_code():
    class Mine(Good):
        def __init__(self, parameters):
            raise AssertionError("made")

        @property
        def model(self):
            raise AssertionError("read")

    assert check_contract("analyzers", "mine", Mine) is Mine


@pytest.mark.parametrize(
    ("signals", "said"),
    [
        (SignalRequest("kv_usage"), "give a tuple of SignalRequest(…)"),
        (("kv_usage",), "give a tuple of SignalRequest(…)"),
        ((SignalRequest("kv_usge"),), "(got 'kv_usge'); use one of kv_usage, kv_now, waiting"),
        ((SignalRequest("queue_size"),), "(got 'queue_size'); use one of kv_usage"),
        ((SignalRequest("kv_usage", level="pod"),), "use level replica or scope"),
    ],
)
def test_signals_nobody_can_collect_are_refused(signals, said):
    class Mine(Good):
        pass

    Mine.signals = signals
    text = refused(Mine)
    assert "Mine: signals: is not what an analyzer states" in text
    assert said in text


def test_signals_and_thresholds_are_what_the_class_states():
    class Mine(Good):
        signals = (SignalRequest("kv_usage"), SignalRequest("queue_size", level="scope"))
        default_thresholds = Thresholds(0.9, 0.5)

    assert signals_of(Mine) == Mine.signals
    assert thresholds_of(Mine) == Thresholds(0.9, 0.5)
    assert (signals_of(Good), thresholds_of(Good)) == ((), Thresholds(0.85, 0.70))


def test_thresholds_that_are_none_are_refused():
    class Mine(Good):
        default_thresholds = (0.9, 0.5)

    assert "default_thresholds: is not what an analyzer states (got (0.9, 0.5))" in refused(Mine)


def test_a_constructor_that_raises_is_the_plugins_fault():
    class Mine(Good):
        def __init__(self, parameters, clock):
            pass

    with pytest.raises(ContractError) as caught:
        make(Mine, NoParameters())
    assert str(caught.value).endswith(
        "let __init__ take the parameters alone and touch nothing outside; use start(runtime) for that"
    )
    assert "cannot be made: TypeError" in str(caught.value)


def test_make_hands_over_the_parameters():
    class Mine(Good):
        class Parameters(BaseModel):
            model_config = ConfigDict(extra="forbid")
            level: float = 1.0

    assert make(Mine, Mine.Parameters(level=2)).parameters.level == 2.0


def test_an_answer_of_the_good_class_is_an_assessment():
    # the class the other cases are made from is itself a working plugin
    from wva_core.testing.builders import observe

    assert np.isnan(Good(None).assess(observe([{"name": "a"}])).demand).all()
