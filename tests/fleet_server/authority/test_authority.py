from __future__ import annotations

import socket
import ssl
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleet_server.authority import tls
from fleet_server.authority.authority import INGEST_NAME, Authority, RootOffline
from fleet_server.authority.files import AuthorityError
from fleet_server.settings import Layout
from protocols.contract.certs import open_record_key_cert, open_server_key_cert
from protocols.contract.envelope import EnvelopeError
from tests.support.trust import NOW_MS, Keys, issue_client, make_authority

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path, names=("fleet.example.org", "192.0.2.7"))


def test_private_keys_are_readable_by_their_owner_only(authority: Authority) -> None:
    keys = list(authority.folder.rglob("*.key"))
    assert {file.name for file in keys} >= {"root.key", "ca.key", "server.key", "ingest.key"}
    assert [file for file in keys if file.stat().st_mode & 0o077] == []
    assert authority.folder.stat().st_mode & 0o077 == 0


def test_a_private_key_that_others_may_read_is_refused(authority: Authority) -> None:
    (authority.folder / "root.key").chmod(0o640)
    with pytest.raises(AuthorityError, match=r"root\.key: a private key that other users may read"):
        authority.certify_record_key("kiosk-1", b"k" * 32, 1, now_ms=NOW_MS)


def test_the_root_certifies_record_keys_for_one_terminal_of_one_fleet(authority: Authority) -> None:
    raw = authority.certify_record_key("kiosk-1", Keys("kiosk-1").record_public, 3, now_ms=NOW_MS)
    cert = open_record_key_cert(raw, authority.root_public_key, "testfleet", "kiosk-1")
    assert (cert.terminal, cert.generation, cert.issued_ms) == ("kiosk-1", 3, NOW_MS)
    for fleet, terminal in (("testfleet", "kiosk-2"), ("otherfleet", "kiosk-1")):
        with pytest.raises(EnvelopeError, match="signature does not hold"):
            open_record_key_cert(raw, authority.root_public_key, fleet, terminal)


def test_server_keys_rotate_and_old_certificates_stay(authority: Authority) -> None:
    first = authority.server_signer()
    authority.rotate_server_key(now_ms=NOW_MS + 5)
    second = authority.server_signer()
    assert first.kid != second.kid
    assert [cert.kid for cert, _ in authority.server_key_certificates()] == [first.kid, second.kid]
    certified = open_server_key_cert(authority.server_key_certificate, authority.root_public_key, "testfleet")
    assert certified.public_key == second.public_key


def test_with_the_root_offline_everything_works_but_what_needs_the_root(authority: Authority) -> None:
    (authority.folder / "root.key").rename(authority.folder.parent / "in-the-safe")
    again = Authority(authority.folder)
    assert not again.root_online
    again.server_signer().sign(b"still signs")
    again.issue_client("kiosk-1", Keys("kiosk-1").tls.public_key(), now_ms=NOW_MS)
    again.write_revocation_list([], now_ms=NOW_MS)
    with pytest.raises(RootOffline):
        again.certify_record_key("kiosk-1", b"k" * 32, 1, now_ms=NOW_MS)
    with pytest.raises(RootOffline):
        again.rotate_server_key(now_ms=NOW_MS)


def test_another_root_key_is_not_taken_for_ours(authority: Authority, tmp_path: Path) -> None:
    other = make_authority(tmp_path / "other")
    (authority.folder / "root.key").write_bytes((other.folder / "root.key").read_bytes())
    with pytest.raises(AuthorityError, match=r"is not the key of root\.pub"):
        authority.certify_record_key("kiosk-1", b"k" * 32, 1, now_ms=NOW_MS)


