"""Who takes part: the simulated city's areas, sites and terminals as the server's registry wants them, and which get a process of their own.

Pure: values in, values out.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet_server.enrolment.registry import NewTerminal
from simulators.items import ITEMS
from simulators.population import CITY_CODE, CITY_EN, CITY_ZH, DIVISIONS, FleetPlan, Site, TerminalKind, TerminalPlan, plan_fleet
from simulators.serving import on_ptys
from simulators.terminal import VirtualTerminal

OWN_PROCESS: dict[TerminalKind, int] = {"kiosk": 14, "call-pads": 3, "booth": 1, "desk": 1, "van": 1}
"""At least twenty terminals run as they do in the field: an agent process, real ports."""
_SOCIAL_SITES = frozenset({"mall", "hospital", "station", "bank"})
_NAMES = {
    "kiosk": ("自助机", "Kiosk"),
    "call-pads": ("叫号器组", "Call pads"),
    "booth": ("政务小屋", "Booth"),
    "desk": ("无人受理台", "Desk"),
    "van": ("流动服务车", "Service van"),
}


@dataclass(frozen=True, slots=True)
class Member:
    """One terminal of the demo. `own_process`: an agent process with pseudo terminals; else an agent object among many, with pipes."""

    plan: TerminalPlan
    own_process: bool
    name_zh: str
    name_en: str

    @property
    def id(self) -> str:
        return self.plan.id

    def terminal(self, ports: Path) -> VirtualTerminal:
        """The simulated devices. With a process of its own: on pseudo terminals below `ports`."""
        if self.own_process:
            return on_ptys(self.plan.build(serial_only=True), ports)
        return self.plan.build()

    def inventory(self, ports: Path) -> list[dict[str, Any]]:
        """As `[[devices]]` of an agent and as the server's registry keep it."""
        kept = ("slot", "family", "port", "mandatory", "profile", "address")
        return [{key: place[key] for key in kept if key in place} for place in self.terminal(ports).ports()]

    def registration(self, ports: Path) -> NewTerminal:
        return NewTerminal(
            id=self.plan.id,
            code=self.plan.code,
            type=self.plan.record_word,
            name_zh=self.name_zh,
            name_en=self.name_en,
            site=self.plan.site.code,
            class_="social" if self.plan.site.kind in _SOCIAL_SITES else "government",
            inventory=tuple(self.inventory(ports)),
            tags=("own-process",) if self.own_process else (),
        )


@dataclass(frozen=True, slots=True)
class City:
    """The members in the order in which their past should enter: every division early, busy places first."""

    fleet: FleetPlan
    members: tuple[Member, ...]

    @property
    def processes(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.own_process)

    @property
    def pipes(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if not member.own_process)

    def sites(self) -> list[Site]:
        used = {member.plan.site.code for member in self.members}
        return [site for site in self.fleet.sites if site.code in used]


def make_city(*, terminals: int = 400, own_processes: int | None = None, seed: int = 1) -> City:
    """The whole city, or a smaller one that keeps every kind of terminal as long as there is room for it."""
    fleet = plan_fleet(seed)
    chosen = _sample(fleet.terminals, terminals)
    wanted = _shares(chosen, own_processes)
    numbers: dict[tuple[str, str], int] = {}
    totals: dict[tuple[str, str], int] = {}
    for plan in chosen:
        totals[plan.site.code, plan.kind] = totals.get((plan.site.code, plan.kind), 0) + 1
    own_process = _spread(chosen, wanted)
    members = []
    for plan in chosen:
        key = (plan.site.code, plan.kind)
        numbers[key] = numbers.get(key, 0) + 1
        own = plan.id in own_process
        number = numbers[key] if totals[key] > 1 else None
        members.append(Member(plan, own, *_names(plan, number)))
    return City(fleet, tuple(_in_order(members, seed)))


