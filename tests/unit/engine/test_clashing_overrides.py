"""Three overrides that fit two by two and not together: they cost the analyzer its say where they meet, no more."""

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, model_validator

from tests.unit.engine.parts import follows, optimizer, runtime, shown, steps
from wva_core.domain import Memory, Reason
from wva_core.engine import Brain, Engine, decide
from wva_core.errors import PolicyError
from wva_core.hooks import API, hookimpl
from wva_core.hooks.catalog import NoParameters
from wva_core.hooks.chain import Entry
from wva_core.policy.layers import Layer, resolve
from wva_core.testing.builders import observe


class Shares(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    a: float = 0.1
    b: float = 0.1
    c: float = 0.1

    @model_validator(mode="after")
    def _at_most_one(self):
        if self.a + self.b + self.c > 1:
            raise ValueError("a, b and c are more than 1; lower one of them")
        return self


class Divider:
    """Wants one replica more everywhere."""

    api = API
    Parameters = Shares

    def __init__(self, parameters):
        self.signals = ()

    @hookimpl
    def assess(self, observation, settings, state):
        return steps(required=1.0)(observation, settings, state)


def share(name, model, namespace=None):
    match = {"modelID": model, **({} if namespace is None else {"namespace": namespace})}
    return {"match": match, "analyzers": [{"name": "divider", "parameters": {name: 0.4}}]}


# 0.4 + 0.4 + 0.1 fits, 0.4 + 0.4 + 0.4 does not: all three meet on `chat-x` in `ns` alone
OVERRIDES = [share("a", "chat*"), share("b", "*-x"), share("c", "*", "ns")]
SEEN = observe([{"name": name, "model": name, "current": 2} for name in ("chat-x", "chat-y", "code-x")])


def brain():
    document = {"analyzers": [{"type": "divider"}], "optimizer": {"type": "chooser"}, "overrides": OVERRIDES}
    resolved = resolve([Layer("p.yaml", document)], lambda kind, _: Shares if kind == "analyzers" else NoParameters)
    entry = Entry.of("analyzers", Divider, Shares(), type_name="divider")
    return Brain(resolved, (entry,), optimizer(follows))


def test_the_analyzer_freezes_the_scope_where_they_meet_and_judges_the_others():
    decision = decide(SEEN, brain(), Memory.empty(SEEN.fleet))
    assert decision.plan.desired.tolist() == [2, 3, 3]
    assert [Reason(value) for value in decision.plan.reason] == [Reason.FROZEN, Reason.GROW, Reason.GROW]
    assert decision.plan.degraded
    (notice,) = decision.plan.notices
    assert (notice.code, notice.subject) == ("overrides_clash", "divider")
    assert notice.text.startswith("p.yaml: overrides[2].analyzers[0].parameters: a, b and c are more than 1")
    assert notice.text.endswith("; lower one of them")


def test_a_cycle_of_the_engine_goes_on():
    engine = Engine(runtime(), brain(), (shown(SEEN),), ())
    engine.start()
    assert engine.run_cycle().plan.desired.tolist() == [2, 3, 3]
    engine.stop()


def test_a_policy_that_clashes_on_a_fleet_that_is_known_is_refused_beforehand():
    with pytest.raises(PolicyError, match="a, b and c are more than 1"):
        brain().check(SEEN.fleet)
    brain().check(observe([{"name": "b", "model": "chat-y"}]).fleet)


def test_settings_of_the_scopes_where_nothing_clashes_are_as_ever():
    settings = brain().settings(SEEN.fleet)
    where, _ = settings.refused["divider"]
    assert where.tolist() == [True, False, False]
    np.testing.assert_array_equal(settings.analyzers["divider"]["a"], [0.1, 0.4, 0.1])
    np.testing.assert_array_equal(settings.analyzers["divider"]["c"], [0.1, 0.4, 0.4])
    assert settings.enabled["divider"].all()
