"""A mosquitto of our own: its configuration, rewritten at each start, and where the program is."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from pathlib import Path

from fleet_server.authority.authority import Authority
from fleet_server.authority.files import write
from fleet_server.broker.access import MESSAGE_MAX_BYTES, mosquitto_acl
from fleet_server.errors import SettingsError
from fleet_server.settings import Settings

# Debian keeps it in sbin, which is not on every user's PATH.
SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
OLDEST = (2, 0)
"""`use_username_as_clientid` together with client certificates, and listeners that are closed unless told otherwise."""
INFLIGHT_MESSAGES = 256
"""Chosen: more than one terminal may have unacknowledged (64), and enough to keep the ingest busy while it commits."""


PACKET_HEAD_BYTES = 1024
"""Room for fixed header, topic (at most 60 bytes) and message id around the largest message."""
QUEUED_SHARE_BYTES = 4096
"""One waiting message for so much memory: its own bytes are limited apart, and with what the broker keeps for each (a few hundred bytes) a queue of
the smallest takes an eighth of it."""


class Mosquitto:
    """Implements `kinds.Broker`."""

    kind = "mosquitto"

    def __init__(self, program: Path, settings: Settings, authority: Authority) -> None:
        self._program, self._settings, self._authority = program, settings, authority

    def command(self) -> list[str]:
        folder = self._settings.layout.broker
        acl, config = folder / "acl", folder / "mosquitto.conf"
        write(acl, mosquitto_acl().encode(), mode=0o600)
        write(config, configuration(self._settings, self._authority, acl).encode(), mode=0o600)
        return [str(self._program), "-c", str(config)]


def configuration(settings: Settings, authority: Authority, acl: Path) -> str:
    """mosquitto.conf(5). Nothing outlives a restart: terminals keep what is not acknowledged by the server itself."""
    chain, key = authority.server_files
    memory_bytes = settings.broker.memory_limit_mib * 1024 * 1024
    lines = [
        "persistence false",
        # Nothing of ours is retained, and topics to retain things on are free to make up: they would fill the broker's memory.
        "retain_available false",
        "allow_anonymous false",
        f"acl_file {acl}",
        f"user {getpass.getuser()}",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "connection_messages false",
        "sys_interval 0",
        "set_tcp_nodelay true",
        f"message_size_limit {MESSAGE_MAX_BYTES}",
        # Of the whole packet, whatever it is: also CONNECT and SUBSCRIBE are read into memory.
        f"max_packet_size {MESSAGE_MAX_BYTES + PACKET_HEAD_BYTES}",
        f"max_inflight_messages {INFLIGHT_MESSAGES}",
        # What waits for one client, of which only the ingest is sent much. Beyond it messages are dropped and not acknowledged by the server, so
        # terminals send them again. If memory as a whole were the only limit, whoever fills it would have everybody disconnected.
        f"max_inflight_bytes {memory_bytes // 8}",
        f"max_queued_bytes {memory_bytes // 4}",
        f"max_queued_messages {memory_bytes // QUEUED_SHARE_BYTES}",
        f"memory_limit {memory_bytes}",
        # Sessions are clean (C-401). One that is not is not kept for whoever left it behind.
        "persistent_client_expiration 1h",
        "max_keepalive 120",
        f"listener {settings.broker.port} {settings.broker.host}",
        f"max_connections {settings.broker.max_connections}",
        "max_qos 1",
        "max_topic_alias 0",
        "tls_version tlsv1.2",
        f"cafile {authority.ca_file}",
        f"certfile {chain}",
        f"keyfile {key}",
        f"crlfile {authority.crl_file}",
        "require_certificate true",
        "use_identity_as_username true",
        # Otherwise a terminal could take the client id of another and so end its session.
        "use_username_as_clientid true",
    ]
    return "\n".join(lines) + "\n"


def find(settings: Settings) -> Path:
    """The program, checked for its version; SettingsError says how to get it."""
    named = settings.broker.mosquitto
    found = str(named) if named else shutil.which("mosquitto", path=SEARCH_PATH)
    if found is None:
        raise SettingsError(
            "mosquitto, the MQTT broker, is not installed. Install it (Debian, Ubuntu: sudo apt-get install mosquitto), "
            "name the program with broker.mosquitto, or set broker.kind to embedded for a demonstration or to external for a broker of yours"
        )
    try:
        said = subprocess.run([found, "-h"], capture_output=True, text=True, timeout=10, check=False).stdout
    except OSError as err:
        raise SettingsError(f"{found} cannot be run: {err.strerror}") from err
    version = _version(said)
    if version is None or version < OLDEST:
        raise SettingsError(f"{found} is not mosquitto 2.0 or newer")
    return Path(found)


def _version(said: str) -> tuple[int, ...] | None:
    words = said.split(maxsplit=3)
    if len(words) < 3 or words[:2] != ["mosquitto", "version"]:
        return None
    try:
        return tuple(int(part) for part in words[2].split("."))
    except ValueError:
        return None
