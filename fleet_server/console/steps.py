"""What happened to a fault, as sentences: who claimed, noted, muted or marked it, and what ended by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fleet_server.console.render import Voice


def step_sentence(voice: Voice, step: Mapping[str, Any], problem: str, zone: str | None = None) -> str | None:
    """None for a step that has no sentence, such as the opening, which the page shows otherwise."""
    key = f"event.{step['kind']}"
    if step["kind"] == "mute" and step["until_ms"] is not None:
        key = "event.muteUntil"
    elif step["kind"] == "unmute" and step["by"]:
        key = "event.unmuteBy"
    if not voice.t.has(key):
        return None
    until = "" if step["until_ms"] is None else voice.clock(step["until_ms"], zone)
    return voice.t(key, by=step["by"] or "—", problem=problem, text=step["text"] or "", until=until)


def steps_of(voice: Voice, steps: Iterable[Mapping[str, Any]], problem: str, zone: str | None = None) -> list[dict[str, Any]]:
    return [
        {"at_ms": step["at_ms"], "sentence": sentence}
        for step in steps
        if (sentence := step_sentence(voice, step, problem, zone)) is not None
    ]
