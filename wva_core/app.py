"""
The only place where all parts are put together: a world, its ends, a brain, records and telemetry around one engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry
from structlog.typing import FilteringBoundLogger

from wva_core.domain import Memory, Mode, Reason
from wva_core.domain.record import Record
from wva_core.engine.brain import Brain
from wva_core.engine.loop import CycleResult, Engine, PolicyRefused
from wva_core.engine.predictions import Predictions, can_predict, predictions
from wva_core.engine.replay import ReplayedCycle, decided_again, replay, same_plan
from wva_core.errors import EnvironmentFault, RecordError, WvaError
from wva_core.hooks import catalog
from wva_core.hooks.chain import Entry
from wva_core.hooks.runtime import Runtime
from wva_core.policy.layers import Layer, Precedence
from wva_core.policy.source import PolicySource
from wva_core.simulation.cluster import StartUp
from wva_core.simulation.notices import Notices
from wva_core.simulation.report import ContenderResult, ScenarioFacts, TraceFacts, ValidationRow, VariantFacts
from wva_core.simulation.scenario import Contender, PolicyChange, Scenario, WvaContender, folder_name
from wva_core.simulation.validation import validate_profile
from wva_core.simulation.world import UNLIMITED_REPLICAS, World
from wva_core.telemetry.cycle_log import CycleLog
from wva_core.telemetry.record_reader import RecordReader
from wva_core.telemetry.record_segments import DECISIONS, OBSERVATIONS
from wva_core.telemetry.record_writer import RecordWriter

__all__ = [
    "Log",
    "check_contenders",
    "clear_records",
    "contender_layers",
    "engine_for",
    "entry",
    "facts",
    "recorded_predictions",
    "records_folder",
    "replay_records",
    "run_contender",
    "run_scenario",
    "validation",
]

Log: TypeAlias = FilteringBoundLogger
"""Where a run tells what changes: a structured logger."""


def entry(kind: str, name: str, parameters: Mapping[str, Any] | None = None) -> Entry:
    """
    A collector or actuator by name, with its parameters, not yet in service.

    Raises:
        UnknownPluginError, DuplicatePluginError, PluginImportError, ContractError: it is not usable.
    """
    plugin = catalog.load(kind, name)
    return Entry.of(kind, plugin, catalog.parameters_of(plugin)(**(parameters or {})), type_name=name)


def contender_layers(scenario: Scenario, contender: WvaContender, change: PolicyChange | None = None) -> list[Layer]:
    """
    The policy of a contender as layers, or the one that a change puts in its place.

    Raises:
        PolicyError: the file it names cannot be used.
    """
    layers: list[Layer] = []
    if contender.hpa is None:
        # without an HPA behind it the engine carries its plans out itself, unless the policy says otherwise
        layers.append(Layer("contender without an HPA", {"mode": "act"}, Precedence.ENVIRONMENT))
    place = f"{scenario.source}: contender {contender.name}"
    file, policy = (contender.policy_file, contender.policy) if change is None else (change.file, change.policy)
    if change is not None:
        place += f" from {change.at_s:g} s"
    elif contender.profile:
        layers.append(Layer(place, {"profile": contender.profile}))
    if file is not None:
        layers.extend(PolicySource(file).poll() or ())
    elif policy:
        layers.append(Layer(f"{place}: policy", policy))
    return layers


def _policy_changes(world: World, contender: WvaContender) -> Callable[[], list[Layer] | None]:
    """The contender's changes as a policy source: each once, at the first cycle that is not before its time."""
    coming = list(contender.changes)

    def poll() -> list[Layer] | None:
        due = None
        while coming and coming[0].at_s <= world.clock.now():
            due = coming.pop(0)
        return None if due is None else contender_layers(world.scenario, contender, due)

    return poll


def check_contenders(scenario: Scenario) -> None:
    """
    Builds what every contender decides with, and puts none of it into service.

    Raises:
        WvaError: a policy is not usable, or a plugin that it or the simulation needs.
    """
    for contender in scenario.contenders:
        if isinstance(contender, WvaContender):
            _ends(contender)
            for change in (None, *contender.changes):
                Brain.build(contender_layers(scenario, contender, change)).check(scenario.fleet)


