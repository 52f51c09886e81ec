"""The server half of docs/spec/enrolment.md, decided over a real database and a real authority."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fleet_server import db
from fleet_server.authority.authority import Authority
from fleet_server.channel import transact
from fleet_server.enrolment import codes, messages, registry, rules
from fleet_server.enrolment.messages import Denied, Enrolled, EnrolRequest, Mqtt, Renewed, RenewRequest
from fleet_server.errors import Conflict, NotFound
from fleet_server.orders import wanted
from protocols.contract.certs import open_record_key_cert
from tests.support.trust import NOW_MS, Keys, make_authority

MQTT = Mqtt(host="fleet.example.org", port=8883)
HOUR_MS = 3600 * 1000


class Office:
    """The server's side in one place: database, authority, and the time it is."""

    def __init__(self, folder: Path) -> None:
        database = folder / "fleet.sqlite"
        db.migrate(database)
        self.connection = db.open_raw(database)
        self.authority: Authority = make_authority(folder)
        self.now_ms = NOW_MS

    def add(self, terminal: str, **more: Any) -> None:
        transact(
            self.connection,
            lambda inside: registry.add_terminal(inside, registry.NewTerminal(id=terminal, **more), now_ms=self.now_ms),
        )

    def code(self, terminal: str) -> str:
        return transact(self.connection, lambda inside: registry.new_code(inside, terminal, by="operator", now_ms=self.now_ms))

    def revoke(self, terminal: str) -> bool:
        return transact(self.connection, lambda inside: registry.revoke(inside, terminal, now_ms=self.now_ms))

    def enrol(self, body: dict[str, Any]) -> Enrolled | str:
        answer: Enrolled | str = self._ask(
            lambda inside: rules.enrol(
                inside, self.authority, messages.read(json.dumps(body).encode(), EnrolRequest), MQTT, now_ms=self.now_ms
            )
        )
        return answer

    def renew(self, body: dict[str, Any], peer: str | None) -> Renewed | str:
        answer: Renewed | str = self._ask(
            lambda inside: rules.renew(
                inside, self.authority, messages.read(json.dumps(body).encode(), RenewRequest), peer, now_ms=self.now_ms
            )
        )
        return answer

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql).fetchall()

    def _ask(self, work: Any) -> Any:
        try:
            answer = transact(self.connection, work)
        except Denied as err:
            return err.reason
        return answer.reason if isinstance(answer, Denied) else answer


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path)
    with closing(office.connection):
        office.add("kiosk-1", inventory=({"slot": "receipt-printer", "family": "escpos", "mandatory": True},))
        yield office


def enrolled(answer: Enrolled | str) -> Enrolled:
    assert isinstance(answer, Enrolled), answer
    return answer


def renewed(answer: Renewed | str) -> Renewed:
    assert isinstance(answer, Renewed), answer
    return answer


def test_what_held_the_name_before_gets_no_certificate_by_its_old_record_key(office: Office) -> None:
    """A stolen disk: the machine was replaced with a new code, and the thief asks for a certificate without showing one."""
    stolen = Keys("kiosk-1")
    enrolled(office.enrol(stolen.enrol_request(office.code("kiosk-1"))))
    replacement = Keys("kiosk-1")
    enrolled(office.enrol(replacement.enrol_request(office.code("kiosk-1"))))
    assert office.renew(stolen.renew_request(), None) == "badProof"
    assert office.renew(Keys("kiosk-1").renew_request(endorsed_by=stolen), None) == "badProof"
    renewed(office.renew(replacement.renew_request(), None))


def test_a_new_machine_is_not_held_to_the_counter_that_the_one_before_claimed(office: Office) -> None:
    first = Keys("kiosk-1")
    enrolled(office.enrol(first.enrol_request(office.code("kiosk-1"))))
    transact(office.connection, lambda inside: wanted.born(inside, "kiosk-1", 2**52, 0))
    enrolled(office.enrol(first.enrol_request(office.code("kiosk-1"))))
    assert office.rows("SELECT counter FROM terminal_counter") == [(2**52,)], (
        "the same record key: the same machine, with its memory"
    )
    enrolled(office.enrol(Keys("kiosk-1").enrol_request(office.code("kiosk-1"))))
    assert office.rows("SELECT counter FROM terminal_counter") == [(0,)]


