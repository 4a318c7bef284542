"""Entries of a chain: calls by keyword, order, start and stop of all or none."""

import threading
from typing import ClassVar

import pytest
from pydantic import BaseModel, ConfigDict

from wva_core.domain import SignalRequest
from wva_core.errors import ContractError, PluginFailure
from wva_core.hooks import API, Runtime, Thresholds, hookimpl
from wva_core.hooks.catalog import NoParameters
from wva_core.hooks.chain import Entry, start_all, stop_all, tell_all

LONG = 30.0


class Clock:
    def now(self):
        return 0.0


RUNTIME = Runtime(Clock())


class Plugin:
    """Writes down what happens to it."""

    api = API
    log: ClassVar[list] = []

    def __init__(self, parameters):
        self.parameters = parameters

    @hookimpl
    def start(self, runtime):
        self.log.append(("start", type(self).__name__))

    @hookimpl
    def stop(self):
        self.log.append(("stop", type(self).__name__))


class Analyzer(Plugin):
    @hookimpl
    def assess(self, observation):
        self.log.append(("assess", type(self).__name__))
        return f"{type(self).__name__} of {observation}"


@pytest.fixture
def log():
    Plugin.log = []
    return Plugin.log


def entry(plugin, kind="analyzers", name="", **options):
    return Entry.of(kind, plugin, NoParameters(), type_name=plugin.__name__.lower(), name=name, **options)


def named(*names, base=Analyzer):
    return [entry(type(name, (base,), {})) for name in names]


# ---------------------------------------------------------------------------------------------------------------------
# One call


def test_an_implementation_may_take_fewer_arguments_than_its_hook(log):
    one = entry(Analyzer)
    assert one.call("assess", LONG, observation="it", settings="unused", state="unused").value == "Analyzer of it"
    one.stop()


def test_an_entry_answers_for_itself_alone(log):
    first, second = named("First", "Second")
    assert first.call("assess", LONG, observation=1, settings=None, state=None).value == "First of 1"
    assert log == [("assess", "First")]
    stop_all([first, second])


def test_three_plugins_are_called_in_the_configured_order(log):
    # pluggy would call the last registered first
    chain = named("First", "Second", "Third")
    for one in chain:
        one.call("assess", LONG, observation=1, settings=None, state=None)
    assert log == [("assess", "First"), ("assess", "Second"), ("assess", "Third")]
    stop_all(chain)


def test_nothing_for_an_answer_is_a_broken_contract_and_no_consent():
    class Silent(Analyzer):
        @hookimpl
        def assess(self):
            return None

    one = entry(Silent)
    failure = one.call("assess", LONG, observation=1, settings=None, state=None).failure
    assert "analyzer silent: assess: returned None; return the type the hook names" in str(failure)
    one.stop()


def test_an_entry_knows_which_hooks_its_plugin_has():
    one = entry(Analyzer)
    assert [hook for hook in ("assess", "predict", "start") if one.has(hook)] == ["assess", "start"]


def test_an_entry_is_called_what_policy_calls_it():
    one = entry(Analyzer, name="mine")
    assert (one.label, one.name, one.type_name) == ("analyzer mine", "mine", "analyzer")


def test_state_is_kept_under_the_name_and_under_the_plugin_where_they_differ():
    assert entry(Analyzer).state_key == "analyzer"
    assert entry(Analyzer, name="mine").state_key == "analyzer/mine"


def test_signals_that_an_object_makes_up_from_its_parameters_are_checked():
    class Configurable(Analyzer):
        class Parameters(BaseModel):
            model_config = ConfigDict(extra="forbid")
            signal: str = "kv_usage"

        def __init__(self, parameters):
            self.signals = (SignalRequest(parameters.signal),)

    def of(signal):
        return Entry.of("analyzers", Configurable, Configurable.Parameters(signal=signal), type_name="mine")

    assert of("waiting").signals == (SignalRequest("waiting"),)
    assert of("waiting").default_thresholds == Thresholds()
    with pytest.raises(ContractError, match="Configurable: signals: is not what an analyzer states"):
        of("wating")


# ---------------------------------------------------------------------------------------------------------------------
# Into service and out of it


def test_all_start_in_order(log):
    chain = named("First", "Second")
    start_all(chain, RUNTIME)
    assert log == [("start", "First"), ("start", "Second")]
    stop_all(chain)


