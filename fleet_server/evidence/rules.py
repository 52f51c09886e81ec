"""What the server does with an authentic batch: one pure decision per batch (specification, section 5).

Nothing here reads a database or a clock; `Story` is what the decision needs to know, the ledger answers it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from protocols.contract.batch import Parent
from protocols.contract.messages import Held


@dataclass(frozen=True)
class Position:
    """Where a batch (or the loss notice in its place) says it stands."""

    stream: bytes
    no: int
    prev: bytes
    digest: bytes
    parent: Parent | None
    is_loss: bool


@dataclass(frozen=True)
class StreamView:
    """What the server has of a stream; number 0 with an empty hash: nothing."""

    head_no: int
    head_digest: bytes
    forked: bool
    disputed: bool


@dataclass(frozen=True)
class Stored:
    digest: bytes
    is_loss: bool


class Story(Protocol):
    """What the decision asks. All answers are about one terminal."""

    def view(self, stream: bytes) -> StreamView: ...
    def stored(self, stream: bytes, no: int) -> Stored | None: ...
    def span(self, stream: bytes) -> Held | None:
        """What this connection's signed birth lists of the stream."""
        ...

    def has_child(self, parent: Parent) -> bool: ...
    def hole_fits(self, at: Position) -> bool:
        """Whether a batch for a closed hole agrees with the hashes known on both sides of it."""
        ...


class Action(Enum):
    STORE_NEXT = auto()
    """Store, advance the head."""
    REPLACE_LOSS = auto()
    """The data of a batch of which only the loss notice is stored."""
    REPEAT = auto()
    """Stored already, same hash."""
    FILL = auto()
    """Falls into a closed hole."""
    ASIDE = auto()
    """Another story under a number that is taken."""
    BACK = auto()
    """Beyond the next number: repeat the head."""
    WAIT = auto()
    """First of a stream whose parent's tail is still to come: say nothing, it is sent again."""


@dataclass(frozen=True)
class Decision:
    action: Action
    hole: tuple[int, int] | None = None
    """Numbers closed by the birth before this batch is stored."""
    disputed: bool = False
    """The stream that starts here contradicts another one."""
    parent: Parent | None = None
    """Parent of a stream that starts here: from number 1, or from the birth if number 1 is gone."""


def decide(at: Position, story: Story) -> Decision:
    """The table of the specification, section 5, in its order."""
    view = story.view(at.stream)
    if at.no <= view.head_no:
        return _decide_known_number(at, story)
    follows = at.no == view.head_no + 1
    if follows and at.no > 1 and at.prev == view.head_digest:
        return Decision(Action.STORE_NEXT)
    if view.forked:
        return Decision(Action.ASIDE)
    if at.no > 1:
        # The next number with another previous hash continues a story that was set aside; a hole can only lie further on.
        if follows and view.head_no:
            return Decision(Action.ASIDE)
        return _decide_beyond(at, story, view)
    return _decide_first(at, story)


def _decide_known_number(at: Position, story: Story) -> Decision:
    stored = story.stored(at.stream, at.no)
    if stored is None:
        return Decision(Action.FILL if story.hole_fits(at) else Action.ASIDE)
    if stored.digest != at.digest:
        return Decision(Action.ASIDE)
    return Decision(Action.REPLACE_LOSS if stored.is_loss and not at.is_loss else Action.REPEAT)


def _decide_beyond(at: Position, story: Story, view: StreamView) -> Decision:
    span = story.span(at.stream)
    if span is None or span.first != at.no or span.prev != at.prev:
        return Decision(Action.BACK)
    starts = view.head_no == 0
    parent = span.parent if starts else None
    return Decision(
        Action.STORE_NEXT,
        hole=(view.head_no + 1, at.no - 1),
        disputed=starts and parent is not None and _contradicts(parent, story),
        parent=parent,
    )


def _decide_first(at: Position, story: Story) -> Decision:
    parent = at.parent
    if parent is None:
        return Decision(Action.STORE_NEXT)
    known = story.view(parent.stream)
    span = story.span(parent.stream)
    if known.head_no < parent.no and span is not None and span.last >= parent.no and not known.forked:
        return Decision(Action.WAIT)
    return Decision(Action.STORE_NEXT, disputed=_contradicts(parent, story), parent=parent)


def _contradicts(parent: Parent, story: Story) -> bool:
    """The parent went on elsewhere, already has a child, or is disputed itself."""
    known = story.view(parent.stream)
    went_on = known.head_no > parent.no or (known.head_no == parent.no and known.head_digest != parent.digest)
    return went_on or known.disputed or story.has_child(parent)