def test_a_machine_that_enrols_again_keeps_the_keys_of_its_own_backlog(office: Office) -> None:
    first = Keys("kiosk-1")
    enrolled(office.enrol(first.enrol_request(office.code("kiosk-1"))))
    second = Keys("kiosk-1")
    renewed(office.renew(second.renew_request(endorsed_by=first), None))
    enrolled(office.enrol(second.enrol_request(office.code("kiosk-1"))))
    assert office.rows("SELECT revoked_ms FROM record_key ORDER BY generation") == [(None,), (None,)]


def test_certificates_are_counted_out(office: Office) -> None:
    keys = Keys("kiosk-1")
    enrolled(office.enrol(keys.enrol_request(office.code("kiosk-1"))))
    answers = [office.renew(Keys("kiosk-1", record=keys.record).renew_request(), None) for _ in range(rules.CERTIFICATES_PER_DAY)]
    assert [isinstance(answer, Renewed) for answer in answers] == [True] * (rules.CERTIFICATES_PER_DAY - 1) + [False]
    assert answers[-1] == "tooMany"
    office.now_ms += rules.DAY_MS
    renewed(office.renew(keys.renew_request(), None))


# Codes ------------------------------------------------------------------------------------------------------------------------------------


def test_codes_are_160_bits_in_groups_and_forgive_how_they_are_typed(office: Office) -> None:
    code = office.code("kiosk-1")
    assert len(base64.b32decode(code.replace("-", ""))) * 8 == 160
    assert [len(group) for group in code.split("-")] == [4] * 8
    assert codes.reduce(code.lower().replace("-", " ")) == code.replace("-", "")
    assert codes.reduce(code[:-1]) is None
    assert codes.reduce(code.replace(code[0], "1")) is None


def test_a_code_is_nowhere_in_the_database(office: Office) -> None:
    code = office.code("kiosk-1")
    dump = "\n".join(office.connection.iterdump())
    assert code not in dump
    assert code.replace("-", "") not in dump


def test_a_new_code_kills_the_one_before(office: Office) -> None:
    old, new = office.code("kiosk-1"), office.code("kiosk-1")
    keys = Keys("kiosk-1")
    assert office.enrol(keys.enrol_request(old)) == "badCode"
    enrolled(office.enrol(keys.enrol_request(new)))


def test_codes_are_for_terminals_that_exist_and_were_not_revoked(office: Office) -> None:
    with pytest.raises(NotFound):
        office.code("kiosk-2")
    office.revoke("kiosk-1")
    with pytest.raises(Conflict):
        office.code("kiosk-1")


# Enrolment --------------------------------------------------------------------------------------------------------------------------------


def test_an_answer_holds_what_the_specification_lists(office: Office) -> None:
    keys = Keys("kiosk-1")
    answer = enrolled(office.enrol(keys.enrol_request(office.code("kiosk-1"))))
    certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
    assert certificate.public_key() == keys.tls.public_key()
    assert [name.value for name in certificate.subject] == ["kiosk-1"]
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(answer.ca.encode()))
    cert = open_record_key_cert(answer.record_key_certificate, office.authority.root_public_key, answer.fleet, "kiosk-1")
    assert (cert.public_key, cert.generation) == (keys.record_public, 1)
    assert answer.root_key == office.authority.root_public_key.public_bytes_raw()
    assert (answer.mqtt, answer.server_time_ms) == (MQTT, NOW_MS)
    assert answer.desired == {"devices": [{"slot": "receipt-printer", "family": "escpos", "mandatory": True}], "items": []}
    assert office.rows("SELECT terminal, generation, revoked_ms FROM record_key") == [("kiosk-1", 1, None)]
    assert office.rows("SELECT serial, terminal FROM tls_certificate") == [(f"{certificate.serial_number:x}", "kiosk-1")]
    assert office.rows("SELECT enrolled_ms FROM terminal") == [(NOW_MS,)]


def test_a_lost_answer_can_be_asked_for_again_with_the_same_keys_only(office: Office) -> None:
    keys, code = Keys("kiosk-1"), office.code("kiosk-1")
    first = enrolled(office.enrol(keys.enrol_request(code)))
    again = enrolled(office.enrol(keys.enrol_request(code)))
    assert again.record_key_certificate == first.record_key_certificate
    assert office.rows("SELECT count(*) FROM tls_certificate WHERE revoked_ms IS NOT NULL") == [(0,)]
    assert office.enrol(Keys("kiosk-1").enrol_request(code)) == "codeUsed"
    assert office.enrol(Keys("kiosk-1", record=keys.record).enrol_request(code)) == "codeUsed"
    assert office.enrol(Keys("kiosk-1", tls=keys.tls).enrol_request(code)) == "codeUsed"
    office.now_ms += 25 * HOUR_MS
    assert office.enrol(keys.enrol_request(code)) == "codeExpired"


