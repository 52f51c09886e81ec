"""Owns how the agent trusts a server: one private CA, TLS 1.2 or newer, the host name, and dates only where the clock deserves it."""

from __future__ import annotations

import ssl

from edge_agent.errors import ServerNotTrusted
from edge_agent.signing import KeyStore

X509_V_FLAG_NO_CHECK_TIME = 0x200000
"""OpenSSL's flag, <openssl/x509_vfy.h>: verify the chain without its dates. Python's ssl module has no name for it."""


def client_context(ca_pem: str, *, check_dates: bool, keys: KeyStore | None = None) -> ssl.SSLContext:
    """A context that trusts `ca_pem` alone, with the terminal's certificate if `keys` is given.

    `check_dates` is False while the clock is not synchronised: a kiosk whose clock stands in 1970 must still reach its server. What is given up
    then is only that a stolen old server certificate of our own CA is noticed by its date.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError) as err:
        raise ServerNotTrusted("the CA certificate cannot be read; it must be in PEM") from err
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the pinned certificate is the anchor, self-signed or not
    if not check_dates:
        context.verify_flags |= ssl.VerifyFlags(X509_V_FLAG_NO_CHECK_TIME)
    if keys is not None:
        keys.load_client_certificate(context)
    return context


def anonymous_context() -> ssl.SSLContext:
    """Trusts nobody and checks nothing: only to fetch a public certificate whose fingerprint is checked afterwards."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
