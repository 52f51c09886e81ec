"""E-mail over SMTP: one plain mail for each digest, marked as made by a machine (RFC 3834) so that nobody's absence answers it.

The password goes out over TLS only. A mail carries the same Message-ID at every attempt, so that mail programs show it once.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.header import Header
from email.mime.text import MIMEText
from email.utils import format_datetime
from typing import Annotated, Literal

import aiosmtplib
import msgspec
from msgspec import Meta

from fleet_server.notifications.addresses import AddressRefused, check_all, resolve
from fleet_server.notifications.bucket import Limits
from fleet_server.notifications.digest import Digest
from fleet_server.notifications.sending import TIMEOUT_S, SendFailed, tls_context
from fleet_server.notifications.setup import Config, Kind, Setup, at_once
from fleet_server.notifications.words import Words

LIMITS = Limits(per_minute=10, burst=3)
"""Chosen: mail servers count by the hour, a digest a minute is 60."""
LINES_MAX = 300
RELAY_PORTS = frozenset({25, 465, 587})
"""A mail relay on the server's own machine is usual; at other ports of it something else listens."""

Security = Literal["starttls", "tls", "none"]
MailAddress = Annotated[str, Meta(pattern=r"^[^@\s<>,;\"]+@[A-Za-z0-9.-]+$", max_length=254)]


class MailConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    port: Annotated[int, Meta(ge=1, le=65535)] = 587
    security: Security = "starttls"
    sender: MailAddress
    to: Annotated[tuple[MailAddress, ...], Meta(min_length=1, max_length=50)]
    user: str | None = None


class MailSecret(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    password: str | None = None

    def __repr__(self) -> str:
        return "MailSecret(…)"


class MailSender:
    limits = LIMITS

    def __init__(self, setup: Setup) -> None:
        self._config = msgspec.json.decode(setup.config, type=MailConfig)
        self._secret = msgspec.json.decode(setup.secret, type=MailSecret)
        if self._config.user is not None and self._config.security == "none":
            raise SendFailed("a password needs TLS: set security to starttls or tls", permanent=True)
        self._tls = None if self._config.security == "none" else tls_context(self._config.ca_path)
        self._words = Words(self._config.lang, setup.zone, setup.name)
        self._fleet = setup.fleet
        self.destination = f"{self._config.host}:{self._config.port}/{self._config.sender}"

    not_before_ms = staticmethod(at_once)

    async def send(self, digest: Digest, *, now_ms: int) -> None:
        del now_ms
        config = self._config
        own_machine = config.own_machine or config.port in RELAY_PORTS
        client = aiosmtplib.SMTP(
            hostname=config.host,
            port=config.port,
            timeout=TIMEOUT_S,
            use_tls=config.security == "tls",
            start_tls=False,
            tls_context=self._tls,
        )
        try:
            check_all(await resolve(config.host, config.port), own_machine=own_machine)
            async with client:
                # Who is at the other end counts, not what the name said a moment ago. Nothing has been said yet.
                check_all([str((client.get_transport_info("peername") or ("0.0.0.0",))[0])], own_machine=own_machine)  # noqa: S104 - refused
                if config.security == "starttls":
                    await client.ehlo()
                    if not client.supports_extension("starttls"):
                        raise SendFailed("the mail server does not offer STARTTLS", permanent=True)
                    await client.starttls()
                if config.user is not None:
                    await client.login(config.user, self._secret.password or "")
                await client.send_message(compose(digest, self._words, config, self._fleet))
        except AddressRefused as err:
            raise SendFailed(str(err), permanent=True) from None
        except aiosmtplib.SMTPRecipientsRefused as err:
            codes = {refused.code for refused in err.recipients}
            raise SendFailed(f"SMTP {min(codes)}: no recipient was taken", permanent=min(codes) >= 500) from None
        except aiosmtplib.SMTPResponseException as err:
            raise SendFailed(f"SMTP {err.code}", permanent=err.code >= 500) from None
        except aiosmtplib.SMTPNotSupported:
            raise SendFailed("the mail server does not offer signing in", permanent=True) from None
        except aiosmtplib.SMTPTimeoutError:
            raise SendFailed(f"no answer within {TIMEOUT_S:.0f} s") from None
        except aiosmtplib.SMTPException as err:
            raise SendFailed(f"no mail was taken ({type(err).__name__})") from None
        except OSError as err:
            raise SendFailed(f"no connection ({type(err).__name__})") from None

    async def close(self) -> None:
        """Nothing stays open between two mails."""


def compose(digest: Digest, words: Words, config: MailConfig, fleet: str) -> MIMEText:
    text = words.text(digest)
    lines = [f"[{line.tag}] {line.text}" for line in text.lines[:LINES_MAX]]
    if len(text.lines) > LINES_MAX:
        lines.append(words.left(len(text.lines) - LINES_MAX))
    mail = MIMEText("\n".join([text.title, "", *lines, ""]), "plain", "utf-8")
    # Not EmailMessage: up to Python 3.12 it loses a space where it folds a subject between two encoded words.
    mail["Subject"] = Header(text.title, "utf-8", header_name="Subject").encode()
    mail["From"] = config.sender
    mail["To"] = ", ".join(config.to)
    mail["Date"] = format_datetime(datetime.fromtimestamp(digest.at_ms // 1000, UTC))
    mail["Message-ID"] = f"<{digest.id}@{config.sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Kiosk-Fleet"] = fleet
    return mail


KIND = Kind("mail", MailConfig, MailSecret, MailSender)
