"""`kiosk-sim`: start a simulated device or terminal, and make things go wrong with it.

Exit codes: 0 done, 1 the running terminal refused or cannot be reached, 2 the command itself is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulators import control, scripts
from simulators.catalogue import DEVICE_TYPES
from simulators.conformance import command as conformance
from simulators.errors import ControlError, SimulatorError, unknown
from simulators.files import load_capture, load_profile
from simulators.ports.pty import AsyncPty
from simulators.ports.slots import Slot
from simulators.serving import PORTS_DIR, TerminalServer
from simulators.terminal import TYPES, Ticker, VirtualTerminal, build_terminal

if TYPE_CHECKING:
    pass

DONE, REFUSED, WRONG = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except ControlError as err:
        print(f"kiosk-sim: {err}", file=sys.stderr)
        return REFUSED
    except SimulatorError as err:
        print(f"kiosk-sim: {err}", file=sys.stderr)
        return WRONG
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # the reader of our list has left: nothing to complain about
        return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kiosk-sim", description="Simulated kiosk devices and terminals, and what can go wrong with them."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    device = commands.add_parser("device", help="run one device on a pty until Ctrl-C")
    device.add_argument("type", metavar="TYPE", help=", ".join(name for name, kind in DEVICE_TYPES.items() if kind.on_line))
    device.add_argument("--pty", type=Path, required=True, metavar="PATH", help="name of the link to the tty")
    device.add_argument("--baud", type=int, help="line speed, if not the usual one")
    device.add_argument("--seed", type=int, default=0)
    device.add_argument("--script", type=Path, metavar="FILE", help="fault script to play; the device is called by its TYPE")
    device.set_defaults(run=_run_device)

    terminal = commands.add_parser("terminal", help="run a whole terminal on ptys until Ctrl-C or “kiosk-sim stop”")
    terminal.add_argument("type", metavar="TYPE", help=", ".join(TYPES))
    terminal.add_argument(
        "--dir", type=Path, required=True, metavar="DIR", help="directory for ports, description and control socket"
    )
    terminal.add_argument("--name", default="", help="name of this terminal in its description")
    terminal.add_argument("--seed", type=int, default=0)
    terminal.add_argument("--windows", type=int, metavar="N", help="call pads on the bus")
    terminal.add_argument("--core", action="store_true", help="only the devices of every day: no screens, supply, position")
    terminal.add_argument("--script", type=Path, metavar="FILE", help="fault script to play from the start")
    terminal.add_argument(
        "--umockdev",
        action="store_true",
        help="all devices, behind the system's libusb, evdev and udev, for programs under umockdev's preload library",
    )
    terminal.set_defaults(run=_run_terminal)

    fault = commands.add_parser("fault", help="start a fault in a running terminal")
    fault.add_argument("dir", type=Path, metavar="DIR")
    fault.add_argument("words", nargs="+", metavar="DEVICE [UNIT] FAULT")
    fault.add_argument("--for", dest="duration", metavar="TIME", help="end it after a time such as 30s")
    fault.set_defaults(run=lambda arguments: _steer(arguments, "fault"))

    clear = commands.add_parser("clear", help="end a fault in a running terminal")
    clear.add_argument("dir", type=Path, metavar="DIR")
    clear.add_argument("words", nargs="+", metavar="DEVICE [UNIT] FAULT")
    clear.set_defaults(run=lambda arguments: _steer(arguments, "clear"))

    press = commands.add_parser("press", help="do something at a device of a running terminal: a key, a scan, a refill")
    press.add_argument("dir", type=Path, metavar="DIR")
    press.add_argument("words", nargs="+", metavar="DEVICE [UNIT] ACTION [ARGUMENT]")
    press.set_defaults(run=lambda arguments: _steer(arguments, "press"))

    script = commands.add_parser("script", help="play a fault script in a running terminal")
    script.add_argument("dir", type=Path, metavar="DIR")
    script.add_argument("file", type=Path, metavar="FILE")
    script.set_defaults(run=_send_script)

    faults = commands.add_parser("faults", help="list fault and action names: all, of one device type, or of a running terminal")
    faults.add_argument("where", nargs="?", metavar="TYPE|DIR")
    faults.set_defaults(run=_list_faults)

    status = commands.add_parser("status", help="faults that are set now, and where the ports are")
    status.add_argument("dir", type=Path, metavar="DIR")
    status.set_defaults(run=_show_status)

    stop = commands.add_parser("stop", help="end a running terminal")
    stop.add_argument("dir", type=Path, metavar="DIR")
    stop.set_defaults(run=_stop)

    record = commands.add_parser(
        "record",
        help="stand between an application and a serial device, and write down what passes",
        description="The application opens --pty instead of the device. The capture is written when the session ends (Ctrl-C). Only status frames "
        "that the profile's family is known for are kept; of everything else length and direction. A unit on USB: kiosk-sim check --capture.",
    )
    record.add_argument("--profile", required=True, metavar="ID|FILE", help="a shipped profile, or the TOML file of your own")
    record.add_argument("--port", required=True, metavar="TTY", help="the device")
    record.add_argument("--pty", type=Path, required=True, metavar="PATH", help="what the application opens instead")
    record.add_argument("--out", type=Path, required=True, metavar="FILE", help="the capture")
    record.add_argument("--for", dest="duration", metavar="TIME", help="end by itself after a time such as 10m")
    record.add_argument(
        "--keep-everything", action="store_true", help="do not scrub: with invented data only, never in a repository"
    )
    record.set_defaults(run=_record)

    replay = commands.add_parser("replay", help="a capture as a device on a pty until Ctrl-C")
    replay.add_argument("capture", type=Path, metavar="FILE")
    replay.add_argument("--pty", type=Path, required=True, metavar="PATH", help="name of the link to the tty")
    replay.add_argument("--in-order", action="store_true", help="questions must come in the order of the capture")
    replay.set_defaults(run=_replay)

    conformance.add_check(commands)
    return parser


# ------------------------------------------------------------------------------------------------------------------------- running


def _run_device(arguments: argparse.Namespace) -> int:
    kind = DEVICE_TYPES.get(arguments.type)
    on_line = [name for name, known in DEVICE_TYPES.items() if known.on_line]
    if kind is None or not kind.on_line:
        raise unknown("device type for a pty", arguments.type, on_line)
    steps = scripts.load(arguments.script) if arguments.script else ()
    model = kind.make(arguments.seed, arguments.baud)
    terminal = VirtualTerminal("bench", [Slot(arguments.type, model, "serial", str(arguments.pty))])
    terminal.play(steps)

    async def serve() -> None:
        stop = _stop_on_signals()
        arguments.pty.parent.mkdir(parents=True, exist_ok=True)
        pty = AsyncPty(model, arguments.pty)
        ticker = Ticker([terminal])
        print(f"{kind.help} is at {arguments.pty}. Ctrl-C ends it.", flush=True)
        try:
            await stop.wait()
        finally:
            ticker.close()
            pty.close()

    asyncio.run(serve())
    return DONE


def _run_terminal(arguments: argparse.Namespace) -> int:
    steps = scripts.load(arguments.script) if arguments.script else ()
    directory: Path = arguments.dir.absolute()
    if arguments.umockdev:
        return _run_bench(arguments, directory)
    terminal = build_terminal(
        arguments.type,
        name=arguments.name,
        seed=arguments.seed,
        serial_only=True,
        windows=arguments.windows,
        whole=not arguments.core,
    )

    async def serve() -> None:
        stop = _stop_on_signals()
        server = TerminalServer(terminal, directory)
        server.control.stopped = stop
        await server.start()
        try:
            server.terminal.play(steps)
            print(f"The {arguments.type} has its ports in {directory / PORTS_DIR}. Ctrl-C ends it.", flush=True)
            await stop.wait()
        finally:
            await server.close()

    directory.mkdir(parents=True, exist_ok=True)
    asyncio.run(serve())
    return DONE


def _run_bench(arguments: argparse.Namespace, directory: Path) -> int:
    from simulators.ports.umockdev import start_bench

    wanted = {"terminal": arguments.type, "name": arguments.name, "seed": arguments.seed, "whole": not arguments.core}
    if arguments.windows is not None:
        wanted["windows"] = arguments.windows
    with start_bench(wanted, directory) as bench:
        if arguments.script:
            text = arguments.script.read_text(encoding="utf-8")
            control.request(directory, {"do": "script", "text": text, "toml": arguments.script.suffix == ".toml"})
        variables = " ".join(f"{name}={value}" for name, value in bench.environment.items())
        print(
            f"The {arguments.type} is plugged in for programs started like this:\n  env {variables} PROGRAM\nCtrl-C ends it.",
            flush=True,
        )
        with suppress(KeyboardInterrupt):
            bench.process.wait()
    return DONE


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


def _record(arguments: argparse.Namespace) -> int:
    from simulators.capture import write
    from simulators.record import SerialTap

    profile = load_profile(arguments.profile)[1]
    limit_s = scripts.duration_s(arguments.duration) if arguments.duration else None

    async def serve() -> str:
        stop = _stop_on_signals()
        tap = SerialTap(arguments.port, arguments.pty, profile)
        print(f"Open {arguments.pty} instead of {arguments.port}. Ctrl-C ends the session.", flush=True)
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(tap.ended.wait())]
        try:
            await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            tap.close()
        return write(tap.capture(keep_everything=arguments.keep_everything))

    text = asyncio.run(serve())
    arguments.out.write_text(text, encoding="utf-8")
    print(f"{arguments.out} holds the session{', not scrubbed' if arguments.keep_everything else ''}.")
    return DONE


def _replay(arguments: argparse.Namespace) -> int:
    from simulators.replay import ReplayDevice

    model = ReplayDevice(load_capture(arguments.capture), in_order=arguments.in_order)

    async def serve() -> None:
        stop = _stop_on_signals()
        arguments.pty.parent.mkdir(parents=True, exist_ok=True)
        pty = AsyncPty(model, arguments.pty)
        print(f"The unit of {arguments.capture} is at {arguments.pty}. Ctrl-C ends it.", flush=True)
        try:
            await stop.wait()
        finally:
            pty.close()

    asyncio.run(serve())
    return DONE


# ------------------------------------------------------------------------------------------------------------------------ steering


def _steer(arguments: argparse.Namespace, verb: str) -> int:
    message: dict[str, Any] = {"do": verb, "words": arguments.words}
    if getattr(arguments, "duration", None):
        message["for_s"] = scripts.duration_s(arguments.duration)
    control.request(arguments.dir, message)
    said = {"fault": "Set", "clear": "Cleared", "press": "Done"}[verb]
    tail = f", for {arguments.duration}" if "for_s" in message else ""
    print(f"{said}: {' '.join(arguments.words)}{tail}.")
    return DONE


def _send_script(arguments: argparse.Namespace) -> int:
    scripts.load(arguments.file)  # so that a mistake is told before anything happens
    text = arguments.file.read_text(encoding="utf-8")
    answer = control.request(arguments.dir, {"do": "script", "text": text, "toml": arguments.file.suffix == ".toml"})
    print(f"{answer['steps']} steps are on the agenda.")
    return DONE


def _stop(arguments: argparse.Namespace) -> int:
    control.request(arguments.dir, {"do": "stop"})
    print("The terminal ends.")
    return DONE


def _show_status(arguments: argparse.Namespace) -> int:
    ports = control.request(arguments.dir, {"do": "ports"})
    faults: dict[str, list[str]] = control.request(arguments.dir, {"do": "faults"})["faults"]
    print(f"A {ports['type']} with {len(ports['ports'])} devices.")
    width = max((len(port["slot"]) for port in ports["ports"]), default=0)
    for port in ports["ports"]:
        unit = f", address {port['address']}" if "address" in port else ""
        print(f"  {port['slot']:<{width}} {port['port']}{unit}")
    if not faults:
        print("No fault is set.")
    for name, names in faults.items():
        print(f"  {name}: {', '.join(names)}")
    return DONE


def _list_faults(arguments: argparse.Namespace) -> int:
    where: str | None = arguments.where
    if where is None:
        for name, kind in DEVICE_TYPES.items():
            print(f"{name}: {kind.help}")
            _print_parts({name: kind.make(0, None)})
        return DONE
    if where in DEVICE_TYPES:
        _print_parts({where: DEVICE_TYPES[where].make(0, None)})
        return DONE
    if not Path(where).is_dir():
        raise unknown("device type or terminal directory", where, list(DEVICE_TYPES))
    for name, part in control.request(Path(where), {"do": "help"})["help"].items():
        print(name)
        _print_table("fault", part["faults"])
        _print_table("press", part["actions"])
    return DONE


def _print_parts(parts: Mapping[str, Any]) -> None:
    for part in parts.values():
        _print_table("fault", part.fault_help)
        _print_table("press", part.action_help)
        units = dict(getattr(part, "units", {}))
        for unit in [name for name in units if not name.isdecimal()] or sorted(units)[:1]:
            print(f"  unit {unit}:")
            _print_table("  fault", units[unit].fault_help)
            _print_table("  press", units[unit].action_help)


def _print_table(verb: str, table: Mapping[str, str]) -> None:
    width = max((len(name) for name in table), default=0)
    for name, text in table.items():
        print(f"  {verb} {name:<{width}}  {text}")


if __name__ == "__main__":
    raise SystemExit(main())
