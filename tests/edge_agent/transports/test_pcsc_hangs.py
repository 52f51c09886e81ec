"""A PC/SC service that never answers again keeps nobody: not who asks, not who closes, not the end of the process."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, threading
from edge_agent.transports.pcsc import PcscPort
from protocols.codecs import pcsc

class Hanging:
    SCARD_SCOPE_SYSTEM = 2
    def SCardEstablishContext(self, scope):
        threading.Event().wait()

async def main():
    port = PcscPort(Hanging(), "/")
    assert (await port.look(timeout_s=0.05)).code == pcsc.STALLED
    assert (await port.look(timeout_s=0.05)).code == pcsc.STALLED
    await port.close()

import edge_agent.transports.pcsc as module
module.CLOSE_TIMEOUT_S = 0.05
asyncio.run(main())
print("over")
"""


def test_the_process_ends_although_the_service_hangs() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr
