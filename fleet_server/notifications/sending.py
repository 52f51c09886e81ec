"""What every channel has in common: how it says that it could not deliver, and one HTTP POST.

What a peer answered is never copied into an error, only its code: answers can echo what was sent, addresses hold tokens.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import msgspec

from fleet_server.errors import FleetServerError
from fleet_server.notifications.addresses import AddressRefused, Guard, check_all
from fleet_server.notifications.bucket import Limits
from fleet_server.notifications.digest import Digest

TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 64 * 1024
RETRY_AFTER_MAX_S = 3600
HEADERS = {"User-Agent": "kiosk-fleet", "Accept-Encoding": "identity"}


class SendFailed(FleetServerError):
    """A message that was not delivered; what went wrong is in a few words of ours."""

    def __init__(self, what: str, *, permanent: bool = False, wait_ms: int | None = None, blocks: bool = False) -> None:
        super().__init__(what)
        self.permanent = permanent
        """The next attempt would end the same way, until somebody changes the channel."""
        self.wait_ms = wait_ms
        """The peer wants so much time."""
        self.blocks = blocks
        """The peer takes nothing from us until then."""


class Sender(Protocol):
    """One channel, ready to send."""

    limits: Limits
    destination: str
    """Equal for channels that share a peer's limit. May hold secrets: never shown."""

    def not_before_ms(self, digest: Digest, now_ms: int) -> int:
        """When this digest may go out; `now_ms` if at once."""

    async def send(self, digest: Digest, *, now_ms: int) -> None:
        """Delivered when it returns. Raises SendFailed."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes
    retry_after_ms: int | None = None


class Poster:
    """Posts to one peer. The system's authorities are trusted, and those in `ca_file`; a proxy is taken from the environment (HTTPS_PROXY)."""

    def __init__(self, ca_file: Path | None = None, *, own_machine: bool = False) -> None:
        self._own_machine = own_machine
        self._client = httpx.AsyncClient(verify=tls_context(ca_file), timeout=TIMEOUT_S, follow_redirects=False, headers=HEADERS)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Raises SendFailed if there was no answer. How long an answer may go on is the caller's limit."""
        try:
            guard = Guard(self._literal_checked(url), own_machine=self._own_machine)
            extensions = {"trace": guard.trace}
            async with self._client.stream("POST", url, content=body, headers=dict(headers), extensions=extensions) as response:
                answer = b""
                async for chunk in response.aiter_raw():
                    # The rest is read and let go: a stream that is left halfway leaves the library's generators behind.
                    answer += chunk[: ANSWER_BYTES_MAX - len(answer)]
                return Reply(response.status_code, answer, _retry_after_ms(response.headers.get("Retry-After")))
        except AddressRefused as err:
            raise SendFailed(str(err), permanent=True) from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise SendFailed("the address cannot be used", permanent=True) from None
        except httpx.TimeoutException:
            raise SendFailed(f"no answer within {TIMEOUT_S:.0f} s") from None
        except httpx.HTTPError as err:
            # The library's texts can name the address, which holds a token: neither text nor chain goes on.
            raise SendFailed(f"no connection ({type(err).__name__})") from None

    def _literal_checked(self, url: str) -> str:
        """The host of `url`; a numeric one is checked here too, because behind a proxy nobody else would."""
        host = httpx.URL(url).raw_host.decode("ascii").strip("[]")
        with contextlib.suppress(ValueError):
            check_all([host], own_machine=self._own_machine)
        return host

    async def close(self) -> None:
        await self._client.aclose()


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Raises SendFailed if `ca_file` cannot be read."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=str(ca_file))
        except (OSError, ssl.SSLError):
            raise SendFailed(f"{ca_file}: no readable certificates", permanent=True) from None
    return context


def robot_answer(reply: Reply, *names: str) -> int:
    """The code that a robot platform answered, the first of `names` that is there: such platforms answer 200 to almost everything."""
    if reply.status == httpx.codes.TOO_MANY_REQUESTS:
        raise SendFailed("HTTP 429: too fast", wait_ms=reply.retry_after_ms, blocks=True)
    try:
        answer: Any = msgspec.json.decode(reply.body)
    except msgspec.DecodeError:
        answer = None
    code = next((answer[name] for name in names if name in answer), None) if isinstance(answer, dict) else None
    if not isinstance(code, int):
        raise SendFailed(f"HTTP {reply.status} without a readable answer")
    return code


def host_of(url: str) -> str:
    """What may be shown of an address."""
    parts = urlsplit(url)
    return parts.hostname or ""


def check_url(url: str, *, plain_allowed: bool) -> None:
    """Raises SendFailed for an address that is no HTTP address, or plain where a token in it would travel in the clear."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        raise SendFailed("the address cannot be used", permanent=True) from None
    is_local = host in {"127.0.0.1", "::1", "localhost"}
    if not host or parts.scheme not in {"http", "https"} or any(character.isspace() for character in url):
        raise SendFailed("the address must begin with https://", permanent=True)
    if parts.scheme == "http" and not plain_allowed and not is_local:
        raise SendFailed("the address must begin with https://: it carries a token", permanent=True)


def _retry_after_ms(text: str | None) -> int | None:
    """Seconds only; the date form is rare and asks for our clock to be right."""
    if text is None or not text.isascii() or not text.isdigit():
        return None
    return min(int(text), RETRY_AFTER_MAX_S) * 1000
