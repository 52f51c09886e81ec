"""Owns the agent's configuration file: what may stand in it, and the sentence an installer reads when it is wrong.

Files reject what they do not know (a misspelt key must not be a silent default); the server's desired state, which has the same members, is read
with the tolerance of the wire. Nothing here opens a device, a socket or a key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from edge_agent.errors import ConfigError
from protocols.canon.words import Ownership
from protocols.codecs.ipp import Address, address_of
from protocols.contract.records import ItemCode, PortPath, ProfileId, Slot
from protocols.errors import EncodeError

Port = Annotated[int, Meta(ge=1, le=65535)]
AbsolutePath = Annotated[str, Meta(pattern=r"^/", max_length=1024)]
HostName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9.:-]{1,253}\Z")]
Family = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{1,23}\Z")]
Command = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=512, pattern=r"^[^\x00]*\Z")], ...], Meta(max_length=16)]

DEFAULT_PATH = Path("/etc/kiosk-fleet/agent.toml")
MAX_BYTES = 256 * 1024
"""40 devices and 2,000 items with all their keys need less than half of it."""


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file: immutable, and unknown keys are refused."""


class ServerTable(_Table, frozen=True, kw_only=True):
    url: Annotated[str, Meta(max_length=512)]
    """`https://host[:port]` of the fleet server."""


class MqttTable(_Table, frozen=True, kw_only=True):
    """Only where the terminal must use another way than the one it was given at enrolment."""

    host: HostName | None = None
    port: Port | None = None
    tls: bool = True


class LocalApiTable(_Table, frozen=True, kw_only=True):
    socket_path: Annotated[str, Meta(pattern=r"^/", max_length=107)] = "/run/kiosk-fleet/agent.sock"
    """At most 107 bytes: unix(7)."""
    allowed_uids: Annotated[tuple[Annotated[int, Meta(ge=0, lt=2**32)], ...], Meta(max_length=16)] = ()
    """Users whose programs may use the Unix socket, besides root and the agent's own user."""
    http_port: Port | None = None
    """Loopback HTTP for browser kiosks; absent: no HTTP at all."""
    allowed_origins: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    allowed_hosts: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    """Exact `Host` values; by default `127.0.0.1:<port>` and `localhost:<port>`."""
    application_tokens_file: AbsolutePath | None = None
    session_lease_s: Annotated[int, Meta(ge=10, le=3600)] = 120
    """A session that is not renewed for so long was left by the citizen, or the application died."""

    def hosts(self) -> frozenset[str]:
        if self.allowed_hosts:
            return frozenset(self.allowed_hosts)
        return frozenset({f"127.0.0.1:{self.http_port}", f"localhost:{self.http_port}"})


class HooksTable(_Table, frozen=True, kw_only=True):
    """Commands that signed orders may start, each a program with its arguments; no shell reads them. Without one the order is refused."""

    restart_application: Command = ()
    restart_host: Command = ()
    within_s: Annotated[int, Meta(ge=1, le=600)] = 60
    """A command that takes longer is ended, and the order has failed."""


class LogTable(_Table, frozen=True, kw_only=True):
    """The agent's own log on disk, from which operators may have excerpts."""

    dir: AbsolutePath | None = None
    """None: `log` in `state_dir`."""
    max_mib: Annotated[int, Meta(ge=0, le=64)] = 8
    """0: none is kept."""


class UpdaterTable(_Table, frozen=True, kw_only=True):
    """Directories by which agent and updater talk; absent where no updater runs."""

    requests_dir: AbsolutePath
    """The agent writes here."""
    updates_dir: AbsolutePath
    """The updater writes here."""


class IntervalsTable(_Table, frozen=True, kw_only=True):
    summary_s: Annotated[int, Meta(ge=60, le=86400)] = 900
    """Length of a summary span; spans end at multiples of it (00:00, 00:15, …)."""
    host_sample_s: Annotated[int, Meta(ge=1, le=900)] = 15
    renewal_check_s: Annotated[int, Meta(ge=60, le=86400)] = 3600


