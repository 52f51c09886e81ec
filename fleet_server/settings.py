"""Settings: a TOML file and the environment, read once at start, checked strictly, frozen.

The file is `$KF_CONFIG`, else `fleet.toml` in the data directory if it is there. Each value can be overridden by a variable named after its place:
`KF_FLEET`, `KF_DATA_DIR`, `KF_WEB_PORT`, `KF_BROKER_KIND`. Lists are written with commas. What is not known is refused by name.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from fleet_server.errors import SettingsError
from fleet_server.updates.layout import UpdatesLayout

Port = Annotated[int, Meta(ge=1, le=65535)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:-]{0,252}$")]
"""A DNS name or an IP address."""
BrokerKind = Literal["auto", "mosquitto", "embedded", "external"]

DEFAULT_DATA_DIR = Path("var/server")
CONFIG_NAME = "fleet.toml"


class Web(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The console. Plain HTTP is meant for loopback or for a proxy that ends TLS."""

    host: Name = "127.0.0.1"
    port: Port = 8080
    tls: bool = False
    demo_speed: Annotated[int, Meta(ge=0)] = 0
    """Not 0: the terminals are simulated, with traffic so many times faster; every page says so."""


class Enrolment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where terminals enrol and renew: always HTTPS, with the fleet's own certificate authority."""

    host: Name = "127.0.0.1"
    port: Port = 8443


class Broker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`auto` is mosquitto or a clear stop; `host` is where ours listens, or where an external one is reached."""

    kind: BrokerKind = "auto"
    host: Name = "127.0.0.1"
    port: Port = 8883
    mosquitto: Path | None = None
    """The mosquitto program, where it is not on the path."""
    memory_limit_mib: Annotated[int, Meta(ge=16)] = 512
    """What the managed mosquitto may take in all: its queues live in memory only."""
    max_connections: Annotated[int, Meta(ge=8, le=1_000_000)] = 10_000
    """Connections that the managed mosquitto takes at once: terminals, the ingest, and whoever knocks."""
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    """For an external broker with a certificate authority of its own; by default the fleet's."""