def test_codes_expire_after_a_day(office: Office) -> None:
    code = office.code("kiosk-1")
    office.now_ms += 24 * HOUR_MS
    assert office.enrol(Keys("kiosk-1").enrol_request(code)) == "codeExpired"


def test_five_wrong_tries_kill_a_code_even_for_who_then_knows_it(office: Office) -> None:
    keys, code = Keys("kiosk-1"), office.code("kiosk-1")
    wrong = codes.new()
    assert [office.enrol(keys.enrol_request(wrong)) for _ in range(5)] == ["badCode"] * 5
    assert office.enrol(keys.enrol_request(wrong)) == "codeExpired"
    assert office.enrol(keys.enrol_request(code)) == "codeExpired"


def test_four_wrong_tries_do_not(office: Office) -> None:
    keys, code = Keys("kiosk-1"), office.code("kiosk-1")
    for typed in (codes.new(), codes.new(), "too short", "1" * 32):
        assert office.enrol(keys.enrol_request(typed)) == "badCode"
    enrolled(office.enrol(keys.enrol_request(code)))


def test_a_code_belongs_to_one_terminal(office: Office) -> None:
    office.add("kiosk-2")
    code = office.code("kiosk-1")
    office.code("kiosk-2")
    assert office.enrol(Keys("kiosk-2").enrol_request(code)) == "badCode"


def test_unknown_and_revoked_terminals_are_told_so(office: Office) -> None:
    code = office.code("kiosk-1")
    assert office.enrol(Keys("kiosk-9").enrol_request(code)) == "unknownTerminal"
    office.revoke("kiosk-1")
    assert office.enrol(Keys("kiosk-1").enrol_request(code)) == "revoked"


def _pem(csr: x509.CertificateSigningRequest) -> str:
    return csr.public_bytes(Encoding.PEM).decode()


def _other_csrs(keys: Keys) -> dict[str, str]:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, keys.terminal)])
    two = x509.Name([*name, x509.NameAttribute(NameOID.ORGANIZATION_NAME, "more")])
    plain = x509.CertificateSigningRequestBuilder()
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    der = bytearray(keys.csr().public_bytes(Encoding.DER))
    der[-1] ^= 1
    broken = base64.encodebytes(bytes(der)).decode()
    return {
        "another name": _pem(keys.csr("kiosk-2")),
        "a second attribute": _pem(plain.subject_name(two).sign(keys.tls, SHA256())),
        "an RSA key": _pem(plain.subject_name(name).sign(rsa_key, SHA256())),
        "another curve": _pem(plain.subject_name(name).sign(ec.generate_private_key(ec.SECP384R1()), SHA256())),
        "an Ed25519 key": _pem(plain.subject_name(name).sign(keys.record, None)),
        "a signature that does not hold": f"-----BEGIN CERTIFICATE REQUEST-----\n{broken}-----END CERTIFICATE REQUEST-----\n",
        "a request that the proof is not about": _pem(keys.csr()),
    }


@pytest.mark.parametrize("what", list(_other_csrs(Keys("kiosk-1"))))
def test_only_a_sound_request_for_this_terminal_is_signed(office: Office, what: str) -> None:
    keys, code = Keys("kiosk-1"), office.code("kiosk-1")
    assert office.enrol(keys.enrol_request(code, csr=_other_csrs(keys)[what])) == "badProof"
    assert office.rows("SELECT count(*) FROM tls_certificate") == [(0,)]
    enrolled(office.enrol(keys.enrol_request(code)))  # the code was not used up by it


def test_the_certificate_takes_nothing_else_from_the_request(office: Office) -> None:
    keys, code = Keys("kiosk-1"), office.code("kiosk-1")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kiosk-1")])
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("server.ingest")]), critical=False)
        .sign(keys.tls, SHA256())
    )
    body = keys.enrol_request(code, csr=_pem(greedy))
    body["proof"] = base64.b64encode(keys._sign(["kf-enrol/1", "kiosk-1", greedy.public_bytes(Encoding.DER)])).decode()
    certificate = x509.load_pem_x509_certificate(enrolled(office.enrol(body)).certificate.encode())
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == []


