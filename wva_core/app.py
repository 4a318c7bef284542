"""
The only place where all parts are put together: a world, its ends, a brain, records and telemetry around one engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from wva_core.engine.brain import Brain
from wva_core.engine.loop import CycleResult, Engine, PolicyRefused
from wva_core.engine.replay import ReplayedCycle, replay
from wva_core.errors import WvaError
from wva_core.hooks import catalog
from wva_core.hooks.chain import Entry
from wva_core.hooks.runtime import Runtime
from wva_core.policy.layers import Layer, Precedence
from wva_core.policy.source import PolicySource
from wva_core.simulation.profiles import validate_profile
from wva_core.simulation.report import ContenderResult, ScenarioFacts, TraceFacts, ValidationRow, VariantFacts
from wva_core.simulation.scenario import Contender, Scenario, WvaContender
from wva_core.simulation.world import World
from wva_core.telemetry.record_reader import RecordReader
from wva_core.telemetry.record_writer import RecordWriter

__all__ = ["contender_layers", "entry", "facts", "replay_records", "run_contender", "run_scenario", "validation"]


def entry(kind: str, name: str, parameters: Mapping[str, Any] | None = None) -> Entry:
    """
    A collector or actuator by name, with its parameters, not yet in service.

    Raises:
        UnknownPluginError, DuplicatePluginError, PluginImportError, ContractError: it is not usable.
    """
    plugin = catalog.load(kind, name)
    return Entry.of(kind, plugin, catalog.parameters_of(plugin)(**(parameters or {})), type_name=name)


def contender_layers(scenario: Scenario, contender: WvaContender) -> list[Layer]:
    """
    The policy of a contender as layers.

    Raises:
        PolicyError: the file it names cannot be used.
    """
    layers: list[Layer] = []
    if contender.hpa is None:
        # without an HPA behind it the engine carries its plans out itself, unless the policy says otherwise
        layers.append(Layer("contender without an HPA", {"mode": "act"}, Precedence.ENVIRONMENT))
    place = f"{scenario.source}: contender {contender.name}"
    if contender.profile:
        layers.append(Layer(place, {"profile": contender.profile}))
    if contender.policy_file is not None:
        layers.extend(PolicySource(contender.policy_file).poll() or ())
    elif contender.policy:
        layers.append(Layer(f"{place}: policy", contender.policy))
    return layers


def run_contender(
    scenario: Scenario,
    contender: Contender,
    *,
    records: Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> ContenderResult:
    """
    One contender through the whole scenario.

    Args:
        records: folder for the cycles of a WVA contender; none are kept if left out.
        progress: told the simulated time.

    A keyboard interrupt ends the run; the result is then marked partial.

    Raises:
        WvaError: its policy is not usable; nothing has run.
    """
    world = World(scenario, contender)
    engine, writer = None, None
    if isinstance(contender, WvaContender):
        engine = _engine(world, contender)
        if records is not None:
            # a simulation outruns a disk: it writes in step, so that no cycle is missing
            writer = RecordWriter(records, synchronous=True)
            engine.subscribers.append(_recording(writer))
        engine.start()
    try:
        world.run(progress)
    except KeyboardInterrupt:
        return world.result(partial=True)
    finally:
        if engine is not None:
            engine.stop()
        if writer is not None:
            writer.close()
    return world.result()


def _engine(world: World, contender: WvaContender) -> Engine:
    registry = CollectorRegistry()
    behind_hpa = contender.hpa is not None
    actuators = (entry("actuators", "prometheus-gauge" if behind_hpa else "simulation"),)
    engine = Engine(
        Runtime(world.clock, registry, {"simulation": world}),
        Brain.build(contender_layers(world.scenario, contender)),
        (entry("collectors", "simulation"),),
        actuators,
    )
    engine.subscribers.append(_noticing(world))
    world.cycle = lambda: _ignored(engine.run_cycle())
    world.interval_s = engine.brain.policy.spec.interval
    if behind_hpa:
        world.advice = lambda: _published_targets(registry)
    return engine


def _ignored(_: object) -> None:
    """Subscribers are told of a cycle's result; the world need not be."""


def _published_targets(registry: CollectorRegistry) -> dict[str, float]:
    """Published targets by variant key, read as a scrape reads them."""
    return {
        f"{sample.labels['namespace']}/{sample.labels['variant_name']}": sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "wva_desired_replicas"
    }


def _recording(writer: RecordWriter) -> Callable[[CycleResult | PolicyRefused], None]:
    def tell(result: CycleResult | PolicyRefused) -> None:
        if isinstance(result, CycleResult):
            writer.append(result.record)

    return tell