def test_a_plugin_without_start_and_stop_needs_neither():
    class Plain:
        api = API

        def __init__(self, parameters):
            pass

        @hookimpl
        def assess(self):
            return 1

    start_all([entry(Plain)], RUNTIME)
    assert stop_all([entry(Plain)]) == {}


def test_when_one_refuses_to_start_the_others_stop_again(log):
    class Refusing(Analyzer):
        @hookimpl
        def start(self, runtime):
            raise OSError("port in use")

    with pytest.raises(PluginFailure) as caught:
        start_all([*named("First", "Second"), entry(Refusing), *named("Never")], RUNTIME)
    assert str(caught.value) == (
        "analyzer refusing: start: cannot go into service: OSError: port in use;"
        " mend what it names, or take the entry out"
    )
    assert isinstance(caught.value.__cause__, OSError)
    assert log == [
        ("start", "First"),
        ("start", "Second"),
        ("stop", "Refusing"),
        ("stop", "Second"),
        ("stop", "First"),
    ]


def test_a_port_this_world_does_not_offer_is_told_in_its_own_words(log):
    class Elsewhere(Analyzer):
        @hookimpl
        def start(self, runtime):
            runtime.port("cluster", "analyzer elsewhere")

    with pytest.raises(PluginFailure) as caught:
        start_all([entry(Elsewhere)], Runtime(Clock(), ports={"simulation": 1}))
    assert str(caught.value) == (
        "analyzer elsewhere: start: cannot go into service: analyzer elsewhere: needs the port 'cluster', which this"
        " world does not offer; use it in a world that offers 'cluster' (this one offers simulation);"
        " mend what it names, or take the entry out"
    )


def test_what_stop_raises_is_returned_and_stops_nobody_else(log):
    class Clinging(Analyzer):
        @hookimpl
        def stop(self):
            raise RuntimeError("not yet")

    failures = stop_all([entry(Clinging), *named("Other")])
    assert [(label, str(error)) for label, error in failures.items()] == [("analyzer clinging", "not yet")]
    assert log == [("stop", "Other")]


def test_threads_end_with_stop(log):
    class Own(Analyzer):
        @hookimpl
        def assess(self):
            return threading.current_thread()

    one = entry(Own)
    thread = one.call("assess", LONG, observation=1, settings=None, state=None).value
    assert one.stop() is None
    thread.join(LONG)
    assert not thread.is_alive()


class Stuck(Plugin):
    """Its `act` does not return until it is let go."""

    def __init__(self, parameters):
        self.entered, self.go_on = threading.Event(), threading.Event()

    @hookimpl
    def act(self):
        self.entered.set()
        assert self.go_on.wait(LONG)
        return 1

    @hookimpl
    def stand_down(self):
        self.log.append(("stand_down", type(self).__name__))


def test_a_stuck_plugin_is_stopped_when_it_comes_back_and_nobody_waits(log):
    one = entry(Stuck, "actuators")
    one.call("act", 0.0, plan=None, fence=None)
    assert one.plugin.entered.wait(LONG)
    assert str(one.stop()) == (
        "actuator stuck: stop: is still in a late call;"
        " it is told when that call comes back; find out what it waits for"
    )
    assert log == []
    thread = next(thread for thread in threading.enumerate() if thread.name == "wva-actuator stuck")
    one.plugin.go_on.set()
    thread.join(LONG)
    assert log == [("stop", "Stuck")]


def test_all_are_told_even_beside_one_that_is_stuck(log):
    class Quick(Stuck):
        pass

    class Broken(Stuck):
        @hookimpl
        def stand_down(self):
            raise RuntimeError("no")

    stuck, quick, broken = (entry(one, "actuators") for one in (Stuck, Quick, Broken))
    stuck.call("act", 0.0, plan=None, fence=None)
    failures = tell_all([stuck, quick, broken], "stand_down")
    assert log == [("stand_down", "Quick")]
    assert list(failures) == ["actuator stuck", "actuator broken"]
    assert "is still in a late call" in str(failures["actuator stuck"])
    thread = next(thread for thread in threading.enumerate() if thread.name == "wva-actuator stuck")
    stuck.plugin.go_on.set()
    stop_all([stuck, quick, broken])
    thread.join(LONG)  # it may still have been in its late call when it was told to stop, and nobody waits for that
    assert ("stand_down", "Stuck") in log