def test_a_record_key_cannot_be_claimed_by_who_does_not_hold_it(office: Office) -> None:
    code, victim, thief = office.code("kiosk-1"), Keys("kiosk-1"), Keys("kiosk-1")
    body = thief.enrol_request(code, record_key=base64.b64encode(victim.record_public).decode())
    assert office.enrol(body) == "badProof"


def test_a_record_key_of_another_terminal_is_refused(office: Office) -> None:
    """A copied disk that enrols under a second name must not sign for two terminals."""
    office.add("kiosk-2")
    keys = Keys("kiosk-1")
    enrolled(office.enrol(keys.enrol_request(office.code("kiosk-1"))))
    copy = Keys("kiosk-2", tls=keys.tls, record=keys.record)
    assert office.enrol(copy.enrol_request(office.code("kiosk-2"))) == "badProof"


def test_a_new_code_for_a_rebuilt_machine_shuts_out_the_old_certificates(office: Office) -> None:
    enrolled(office.enrol(Keys("kiosk-1").enrol_request(office.code("kiosk-1"))))
    office.now_ms += HOUR_MS
    enrolled(office.enrol(Keys("kiosk-1").enrol_request(office.code("kiosk-1"))))
    assert office.rows("SELECT revoked_ms FROM tls_certificate ORDER BY issued_ms") == [(office.now_ms,), (None,)]
    # With its key the old disk could otherwise get a new certificate; what it sealed and the server has stays verifiable.
    assert office.rows("SELECT generation, revoked_ms FROM record_key ORDER BY generation") == [(1, office.now_ms), (2, None)]


def test_without_the_root_a_new_terminal_waits_and_its_code_lives(office: Office, tmp_path: Path) -> None:
    keys, code = Keys("kiosk-1"), office.code("kiosk-1")
    (office.authority.folder / "root.key").rename(tmp_path / "safe")
    assert office.enrol(keys.enrol_request(code)) == "rootOffline"
    assert office.rows("SELECT tries_left, used_ms FROM enrolment_code") == [(5, None)]
    (tmp_path / "safe").rename(office.authority.folder / "root.key")
    enrolled(office.enrol(keys.enrol_request(code)))


# Renewal and rotation ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def keys(office: Office) -> Keys:
    keys = Keys("kiosk-1")
    enrolled(office.enrol(keys.enrol_request(office.code("kiosk-1"))))
    office.now_ms += 60 * 24 * HOUR_MS
    return keys


@pytest.mark.parametrize("peer", ["kiosk-1", None])
def test_renewal_gives_a_certificate_for_the_new_tls_key(office: Office, keys: Keys, peer: str | None) -> None:
    next_tls = Keys("kiosk-1", record=keys.record)
    answer = renewed(office.renew(next_tls.renew_request(), peer))
    certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
    assert certificate.public_key() == next_tls.tls.public_key()
    assert office.rows("SELECT count(*) FROM record_key") == [(1,)]
    assert office.rows("SELECT count(*) FROM tls_certificate WHERE revoked_ms IS NULL") == [(2,)]


def test_renewal_over_another_terminals_connection_is_refused(office: Office, keys: Keys) -> None:
    assert office.renew(keys.renew_request(), "kiosk-2") == "badProof"


def test_renewal_works_with_the_root_offline_rotation_waits(office: Office, keys: Keys, tmp_path: Path) -> None:
    (office.authority.folder / "root.key").rename(tmp_path / "safe")
    renewed(office.renew(keys.renew_request(), "kiosk-1"))
    assert office.renew(Keys("kiosk-1").renew_request(endorsed_by=keys), "kiosk-1") == "rootOffline"


def test_rotation_certifies_the_next_generation(office: Office, keys: Keys) -> None:
    successor = Keys("kiosk-1")
    answer = renewed(office.renew(successor.renew_request(endorsed_by=keys), "kiosk-1"))
    cert = open_record_key_cert(answer.record_key_certificate, office.authority.root_public_key, "testfleet", "kiosk-1")
    assert (cert.generation, cert.public_key) == (2, successor.record_public)
    again = renewed(office.renew(successor.renew_request(endorsed_by=keys), "kiosk-1"))
    assert again.record_key_certificate == answer.record_key_certificate


