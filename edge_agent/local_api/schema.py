"""What applications may say: closed structs in which no person fits. Refusals name the field and the rule, never the value, never an unknown name."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from edge_agent.local_api.refusal import ApiRefused
from edge_agent.sessions import Channel, Outcome
from protocols.contract.records import ItemCode, Slot

ClientId = Annotated[
    str, Meta(pattern=r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}\Z", max_length=36)
]
"""A random UUID (RFC 9562, version 4) that the application makes for each case; a repeat with the same id is the same case."""
SessionId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z", max_length=32)]


class _Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request body: nothing but its fields."""


class Begin(_Ask, frozen=True, kw_only=True):
    client_id: ClientId
    item: ItemCode
    channel: Channel = "touch"


class Renew(_Ask, frozen=True, kw_only=True):
    pass


class End(_Ask, frozen=True, kw_only=True):
    outcome: Outcome
    cause: Literal["none", "device", "backend", "network", "citizen", "application"] = "none"


class Rate(_Ask, frozen=True, kw_only=True):
    """`level`: 5 very satisfied to 1 very dissatisfied, 0 asked and not answered (GB/T 39735-2020)."""

    client_id: ClientId
    level: Annotated[int, Meta(ge=0, le=5)]
    channel: Literal["evaluator", "terminal"] = "terminal"
    slot: Slot | None = None
    session: SessionId | None = None


class Refill(_Ask, frozen=True, kw_only=True):
    """`quantity` counts sheets, pieces, millimetres or percent, as the consumable is counted."""

    client_id: ClientId
    slot: Slot
    item: Literal["paper", "roll", "toner", "drum", "ribbon", "cards", "booklets", "labels"]
    quantity: Annotated[int, Meta(ge=1, le=1_000_000)]


class Use(_Ask, frozen=True, kw_only=True):
    """`count` jobs of one device: slips printed, cards read, codes scanned."""

    client_id: ClientId
    slot: Slot
    ok: bool
    count: Annotated[int, Meta(ge=1, le=1000)] = 1


class Showing(_Ask, frozen=True, kw_only=True):
    """A page of a content package was shown `count` times, `seconds` in all."""

    client_id: ClientId
    package: Annotated[str, Meta(pattern=r"^[a-z]{2,16}(-[a-z]{1,16}){0,3}(-[0-9]{1,3})?\Z", max_length=48)]
    page: ItemCode
    count: Annotated[int, Meta(ge=1, le=1000)] = 1
    seconds: Annotated[int, Meta(ge=0, le=86_400)] = 0


_Body = TypeVar("_Body", bound=_Ask)

_RULES = {
    "client_id": "must be a random UUID (version 4) in its usual form",
    "item": "is not one of the words that are allowed here",
    "channel": "is not one of the words that are allowed here",
    "outcome": "must be success, failed or abandoned",
    "cause": "must be none, device, backend, network, citizen or application",
    "level": "must be a whole number from 0 to 5",
    "slot": "is not a slot of this terminal",
    "session": "is not the id of a session",
    "quantity": "must be a whole number from 1 to 1000000",
    "ok": "must be true or false",
    "count": "must be a whole number from 1 to 1000",
    "package": "is not the name of a content package",
    "page": "is not a page of this package",
    "seconds": "must be a whole number from 0 to 86400",
}
"""The only names and sentences a refusal can contain."""


def read(body: bytes, kind: type[_Body]) -> _Body:
    """Decode and check; ApiRefused with a prepared sentence."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as err:
        raise ApiRefused(422, *_explain(str(err))) from None
    except msgspec.DecodeError:
        raise ApiRefused(400, "json", "The body is not JSON.") from None


def _explain(problem: str) -> tuple[str, str]:
    """msgspec's message may quote names and words that somebody sent: only known field names come out."""
    if problem.startswith("Object contains unknown field"):
        return "unknownField", "The body has a field that is not in the schema; nothing about a person may be sent here."
    if problem.startswith("Object missing required field"):
        name = next((name for name in _RULES if f"`{name}`" in problem), None)
        return "missingField", f"The field {name} is missing." if name else "A field is missing."
    path = re.search(r" - at `\$\.([a-z_]+)`\Z", problem)
    if path and path[1] in _RULES:
        return "field", f"The field {path[1]} {_RULES[path[1]]}."
    return "shape", "The body must be a JSON object with the fields of the schema."
