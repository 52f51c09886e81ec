"""How often each device profile was wrong: the faults that it raised, and those that people marked as false alarms."""

from __future__ import annotations

from litestar import Response, get

from fleet_server.console.desk import Asked, TheDesk
from fleet_server.console.fault_view import FaultView
from fleet_server.console.format import Ratio
from fleet_server.console.profiles import shipped
from fleet_server.console.queries import lists


@get("/profiles")
async def profiles(request: Asked, desk: TheDesk) -> Response[str]:
    """Every number leads to the list that is exactly so long."""
    known = shipped()
    rows = []
    for one in await lists.profile_quality(desk.db):
        profile = known.get(one.profile)
        rows.append({
            "name": profile.display_name if profile else one.profile,
            "id": one.profile,
            "grade": profile.grade if profile else "",
            "faults": one.faults,
            "false_alarms": one.false_alarms,
            "share": Ratio(one.false_alarms, one.faults).percent,
            "href": "/faults" + FaultView(tab="all", profile=one.profile).query(),
            "false_href": "/faults" + FaultView(tab="all", profile=one.profile, status="falseAlarm").query(),
        })  # fmt: skip
    return await desk.page(request, "profiles.html", nav="system", rows=rows)


HANDLERS = [profiles]
