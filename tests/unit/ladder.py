"""A scenario whose replicas are always saturated, so that a policy climbs one replica after the other."""

from __future__ import annotations

LADDER = {
    "name": "ladder",
    "durationSeconds": 600,
    "objectives": {"ttftSeconds": 1.0, "tpotSeconds": 0.1},
    "startUp": {"law": "constant", "meanSeconds": 30},
    "models": [
        {
            "model": "meta-llama/Llama-3.1-8B-Instruct",
            "variants": [
                {
                    "name": "a",
                    "profile": {"accelerator": "L4", "kind": "derived"},
                    "maxReplicas": 3,
                    "signals": {"kvUsage": 0.95, "waiting": 0},
                }
            ],
        }
    ],
    "contenders": [{"name": "wva", "wva": {"profile": "saturation-v1"}}],
}
"""As a document; tests copy it and change what they are about."""
