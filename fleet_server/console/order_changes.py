"""What a new configuration would change at the terminals that are asked to take it, so that whoever approves sees it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from fleet_server.console import config_view
from fleet_server.console.fleet import Fleet
from fleet_server.console.queries import orders as queries
from fleet_server.console.render import Voice
from fleet_server.engine import FleetEngine
from fleet_server.orders.wanted import configuration_sha256, version_of


async def changes_of(
    db: FleetEngine, voice: Voice, row: Mapping[str, Any], terminals: Sequence[str], fleet: Fleet
) -> list[dict[str, Any]]:
    """By the version that holds now: which terminals it is, and what differs. Empty for orders that are no configuration."""
    if row["kind"] != "configuration" or not terminals:
        return []
    version, sha256 = version_of(row["body"])
    if await db.look(lambda conn: configuration_sha256(conn, version)) != sha256:
        return [{"title": _names(voice, terminals, fleet), "lines": [voice.t("refused.orderChanged")]}]
    wanted = config_view.content_of(await queries.configuration(db, version))
    by_version: defaultdict[int | None, list[str]] = defaultdict(list)
    for terminal, holds in {**dict.fromkeys(terminals), **await queries.wanted_versions(db, terminals)}.items():
        by_version[holds].append(terminal)
    found = []
    for holds, members in by_version.items():
        before = config_view.content_of(await queries.configuration(db, holds)) if holds else {}
        lines = config_view.differences(voice, before, wanted)
        found.append({"title": _names(voice, members, fleet), "lines": lines or [voice.t("config.unchanged")]})
    return found


def _names(voice: Voice, terminals: Sequence[str], fleet: Fleet) -> str:
    return voice.t("orders.join").join(fleet.by_id[one].label if one in fleet.by_id else one for one in terminals)