class DeviceEntry(_Table, frozen=True, kw_only=True):
    """One place of the terminal's inventory and what should be there."""

    slot: Slot
    family: Family
    profile: ProfileId | None = None
    """None: the profile is found by what the hardware says about itself."""
    port: PortPath | None = None
    """USB port path (`1-1.4`) or device node; binding by serial adapter ids is not stable."""
    address: Annotated[int, Meta(ge=0, le=255)] | None = None
    """Address on a shared bus (call pads, Modbus)."""
    ownership: Ownership = Ownership.OWNER
    mandatory: bool = True


class ItemEntry(_Table, frozen=True, kw_only=True):
    """One service item this terminal offers."""

    code: ItemCode
    type: Literal["handle", "query", "book", "other"] = "handle"


class Config(_Table, frozen=True, kw_only=True):
    """The whole file."""

    schema: Literal[1]
    identity_dir: AbsolutePath = "/var/lib/kiosk-fleet/identity"
    state_dir: AbsolutePath = "/var/lib/kiosk-fleet/state"
    profiles_dir: AbsolutePath | None = None
    """Profiles here come on top of those that are shipped, and replace one of the same id."""
    server: ServerTable
    mqtt: MqttTable = MqttTable()
    local_api: LocalApiTable = LocalApiTable()
    intervals: IntervalsTable = IntervalsTable()
    hooks: HooksTable = HooksTable()
    log: LogTable = LogTable()
    updater: UpdaterTable | None = None
    devices: Annotated[tuple[DeviceEntry, ...], Meta(max_length=40)] = ()
    items: Annotated[tuple[ItemEntry, ...], Meta(max_length=2000)] = ()


class DesiredState(msgspec.Struct, frozen=True, kw_only=True):
    """What the server wants at this terminal; holds where the file lists no devices or no items."""

    devices: tuple[DeviceEntry, ...] = ()
    items: tuple[ItemEntry, ...] = ()


def load(path: Path) -> Config:
    """Read and check the file; ConfigError names file, key and rule."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as err:
        raise ConfigError(f"{path}: cannot be read ({err.strerror})") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES // 1024} KiB, so it is not an agent configuration")
    return parse(raw, path.name)


def parse(raw: bytes, name: str) -> Config:
    """Check the text of a configuration called `name`."""
    try:
        tree = tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as err:
        raise ConfigError(f"{name}: not UTF-8 at byte {err.start}") from None
    except tomllib.TOMLDecodeError as err:
        raise ConfigError(f"{name}: not TOML: {err}") from None
    try:
        config = msgspec.convert(tree, Config)
    except msgspec.ValidationError as err:
        raise ConfigError(f"{name}: {_sentence(str(err), tree)}") from None
    for problem in _contradictions(config):
        raise ConfigError(f"{name}: {problem}")
    return config


def desired_state(tree: object) -> DesiredState:
    """The server's desired state as plain data; unknown members are dropped, ConfigError for what does not fit."""
    try:
        return msgspec.convert(_without_unknown(tree), DesiredState)
    except msgspec.ValidationError as err:
        raise ConfigError(f"desired state: {_sentence(str(err), {})}") from None


def with_desired(config: Config, desired: DesiredState) -> Config:
    """The configuration that holds: what the file says, and the server's word where the file is silent."""
    merged = msgspec.structs.replace(config, devices=config.devices or desired.devices, items=config.items or desired.items)
    for problem in (*_far_addresses(() if config.devices else desired.devices), *_contradictions(merged)):
        raise ConfigError(f"desired state: {problem}")
    return merged


