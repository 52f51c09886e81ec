"""The figure part of `fleet-server`: figures on the command line, publications, and recomputation from evidence."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from fleet_server.commands import AddCommand, in_database, reading
from fleet_server.errors import SettingsError
from fleet_server.settings import Settings


def add_to(command: AddCommand) -> None:
    """Add these commands to the parser of `fleet-server`."""
    figures = command("figures", "print the figures of a month or a span of days", _figures)
    figures.add_argument("period", help="YYYY-MM, YYYY-Qn, YYYY, or YYYY-MM-DD..YYYY-MM-DD")
    for name, what in (
        ("area", "this area and everything below it"),
        ("site", "one site"),
        ("type", "one type of terminal"),
        ("class", "one class"),
    ):
        figures.add_argument(f"--{name}", dest=f"{name}_", metavar="CODE", help=f"only {what}")
    figures.add_argument("--publish", action="store_true", help="store them as published, so that they can be traced")

    trace = command("trace-figure", "show a published figure beside what the facts say now", _trace)
    trace.add_argument("id", type=int)

    recompute = command("recompute", "make figures from exported evidence and compare them with the database", _recompute)
    recompute.add_argument("file", type=Path, nargs="+", help="written by `fleet-server export-evidence`")
    recompute.add_argument("--period", help="YYYY-MM, or YYYY-MM-DD..YYYY-MM-DD; default: all days that the files speak of")


def period_of(text: str) -> Any:
    """`YYYY-MM`, `YYYY-Qn`, `YYYY` or `YYYY-MM-DD..YYYY-MM-DD`."""
    from fleet_server.figures.question import Period

    return Period.read(text)


def _figures(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.figures.board import Board
    from fleet_server.figures.catalogue import CATALOGUE
    from fleet_server.figures.question import Question, Scope
    from fleet_server.figures.snapshots import publish

    question = Question(
        period_of(options.period), Scope(area=options.area_, site=options.site_, type=options.type_, owner=options.class_)
    )
    with reading(settings) as conn:
        figures = list(Board(conn, question, _now_ms()).headline().values())
    print(f"{question.period.first} to {question.period.last}, {figures[0].population} terminals in service")
    for one in figures:
        value = "no data" if one.value is None else f"{one.value:.2%}" if one.unit == "share" else f"{one.value:g}"
        parts = f"{one.numerator} / {one.denominator}" if one.is_ratio else ""
        shown = ", ".join(f"{name} {number}" for name, number in one.shown.items())
        print(f"{CATALOGUE[one.name].en:40} {value:>12}  {parts:24} {shown}".rstrip())
    if options.publish:
        ids = in_database(settings, lambda conn: publish(conn, figures, published_in="command line", now_ms=_now_ms()))
        print(f"published as {ids[0]} to {ids[-1]}")


def _trace(settings: Settings, options: argparse.Namespace) -> int:
    from fleet_server.figures.snapshots import trace

    with reading(settings) as conn:
        found = trace(conn, options.id, _now_ms())
    then, now = found.then.figure, found.now
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.then.computed_ms / 1000))
    print(
        f"{then.name} {then.key} of {then.question.period.first} to {then.question.period.last}, scope {then.question.scope.to_json()}"
    )
    print(f"published {when} in {found.then.published_in}: {_parts(then)}")
    print(f"from the facts now: {_parts(now)}")
    return 0 if found.is_same else 1


def _parts(figure: Any) -> str:
    over = f" / {figure.denominator}" if figure.is_ratio else ""
    return f"{figure.numerator}{over}, {figure.population} terminals in service"


def _recompute(settings: Settings, options: argparse.Namespace) -> int:
    from fleet_server.authority.authority import Authority
    from fleet_server.evidence.verify import EvidenceBroken, verify
    from fleet_server.figures.compare import compare
    from fleet_server.figures.recompute import read_evidence

    root, files = Authority(settings.layout.authority).root_public_key, []
    for path in options.file:
        try:
            data = path.read_bytes()
            verify(data, root)
        except OSError as err:
            raise SettingsError(f"{path}: cannot be read ({type(err).__name__})") from err
        except EvidenceBroken as broken:
            raise SettingsError(f"{path}: does not hold from byte {broken.offset} on: {broken}") from None
        files.append(data)
    evidence = read_evidence(files)
    with reading(settings) as conn:
        found = compare(conn, evidence, period_of(options.period) if options.period else None, _now_ms())
    print(f"{found.terminals} terminals, {found.period.first} to {found.period.last}, {found.originals} signed batches")
    retold = found.retold
    print(f"told twice {retold.doubled}, disputed batches left out {retold.disputed}, times put right {retold.corrected}")
    if found.missing:
        print(f"{found.missing} batches are not in the files (erased, lost or another range): their facts are not compared")
    print(f"{'':20} {'evidence':>12} {'database':>12} {'of it provable':>15}")
    for line in found.lines:
        print(
            f"{line.name:20} {line.from_evidence:12} {line.from_database:12} {line.provable:15}  {'same' if line.is_same else 'DIFFERS'}"
        )
    for difference in found.differences:
        print(f"DIFFERS {difference}")
    print("the same" if found.is_same else "NOT THE SAME")
    return 0 if found.is_same else 1


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
