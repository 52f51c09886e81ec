"""Motorised card readers and card dispensers of three protocols: state, stacker, bin. Asks; never moves, resets or reads anything.

A unit that says "not initialised" has lost power. It is reported and left as it is: its reset runs the motor for a moment, forgets what the kiosk
application set up (whether cards may enter) and clears the error that a person on site should see. Only the application orders a reset.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import replace

from edge_agent.clock import ClockReading
from edge_agent.devices.base import Observation, SlotBinding, judged_tails, poll_interval_s, silent, unseen, version_of
from edge_agent.devices.card_line import WRITE_TIMEOUT_S, CardLine, LineRules, Said
from edge_agent.devices.speeds import SpeedSearch
from edge_agent.devices.window import RateWindow
from edge_agent.faults import Condition
from edge_agent.transports.base import BytePort, PortRefused
from protocols.canon.words import DeviceState, SuggestedAction
from protocols.codecs import card_d1801, card_f2, card_stx
from protocols.codecs.card_unit import ACK_TIMEOUT_S, ASK_TIMES, QUERY_TIMEOUT_S, CardPlace, CardReading
from protocols.contract.records import Evidence
from protocols.profile.options.card import CardOptions
from protocols.profile.schema import Family

AT_GATE_EVERY_S = 5.0
"""While a card is in the mouth the unit is looked at this often, so that a forgotten card is noticed in time."""
COVERED_LOOKS = 3
"""A barrier that is covered while no card is told: so often in a row, since a card may just be passing."""

F2_RULES = LineRules(enquires=False, repeats=True, acknowledged=True)
STX_RULES = LineRules(enquires=True, repeats=True, acknowledged=True)
SIMPLE_RULES = LineRules(enquires=True, repeats=False, acknowledged=False)
ADDRESSED_RULES = LineRules(enquires=False, repeats=False, acknowledged=False)


class Told:
    """One answer in canonical words with the bytes that said so."""

    __slots__ = ("evidence", "reading")

    def __init__(self, reading: CardReading, evidence: Evidence) -> None:
        self.reading, self.evidence = reading, evidence


class Questions(ABC):
    """The questions of one protocol on one port."""

    codec: str
    noisy = False
    """Whether the last exchange saw bytes that mean nothing, or a NAK."""

    @abstractmethod
    async def state(self) -> Told | None:
        """The unit's state; None without a sound answer."""

    @property
    @abstractmethod
    def question(self) -> bytes:
        """The frame that `state` sends."""

    async def version(self) -> str:
        """The unit's own word for its firmware, empty where it has none."""
        return ""

    async def barriers(self) -> tuple[bool, ...] | None:
        """Light barriers, True where covered; None where they cannot be asked."""
        return None

    def _note(self, said: Said[object]) -> None:
        self.noisy = said.noise or said.refused


class F2Questions(Questions):
    codec = card_f2.CODEC

    def __init__(self, port: BytePort, options: CardOptions, address: int) -> None:
        self._options = options
        self._address = address
        self._line: CardLine[card_f2.Answer] = CardLine(port, card_f2.F2Reader(), F2_RULES)

    @property
    def question(self) -> bytes:
        return card_f2.encode(card_f2.Query.STATUS, self._address)

    async def state(self) -> Told | None:
        answer = await self._ask(card_f2.Query.STATUS)
        if answer is None:
            return None
        reading = card_f2.reading_of(answer, stacker=self._options.stacker, bin_sensor=self._options.bin_sensor)
        return Told(reading, Evidence(codec=self.codec, query=self.question, reply=answer.evidence, masked=answer.masked))

    async def version(self) -> str:
        answer = await self._ask(card_f2.Query.VERSION)
        return "" if answer is None else card_f2.version_text(answer)

    async def barriers(self) -> tuple[bool, ...] | None:
        answer = await self._ask(card_f2.Query.SENSORS)
        return None if answer is None else card_f2.barriers_of(answer)

    async def _ask(self, query: card_f2.Query) -> card_f2.Answer | None:
        frame = card_f2.encode(query, self._address)
        said = await self._line.exchange(
            frame, lambda answer: answer.answers(query, self._address), times=ASK_TIMES, result_timeout_s=QUERY_TIMEOUT_S
        )
        self._note(said)
        return said.answer