def area_rows() -> list[dict[str, Any]]:
    """The city and its county-level divisions, with their codes of GB/T 2260."""
    city = {"code": CITY_CODE, "name_zh": CITY_ZH, "name_en": CITY_EN, "sort": 0, "adcode": CITY_CODE}
    return [
        city,
        *(
            {"code": d.code, "parent": CITY_CODE, "name_zh": d.zh, "name_en": d.en, "sort": number, "adcode": d.code}
            for number, d in enumerate(DIVISIONS, start=1)
        ),
    ]


def site_rows(sites: Iterable[Site]) -> list[dict[str, Any]]:
    return [
        {
            "code": site.code,
            "area": site.division,
            "name_zh": site.zh,
            "name_en": site.en,
            "kind": site.kind,
            "lat": site.lat,
            "lon": site.lon,
            "hours": _hours(site),
            "network": site.network,
        }
        for site in sites
    ]


def item_rows() -> list[dict[str, str]]:
    """The catalogue of every terminal, as `[[items]]` of an agent."""
    return [{"code": item.code, "type": item.kind} for item in ITEMS]


def _hours(site: Site) -> dict[str, Any]:
    week = {} if site.hours.always else site.hours.week()
    return {**week, "always": site.hours.always}


def _names(plan: TerminalPlan, number: int | None) -> tuple[str, str]:
    """Pages show the site beside it, so a number among its like is name enough."""
    zh, en = _NAMES[plan.kind]
    return (zh, en) if number is None else (f"{zh} {number} 号", f"{en} {number}")


def _sample(terminals: Sequence[TerminalPlan], count: int) -> list[TerminalPlan]:
    """`count` terminals with each kind in its share, at least one of each."""
    if count >= len(terminals):
        return list(terminals)
    kinds = list(dict.fromkeys(plan.kind for plan in terminals))
    of_kind = {kind: [plan for plan in terminals if plan.kind == kind] for kind in kinds}
    shares = {kind: max(1, count * len(of_kind[kind]) // len(terminals)) for kind in kinds}
    shares["kiosk"] = max(1, count - sum(share for kind, share in shares.items() if kind != "kiosk"))
    chosen: list[TerminalPlan] = []
    for kind in kinds:
        step = len(of_kind[kind]) / shares[kind]
        chosen += [of_kind[kind][int(at * step)] for at in range(min(shares[kind], len(of_kind[kind])))]
    return sorted(chosen[:count], key=lambda plan: plan.id)


def _shares(chosen: Sequence[TerminalPlan], own_processes: int | None) -> dict[TerminalKind, int]:
    if own_processes is None:
        return dict(OWN_PROCESS)
    present = {plan.kind for plan in chosen}
    order: list[TerminalKind] = ["kiosk", "call-pads", "booth", "desk", "van"]
    wanted: dict[TerminalKind, int] = dict.fromkeys(order, 0)
    for kind in order[1:]:
        if kind in present and sum(wanted.values()) < own_processes - 1:
            wanted[kind] = 1
    wanted["kiosk"] = own_processes - sum(wanted.values())
    return wanted


def _spread(chosen: Sequence[TerminalPlan], wanted: Mapping[TerminalKind, int]) -> frozenset[str]:
    """So many of each kind, evenly over the city; the first terminal is always among them, because the printed commands name it."""
    own: set[str] = set()
    for kind, count in wanted.items():
        plans = [plan for plan in chosen if plan.kind == kind]
        share = min(count, len(plans))
        own |= {plans[at * len(plans) // share].id for at in range(share)}
    return frozenset(own)


def _in_order(members: Sequence[Member], seed: int) -> list[Member]:
    """Round after round through the divisions, in each the busiest terminals first; those with processes of their own before all."""
    choice = random.Random(f"order {seed}")
    queues: dict[str, list[Member]] = {}
    for member in members:
        queues.setdefault(member.plan.site.division, []).append(member)
    for queue in queues.values():
        queue.sort(
            key=lambda member: (member.plan.cases_per_day + member.plan.tickets_per_workday / 10) * choice.uniform(0.5, 1.5)
        )
    ordered: list[Member] = []
    while any(queues.values()):
        ordered += [queue.pop() for queue in queues.values() if queue]
    own = sorted((member for member in ordered if member.own_process), key=lambda member: member.id)
    return own + [member for member in ordered if not member.own_process]
