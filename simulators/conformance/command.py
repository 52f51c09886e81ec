"""`kiosk-sim check`: the conformance suite on the command line."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulators.errors import SimulatorError
from simulators.files import load_capture, load_profile
from simulators.models.base import Model

if TYPE_CHECKING:
    from protocols.profile.schema import Profile
    from simulators.conformance.hands import Hands
    from simulators.conformance.suite import Check
    from simulators.replay import ReplayDevice

DONE, FAILED = 0, 1


def add_check(commands: Any) -> None:
    """The command `check`. The agent's drivers are loaded when it is run."""
    check = commands.add_parser(
        "check",
        help="the conformance suite against a unit, with the agent's own drivers",
        description="Watches one unit as the agent would and judges what it answers. Asks you to unplug it, to open covers and so on, unless "
        "--unattended. Sends questions about its state only. Exit code 1: a requirement failed.",
    )
    check.add_argument("--profile", required=True, metavar="ID|FILE", help="a shipped profile, or the TOML file of your own")
    where = check.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", metavar="TTY", help="serial line, such as /dev/ttyUSB0")
    where.add_argument("--usb", metavar="PLACE", help="place in the USB tree, such as 1-1.4 (see /sys/bus/usb/devices)")
    where.add_argument("--input", metavar="EVENT", help="keyboard-like device, such as /dev/input/event3")
    where.add_argument("--simulated", action="store_true", help="the profile's device model, in memory and without waiting")
    where.add_argument(
        "--simulated-pty", action="store_true", help="the profile's device model behind a pseudo-terminal, in real time"
    )
    where.add_argument(
        "--replay", type=Path, metavar="FILE", help="a capture as the unit, in memory: the golden test of a profile"
    )
    check.add_argument(
        "--model", metavar="MODULE:CLASS", help="with --simulated: a device model of your own, found from the current directory"
    )
    check.add_argument("--address", type=int, metavar="N", help="address on a shared bus")
    check.add_argument("--rounds", type=int, default=10, metavar="N", help="polls without a hand on the unit (10)")
    check.add_argument("--unattended", action="store_true", help="skip what needs a person")
    check.add_argument("--junit", type=Path, metavar="FILE", help="write the results as JUnit XML")
    check.add_argument("--capture", type=Path, metavar="FILE", help="write what passed on the line, scrubbed")
    check.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    from simulators.conformance.report import as_text, write_junit
    from simulators.virtual_time import in_virtual_time

    profiles, profile = load_profile(arguments.profile)
    if arguments.rounds < 1:
        raise SimulatorError("--rounds is at least 1.")
    work = _run(arguments, profile, profiles)
    in_memory = arguments.simulated or arguments.replay is not None
    check = in_virtual_time(work) if in_memory else asyncio.run(work)
    report = check.report
    print(as_text(report))
    if arguments.junit:
        write_junit(arguments.junit, [report])
    if arguments.capture:
        arguments.capture.write_text(check.capture_text(), encoding="utf-8")
    return FAILED if report.failed else DONE


async def _run(arguments: argparse.Namespace, profile: Profile, profiles: dict[str, Profile]) -> Check:
    from simulators.conformance import targets
    from simulators.conformance.hands import ModelHands, Nobody, Person
    from simulators.conformance.suite import Check, Settings

    hands: Hands = Nobody() if arguments.unattended else Person()
    settings = Settings(rounds=arguments.rounds)
    if arguments.replay is not None:
        target, _ = targets.in_memory(profile, model=replayed(arguments.replay, profile), address=arguments.address)
        check = Check(profile, target, Nobody(), profiles, settings)
        await check.run()
        return check
    if arguments.simulated:
        target, model = targets.in_memory(profile, model=_own_model(arguments), address=arguments.address)
        check = Check(profile, target, Nobody() if arguments.unattended else ModelHands(model), profiles, settings)
        await check.run()
        return check
    if arguments.simulated_pty:
        with tempfile.TemporaryDirectory(prefix="kiosk-sim-") as folder:
            target, model, pty = targets.on_a_pty(
                profile, Path(folder) / "unit", model=_own_model(arguments), address=arguments.address
            )
            check = Check(profile, target, Nobody() if arguments.unattended else ModelHands(model), profiles, settings)
            try:
                await check.run()
            finally:
                pty.close()
            return check
    target = targets.on_this_machine(arguments.port or arguments.usb or arguments.input, arguments.address)
    sys.stderr.write(f"Watching the unit at {target.port}. Leave it alone until you are asked.\n")
    check = Check(profile, target, hands, profiles, settings)
    await check.run()
    return check


def replayed(path: Path, profile: Profile) -> ReplayDevice:
    """The unit of a capture, at the profile's speed."""
    from simulators.replay import ReplayDevice

    return ReplayDevice(load_capture(path), baud=profile.transport.serial.baud if profile.transport.serial else None)


def _own_model(arguments: argparse.Namespace) -> Model | None:
    """What --model names, made without arguments."""
    word: str | None = arguments.model
    if word is None:
        return None
    module, colon, name = word.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        model = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, TypeError, ValueError) as err:
        raise SimulatorError(f"--model {word}: {err}.") from None
    finally:
        sys.path.pop(0)
    if not colon or not isinstance(model, Model):
        raise SimulatorError(f"--model {word} is not MODULE:CLASS of a simulators.models.base.Model.")
    return model
