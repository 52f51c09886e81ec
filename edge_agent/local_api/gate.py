"""Owns who may ask what. Pure decisions over a peer's user id or a browser's headers; nothing is parsed beyond them before they pass.

A page of another site can make the kiosk's browser send requests to loopback, and can make its own name point there (DNS rebinding). Therefore a
browser must show three things that such a page cannot: a `Host` from an exact list, an `Origin` from an exact list, and an application's token.
"""

from __future__ import annotations

import hashlib
import hmac
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from edge_agent import files
from edge_agent.errors import ConfigError
from edge_agent.local_api.refusal import ApiRefused


class Scope(StrEnum):
    SESSIONS = "sessions"
    RATINGS = "ratings"
    REFILLS = "refills"
    STATUS = "status"
    DEVICES = "devices"
    """Content of devices passes: only for the application that serves citizens, and only where it is named."""


DEFAULT_SCOPES = (Scope.SESSIONS, Scope.RATINGS, Scope.REFILLS, Scope.STATUS)


class Application(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kiosk application. Only the token's hash is kept: who reads the file cannot speak for the application."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}\Z")]
    token_sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)] = DEFAULT_SCOPES


class Applications(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file of application tokens."""

    applications: tuple[Application, ...] = ()

    @classmethod
    def load(cls, path: Path, *, owner: int | None = None) -> Applications:
        """KeyRefused if others can read the file (`files.read_private`), ConfigError if it is wrong. The message repeats no value."""
        raw = files.read_private(path, owner=owner)
        try:
            return msgspec.convert(tomllib.loads(raw.decode("utf-8")), cls)
        except (UnicodeDecodeError, tomllib.TOMLDecodeError):
            raise ConfigError(f"{path}: not TOML") from None
        except msgspec.ValidationError as err:
            where = str(err).rpartition(" - at ")[2] if " - at " in str(err) else "`$`"
            raise ConfigError(f"{path}: not as expected at {where}; `edge-agent token` writes this file") from None

    def holder(self, token: str) -> Application | None:
        """Who has this token; every entry is compared, in constant time."""
        digest, found = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest(), None
        for application in self.applications:
            if hmac.compare_digest(application.token_sha256, digest):
                found = application
        return found


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who passed. `origin`: to be named in the answer, for browsers. `name`: of the application, where its token says it."""

    scopes: frozenset[Scope]
    origin: str | None = None
    name: str | None = None

    def need(self, scope: Scope) -> None:
        if scope not in self.scopes:
            raise ApiRefused(403, "scope", f"This application's token does not have the scope {scope}.")


def admit_peer(uid: int, allowed_uids: frozenset[int]) -> Caller:
    """A program at the Unix socket, by the user id that the kernel vouches for (SO_PEERCRED, unix(7))."""
    if uid not in allowed_uids:
        raise ApiRefused(403, "user", "This user may not use the agent; the installer can add it to local_api.allowed_uids.")
    return Caller(frozenset(Scope))


@dataclass(frozen=True, slots=True)
class Gate:
    """What a browser kiosk must show. Header names are lower case."""

    hosts: frozenset[str]
    origins: frozenset[str]
    applications: Applications

    def admit_origin(self, headers: Mapping[str, str]) -> str:
        """First two locks; the origin may then see the answer. Raises ApiRefused."""
        if headers.get("host", "").lower() not in self.hosts:
            raise ApiRefused(421, "host", "This name is not in local_api.allowed_hosts.")
        origin = headers.get("origin")
        if origin is None:
            raise ApiRefused(403, "origin", "Requests over HTTP need an Origin; native programs use the Unix socket.")
        if origin not in self.origins:
            raise ApiRefused(403, "origin", "This page's origin is not in local_api.allowed_origins.")
        return origin

    def admit_embedded(self, headers: Mapping[str, str]) -> str | None:
        """For public files: elements of a page send no token and often no Origin, but what is shown must fit. Raises ApiRefused."""
        if headers.get("host", "").lower() not in self.hosts:
            raise ApiRefused(421, "host", "This name is not in local_api.allowed_hosts.")
        return self.admit_origin(headers) if "origin" in headers else None

    def admit_token(self, headers: Mapping[str, str], origin: str) -> Caller:
        """The third lock. Raises ApiRefused."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        holder = self.applications.holder(token.strip()) if scheme.lower() == "bearer" else None
        if holder is None:
            raise ApiRefused(401, "token", "An application's token is needed: Authorization: Bearer <token>.")
        return Caller(frozenset(holder.scopes), origin, holder.name)


PREFLIGHT_METHODS = frozenset({"GET", "POST"})
PREFLIGHT_HEADERS = frozenset({"authorization", "content-type"})


def preflight(headers: Mapping[str, str], origin: str) -> list[tuple[str, str]]:
    """Answer a CORS preflight of an admitted origin (Fetch standard, section 3.2). Raises ApiRefused for methods and headers nobody needs."""
    asked = {name.strip().lower() for name in headers.get("access-control-request-headers", "").split(",")} - {""}
    if headers.get("access-control-request-method", "") not in PREFLIGHT_METHODS or asked - PREFLIGHT_HEADERS:
        raise ApiRefused(403, "preflight", "Only GET and POST with Authorization and Content-Type are needed here.")
    answer = [
        *cors(origin),
        ("access-control-allow-methods", "GET, POST"),
        ("access-control-allow-headers", "Authorization, Content-Type"),
        ("access-control-max-age", "600"),
    ]
    if headers.get("access-control-request-private-network") == "true":
        # Chromium asks this before a page of a public address may speak to loopback (Private Network Access).
        answer.append(("access-control-allow-private-network", "true"))
    return answer


def cors(origin: str) -> list[tuple[str, str]]:
    """What lets this one origin read the answer. Never a wildcard, never cookies."""
    return [("access-control-allow-origin", origin), ("vary", "Origin")]
