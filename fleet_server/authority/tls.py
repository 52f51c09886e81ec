"""X.509: the fleet's P-256 authority, certificates of servers and terminals, the revocation list. Every function is pure; `now` is passed in."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
"""Start of validity of the authority and of server certificates: a kiosk without a battery clock wakes in 1970 and must still reach the server
that tells it the time. The start date of a certificate that we issue ourselves protects nothing."""
AUTHORITY_LIFETIME = timedelta(days=20 * 365)
SERVER_LIFETIME = timedelta(days=825)
CLIENT_LIFETIME = timedelta(days=90)
BACKDATE = timedelta(days=1)
"""For clients: the broker checks them against this server's own clock, which may have been put back a little since."""
REVOCATION_LIST_LIFETIME = timedelta(days=10 * 365)
"""A broker refuses everybody once its list has run out; the list is rewritten at each start and each revocation, so this date never decides."""


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    pem: bytes
    serial: str
    """Hexadecimal."""
    issued_ms: int
    not_after_ms: int


def make_authority(key: EllipticCurvePrivateKey, fleet: str, now: datetime) -> x509.Certificate:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Kiosk Fleet"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{fleet} authority"),
        ]
    )
    builder = _builder(name, name, key.public_key(), BEGINNING, now + AUTHORITY_LIFETIME)
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )


def issue_server(
    authority: x509.Certificate,
    authority_key: EllipticCurvePrivateKey,
    public_key: EllipticCurvePublicKey,
    names: Iterable[str],
    now: datetime,
) -> x509.Certificate:
    """For broker, enrolment and console under `names` (DNS names or addresses)."""
    names = list(names)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    return (
        _issue(authority, public_key, subject, BEGINNING, now + SERVER_LIFETIME, ExtendedKeyUsageOID.SERVER_AUTH)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .sign(authority_key, SHA256())
    )


def issue_client(
    authority: x509.Certificate,
    authority_key: EllipticCurvePrivateKey,
    public_key: EllipticCurvePublicKey,
    common_name: str,
    uri: str,
    now: datetime,
    lifetime: timedelta = CLIENT_LIFETIME,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    return (
        _issue(authority, public_key, subject, now - BACKDATE, now + lifetime, ExtendedKeyUsageOID.CLIENT_AUTH)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
        .sign(authority_key, SHA256())
    )


def revocation_list(
    authority: x509.Certificate, authority_key: EllipticCurvePrivateKey, revoked: Iterable[tuple[str, int]], now: datetime
) -> x509.CertificateRevocationList:
    """`revoked` are (serial in hexadecimal, time in ms)."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now - BACKDATE)
        .next_update(now + REVOCATION_LIST_LIFETIME)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
    )
    for serial, revoked_ms in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(at(revoked_ms)).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(authority_key, SHA256())


def at(ms: int) -> datetime:
    """X.509 counts whole seconds."""
    return datetime.fromtimestamp(ms // 1000, UTC)


def serial_of(certificate: x509.Certificate) -> str:
    return f"{certificate.serial_number:x}"


def not_after_ms(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp() * 1000)


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """DNS names and addresses of a server certificate."""
    alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(address) for address in alternative.get_values_for_type(x509.IPAddress)}
    return frozenset(alternative.get_values_for_type(x509.DNSName)) | addresses


def _issue(
    authority: x509.Certificate,
    public_key: EllipticCurvePublicKey,
    subject: x509.Name,
    not_before: datetime,
    not_after: datetime,
    purpose: x509.ObjectIdentifier,
) -> x509.CertificateBuilder:
    own_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(subject, authority.subject, public_key, not_before, min(not_after, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own_id), critical=False)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: EllipticCurvePublicKey, not_before: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
