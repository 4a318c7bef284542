"""The analyzer `queueing-model` keeps the contract of all analyzers, also with profiles, objectives and `compat`."""

from typing import ClassVar

from wva_core.testing import AnalyzerConformance

PROFILES = [
    {
        "model": f"model-{number:06d}",
        "accelerator": accelerator,
        "alphaMs": 7,
        "betaMsPerToken": 0.03,
        "gammaMsPerToken": 4e-4,
    }
    for number in range(9)  # as many as the largest fleet that is made under other names has
    for accelerator in ("A100", "H100", "L40S")
]


class TestDefaults(AnalyzerConformance):
    plugin = "queueing-model"


class TestWithObjectivesAndProfiles(AnalyzerConformance):
    plugin = "queueing-model"
    parameters: ClassVar = {"targetTTFT": 500, "targetITL": 50, "targetQuantile": 0.95, "profiles": PROFILES}


class TestAsUpstream(AnalyzerConformance):
    plugin = "queueing-model"
    parameters: ClassVar = {"compat": True}