def test_client_certificates_name_the_terminal_and_nothing_else_for_ninety_days(authority: Authority) -> None:
    issued = authority.issue_client("kiosk-1", Keys("kiosk-1").tls.public_key(), now_ms=NOW_MS)
    certificate = x509.load_pem_x509_certificate(issued.pem)
    assert [attribute.value for attribute in certificate.subject] == ["kiosk-1"]
    assert issued.not_after_ms == NOW_MS // 1000 * 1000 + 90 * DAY_MS
    assert issued.serial == f"{certificate.serial_number:x}"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:kiosk-fleet:testfleet:terminal:kiosk-1"]
    assert [use.dotted_string for use in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value] == [
        x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string
    ]
    certificate.verify_directly_issued_by(authority.ca)


def test_no_terminal_can_have_the_name_of_the_ingest(authority: Authority) -> None:
    certificate = x509.load_pem_x509_certificate(authority.ingest_files[0].read_bytes())
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == INGEST_NAME
    assert "." in INGEST_NAME  # outside the alphabet of terminal ids


def test_server_certificates_follow_names_and_age(authority: Authority) -> None:
    chain, _ = authority.server_files
    names = tls.names_of(x509.load_pem_x509_certificate(chain.read_bytes()))
    assert names == {"fleet.example.org", "192.0.2.7", "localhost", "127.0.0.1", "::1"}
    assert not authority.ensure_tls(("fleet.example.org", "192.0.2.7"), now_ms=NOW_MS + 300 * DAY_MS)
    assert authority.ensure_tls(("fleet.example.org",), now_ms=NOW_MS)
    before = chain.read_bytes()
    assert authority.ensure_tls(("fleet.example.org",), now_ms=NOW_MS + 600 * DAY_MS)
    assert chain.read_bytes() != before


def test_a_cut_between_key_and_certificate_heals(authority: Authority) -> None:
    chain, key = authority.server_files
    chain.unlink()
    assert authority.ensure_tls(("fleet.example.org", "192.0.2.7"), now_ms=NOW_MS)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)


def test_the_revocation_list_names_serials_and_outlives_every_restart(authority: Authority) -> None:
    authority.write_revocation_list([("deadbeef", NOW_MS)], now_ms=NOW_MS)
    crl = x509.load_pem_x509_crl(authority.crl_file.read_bytes())
    assert [f"{entry.serial_number:x}" for entry in crl] == ["deadbeef"]
    key = authority.ca.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert crl.is_signature_valid(key)
    assert crl.next_update_utc is not None
    assert crl.next_update_utc - tls.at(NOW_MS) > timedelta(days=3000)


def test_the_folder_appears_whole_and_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".authority.making").mkdir()
    (tmp_path / ".authority.making" / "root.key").write_text("half of an attempt that was cut off")
    authority = make_authority(tmp_path)
    assert not (tmp_path / ".authority.making").exists()
    with pytest.raises(AuthorityError, match="there is an authority already"):
        make_authority(tmp_path)
    assert Authority(authority.folder).root_online


def test_no_secret_shows_in_a_repr(authority: Authority) -> None:
    signer = authority.server_signer()
    assert repr(signer) == f"Ed25519Signer({signer.kid.hex()})"


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_real_tls_between_server_and_terminal(authority: Authority, tmp_path: Path, name: str) -> None:
    """OpenSSL itself accepts the chain in both directions, with certificate checks at their strictest."""
    certificate, key, _ = issue_client(authority, "kiosk-1", tmp_path / "kiosk-1")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.server_files)
    server.load_verify_locations(authority.ca_file)
    server.load_verify_locations(authority.crl_file)
    server.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_X509_STRICT | ssl.VerifyFlags(0x200000)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(authority.ca_file))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.load_cert_chain(certificate, key)
    near, far = socket.socketpair()
    seen: list[object] = []

    def serve() -> None:
        with server.wrap_socket(far, server_side=True) as connection:
            seen.append(connection.getpeercert())
            connection.sendall(b"x")

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(near, server_hostname=name) as connection:
        assert connection.recv(1) == b"x"
    thread.join(10)
    assert seen


def test_the_data_directory_is_closed_to_others(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.make()
    layout.broker.chmod(0o755)
    layout.make()
    assert [folder for folder in (layout.root, layout.broker, layout.run) if folder.stat().st_mode & 0o077] == []
