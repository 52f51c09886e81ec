"""Which role may do what. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

Permission = Literal["view", "operate", "request", "approve", "manage", "audit"]
Role = Literal["viewer", "operator", "requester", "approver", "auditor"]
ROLES: Final[tuple[Role, ...]] = ("viewer", "operator", "requester", "approver", "auditor")
PERMISSIONS: Final[tuple[Permission, ...]] = ("view", "operate", "request", "approve", "manage", "audit")
OF_ROLE: Final[Mapping[str, frozenset[Permission]]] = {
    "viewer": frozenset({"view"}),
    # Approves what others asked for; that nobody approves their own is decided for each request (`orders.rules`).
    "operator": frozenset({"view", "operate", "request", "approve", "manage", "audit"}),
    "requester": frozenset({"view", "request"}),
    "approver": frozenset({"view", "approve"}),
    # Reads and exports the log of everybody else, and can do nothing that would stand in it but that.
    "auditor": frozenset({"view", "audit"}),
}


def role_may(role: str, permission: str) -> bool:
    """False for roles and permissions that are unknown."""
    return permission in OF_ROLE.get(role, frozenset())