def engine_for(world: World, contender: WvaContender, memory: Memory | None = None, log: Log | None = None) -> Engine:
    """
    An engine over a world, not yet started; from now on the world's cycles are its own, and its advice too.

    Args:
        world: of this contender.
        contender: says which policy, and whether an HPA stands behind.
        memory: to continue from, such as a checkpoint.
        log: told what changes from cycle to cycle.

    Raises:
        WvaError: the policy is not usable, or a plugin.
    """
    registry = CollectorRegistry()
    collectors, actuators = _ends(contender)
    engine = Engine(
        Runtime(world.clock, registry, {"simulation": world}),
        Brain.build(contender_layers(world.scenario, contender)),
        collectors,
        actuators,
        policy_source=_policy_changes(world, contender) if contender.changes else None,
        memory=Memory.empty() if memory is None else memory,
        has_deadline=False,
        subscribers=[_noticing(world.notices)],
    )
    if log is not None:
        engine.subscribers.append(CycleLog(log.bind(contender=contender.name), brain=lambda: engine.brain))
    world.cycle = lambda: _ignored(engine.run_cycle())
    world.interval_s = engine.brain.policy.spec.interval
    mode = Mode(engine.brain.policy.spec.mode)
    if contender.hpa is not None:
        world.advice = lambda: _published_targets(registry)
        if mode is Mode.OBSERVE:
            world.notices.add("policy says mode observe: nothing is published, and the HPA behind it does nothing")
    elif mode is not Mode.ACT:
        world.notices.add(f"policy says mode {mode}: with no HPA behind it, nothing carries its plans out")
    return engine


def _ends(contender: WvaContender) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """Collectors and actuators of a simulated world."""
    actuator = "simulation" if contender.hpa is None else "prometheus-gauge"
    return (entry("collectors", "simulation"),), (entry("actuators", actuator),)


def _ignored(_: object) -> None:
    """Subscribers are told of a cycle's result; the world need not be."""


def _published_targets(registry: CollectorRegistry) -> dict[str, float]:
    """Published targets by variant key, read as a scrape reads them."""
    for family in registry.collect():
        if family.name == "wva_desired_replicas":
            return {
                f"{sample.labels['namespace']}/{sample.labels['variant_name']}": sample.value
                for sample in family.samples
            }
    return {}


def _noticing(notices: Notices) -> Callable[[CycleResult | PolicyRefused], None]:
    """What a reader of the report must know of the cycles."""

    def tell(result: CycleResult | PolicyRefused) -> None:
        if isinstance(result, PolicyRefused):
            notices.add(str(result.error))
            return
        plan = result.plan
        for label, failure in result.failures.items():
            notices.add(str(failure), plan.time, key=f"{label} {failure.key}")
        for notice in plan.notices:
            if notice.code != "plugin_failed":
                notices.add(f"{notice.subject}: {notice.text}", plan.time, key=f"{notice.code} {notice.subject}")
        for row in plan.stalled.nonzero()[0].tolist():
            notices.add(
                f"{plan.fleet.keys[row]} stalled: its target was not reached, or a replica stayed pending, for longer"
                " than settleSeconds",
                plan.time,
            )
        for row in (plan.reason == Reason.BOUND_ROW).nonzero()[0].tolist():
            label = plan.limits[int(plan.binding_row[row])]
            notices.add(f"{plan.fleet.keys[row]} was to grow, but {label} are used up", plan.time)
        for row in ((plan.reason == Reason.BOUND_MAX) & (plan.desired >= plan.high)).nonzero()[0].tolist():
            notices.add(f"{plan.fleet.keys[row]} was at its maximum and was to grow", plan.time)

    return tell


def run_contender(
    scenario: Scenario,
    contender: Contender,
    *,
    records: Path | None = None,
    progress: Callable[[float], None] | None = None,
    log: Log | None = None,
) -> ContenderResult:
    """
    One contender through the whole scenario.

    Args:
        scenario: what all contenders meet.
        contender: who scales.
        records: folder for the cycles of a WVA contender, in place of those it holds; none are kept if left out.
        progress: told the simulated time after every instant. A KeyboardInterrupt that it raises ends the run, and
            the result is marked partial.
        log: told what changes from cycle to cycle.

    Raises:
        WvaError: its policy is not usable; nothing has run.
    """
    world = World(scenario, contender)
    engine, writer = None, None
    if isinstance(contender, WvaContender):
        engine = engine_for(world, contender, log=log)
        if records is not None:
            clear_records(records)
            # A simulation outruns a disk: it writes in step, so that no cycle is missing.
            writer = RecordWriter(records, synchronous=True, on_error=lambda fault: world.notices.add(str(fault)))
            engine.subscribers.append(_recording(writer))
        engine.start()
    interrupted = False
    try:
        world.run(progress)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        for label, error in ({} if engine is None else engine.stop()).items():
            world.notices.add(f"{label} left service and raised {error}")
        if writer is not None:
            writer.close()
    return world.result(partial=interrupted)


