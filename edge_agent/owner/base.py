"""What serves an application's commands on one device: names and error words of XFS4IoT (CWA 17852), content only in what is returned or told.

A server object speaks on a port that the device's own task holds: it is called between two looks of the driver and gives the port back as it
found it. Whatever it learns of a person goes to its caller and nowhere else: not into a log, an exception's text, a repr or a field that stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from edge_agent.devices.attempts import Met
from edge_agent.devices.base import SlotBinding
from edge_agent.jobs import JobAnswer
from edge_agent.transports.base import Port

Tell = Callable[[str, Mapping[str, Any]], None]
"""`tell(event name, payload)`: an unsolicited or intermediate event for the holder of the claim, e.g. `CardReader.MediaInserted`."""


class CommandFailed(JobAnswer):
    """A command that did not succeed.

    `code` is the completion's `errorCode` (e.g. `mediaJam`) or, where `plain`, its status word (e.g. `timeOut`).
    """

    known: Mapping[str, Any] = MappingProxyType({})
    """What is known all the same, for the payload: of the device, never of a person."""

    def __init__(self, code: str, *, plain: bool = False) -> None:
        super().__init__(code)
        self.code, self.plain = code, plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One command of the application, checked against its schema. `name` is as in the standard: `CardReader.Move`."""

    name: str
    payload: Mapping[str, Any] = field(repr=False)
    timeout_s: float


@runtime_checkable
class Counting(Protocol):
    """A server that tells what its commands met at a reader: meanings of answers, nothing of a card."""

    def take_steps(self) -> Iterable[Met]:
        """Since it was asked last."""
        ...


class Server(Protocol):
    """Commands of one family of devices."""

    @property
    def commands(self) -> frozenset[str]:
        """Which it takes for this device."""
        ...

    def capabilities(self, bound: SlotBinding) -> Mapping[str, Any]:
        """The family's part of `Common.Capabilities`, by interface (`{"cardReader": {...}}`)."""
        ...

    async def serve(self, port: Port, bound: SlotBinding, request: Request, tell: Tell) -> Mapping[str, Any]:
        """The completion's payload. Raises CommandFailed, PortError. A command that moved something is never sent a second time."""
        ...
