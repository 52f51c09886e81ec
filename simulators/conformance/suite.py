"""The requirements, in the order in which a unit is looked at: found, opened, asked, left alone, unplugged, provoked.

Everything is judged from outside the drivers: the tap's log, the records that would have been sealed, the clock. A requirement fails with what was
seen and what to do; it is skipped, with the reason, where a person is needed and nobody is there or where the profile claims nothing of the kind.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from edge_agent import discovery
from edge_agent.config import DeviceEntry
from edge_agent.devices.base import link_codes
from edge_agent.transports.base import BytePort, PortError, Sighting
from protocols.canon.faults import FAULTS
from protocols.canon.words import DeviceState
from protocols.contract.records import Device
from protocols.profile.match import AmbiguousMatch, candidates
from protocols.profile.places import SerialMatch
from protocols.profile.schema import Profile
from simulators.capture import Capture, scrub, unit_behind, write
from simulators.conformance.analysis import Findings, analyse
from simulators.conformance.hands import Deed, Hands, Provoked, provocations
from simulators.conformance.report import Report, Result, Verdict
from simulators.conformance.tap import LOG_BYTES, Tap
from simulators.conformance.watch import Target, Watch, with_profile
from simulators.wire import is_described, wire_of

WELL = frozenset({DeviceState.ONLINE, DeviceState.BUSY})
FIRST_LOOK_S = 60.0
"""A printer that sleeps needs 20 s for its first answer, a reader at an unknown speed is asked at five."""
SETTLE_S, SETTLE_READS = 0.3, 32
LEAST_STEADY_S = 1.2
"""A receiver speaks once a second."""
HANDS_S = 60.0
ONE_POLL_TIMES = 3
"""A question that is asked so often and not always answered is no accident."""


@dataclass(frozen=True)
class Settings:
    """How much is looked at."""

    rounds: int = 10
    every_s: float = 2.0
    """The longest pause between two polls; shorter where the profile says so."""


class Check:
    """One unit, from finding it to plugging it in again. After `run` the results are in `report`, the log in `tap`."""

    def __init__(
        self, profile: Profile, target: Target, hands: Hands, profiles: Mapping[str, Profile], settings: Settings | None = None
    ) -> None:
        self.profile = profile
        self.target = target
        self.tap: Tap | None = None
        self._hands = hands
        self._profiles = with_profile(profiles, profile)
        self._settings = settings or Settings()
        self._wire = wire_of(profile)
        self.report = Report(profile.id, target.port + (" (simulated)" if target.simulated else ""))
        self._loop = asyncio.get_running_loop()
        self._nothing_there = False

    async def run(self) -> Report:
        """Every requirement. Raises nothing that a device can cause."""
        await self._judge("found", "recognised by what it says of itself", self._found)
        if self._nothing_there:
            return self.report
        watch = Watch(self.profile, self.target, every_s=self._settings.every_s)
        self.tap = watch.tap
        async with watch:
            await self._judge("opens", "its port opens as the profile says", lambda: self._opens(watch))
            if self.report.failed and self.report.failed[-1].id == "opens":
                return self.report
            await self._judge("state", "a healthy unit is told as healthy", lambda: self._state(watch))
            await self._judge("steady", "nothing changes while nobody touches it", lambda: self._steady(watch))
            undisturbed = analyse(self._wire, watch.tap.transfers)
            await self._judge("answers", "each status question is answered", lambda: _now(self._answers(watch, undisturbed)))
            await self._judge("framing", "nothing but whole answers comes back", lambda: _now(self._framing(watch, undisturbed)))
            await self._judge("pace", "answers come well before the time-out", lambda: _now(self._pace(undisturbed)))
            await self._judge("identity", "firmware or module number is told", lambda: _now(self._identity(watch)))
            await self._judge("drivers", "the agent's own driver copes with it", lambda: _now(self._drivers(watch)))
            await self._judge("unplug", "pulling it out is noticed", lambda: self._unplug(watch))
            await self._judge("replug", "it comes back by itself", lambda: self._replug(watch))
            for provoked in provocations(self.profile):
                title = f"“{FAULTS[provoked.code].en}” is told and taken back"
                await self._judge(provoked.code, title, partial(self._provoke, watch, provoked))
        await self._judge("harmless", "only questions about its state were sent", lambda: _now(self._harmless(watch)))
        return self.report

    def capture_text(self) -> str:
        """What passed on the line, scrubbed, as a capture file."""
        head = {
            "profile": self.profile.id,
            "bus": "serial" if self.profile.transport.serial else "usb" if self.profile.transport.usb else "other",
            **self._usb_head(),
            "unit": "simulated" if self.target.simulated else unit_behind(self.target.port),
            "scrubbed": "yes",
        }
        return write(Capture(head, tuple(scrub(self._wire, self.tap.transfers if self.tap else ()))))

    def _usb_head(self) -> dict[str, str]:
        """Ids and pipes, so that a replay can be found by them."""
        seen = [
            one for one in self.target.discoverer.sightings() if self.target.port in (one.usb_path, one.path) and one.bus == "usb"
        ]
        if not seen or self.tap is None or not self.profile.transport.usb:
            return {}
        pipes = " ".join(f"{endpoint:02x}" for endpoint in self.tap.endpoints)
        product = {"product": seen[0].product} if seen[0].product else {}
        return {"usb": f"{seen[0].vid or 0:04x}:{seen[0].pid or 0:04x} {pipes}".rstrip(), **product}

    async def _judge(self, requirement: str, title: str, look: Callable[[], Awaitable[Outcome]]) -> None:
        began_s = self._loop.time()
        verdict, text, remedy = await look()
        self.report.results.append(Result(requirement, title, verdict, text, remedy, self._loop.time() - began_s))

    # ------------------------------------------------------------------ finding and opening

    async def _found(self) -> Outcome:
        sightings = [one for one in self.target.discoverer.sightings() if self.target.port in (one.usb_path, one.path)]
        if not sightings:
            self._nothing_there = True
            return _failed(
                f"there is nothing at {self.target.port}",
                "Check the cable and the path; /dev/serial/by-path and /sys/bus/usb/devices list what the system sees.",
            )
        if all(getattr(rule, "by_name", False) for rule in self.profile.match):
            return _skipped("a profile that the inventory names; its port says nothing of what is behind it")
        if all(one.bus == "serial" and one.vid is None for one in sightings) and _is_spoken_on_lines(self.profile):
            return _skipped("a line without an adapter's numbers: the inventory names the profile")
        if not any(candidates(one, [self.profile], kind=self.profile.kind) for one in sightings):
            return _failed(
                f"no [[match]] of the profile fits {_describe(sightings[0])}",
                "Put the unit's own numbers (`lsusb`) or the adapter's into a [[match]] table.",
            )
        return await self._bound(sightings)

    async def _bound(self, sightings: list[Sighting]) -> Outcome:
        """Whether the agent, given all profiles and only the kind, comes to this one."""
        entry = DeviceEntry(slot="unit", family=self.profile.kind.value, port=self.target.port, address=self.target.address)
        try:
            plan = discovery.make_plan(sightings, [entry], self._profiles)
            for task in plan.probes:
                told = await discovery.probe(task, self.target.opener)
                await self._settle(sightings[0])
                plan = discovery.make_plan(sightings, [entry], self._profiles, answered={(task.sighting.place, task.slot): told})
        except (PortError, AmbiguousMatch) as err:
            return _failed(str(err), "See the message; another profile may claim the same numbers.")
        bound = [binding.slots[0].profile.id for binding in plan.bindings]
        if bound == [self.profile.id]:
            return _passed("")
        if bound and self._shares_its_line(bound[0]):
            return _passed(f"as {bound[0]}, whose units look the same on a line; the inventory names this one")
        reason = plan.unclear[0][1] if plan.unclear else f"it is taken for {bound[0] if bound else 'nothing'}"
        return _failed(reason, "Make [[match]] more exact (pid, product text) or the probe's answer more telling.")

    async def _settle(self, sighting: Sighting) -> None:
        """Let the rest of a long answer to the probe pass, which nobody waits for any more. A unit that never ends is for the later parts."""
        port = await self.target.opener.open(sighting, self.profile)
        try:
            for _ in range(SETTLE_READS):
                if not isinstance(port, BytePort) or not await port.read(max_bytes=4096, timeout_s=SETTLE_S):
                    break
        finally:
            await port.close()

    def _shares_its_line(self, other: str) -> bool:
        """A serial profile found by kind alone: the general one of its kind comes first, the inventory decides."""
        rules = [*self.profile.match, *self._profiles[other].match]
        return all(isinstance(rule, SerialMatch) for rule in rules) and self._profiles[other].family is self.profile.family

    async def _opens(self, watch: Watch) -> Outcome:
        if self.profile.family.value == "presence":
            return _skipped("known by its presence alone, so nothing is opened")
        await watch.until(lambda: watch.tap.opened > 0, within_s=FIRST_LOOK_S)
        if watch.tap.opened:
            return _passed("")
        reason = "; ".join(watch.tap.refusals) or "it was not tried"
        return _failed(
            reason, "End other programs that hold the port, or give this user the right to open it (group dialout, udev rule)."
        )

    # ------------------------------------------------------------------ what it says undisturbed

    async def _state(self, watch: Watch) -> Outcome:
        if await watch.until(lambda: _is_well(watch.state()), within_s=FIRST_LOOK_S):
            return _passed(f"{_word(watch.state())}")
        return _failed(
            f"{_word(watch.state())}; {_faults(watch)}",
            "Begin with a healthy unit (paper in, covers closed). If it is healthy, the profile reads its status bits wrongly.",
        )

    async def _steady(self, watch: Watch) -> Outcome:
        """So many rounds without a changed state, a fault, or a missed poll."""
        told, opened = len(watch.records.devices()), watch.tap.opened
        pause_s = (
            self._settings.every_s if self.profile.poll is None else watch.profile.poll.every_s if watch.profile.poll else 1.0
        )
        await asyncio.sleep(max(self._settings.rounds * pause_s, LEAST_STEADY_S))
        changes = [device.device.value for device in watch.records.devices()[told:]]
        codes = sorted(watch.records.open_codes())
        if changes or codes:
            return _failed(
                f"states told meanwhile: {', '.join(changes) or 'none'}; {_faults(watch)}",
                "A state that flickers would become a fault with each turn: look at the answers with --capture.",
            )
        if watch.tap.opened != opened:
            return _failed("the port was lost and opened again", "Look for a loose plug, a weak supply or a unit that restarts.")
        return _passed("")

    def _answers(self, watch: Watch, found: Findings) -> Outcome:
        if watch.tap.is_blind:
            return _skipped("its port has no bytes to listen to")
        if not found.exchanges:
            return _skipped("this family is asked nothing")
        asked, missed = Counter[str](), Counter[str]()
        # The last question of the log may still be waiting for its answer.
        for exchange in found.exchanges[:-1] or found.exchanges:
            asked[exchange.name] += 1
            missed[exchange.name] += exchange.answered_s is None
        never = [
            name
            for name, count in missed.items()
            if count
            and all(one.expects == "always" for one in found.of(name))
            and (count == asked[name] or asked[name] >= ONE_POLL_TIMES)
        ]
        if never:
            said = "; ".join(f"“{name}” {asked[name] - missed[name]} of {asked[name]} times" for name in never)
            return _failed(
                f"answered: {said}",
                "Remove questions that the model does not know from the profile, or raise read_timeout_ms; lost answers point at the line.",
            )
        silent = [
            name for name, count in missed.items() if count == asked[name] and any(e.expects == "maybe" for e in found.of(name))
        ]
        self.report.figures["questions"] = ", ".join(f"{name} × {asked[name]}" for name in sorted(asked))
        return _passed(f"without answer, as allowed: {', '.join(sorted(silent))}" if silent else "")

    def _framing(self, watch: Watch, found: Findings) -> Outcome:
        if watch.tap.is_blind or not (found.exchanges or found.notices or found.stray_bytes):
            return _skipped("nothing was said")
        if watch.tap.lost_bytes:
            return _failed(
                f"it said more than {LOG_BYTES // 1024} KiB in a few minutes",
                "A unit that never stops talking starves its neighbours: look for a wrong mode, a stuck trigger, a wrong speed.",
            )
        if found.stray_bytes:
            return _failed(
                f"{found.stray_bytes} bytes in {found.stray_turns} places belong to no answer",
                "Check speed and parity, then the check value of the unit's frames; do not scan or press anything during this part.",
            )
        return _passed("")

    def _pace(self, found: Findings) -> Outcome:
        times_s = found.times_s
        if not times_s:
            return _skipped("no answer to time")
        transport = self.profile.transport.usb or self.profile.transport.serial
        limit_s = transport.read_timeout_ms / 1000 if transport else 1.0
        # The first answer may have to wake the unit.
        usual_s = times_s[min(len(times_s) - 1, int(len(times_s) * 0.95))]
        figures = (
            f"median {_ms(times_s[len(times_s) // 2])}, 95 % {_ms(usual_s)}, longest {_ms(times_s[-1])}, time-out {_ms(limit_s)}"
        )
        self.report.figures["answer times"] = figures
        if usual_s > limit_s / 2:
            return _failed(figures, "Raise read_timeout_ms to at least twice the usual answer time.")
        return _passed("")

    def _identity(self, watch: Watch) -> Outcome:
        state = watch.state()
        firmware, asset = (None, None) if state is None else (state.firmware, state.asset)
        if firmware or asset:
            told = [word for word, value in (("firmware", firmware), ("module number", asset)) if value]
            return _passed(f"{' and '.join(told)} told")
        if self.profile.firmware.version_query is not None:
            return _failed(
                "the profile has a version question, and no version came of it",
                "Check firmware.version_query and version_format.",
            )
        return _skipped("the unit tells none and the profile claims none")

    def _drivers(self, watch: Watch) -> Outcome:
        if watch.crashes:
            return _failed(
                "; ".join(watch.crashes), "This is the agent's mistake, whatever the unit sent: report it with the capture."
            )
        return _passed("")

    # ------------------------------------------------------------------ what hands do

    async def _unplug(self, watch: Watch) -> Outcome:
        before = watch.records.open_codes()
        if not await self._hands.do(Deed("unplug", "Pull the device's data cable out.")):
            return _skipped("nobody pulled it out")
        codes = link_codes(self.profile.kind).all | {self.profile.fault_code("BUS_DOWN")}
        within_s = HANDS_S + max(FAULTS[code].debounce_s for code in codes if code in FAULTS)
        if await watch.until(lambda: bool((watch.records.open_codes() - before) & codes), within_s=within_s):
            return _passed(", ".join(sorted((watch.records.open_codes() - before) & codes)))
        return _failed(
            f"not noticed in {within_s:.0f} s", "An adapter with its own supply hides the unit: plug unit and adapter as one."
        )

    async def _replug(self, watch: Watch) -> Outcome:
        if self.report.result("unplug").verdict is Verdict.SKIPPED:
            return _skipped("it was never out")
        await self._hands.do(Deed("unplug", "Plug it in again, at the same place.", begin=False))
        if await watch.until(lambda: _is_well(watch.state()) and not watch.records.open_codes(), within_s=2 * HANDS_S):
            return _passed("")
        return _failed(
            f"{_word(watch.state())}; {_faults(watch)}",
            "The unit must answer within two minutes of being plugged in, without a restart.",
        )

    async def _provoke(self, watch: Watch, provoked: Provoked) -> Outcome:
        kind = FAULTS[provoked.code]
        if provoked.code in watch.records.open_codes():
            return _failed(
                "it was told before anything was done", "Begin with a healthy unit; else the profile reads this bit wrongly."
            )
        if not await self._hands.do(provoked.begin):
            return _skipped("nobody did it")
        told = await watch.until(lambda: provoked.code in watch.records.open_codes(), within_s=HANDS_S + kind.debounce_s)
        seen = _faults(watch)
        await self._hands.do(provoked.end)
        back = await watch.until(lambda: provoked.code not in watch.records.open_codes(), within_s=2 * HANDS_S + kind.clear_s)
        await watch.until(lambda: _is_well(watch.state()), within_s=HANDS_S)
        if not told:
            return _failed(
                f"not told in {HANDS_S + kind.debounce_s:.0f} s; {seen}",
                "Compare the unit's answer (--capture) with the profile's bits.",
            )
        if not back:
            return _failed(
                "told, but not taken back",
                "The unit goes on reporting it after it was put right: a latched bit, or the wrong one.",
            )
        return _passed("")

    # ------------------------------------------------------------------ what was sent

    def _harmless(self, watch: Watch) -> Outcome:
        """Over the whole run, with the faults and the replugging in it."""
        if watch.tap.is_blind:
            return _skipped("its port has no bytes to listen to")
        found = analyse(self._wire, watch.tap.transfers)
        if not is_described(self.profile.family) and found.exchanges + found.forbidden:
            return _failed(
                f"the suite has no list of harmless questions for the family {self.profile.family}",
                "Add the family to simulators/wire.py, from its manual.",
            )
        if found.forbidden:
            return _failed(
                f"{len(found.forbidden)} times something else was sent, first: {found.forbidden[0]}",
                "This is the agent's or the profile's mistake: do not connect it to a unit in service, and report it.",
            )
        return _passed(f"{len(found.exchanges)} questions")


Outcome = tuple[Verdict, str, str]


async def _now(outcome: Outcome) -> Outcome:
    return outcome


def _passed(text: str) -> Outcome:
    return Verdict.PASSED, text, ""


def _skipped(text: str) -> Outcome:
    return Verdict.SKIPPED, text, ""


def _failed(text: str, remedy: str) -> Outcome:
    return Verdict.FAILED, text, remedy


def _is_well(state: Device | None) -> bool:
    return state is not None and state.device in WELL


def _word(state: Device | None) -> str:
    return "no state at all" if state is None else f"device {state.device.value}"


def _faults(watch: Watch) -> str:
    codes = sorted(watch.records.open_codes())
    return "open: " + ", ".join(f"{code} ({FAULTS[code].en})" for code in codes) if codes else "no open fault"


def _is_spoken_on_lines(profile: Profile) -> bool:
    return any(isinstance(rule, SerialMatch) for rule in profile.match)


def _describe(sighting: Sighting) -> str:
    if sighting.vid is None or sighting.pid is None:
        return f"a device on {sighting.bus} without ids"
    product = f" “{sighting.product}”" if sighting.product else ""
    return f"{sighting.vid:04x}:{sighting.pid:04x}{product} on {sighting.bus}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