def test_a_record_key_without_endorsement_or_with_a_strangers_is_refused(office: Office, keys: Keys) -> None:
    stranger = Keys("kiosk-1")
    assert office.renew(stranger.renew_request(), "kiosk-1") == "badProof"
    assert office.renew(stranger.renew_request(endorsed_by=stranger), "kiosk-1") == "badProof"
    assert office.renew(stranger.renew_request(endorsed_by=Keys("kiosk-1")), "kiosk-1") == "badProof"
    assert office.rows("SELECT count(*) FROM record_key") == [(1,)]


def test_a_key_that_was_rotated_away_can_neither_renew_nor_endorse(office: Office, keys: Keys) -> None:
    successor = Keys("kiosk-1")
    renewed(office.renew(successor.renew_request(endorsed_by=keys), "kiosk-1"))
    office.connection.execute("UPDATE record_key SET last_stream = x'00', last_no = 7 WHERE generation = 1")
    assert office.renew(keys.renew_request(), "kiosk-1") == "badProof"
    assert office.renew(Keys("kiosk-1").renew_request(endorsed_by=keys), "kiosk-1") == "badProof"
    renewed(office.renew(successor.renew_request(), "kiosk-1"))


def test_an_enrolment_proof_does_not_renew(office: Office, keys: Keys) -> None:
    request = keys.enrol_request("unused")
    body = {name: request[name] for name in ("terminal", "csr", "record_key", "proof")}
    assert office.renew(body, "kiosk-1") == "badProof"


# Revocation -------------------------------------------------------------------------------------------------------------------------------


def test_revocation_ends_every_key_and_certificate_once(office: Office, keys: Keys) -> None:
    assert office.revoke("kiosk-1")
    first_ms = office.now_ms
    office.now_ms += 1000
    assert not office.revoke("kiosk-1")
    assert office.rows("SELECT revoked_ms FROM terminal") == [(first_ms,)]
    assert office.rows("SELECT revoked_ms FROM record_key UNION ALL SELECT revoked_ms FROM tls_certificate") == [(first_ms,)] * 2
    assert office.renew(keys.renew_request(), "kiosk-1") == "revoked"
    listed = registry.revoked_certificates(office.connection, now_ms=office.now_ms)
    assert listed == [(office.rows("SELECT serial FROM tls_certificate")[0][0], first_ms)]
    assert registry.revoked_terminals(office.connection) == ["kiosk-1"]
    office.now_ms += 100 * 24 * HOUR_MS
    assert registry.revoked_certificates(office.connection, now_ms=office.now_ms) == []
    with pytest.raises(NotFound):
        office.revoke("kiosk-2")


def test_a_terminal_is_added_once(office: Office) -> None:
    with pytest.raises(Conflict):
        office.add("kiosk-1")


def test_the_table_of_server_keys_follows_the_folder(office: Office) -> None:
    first = office.authority.server_signer().kid
    registry.publish_server_keys(office.connection, office.authority, now_ms=NOW_MS)
    office.authority.rotate_server_key(now_ms=NOW_MS + 1)
    for _ in range(2):
        registry.publish_server_keys(office.connection, office.authority, now_ms=NOW_MS + 1)
    assert office.rows("SELECT kid, retired_ms FROM server_key ORDER BY created_ms") == [
        (first, NOW_MS + 1),
        (office.authority.server_signer().kid, None),
    ]


def test_sites_are_imported_by_code_and_keep_what_is_not_said(office: Office) -> None:
    area = {"code": "jh", "name_zh": "金华", "name_en": "Jinhua", "sort": 1}
    site = {"code": "hall-1", "area": "jh", "name_zh": "大厅", "name_en": "Hall", "kind": "hall", "hours": {"always": True}}
    assert registry.import_sites(office.connection, [area], [site]) == (1, 1)
    assert registry.import_sites(office.connection, [], [{"code": "hall-1", "name_en": "Main hall"}]) == (0, 1)
    assert office.rows("SELECT name_zh, name_en, hours, timezone FROM site") == [
        ("大厅", "Main hall", '{"always": true}', "Asia/Shanghai")
    ]


def test_rows_come_by_name_or_position(office: Office) -> None:
    """The rules run on ingest's connection and on the pages' one, whose rows have names."""
    office.connection.row_factory = sqlite3.Row
    keys = Keys("kiosk-1")
    enrolled(office.enrol(keys.enrol_request(office.code("kiosk-1"))))
    renewed(office.renew(keys.renew_request(), None))
    assert office.revoke("kiosk-1")
