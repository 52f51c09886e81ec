"""Which duties the dispatch process has. Other parts of the server add theirs here."""

from __future__ import annotations

from fleet_server.audit.keeper import Keeper
from fleet_server.authority.authority import Authority
from fleet_server.dispatch.duties import Duty
from fleet_server.dispatch.signing import Signing
from fleet_server.rollouts import duty as rollouts
from fleet_server.settings import Settings


def duties(settings: Settings, authority: Authority) -> list[Duty]:
    """In no order: each runs by itself."""
    signing = Signing(settings.fleet, settings.layout.dispatch, authority)
    keeper = Keeper(settings.fleet, authority.server_signer, settings.layout.audit_heads)
    return [
        Duty(name="orders", step=signing.step, every_s=5.0),
        Duty(name="audit", step=keeper.step, every_s=5.0),
        # Looks at the whole fleet, so not at every write of ingest.
        Duty(name="rollouts", step=rollouts.step(settings.layout.updates), every_s=2.0, wakes=False),
    ]