def _recording(writer: RecordWriter) -> Callable[[CycleResult | PolicyRefused], None]:
    def tell(result: CycleResult | PolicyRefused) -> None:
        if isinstance(result, CycleResult):
            writer.append(result.record)

    return tell


def clear_records(directory: Path) -> None:
    """
    Removes the record segments in a folder, and nothing else that may be there.

    Raises:
        EnvironmentFault: one of them cannot be removed.
    """
    for ring in (OBSERVATIONS, DECISIONS):
        for path in sorted((directory / ring).glob("*"), reverse=True):  # each index before its blocks
            if path.suffix not in {".jsonl", ".bin"} or not (path.stem.isdigit() and path.is_file()):
                continue
            try:
                path.unlink()
            except OSError as exc:
                raise EnvironmentFault(
                    f"is a record of an earlier run and cannot be removed: {exc.strerror or exc}",
                    object=str(path),
                    remedy="remove it, or choose another folder with --out",
                ) from exc


def records_folder(records: Path, contender: Contender) -> Path:
    """Where `run_scenario` keeps the records of one contender."""
    return records / folder_name(contender.name)


def run_scenario(
    scenario: Scenario,
    *,
    records: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
    log: Log | None = None,
) -> Iterator[ContenderResult]:
    """
    The contenders of a scenario, one after the other; ends after a partial result.

    Args:
        scenario: what they meet.
        records: folder in which each WVA contender gets a folder of records.
        progress: told the contender and the simulated time, as in `run_contender`.
        log: told what changes from cycle to cycle.

    Raises:
        WvaError: a contender's policy is not usable; nothing has run.
    """
    check_contenders(scenario)
    for contender in scenario.contenders:
        result = run_contender(
            scenario,
            contender,
            records=None if records is None else records_folder(records, contender),
            progress=None if progress is None else partial(progress, contender.name),
            log=log,
        )
        yield result
        if result.partial:
            return


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
        rule=f"{rule.text} {_counted(rule.warmup_s)}",
        variants=tuple(
            VariantFacts(
                key=deployment.variant,
                model=deployment.model.partition("/")[2],
                accelerator=deployment.accelerator,
                gpus_per_replica=deployment.gpus_per_replica,
                cost_usd_per_h=deployment.cost_usd_per_h,
                min=scenario.min_replicas[deployment.variant],
                max=scenario.max_replicas[deployment.variant] or UNLIMITED_REPLICAS,
                startup=_startup_text(deployment.start_up),
            )
            for deployment in scenario.deployments
        ),
    )


def _counted(warmup_s: float) -> str:
    begin = "end of the warm-up" if warmup_s else "start"
    return f"Cost and scale actions count from the {begin} to the end of the traffic."


def _startup_text(law: StartUp) -> str:
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
    yield from replay(RecordReader(directory).read(start, end, from_checkpoint=True), _recorded_brain)


def recorded_predictions(directory: Path, record: Record) -> Predictions:
    """
    What the analyzers of a recorded cycle expect of its plan, by entry name; nothing where none of them predicts.

    The cycle is decided again, from the checkpoint before it, so that every analyzer has learnt what it had then.

    Args:
        directory: that the record was read from.
        record: a complete one.

    Raises:
        RecordError: the cycles before it cannot be read.
        WvaError: a recorded policy names plugins that are not usable here, or decides this cycle otherwise today.

    Cost: that of at most 240 cycles (`segment_cycles` of the writer) of the analyzers and the optimizer.
    """
    if not can_predict(Brain.build([Layer("record", record.policy)])):
        return {}
    cycles = RecordReader(directory).read(record.time, record.time, from_checkpoint=True)
    with closing(decided_again(cycles, _recorded_brain)) as again:
        for then, decision, brain in again:
            if then.cycle != record.cycle or then.time != record.time:
                continue
            if not same_plan(record.plan, decision.plan):
                raise RecordError(
                    "is decided otherwise by the plugins installed now, so what they expect says nothing of it",
                    object=str(directory),
                    key=f"cycle {record.cycle}",
                    remedy="install the release that wrote it",
                )
            return predictions(decision, brain)
    raise RecordError(
        "cannot be decided again: there is no checkpoint before it",
        object=str(directory),
        key=f"cycle {record.cycle}",
        remedy="ask about a later cycle",
    )


def _recorded_brain(policy: Mapping[str, Any]) -> Brain:
    """The brain of a recorded policy, in service."""
    brain = Brain.build([Layer("record", policy)])
    brain.start(Runtime(_StoppedClock()))
    return brain


class _StoppedClock:
    """The clock of a replay: decisions take time from the record alone."""

    def now(self) -> float:
        """Nothing in a replay may ask for the time."""
        raise WvaError("a replay has no clock", remedy="take the time from the observation")
