"""Who gets a certificate. `enrol` and `renew` run inside one transaction: the code is used up exactly when the certificate is stored.

A refusal that has to be remembered (a wrong try) is returned, not raised, because raising would roll it back.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import sqlite3
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding

from fleet_server.authority.authority import Authority, RootOffline
from fleet_server.enrolment import codes, messages
from fleet_server.enrolment.messages import Denied, Enrolled, EnrolRequest, Mqtt, Renewed, RenewRequest
from fleet_server.enrolment.registry import hint
from fleet_server.orders import wanted
from protocols.contract.envelope import key_id

DAY_MS = 86_400_000
CERTIFICATES_PER_DAY = 50
"""For one terminal, which needs one in two months (chosen): each lengthens the table, and the revocation list once the terminal is revoked."""


def enrol(
    connection: sqlite3.Connection, authority: Authority, request: EnrolRequest, mqtt: Mqtt, *, now_ms: int
) -> Enrolled | Denied:
    """Exchange a one-time code for an identity (E-2 to E-5)."""
    terminal = request.terminal
    inventory = _inventory(connection, terminal)
    row = connection.execute(
        "SELECT id, code_hash, expires_ms, tries_left, used_ms, used_by FROM enrolment_code WHERE terminal = ? ORDER BY id DESC LIMIT 1",
        (terminal,),
    ).fetchone()
    if row is None:
        return Denied("badCode", f"{terminal}: no code was ever made")
    code_id, code_hash, expires_ms, tries_left, used_ms, used_by = row
    symbols = codes.reduce(request.code)
    if symbols is None or not hmac.compare_digest(codes.digest(terminal, symbols), code_hash):
        connection.execute("UPDATE enrolment_code SET tries_left = tries_left - 1 WHERE id = ? AND tries_left > 0", (code_id,))
        return Denied(
            "badCode" if tries_left > 0 else "codeExpired", f"{terminal}: wrong code, {max(tries_left - 1, 0)} tries left"
        )
    if tries_left <= 0 or now_ms >= expires_ms:
        return Denied("codeExpired", f"{terminal}: the code is too old or died of wrong tries")
    csr = messages.check_csr(request.csr, terminal)
    messages.check_signature(request.record_key, request.proof, [messages.ENROL_CONTEXT, terminal, csr.der], "the proof")
    keys = hashlib.sha256(request.record_key + csr.key_digest).digest()
    if used_ms is not None and used_by != keys:
        return Denied("codeUsed", f"{terminal}: the code was used by other keys")
    is_new_key = connection.execute("SELECT 1 FROM record_key WHERE kid = ?", (key_id(request.record_key),)).fetchone() is None
    record_key_certificate = _certified(connection, authority, terminal, request.record_key, now_ms=now_ms)
    if used_ms is None:
        # A code is for a new or rebuilt machine: whatever held this name before must not connect any more.
        connection.execute(
            "UPDATE tls_certificate SET revoked_ms = ? WHERE terminal = ? AND revoked_ms IS NULL", (now_ms, terminal)
        )
    if used_ms is None and is_new_key:
        # Nor get a new certificate by its record key. A key that the same machine had before stays: its backlog is still to come.
        connection.execute(
            "UPDATE record_key SET revoked_ms = ? WHERE terminal = ? AND kid <> ? AND revoked_ms IS NULL AND last_no IS NULL",
            (now_ms, terminal, key_id(request.record_key)),
        )
        wanted.enrolled_anew(connection, terminal)
    certificate = _client_certificate(connection, authority, terminal, csr, now_ms=now_ms)
    connection.execute(
        "UPDATE enrolment_code SET used_ms = coalesce(used_ms, ?), used_by = ? WHERE id = ?", (now_ms, keys, code_id)
    )
    connection.execute("UPDATE terminal SET enrolled_ms = coalesce(enrolled_ms, ?) WHERE id = ?", (now_ms, terminal))
    hint(connection, terminal, now_ms=now_ms)
    return Enrolled(
        certificate=certificate,
        ca=_ca(authority),
        record_key_certificate=record_key_certificate,
        fleet=authority.fleet,
        root_key=authority.root_public_key.public_bytes_raw(),
        mqtt=mqtt,
        desired={"devices": inventory, "items": []},
        server_time_ms=now_ms,
    )


def renew(
    connection: sqlite3.Connection, authority: Authority, request: RenewRequest, peer: str | None, *, now_ms: int
) -> Renewed | Denied:
    """A new TLS certificate, and a certificate for the record key it may be changing to (E-8, E-9).

    `peer` is the client certificate's name, if one was shown.
    """
    terminal = request.terminal
    _inventory(connection, terminal)
    if peer is not None and peer != terminal:
        return Denied("badProof", f"{terminal}: the connection belongs to another terminal")
    csr = messages.check_csr(request.csr, terminal)
    messages.check_signature(request.record_key, request.proof, [messages.RENEW_CONTEXT, terminal, csr.der], "the proof")
    valid = [
        bytes(row[0])
        for row in connection.execute(
            "SELECT public_key FROM record_key WHERE terminal = ? AND revoked_ms IS NULL AND last_no IS NULL ORDER BY generation DESC",
            (terminal,),
        )
    ]
    if request.record_key not in valid:
        _check_endorsement(request, valid)
    record_key_certificate = _certified(connection, authority, terminal, request.record_key, now_ms=now_ms)
    certificate = _client_certificate(connection, authority, terminal, csr, now_ms=now_ms)
    hint(connection, terminal, now_ms=now_ms)
    return Renewed(
        certificate=certificate, ca=_ca(authority), record_key_certificate=record_key_certificate, server_time_ms=now_ms
    )


def _check_endorsement(request: RenewRequest, valid: list[bytes]) -> None:
    if request.endorsement is None:
        raise Denied("badProof", f"{request.terminal}: a record key that is not certified, and no endorsement")
    statement: list[object] = [messages.ROTATE_CONTEXT, request.terminal, request.record_key]
    for public_key in valid:
        try:
            messages.check_signature(public_key, request.endorsement, statement, "the endorsement")
        except Denied:
            continue
        return
    raise Denied("badProof", f"{request.terminal}: no certified record key made the endorsement")


def _inventory(connection: sqlite3.Connection, terminal: str) -> list[dict[str, Any]]:
    """What is wanted at a terminal of the fleet; Denied if there is no such terminal any more."""
    row = connection.execute("SELECT revoked_ms, inventory FROM terminal WHERE id = ?", (terminal,)).fetchone()
    if row is None:
        raise Denied("unknownTerminal", f"no terminal {terminal}")
    if row[0] is not None:
        raise Denied("revoked", f"{terminal} was taken out of the fleet")
    inventory: list[dict[str, Any]] = json.loads(row[1])
    return [{"family": _family_of(item["slot"]), **item} for item in inventory]


def _family_of(slot: str) -> str:
    """What stands at a place whose family nobody named: places are called after it, several of one kind are numbered (`call-pad-3`)."""
    stem = re.sub(r"-\d+$", "", slot)
    return _PLACES.get(stem, stem)


_PLACES: Final = {"laser-printer": "a4-printer", "face-camera": "camera", "room-camera": "camera", "door": "contacts"}
"""Places that are called otherwise than the kind of device that stands there."""


def _certified(connection: sqlite3.Connection, authority: Authority, terminal: str, public_key: bytes, *, now_ms: int) -> bytes:
    """The root's certificate of this record key, the one it has or a new one. Denied if the key is another terminal's or was withdrawn."""
    kid = key_id(public_key)
    known = connection.execute(
        "SELECT terminal, certificate, last_no, revoked_ms FROM record_key WHERE kid = ?", (kid,)
    ).fetchone()
    if known is not None:
        owner, certificate, last_no, revoked_ms = known
        if owner != terminal or last_no is not None or revoked_ms is not None:
            raise Denied("badProof", f"{terminal}: the record key belongs to another terminal, was rotated away or was revoked")
        return bytes(certificate)
    generation = connection.execute(
        "SELECT coalesce(max(generation), 0) + 1 FROM record_key WHERE terminal = ?", (terminal,)
    ).fetchone()[0]
    try:
        certificate = authority.certify_record_key(terminal, public_key, generation, now_ms=now_ms)
    except RootOffline as err:
        raise Denied("rootOffline", f"{terminal} waits: {err}") from err
    connection.execute(
        "INSERT INTO record_key (kid, terminal, generation, public_key, certificate, issued_ms) VALUES (?, ?, ?, ?, ?, ?)",
        (kid, terminal, generation, public_key, certificate, now_ms),
    )
    return certificate


def _client_certificate(
    connection: sqlite3.Connection, authority: Authority, terminal: str, csr: messages.CertificateRequest, *, now_ms: int
) -> str:
    lately = connection.execute(
        "SELECT count(*) FROM tls_certificate WHERE terminal = ? AND issued_ms > ?", (terminal, now_ms - DAY_MS)
    ).fetchone()[0]
    if lately >= CERTIFICATES_PER_DAY:
        raise Denied("tooMany", f"{terminal} has had {lately} certificates within a day")
    issued = authority.issue_client(terminal, csr.public_key, now_ms=now_ms)
    connection.execute(
        "INSERT INTO tls_certificate (serial, terminal, not_after_ms, issued_ms) VALUES (?, ?, ?, ?)",
        (issued.serial, terminal, issued.not_after_ms, issued.issued_ms),
    )
    connection.execute(
        "INSERT INTO terminal_live (terminal, cert_not_after_ms) VALUES (?, ?) "
        "ON CONFLICT (terminal) DO UPDATE SET cert_not_after_ms = excluded.cert_not_after_ms",
        (terminal, issued.not_after_ms),
    )
    return issued.pem.decode("ascii")


def _ca(authority: Authority) -> str:
    return authority.ca.public_bytes(Encoding.PEM).decode("ascii")
