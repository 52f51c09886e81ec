"""Talking to the person at the terminal: announced steps, progress of long ones, one clear sentence when something cannot be done."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

# On a terminal the running line is redrawn; in a log a new line every so often is enough to see that it lives.
REDRAW_EVERY_S = 0.5
LOG_LINE_EVERY_S = 15.0
TAIL_LINES = 25


def step(text: str) -> None:
    """Announce what happens next."""
    print(f"==> {text}", flush=True)


def note(text: str) -> None:
    """Add a detail to the step that was announced."""
    print(f"    {text}", flush=True)


def stop(text: str) -> NoReturn:
    """End with one sentence that says what is wrong and what to do."""
    print(f"\n{text}", file=sys.stderr, flush=True)
    raise SystemExit(1)


def run(
    command: Sequence[str | Path],
    *,
    log: Path,
    progress: Callable[[str], str | None] = lambda line: None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> int:
    """Run `command`, keep its output in `log`, show that it lives. Returns its exit code; on failure the end of the log is printed.

    `progress` sees each line of output and returns a short text to show beside the seconds, or None to keep the last one.
    """
    shown = ""
    started_s = time.monotonic()
    done = threading.Event()

    def report() -> None:
        on_terminal = sys.stdout.isatty()
        while not done.wait(REDRAW_EVERY_S if on_terminal else LOG_LINE_EVERY_S):
            text = f"    … {time.monotonic() - started_s:.0f} s {shown}"
            print(f"\r{text[:100]:<100}" if on_terminal else text, end="" if on_terminal else "\n", flush=True)
        if on_terminal:
            print(f"\r{'':<100}\r", end="", flush=True)

    log.parent.mkdir(parents=True, exist_ok=True)
    reporter = threading.Thread(target=report, daemon=True)
    with (
        log.open("w", encoding="utf-8") as kept,
        subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            text=True,
            errors="replace",
        ) as child,
    ):
        reporter.start()
        assert child.stdout is not None
        for line in child.stdout:
            kept.write(line)
            shown = progress(line.rstrip()) or shown
        code = child.wait()
    done.set()
    reporter.join()
    if code:
        print("".join(f"    | {line}\n" for line in log.read_text(encoding="utf-8").splitlines()[-TAIL_LINES:]), file=sys.stderr)
    return code
