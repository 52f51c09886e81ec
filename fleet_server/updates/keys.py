"""Keys of the repositories: those of people as password-protected files, the server's own as files that only the server reads."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, load_pem_private_key
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from fleet_server.authority.files import sync_folder
from fleet_server.updates import store
from fleet_server.updates.errors import UpdatesError
from fleet_server.updates.layout import UpdatesLayout

LABEL = "x-kiosk-fleet-label"
"""Member of a TUF key with what people call it: "safe 2, city hall". It is public."""
PASSWORD_MIN = 12
_LABEL = re.compile(r"[^\x00-\x1f\x7f]{0,60}")


def new_key_file(path: Path, password: str, label: str = "") -> SSlibKey:
    """Make an Ed25519 key: `path` holds the private one under the password, `path`.pub the public one. Refuses to overwrite."""
    if len(password) < PASSWORD_MIN:
        raise UpdatesError("shortPassword", least=PASSWORD_MIN)
    if not _LABEL.fullmatch(label):
        raise UpdatesError("badLabel")
    private = Ed25519PrivateKey.generate()
    public = _public(private, label)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password.encode()))
    _create(path, pem, 0o600)
    _create(public_path(path), public_bytes(public), 0o644)
    return public


def public_path(path: Path) -> Path:
    return path.with_name(path.name + ".pub")


def public_bytes(key: Key) -> bytes:
    return json.dumps({"keyid": key.keyid, **key.to_dict()}, indent=1, ensure_ascii=False).encode() + b"\n"


def read_public(path: Path) -> SSlibKey:
    """A public key file; its id is computed, never believed."""
    try:
        data = path.read_bytes()
        if data.lstrip().startswith(b"-----"):
            raise UpdatesError("privateNotPublic", file=path.name)
        tree = json.loads(data)
        said = tree.pop("keyid")
        label = tree.get(LABEL, "")
        key = SSlibKey.from_crypto(SSlibKey.from_dict(said, tree)._crypto_key())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise UpdatesError("unreadableKey", file=path.name) from err
    if key.keyid != said or not isinstance(label, str) or not _LABEL.fullmatch(label):
        raise UpdatesError("unreadableKey", file=path.name)
    if label:
        key.unrecognized_fields[LABEL] = label
    return key


def read_signer(path: Path, password: str | None) -> CryptoSigner:
    """A person's private key; its label comes from the public file, where that lies beside it."""
    try:
        private = load_pem_private_key(path.read_bytes(), None if password is None else password.encode())
    except OSError as err:
        raise UpdatesError("unreadableKey", file=path.name) from err
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise UpdatesError("wrongPassword", file=path.name) from err
    if not isinstance(private, Ed25519PrivateKey):
        raise UpdatesError("unreadableKey", file=path.name)
    public = _public(private, "")
    if public_path(path).exists():
        beside = read_public(public_path(path))
        if beside.keyid == public.keyid:
            public = beside
    return CryptoSigner(private, public)


def is_private(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(16).lstrip().startswith(b"-----BEGIN")
    except OSError as err:
        raise UpdatesError("unreadableKey", file=path.name) from err


def is_encrypted(path: Path) -> bool:
    return b"ENCRYPTED" in path.read_bytes()[:64]


def label_of(key: Key) -> str:
    """What people call a key: its label, or the beginning of its id."""
    label = key.unrecognized_fields.get(LABEL)
    short = key.keyid[:8]
    return f"{label} ({short})" if isinstance(label, str) and label else short


def doubles(keys: Iterable[Key]) -> list[str]:
    """Ids of keys that hide the same key as another one, or that are not the id of what they name: neither may count twice."""
    seen: set[str] = set()
    wrong = []
    for key in keys:
        try:
            real = SSlibKey.from_crypto(key._crypto_key(), scheme=key.scheme).keyid  # type: ignore[attr-defined]
        except (ValueError, AttributeError, UnsupportedAlgorithm):
            real = ""
        if real != key.keyid or real in seen:
            wrong.append(key.keyid)
        seen.add(real)
    return wrong


class OnlineKeys:
    """The server's own keys, by id. Whoever can read them can sign snapshots and assignments, but no release."""

    def __init__(self, layout: UpdatesLayout) -> None:
        self._layout = layout
        self._known: dict[str, CryptoSigner] = {}

    def create(self, label: str) -> SSlibKey:
        """Needs the lock."""
        private = Ed25519PrivateKey.generate()
        public = _public(private, label)
        signer = CryptoSigner(private, public)
        store.replace(self._layout, self._path(public.keyid), signer.private_bytes, mode=0o600)
        self._known[public.keyid] = signer
        return public

    def get(self, keyid: str) -> CryptoSigner | None:
        """None: not a key of this server."""
        if not re.fullmatch(r"[0-9a-f]{64}", keyid) or not self._path(keyid).exists():
            # Another process may have deleted it: a key that was withdrawn must not live on in a memory.
            self._known.pop(keyid, None)
            return None
        if keyid not in self._known:
            private = load_pem_private_key(self._path(keyid).read_bytes(), None)
            if not isinstance(private, Ed25519PrivateKey):
                raise UpdatesError("unreadableKey", file=self._path(keyid).name)
            self._known[keyid] = CryptoSigner(private, _public(private, ""))
        return self._known[keyid]

    def ids(self) -> set[str]:
        return {path.stem for path in self._layout.keys.glob("*.pem")}

    def forget(self, keyid: str) -> None:
        self._known.pop(keyid, None)
        self._path(keyid).unlink(missing_ok=True)
        sync_folder(self._layout.keys)

    def _path(self, keyid: str) -> Path:
        return self._layout.keys / f"{keyid}.pem"


def _public(private: Ed25519PrivateKey, label: str) -> SSlibKey:
    public = SSlibKey.from_crypto(private.public_key())
    if label:
        public.unrecognized_fields[LABEL] = label
    return public


def _create(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise UpdatesError("fileExists", file=path.name) from None
    except OSError as err:
        raise UpdatesError("cannotWrite", file=path.name, why=err.strerror) from err
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)
