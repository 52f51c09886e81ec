"""A JSON webhook for ticket systems and the like, signed after Standard Webhooks 1.0 (standardwebhooks.com). Its contract is docs/spec/webhook.md.

Receivers know a message by `webhook-id`, which is the same at every attempt. Any 2xx answer means received.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from fleet_server.notifications.bucket import Limits
from fleet_server.notifications.digest import Digest, Event, SiteGroup, group
from fleet_server.notifications.sending import Poster, SendFailed, check_url
from fleet_server.notifications.setup import Config, Kind, Setup, UrlSecret, at_once
from protocols.canon.faults import FAULTS

LIMITS = Limits(per_minute=30, burst=5)
"""Chosen: a digest a minute and what is tried again."""
SCHEME = "whsec_"
KEY_BYTES = 32
LATER = frozenset({408, 409, 425, 429})
"""Of the 4xx answers those that say "not now"; the others say "not like this", and would say so again."""


class WebhookSender:
    limits = LIMITS

    def __init__(self, setup: Setup) -> None:
        config = msgspec.json.decode(setup.config, type=Config)
        self._secret = msgspec.json.decode(setup.secret, type=UrlSecret)
        check_url(self._secret.url, plain_allowed=True)
        self._key = signing_key(self._secret.secret or "")
        self._name, self._fleet = setup.name, setup.fleet
        self._poster = Poster(config.ca_path, own_machine=config.own_machine)
        self.destination = self._secret.url

    not_before_ms = staticmethod(at_once)

    async def send(self, digest: Digest, *, now_ms: int) -> None:
        body = document(digest, fleet=self._fleet, channel=self._name)
        reply = await self._poster.post(self._secret.url, body, headers_of(self._key, digest.id, now_ms // 1000, body))
        if 200 <= reply.status < 300:
            return
        if reply.status in {429, 503}:
            raise SendFailed(f"HTTP {reply.status}", wait_ms=reply.retry_after_ms, blocks=reply.status == 429)
        raise SendFailed(f"HTTP {reply.status}", permanent=300 <= reply.status < 500 and reply.status not in LATER)

    async def close(self) -> None:
        await self._poster.close()


def new_secret() -> str:
    return SCHEME + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def signing_key(secret: str) -> bytes:
    """The bytes of `whsec_<base64>`; between 24 and 64 as the standard asks. Raises SendFailed."""
    try:
        key = base64.b64decode(secret.removeprefix(SCHEME), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not 24 <= len(key) <= 64:
        raise SendFailed("the signing secret is not whsec_ and 24 to 64 bytes in base64", permanent=True)
    return key


def headers_of(key: bytes, message_id: str, at_s: int, body: bytes) -> Mapping[str, str]:
    signed = f"{message_id}.{at_s}.".encode() + body
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "Content-Type": "application/json; charset=utf-8",
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": f"v1,{signature}",
    }


def document(digest: Digest, *, fleet: str, channel: str) -> bytes:
    """The body; the same bytes at every attempt."""
    data: dict[str, Any] = {"fleet": fleet, "channel": channel}
    if digest.platform is not None:
        data["platform"] = {
            "kind": digest.platform.kind,
            "cause": digest.platform.cause or None,
            "sinceMs": digest.platform.since_ms,
            "untilMs": digest.platform.until_ms,
        }
    data["events"] = [_event(event) for event in digest.events]
    data["groups"] = [
        {
            "kind": found.first.kind,
            "site": found.first.site,
            "severity": found.severity,
            "terminals": sorted({event.terminal for event in found.events}),
        }
        for found in group(digest.events)
        if isinstance(found, SiteGroup)
    ]
    return msgspec.json.encode(
        {
            "type": "fleet.test" if digest.test else "fleet.digest",
            "timestamp": datetime.fromtimestamp(digest.at_ms / 1000, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "data": data,
        }
    )


def _event(event: Event) -> dict[str, Any]:
    kind = FAULTS.get(event.fault)
    return {
        "kind": event.kind,
        "severity": event.severity,
        "impact": event.impact,
        "subject": event.subject,
        "reminder": event.level,
        "fault": {
            "code": event.fault,
            "zh": kind.zh if kind else event.fault,
            "en": kind.en if kind else event.fault,
            "hintZh": kind.hint_zh if kind else "",
            "hintEn": kind.hint_en if kind else "",
            "ids": event.fault_ids,
        },
        "terminal": {"id": event.terminal, "code": event.label, "nameZh": event.name_zh, "nameEn": event.name_en},
        "site": {"code": event.site, "nameZh": event.site_zh, "nameEn": event.site_en, "area": event.area},
        "sinceMs": event.since_ms,
        "untilMs": event.until_ms,
    }


KIND = Kind("webhook", Config, UrlSecret, WebhookSender, may_drop=False)