def _noticing(world: World) -> Callable[[CycleResult | PolicyRefused], None]:
    """Notices of the cycles become notices of the contender, each variant and plugin once."""
    stalled: set[str] = set()

    def tell(result: CycleResult | PolicyRefused) -> None:
        if isinstance(result, PolicyRefused):
            world.notices.append(str(result.error))
            return
        world.notices.extend(str(failure) for failure in result.failures.values())
        plan = result.plan
        for row in plan.stalled.nonzero()[0]:
            key = plan.fleet.keys[row]
            if key not in stalled:
                stalled.add(key)
                world.notices.append(
                    f"{key} stalled at {plan.time:.0f} s: its target was not reached, or a replica stayed pending,"
                    " for longer than settleSeconds"
                )

    return tell


def run_scenario(
    scenario: Scenario,
    *,
    records: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Iterator[ContenderResult]:
    """
    The contenders of a scenario, one after the other; ends after a partial result.

    Args:
        records: folder in which each WVA contender gets a folder of records.
        progress: told the contender and the simulated time.

    Raises:
        WvaError: a contender's policy is not usable.
    """
    for contender in scenario.contenders:
        name = contender.name

        def tell(time: float, name: str = name) -> None:
            if progress is not None:
                progress(name, time)

        result = run_contender(
            scenario, contender, records=None if records is None else records / _folder_name(name), progress=tell
        )
        yield result
        if result.partial:
            return


def _folder_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)


def validation(scenario: Scenario) -> list[ValidationRow]:
    """The simulator beside the closed-loop formula, for every profile of the scenario."""
    rows: list[ValidationRow] = []
    for profile in dict.fromkeys(deployment.profile for deployment in scenario.deployments):
        rows.extend(
            ValidationRow(
                profile.label,
                row.batch,
                row.predicted_s * 1000,
                row.simulated_s * 1000,
                row.error * 100,
                profile.mape * 100,
            )
            for row in validate_profile(profile)
        )
    return rows


def facts(scenario: Scenario) -> ScenarioFacts:
    """What a report says of a scenario."""
    rule = scenario.rule
    traces = list(scenario.traces.items())
    notes = [scenario.trace_notes[model] for model, _ in traces]
    return ScenarioFacts(
        name=scenario.name,
        description=scenario.description,
        source=Path(scenario.source).name,
        trace=TraceFacts(
            name=", ".join(trace.name for _, trace in traces) or "no traffic",
            kind=", ".join(dict.fromkeys(trace.kind for _, trace in traces)) or "synthetic",
            requests=sum(len(trace) for _, trace in traces),
            span_s=scenario.duration_s,
            attribution=" ".join(dict.fromkeys(note for _, note in notes if note)),
            scaling_note="; ".join(dict.fromkeys(note for note, _ in notes)),
        ),
        seed=scenario.seed,
        interval_s=scenario.scrape_s,
        warmup_s=rule.warmup_s,
        ttft_objective_s=rule.ttft_s,
        tpot_objective_s=rule.tpot_s,
        rule=rule.text + " Cost counts from the end of the warm-up to the end of the traffic.",
        variants=tuple(
            VariantFacts(
                key=deployment.variant,
                model=deployment.model.partition("/")[2],
                accelerator=deployment.accelerator,
                gpus_per_replica=deployment.gpus_per_replica,
                cost_usd_per_h=deployment.cost_usd_per_h,
                min=scenario.min_replicas[deployment.variant],
                max=scenario.max_replicas[deployment.variant] or 10_000,
                startup=_startup_text(deployment.start_up),
            )
            for deployment in scenario.deployments
        ),
    )


def _startup_text(law: Any) -> str:
    if law.law == "uniform":
        return f"{law.low_s:g} to {law.high_s:g} s"
    if law.law == "lognormal":
        return f"{law.mean_s:g} s on average, lognormal with cv {law.cv:g}"
    return f"{law.mean_s:g} s"


def replay_records(directory: Path, start: float | None = None, end: float | None = None) -> Iterator[ReplayedCycle]:
    """
    Recorded cycles decided once more with the installed plugins, each beside its record.

    Raises:
        RecordError: the records cannot be read.
        WvaError: a recorded policy names plugins that are not usable here.
    """

    def build(policy: Mapping[str, Any]) -> Brain:
        brain = Brain.build([Layer("record", policy)])
        brain.start(Runtime(_StoppedClock()))
        return brain

    yield from replay(RecordReader(directory).read(start, end, from_checkpoint=True), build)


class _StoppedClock:
    """The clock of a replay: decisions take time from the record alone."""

    def now(self) -> float:
        """Nothing in a replay may ask for the time."""
        raise WvaError("a replay has no clock", remedy="take the time from the observation")