class StxQuestions(Questions):
    codec = card_stx.CODEC

    def __init__(self, port: BytePort) -> None:
        self._line: CardLine[card_stx.Answer] = CardLine(port, card_stx.StxReader(), STX_RULES)

    @property
    def question(self) -> bytes:
        return card_stx.encode(card_stx.Query.STATUS)

    async def state(self) -> Told | None:
        answer = await self._ask(card_stx.Query.STATUS)
        if answer is None:
            return None
        evidence = Evidence(codec=self.codec, query=self.question, reply=answer.evidence, masked=answer.masked)
        return Told(card_stx.reading_of(answer), evidence)

    async def barriers(self) -> tuple[bool, ...] | None:
        answer = await self._ask(card_stx.Query.SENSORS)
        return None if answer is None else card_stx.barriers_of(answer)

    async def _ask(self, query: card_stx.Query) -> card_stx.Answer | None:
        said = await self._line.exchange(
            card_stx.encode(query), lambda answer: answer.answers(query), times=ASK_TIMES, result_timeout_s=QUERY_TIMEOUT_S
        )
        self._note(said)
        return said.answer


class D1801Questions(Questions):
    codec = card_d1801.CODEC

    def __init__(self, port: BytePort, options: CardOptions, address: int) -> None:
        addressed = options.form == "addressed"
        self._low_means_empty = options.low_means_empty
        self._address = address if addressed else None
        flags = card_d1801.Query.FLAGS if options.status == "flags" else card_d1801.Query.STATE
        self._query = card_d1801.Query.ENQUIRY if addressed else flags
        rules = ADDRESSED_RULES if addressed else SIMPLE_RULES
        self._line: CardLine[card_d1801.Answer] = CardLine(port, card_d1801.D1801Reader(addressed=addressed), rules)

    @property
    def question(self) -> bytes:
        return card_d1801.encode(self._query, self._address)

    async def answer(self) -> card_d1801.Answer | None:
        return await self._ask(self._query)

    async def state(self) -> Told | None:
        answer = await self.answer()
        if answer is None:
            return None
        evidence = Evidence(codec=self.codec, query=self.question, reply=answer.evidence)
        return Told(card_d1801.reading_of(answer, low_means_empty=self._low_means_empty), evidence)

    async def version(self) -> str:
        answer = None if self._address is not None else await self._ask(card_d1801.Query.VERSION)
        return "" if answer is None else card_d1801.version_text(answer)

    async def _ask(self, query: card_d1801.Query) -> card_d1801.Answer | None:
        said = await self._line.exchange(
            card_d1801.encode(query, self._address),
            lambda answer: answer.answers(query, self._address),
            times=ASK_TIMES,
            result_timeout_s=QUERY_TIMEOUT_S,
        )
        self._note(said)
        return said.answer


def questions_for(port: BytePort, bound: SlotBinding) -> Questions:
    """Of the profile's family; PortRefused for another one."""
    options = bound.profile.card or CardOptions()
    address = options.address if bound.address is None else bound.address
    match bound.profile.family:
        case Family.CARD_F2:
            return F2Questions(port, options, address)
        case Family.CARD_STX:
            return StxQuestions(port)
        case Family.CARD_D1801:
            return D1801Questions(port, options, address)
    raise PortRefused(f"profile {bound.profile.id}: no card unit")


