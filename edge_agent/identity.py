"""Owns who this terminal is: the files that enrolment leaves and `run` reads. `identity.json` is written last, so it stands for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta

from edge_agent import files
from edge_agent.errors import ConfigError, NotEnrolled

IDENTITY_FILE = "identity.json"
CA_FILE = "ca.pem"
RECORD_KEY_CERTIFICATE_FILE = "record-key.cose"
NEXT_RECORD_KEY_CERTIFICATE_FILE = "record-key.next.cose"
DESIRED_FILE = "desired.json"
UPDATE_ROOT_FILES = {"image": "update-root-image.json", "director": "update-root-director.json"}
"""First trusted root metadata of the update repositories; what follows them the updater keeps itself."""


class MqttAddress(msgspec.Struct, frozen=True, kw_only=True):
    host: Annotated[str, Meta(pattern=r"^[A-Za-z0-9.:-]{1,253}\Z")]
    port: Annotated[int, Meta(ge=1, le=65535)]


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What the fleet and this terminal know of each other. `root_key`: the fleet root's raw Ed25519 key."""

    terminal: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}\Z")]
    fleet: Annotated[str, Meta(min_length=1, max_length=64)]
    server_url: str
    root_key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    mqtt: MqttAddress
    enrolled_ms: int = 0
    """The server's time then."""

    def root(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.root_key)


def save(directory: Path, identity: Identity) -> None:
    files.write_atomically(directory / IDENTITY_FILE, msgspec.json.format(msgspec.json.encode(identity), indent=2) + b"\n")


def load(directory: Path) -> Identity:
    """NotEnrolled before enrolment, ConfigError if the file is spoiled."""
    path = directory / IDENTITY_FILE
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise NotEnrolled(f"this terminal is not enrolled ({path} is missing): run `edge-agent enrol` first") from None
    except OSError as err:
        raise ConfigError(f"{path}: cannot be read ({err.strerror})") from None
    try:
        return msgspec.json.decode(raw, type=Identity)
    except msgspec.DecodeError:
        raise ConfigError(f"{path}: spoiled; enrol this terminal again") from None


def load_ca(directory: Path) -> str:
    """The roots, PEM. NotEnrolled if they are missing."""
    path = directory / CA_FILE
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        raise NotEnrolled(f"{path} is missing or spoiled: enrol this terminal again") from None


def load_record_key_certificate(directory: Path) -> bytes:
    """The fleet root's word on the record key, as it came."""
    path = directory / RECORD_KEY_CERTIFICATE_FILE
    try:
        return path.read_bytes()
    except OSError:
        raise NotEnrolled(f"{path} is missing: enrol this terminal again") from None


def load_desired(directory: Path) -> object:
    """The server's last desired state as plain data; empty before the first."""
    try:
        return msgspec.json.decode((directory / DESIRED_FILE).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError):
        raise ConfigError(f"{directory / DESIRED_FILE}: spoiled; remove it or enrol this terminal again") from None
