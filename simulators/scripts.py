"""Fault scripts: what happens to which device when, as text a person types. Pure: a script is values, playing it is the terminal's work.

One step a line; `#` starts a comment:

    at 3s receipt-printer paper-out
    at 5s for 10s scanner unplug
    at 20s clear receipt-printer paper-out
    at 8s press call-pad 3 call-next
    every 30s from 10s press evaluator rate 5

The same as TOML (`[[step]]` with `at`, `every`, `for` and `do`) for scripts that other programs write.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulators.errors import ScriptError

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "": 1.0}
_DURATION = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>ms|min|s|m|h|)\Z")
_MIN_EVERY_S = 0.05


@dataclass(frozen=True)
class Step:
    """One thing that happens. `words` are read by the terminal: `fault DEVICE FAULT`, `clear DEVICE FAULT`, `press DEVICE ACTION…`."""

    at_s: float
    words: tuple[str, ...]
    for_s: float | None = None
    every_s: float | None = None


def duration_s(text: str) -> float:
    """`500ms`, `3s`, `2m`, `1h` or a plain number of seconds; ScriptError otherwise."""
    match = _DURATION.match(text)
    if match is None:
        raise ScriptError(f"“{text}” is not a duration such as 3s, 500ms or 2m.")
    return float(match["number"]) * _UNITS_S[match["unit"]]


def parse(text: str) -> tuple[Step, ...]:
    """A script in line form, steps in time order."""
    steps = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        try:
            steps.append(_parse_line(words))
        except ScriptError as err:
            raise ScriptError(f"Line {number}: {err}") from None
    return tuple(sorted(steps, key=lambda step: step.at_s))


def parse_toml(text: str) -> tuple[Step, ...]:
    """A script in TOML form."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise ScriptError(f"The script is not TOML: {err}") from None
    if set(tree) - {"step"}:
        raise ScriptError(f"Unknown table {min(set(tree) - {'step'})!r}; a script has [[step]] tables only.")
    steps = []
    for number, entry in enumerate(tree.get("step", []), start=1):
        try:
            steps.append(_parse_entry(entry))
        except ScriptError as err:
            raise ScriptError(f"Step {number}: {err}") from None
    return tuple(sorted(steps, key=lambda step: step.at_s))


def load(path: Path) -> tuple[Step, ...]:
    """Read a script; TOML if the file is called so."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise ScriptError(f"Cannot read {path}: {err.strerror if isinstance(err, OSError) else 'not UTF-8'}.") from None
    return parse_toml(text) if path.suffix == ".toml" else parse(text)


def _parse_line(words: list[str]) -> Step:
    rest = list(words)
    every_s = None
    first = rest.pop(0)
    if first == "at":
        at_s = duration_s(_next(rest, "a time behind “at”"))
    elif first == "every":
        every_s = duration_s(_next(rest, "a time behind “every”"))
        at_s = every_s
        if rest[:1] == ["from"]:
            rest.pop(0)
            at_s = duration_s(_next(rest, "a time behind “from”"))
    else:
        raise ScriptError(f"A step starts with “at” or “every”, not “{first}”.")
    for_s = None
    if rest[:1] == ["for"]:
        rest.pop(0)
        for_s = duration_s(_next(rest, "a time behind “for”"))
    elif "for" in rest[-2:-1]:
        for_s = duration_s(rest[-1])
        rest = rest[:-2]
    return _step(at_s, rest, for_s, every_s)


def _parse_entry(entry: dict[str, Any]) -> Step:
    unknown = set(entry) - {"at", "every", "for", "do"}
    if unknown:
        raise ScriptError(f"unknown key {min(unknown)!r}; known: at, every, for, do.")
    every_s = duration_s(str(entry["every"])) if "every" in entry else None
    if "at" not in entry and every_s is None:
        raise ScriptError("“at” or “every” is missing.")
    at_s = duration_s(str(entry["at"])) if "at" in entry else every_s or 0.0
    for_s = duration_s(str(entry["for"])) if "for" in entry else None
    return _step(at_s, str(entry.get("do", "")).split(), for_s, every_s)


def _step(at_s: float, words: list[str], for_s: float | None, every_s: float | None) -> Step:
    if words[:1] and words[0] not in ("fault", "clear", "press", "do"):
        words = ["fault", *words]
    if len(words) < 3:
        raise ScriptError("a step names a device and what happens to it: at 3s receipt-printer paper-out.")
    if for_s is not None and words[0] != "fault":
        raise ScriptError("“for” belongs to faults only.")
    if every_s is not None and every_s < _MIN_EVERY_S:
        raise ScriptError("“every” is at least 50ms.")
    return Step(at_s, tuple(words), for_s, every_s)


def _next(words: list[str], what: str) -> str:
    if not words:
        raise ScriptError(f"{what} is missing.")
    return words.pop(0)