class Public(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The citizens' pages and API, a process that only reads. Browsers tell a position to HTTPS pages only: put a proxy before it."""

    enabled: bool = False
    host: Name = "127.0.0.1"
    port: Port = 8090
    max_connections: Annotated[int, Meta(ge=16, le=65536)] = 1024
    title_zh: Annotated[str, Meta(max_length=40)] = ""
    title_en: Annotated[str, Meta(max_length=60)] = ""
    map_link: Annotated[str, Meta(pattern=r"""^((https://|geo:)[^\s"'<>]{1,300})?$""")] = ""
    """Address of a map application with {lat}, {lon} (WGS-84) and {name} in it; empty: no link leads outside."""


class Map(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The map of the city."""

    outline: Path | None = None
    """GeoJSON of the counties (WGS 84; `name`, and `adcode` where known), from the data directory on; none: the one that comes along."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    data_dir: Path = DEFAULT_DATA_DIR
    fleet: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}$")] = "fleet"
    """Name in every signature; it cannot be changed after `init`."""
    names: tuple[Name, ...] = ()
    """Names and addresses under which terminals reach this server, the first of them told at enrolment; loopback is always added."""
    timezone: str = "Asia/Shanghai"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    web: Web = Web()
    enrolment: Enrolment = Enrolment()
    broker: Broker = Broker()
    map: Map = Map()
    public: Public = Public()

    @property
    def layout(self) -> Layout:
        return Layout(self.data_dir)

    @property
    def outline(self) -> Path | None:
        """Where the map's own outline lies, if there is one."""
        return self.data_dir / self.map.outline if self.map.outline is not None else None

    @property
    def public_name(self) -> str:
        """Where terminals are told to connect."""
        return self.names[0] if self.names else "127.0.0.1"

    @property
    def mqtt_host(self) -> str:
        """What terminals are told: an external broker by its own name, ours by the server's."""
        return self.broker.host if self.broker.kind == "external" else self.public_name


class Layout(msgspec.Struct, frozen=True):
    """Where things lie in the data directory."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "fleet.sqlite"

    @property
    def authority(self) -> Path:
        return self.root / "authority"

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    @property
    def updates(self) -> UpdatesLayout:
        """The update repositories and the server's keys for them."""
        return UpdatesLayout(self.root / "updates")

    @property
    def dispatch(self) -> Path:
        """Keys that sign orders, and with them whatever else must never be in a backup."""
        return self.root / "dispatch"

    @property
    def logs(self) -> Path:
        """Excerpts of agents' logs that were asked for."""
        return self.root / "logs"

    @property
    def audit_heads(self) -> Path:
        """The server's signatures over the audit log, apart from the database."""
        return self.root / "audit-heads.ndjson"

    @property
    def run(self) -> Path:
        """Process ids and health: worthless after a restart."""
        return self.root / "run"

    @property
    def health(self) -> Path:
        return self.run / "health.json"

    def make(self) -> None:
        """Create what is missing, and close all of it to other users."""
        for folder in (self.root, self.broker, self.dispatch, self.logs, self.run):
            folder.mkdir(parents=True, exist_ok=True)
            if folder.stat().st_mode & 0o077:
                folder.chmod(0o700)


def load(environ: Mapping[str, str], *, data_dir: Path | None = None) -> Settings:
    """Read file and environment; `data_dir` comes from the command line and wins. SettingsError names file, place and rule."""
    overrides = _from_environment(environ)
    if data_dir is not None:
        overrides["data_dir"] = str(data_dir)
    folder = Path(overrides.get("data_dir", DEFAULT_DATA_DIR))
    named = environ.get("KF_CONFIG")
    file = Path(named) if named else folder / CONFIG_NAME
    values = _from_file(file) if named or file.exists() else {}
    where = str(file)
    try:
        msgspec.convert(values, Settings, dec_hook=_path)
        where = "environment"
        settings = msgspec.convert(_merge(values, overrides), Settings, strict=False, dec_hook=_path)
    except msgspec.ValidationError as err:
        raise SettingsError(f"{where}: {err}") from None
    return msgspec.structs.replace(settings, data_dir=settings.data_dir.absolute())


def to_environment(settings: Settings) -> dict[str, str]:
    """The variables that make another process of this server read the same settings."""
    environment: dict[str, str] = {}
    for name, value in msgspec.to_builtins(settings, enc_hook=str).items():
        inner = value if isinstance(value, dict) else {None: value}
        for key, item in inner.items():
            if item is None:
                continue
            variable = "KF_" + (name if key is None else f"{name}_{key}").upper()
            environment[variable] = ",".join(item) if isinstance(item, (list, tuple)) else _plain(item)
    return environment


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"expected a {kind.__name__}")


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _from_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as err:
        raise SettingsError(f"{file}: {err.strerror}") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise SettingsError(f"{file}: not TOML: {err}") from err


_SECTIONS: dict[str, type[msgspec.Struct]] = {"web": Web, "enrolment": Enrolment, "broker": Broker, "map": Map, "public": Public}
_OTHER_VARIABLES = frozenset({"KF_CONFIG", "KF_DATABASE"})


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    top = {field.encode_name for field in msgspec.structs.fields(Settings)} - _SECTIONS.keys()
    for variable, text in environ.items():
        if not variable.startswith("KF_") or variable in _OTHER_VARIABLES:
            continue
        name = variable.removeprefix("KF_").lower()
        section, _, key = name.partition("_")
        if name in top:
            values[name] = text
        elif section in _SECTIONS:
            if key not in {field.encode_name for field in msgspec.structs.fields(_SECTIONS[section])}:
                raise SettingsError(f"environment: {variable} is no setting of {section}")
            values.setdefault(section, {})[key] = text
        # Other parts of the project have variables with this prefix as well (KF_SOAK, an agent's on the same machine).
    if "names" in values:
        values["names"] = [part.strip() for part in values["names"].split(",") if part.strip()]
    return values


def _merge(values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for name, value in overrides.items():
        below = merged.get(name)
        merged[name] = {**below, **value} if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


BROKER_KINDS: tuple[str, ...] = get_args(BrokerKind)