class _Signed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tables of a configuration that operators send; as strict as the file."""

    devices: Annotated[tuple[DeviceEntry, ...], Meta(max_length=40)] = ()
    items: Annotated[tuple[ItemEntry, ...], Meta(max_length=2000)] = ()
    intervals: dict[str, Any] = {}


def with_signed(config: Config, devices: Iterable[Any], items: Iterable[Any], intervals: dict[str, Any]) -> Config:
    """The file with the tables of a signed configuration in place of its own; a table that is empty there leaves the file's.

    ConfigError if it does not fit the schema or contradicts what the file says.
    """
    tree = {"devices": list(devices), "items": list(items), "intervals": intervals}
    try:
        signed = msgspec.convert(tree, _Signed)
        merged_intervals = msgspec.convert(msgspec.to_builtins(config.intervals) | signed.intervals, IntervalsTable)
    except msgspec.ValidationError as err:
        raise ConfigError(f"signed configuration: {_sentence(str(err), tree)}") from None
    merged = msgspec.structs.replace(
        config, devices=signed.devices or config.devices, items=signed.items or config.items, intervals=merged_intervals
    )
    for problem in _contradictions(merged):
        raise ConfigError(f"signed configuration: {problem}")
    return merged


def _without_unknown(tree: object) -> object:
    if not isinstance(tree, dict):
        return tree
    known: dict[str, object] = {}
    for key, entry in (("devices", DeviceEntry), ("items", ItemEntry)):
        rows = tree.get(key, [])
        fields = {field.encode_name for field in msgspec.structs.fields(entry)}
        known[key] = (
            [{k: v for k, v in row.items() if k in fields} if isinstance(row, dict) else row for row in rows]
            if isinstance(rows, list)
            else rows
        )
    return known


# ------------------------------------------------------------------------------------------------------------------ contradictions


def _contradictions(config: Config) -> Iterable[str]:
    """What each key allows alone but all keys together do not, in the order of the file."""
    if problem := _url_problem(config.server.url):
        yield f"server.url: {problem}"
    api = config.local_api
    if api.http_port is None:
        for key in ("allowed_origins", "allowed_hosts", "application_tokens_file"):
            if getattr(api, key):
                yield f"local_api.{key}: has no effect without local_api.http_port"
    else:
        if not api.allowed_origins:
            yield "local_api.allowed_origins: missing; name the origin of the kiosk's page, or leave out local_api.http_port"
        if api.application_tokens_file is None:
            yield "local_api.application_tokens_file: missing; browser applications need a token each"
    for at, origin in enumerate(api.allowed_origins):
        if not _ORIGIN.fullmatch(origin):
            yield f"local_api.allowed_origins[{at}]: not an exact origin such as https://kiosk.example.org or http://127.0.0.1:8080"
    for at, host in enumerate(api.allowed_hosts):
        if not _HOST.fullmatch(host):
            yield f"local_api.allowed_hosts[{at}]: not an exact host such as 127.0.0.1:7077"
    for key in ("restart_application", "restart_host"):
        command: tuple[str, ...] = getattr(config.hooks, key)
        if command and not command[0].startswith("/"):
            yield f"hooks.{key}[0]: must be an absolute path"
    if config.updater is not None and config.updater.requests_dir == config.updater.updates_dir:
        yield "updater.updates_dir: the same as requests_dir; each side writes only its own directory"
    if config.identity_dir == config.state_dir:
        yield "state_dir: the same as identity_dir; keys live apart from data that may be thrown away"
    yield from _doubles("devices", "slot", (device.slot for device in config.devices))
    yield from _doubles("items", "code", (item.code for item in config.items))
    yield from _shared_ports(config.devices)
    yield from _addresses(config.devices)


_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?")
_HOST = re.compile(r"[a-z0-9.-]+(:[0-9]{1,5})?")


def _url_problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "not an address such as https://fleet.example.org"
    if parts.scheme != "https":
        return "must start with https:// (the one-time code and the keys' certificates travel there)"
    if not parts.hostname or parts.username or parts.password or parts.query or parts.fragment or port == 0:
        return "not an address such as https://fleet.example.org"
    return None


def _addresses(devices: Iterable[DeviceEntry]) -> Iterable[str]:
    for at, device in enumerate(devices):
        if device.port is not None and "://" in device.port and _address(device.port) is None:
            yield f"devices[{at}].port: not ipp:// with a literal address, such as ipp://127.0.0.1:60000/ipp/print"


def _far_addresses(devices: Iterable[DeviceEntry]) -> Iterable[str]:
    """A server may not send the agent around in the network: what is beyond this machine stands in the file, or in what operators signed."""
    for at, device in enumerate(devices):
        address = _address(device.port) if device.port is not None else None
        if address is not None and not address.is_loopback:
            yield f"devices[{at}].port: only an address of this machine (loopback); another one must stand in the agent's own file"


def _address(port: str) -> Address | None:
    try:
        return address_of(port)
    except EncodeError:
        return None


def _doubles(table: str, key: str, values: Iterable[str]) -> Iterable[str]:
    first: dict[str, int] = {}
    for at, value in enumerate(values):
        if value in first:
            yield f'{table}[{at}].{key}: "{value}" is already in {table}[{first[value]}]'
        first.setdefault(value, at)


def _shared_ports(devices: tuple[DeviceEntry, ...]) -> Iterable[str]:
    """A port belongs to one slot, or to several with an address each."""
    holders: dict[tuple[str, int | None], int] = {}
    plain: dict[str, int] = {}
    for at, device in enumerate(devices):
        if device.port is None:
            continue
        if (device.port, device.address) in holders:
            yield f'devices[{at}].port: "{device.port}" is already in devices[{holders[device.port, device.address]}]'
        elif device.port in plain or (device.address is None and any(port == device.port for port, _ in holders)):
            yield f'devices[{at}].port: "{device.port}" is shared, so every device on it needs an address'
        holders.setdefault((device.port, device.address), at)
        if device.address is None:
            plain.setdefault(device.port, at)


# ------------------------------------------------------------------------------------------------------------------------ sentences

_AT = re.compile(r" - at `\$\.?(?P<path>.*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>.*)`")
_MISSING = re.compile(r"Object missing required field `(?P<key>.*)`")
_TYPE = re.compile(r"Expected `(?P<wanted>[^`]*)`, got `(?P<found>[^`]*)`")
_WORDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
_RULES = {
    "slot": 'not a slot name such as "receipt-printer" or "call-pad-3"',
    "family": 'not a family name such as "receipt-printer"',
    "profile": 'not a profile id such as "epson-tm-t88v"',
    "port": "not a port",
    "code": 'not an item code such as "social-security.certificate.print"',
    "ownership": "not one of: " + ", ".join(Ownership),
    "type": "not one of: handle, query, book, other",
    "schema": "this agent reads schema 1",
    "host": "not a host name or address",
}
"""What a pattern or a list of words means, for the last name of the path."""


def _sentence(problem: str, tree: dict[str, Any]) -> str:
    """msgspec's message as `path: rule`."""
    found = _AT.search(problem)
    path = found["path"] if found else ""
    problem = problem[: found.start()] if found else problem
    if match := _UNKNOWN.fullmatch(problem):
        return f"{_join(path, match['key'])}: unknown key"
    if match := _MISSING.fullmatch(problem):
        return f"{_join(path, match['key'])}: missing"
    name = path.rpartition(".")[2].partition("[")[0]
    if match := _TYPE.fullmatch(problem):
        wanted = " or ".join(_WORDS.get(word, word) for word in match["wanted"].split(" | ") if word != "null")
        return f"{path}: must be {wanted}, not {_WORDS.get(match['found'], match['found'])}"
    if name.endswith(("_dir", "_path", "_file")) and "matching regex" in problem:
        return f"{path}: must be an absolute path"
    if name == "schema" or problem.startswith("Invalid") or "matching regex" in problem:
        return f"{path}: {_RULES.get(name, 'not allowed here')}"
    if match := re.fullmatch(r"Expected `\w+` (?P<rule>[<>]=?) (?P<limit>-?\d+)", problem):
        word = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}[match["rule"]]
        return f"{path}: must be {word} {match['limit']}"
    if match := re.fullmatch(r"Expected `(?P<kind>\w+)` of length <= (?P<limit>\d+)", problem):
        unit = "entries" if match["kind"] == "array" else "characters"
        return f"{path}: at most {match['limit']} {unit}"
    return f"{path}: {problem}"


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
