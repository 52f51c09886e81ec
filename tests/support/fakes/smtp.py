"""A mail server on a thread that keeps what it gets: aiosmtpd with STARTTLS or TLS, sign-in, and answers to order."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default as mail_policy
from typing import Any, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.support.processes import free_port


@dataclass
class Mailbox:
    """`answers` are given to DATA first, then 250; a recipient in `unknown` is refused."""

    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    unknown: frozenset[str] = frozenset()
    user: str = "robot"
    password: str = "right horse"
    over_tls: list[bool] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.unknown:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        if self.answers:
            return self.answers.pop(0)
        content = cast("bytes", envelope.content)
        self.mails.append(BytesParser(policy=mail_policy).parsebytes(content))
        self.recipients.append([str(address) for address in envelope.rcpt_tos])
        self.over_tls.append(session.ssl is not None)
        return "250 taken"

    def allow(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        good = isinstance(data, LoginPassword) and (data.login, data.password) == (self.user.encode(), self.password.encode())
        return AuthResult(success=good, handled=False)


@contextmanager
def serve(mailbox: Mailbox, *, tls: ssl.SSLContext | None = None, sign_in: bool = False) -> Iterator[int]:
    """Gives the port on 127.0.0.1. `tls` makes it offer STARTTLS."""
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=free_port(),
        tls_context=tls,
        require_starttls=tls is not None,
        authenticator=mailbox.allow if sign_in else None,
        auth_required=sign_in,
    )
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()