class CardUnit:
    """One unit on one port."""

    def __init__(self, port: BytePort, bound: SlotBinding) -> None:
        self._port = port
        self._bound = bound
        self._options = bound.profile.card or CardOptions()
        self._questions = questions_for(port, bound)
        self._noise = RateWindow()
        self._misses = 0
        serial = bound.profile.transport.serial
        bauds = self._options.bauds
        self._speeds = SpeedSearch(port, bauds, serial.baud if serial is not None else next(iter(bauds), 0))
        self._firmware: str | None = None
        self._version_asked = False
        self._at_gate_since_ms: int | None = None
        self._covered: deque[bool] = deque(maxlen=COVERED_LOOKS)

    @property
    def poll_every_s(self) -> float:
        every_s = poll_interval_s(self._bound, 10.0, soon=bool(self._misses))
        return min(every_s, AT_GATE_EVERY_S) if self._at_gate_since_ms is not None else every_s

    @property
    def poll_budget_s(self) -> float:
        question_s = ASK_TIMES * (ACK_TIMEOUT_S + WRITE_TIMEOUT_S) + QUERY_TIMEOUT_S + 2 * WRITE_TIMEOUT_S
        return (len(self._options.bauds) + 4) * question_s

    async def poll(self, now: ClockReading) -> list[Observation]:
        told = await self._questions.state()
        self._noise.add(self._questions.noisy)
        if told is None:
            told = await self._speeds.find(self._questions.state, misses=self._misses, now=now)
        if told is None:
            self._misses += 1
            self._at_gate_since_ms = None
            return [self._no_answer()]
        self._misses = 0
        await self._learn_version(told.reading)
        return [self._observation(told, await self._is_barrier_dirty(told.reading), now)]

    async def listen(self, timeout_s: float) -> list[Observation]:
        """A unit says nothing by itself; what still comes is dropped at the next question."""
        await asyncio.sleep(timeout_s)
        return []

    async def stop(self) -> None:
        return

    async def _learn_version(self, reading: CardReading) -> None:
        """Once, from a unit that is well: one that was not initialised may refuse."""
        if self._version_asked or reading.device is not DeviceState.ONLINE:
            return
        self._version_asked = True
        self._firmware = version_of(await self._questions.version())

    async def _is_barrier_dirty(self, reading: CardReading) -> bool:
        wanted = self._options.path_barriers
        if not wanted:
            return False
        covered = False
        if reading.place is CardPlace.NONE:
            barriers = await self._questions.barriers()
            covered = barriers is not None and any(number <= len(barriers) and barriers[number - 1] for number in wanted)
        self._covered.append(covered)
        return len(self._covered) == COVERED_LOOKS and all(self._covered)

    def _no_answer(self) -> Observation:
        """Silence is one thing, bytes that mean nothing another: the first is a dead unit or a cut cable, the second noise or a wrong speed."""
        question = Evidence(codec=self._questions.codec, query=self._questions.question)
        noise = (Condition(self._bound.code("LINK_NOISE"), question),) if self._noise.is_high else ()
        if not self._questions.noisy:
            observation = silent(self._bound, self._misses, question)
            return replace(observation, conditions=(*observation.conditions, *noise))
        needed = 3 if self._bound.profile.poll is None else self._bound.profile.poll.offline_after_misses
        return replace(
            unseen(self._bound.slot, self._bound.profile.kind, DeviceState.UNKNOWN),
            action=SuggestedAction.MAINTENANCE,
            holds_state=self._misses < needed,
            evidence=question,
            conditions=noise,
        )

    def _observation(self, told: Told, dirty: bool, now: ClockReading) -> Observation:
        reading, evidence = told.reading, told.evidence
        tails = list(reading.conditions)
        if dirty and "MECHANISM" not in tails:
            tails.append("MECHANISM")
        if self._is_left(reading, now):
            tails.append("CARD_LEFT")
        if self._noise.is_high:
            tails.append("LINK_NOISE")
        return Observation(
            slot=self._bound.slot,
            device=DeviceState.HARDWARE_ERROR if dirty else reading.device,
            media=reading.media,
            cards=reading.stock,
            action=SuggestedAction.MAINTENANCE if dirty else reading.action,
            evidence=evidence,
            conditions=tuple(Condition(self._bound.code(tail), evidence) for tail in tails),
            judged=None if reading.judged is None else judged_tails(self._bound, "LINK_NOISE", *reading.judged),
            firmware=self._firmware,
        )

    def _is_left(self, reading: CardReading, now: ClockReading) -> bool:
        """Whether a card stays in the mouth too long. An answer that does not say where the card is changes nothing."""
        if reading.place is CardPlace.GATE:
            if self._at_gate_since_ms is None:
                self._at_gate_since_ms = now.boot_ms
            return now.boot_ms - self._at_gate_since_ms >= self._options.card_left_s * 1000
        if reading.place is not CardPlace.UNKNOWN:
            self._at_gate_since_ms = None
        return False
