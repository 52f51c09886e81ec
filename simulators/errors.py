"""Errors of the simulators, by who must act."""

from __future__ import annotations


class SimulatorError(Exception):
    """Base of everything the simulators raise on purpose."""


class UnknownName(SimulatorError):
    """The person at the keyboard named a device, fault, action or terminal type that does not exist. The message lists what does."""


class ScriptError(SimulatorError):
    """A fault script cannot be read. The message names the line."""


class ControlError(SimulatorError):
    """A running terminal could not be reached, or refused."""


def unknown(what: str, name: str, known: list[str]) -> UnknownName:
    return UnknownName(f"There is no {what} called “{name}”. Known: {', '.join(sorted(known)) or 'none'}.")
