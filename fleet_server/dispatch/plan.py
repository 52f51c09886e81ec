"""Which duties the dispatch process has. Other parts of the server add theirs here."""

from __future__ import annotations

from fleet_server.audit.keeper import Keeper
from fleet_server.authority.authority import Authority
from fleet_server.dispatch.duties import Duty
from fleet_server.dispatch.signing import Signing
from fleet_server.orders.logs import Tidy
from fleet_server.rollouts import duty as rollouts
from fleet_server.settings import Settings
from fleet_server.updates import duty as repositories
from fleet_server.updates import packed


def duties(settings: Settings, authority: Authority) -> list[Duty]:
    """In no order: each runs by itself."""
    signing = Signing(settings.fleet, settings.layout.dispatch, authority)
    keeper = Keeper(settings.fleet, authority.server_signer, settings.layout.audit_heads)
    return [
        Duty(name="orders", step=signing.step, every_s=5.0),
        Duty(name="logs", step=Tidy(settings.layout.logs).step, every_s=600.0, wakes=False),
        Duty(name="audit", step=keeper.step, every_s=5.0),
        # Looks at the whole fleet, so not at every write of ingest.
        Duty(name="rollouts", step=rollouts.step(settings.layout.updates), every_s=2.0, wakes=False),
        Duty(name="repositories", step=repositories.step(settings.layout.updates), every_s=300.0, wakes=False),
        # Packs with the zstd program at the lowest priority, one form at a time.
        Duty(name="packed", step=packed.step(settings.layout.updates), every_s=60.0, wakes=False),
    ]
