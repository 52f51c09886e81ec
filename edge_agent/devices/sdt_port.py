"""An SDT reader's port: frames as they are on a serial line or one bulk pair, header and body apart on four bulk pipes. Chosen by the descriptors."""

from __future__ import annotations

from edge_agent.transports.base import BytePort, InterfacePort, UsbPort
from protocols.codecs.sdt import split_request

WRITE_TIMEOUT_S = 1.0
READ_BYTES = 512
DRAIN_READS = 8


class SdtPort:
    """Frames out, bytes in. `turn` after the bytes of one pipe, because the rest of a split answer is on the other."""

    def __init__(self, port: BytePort | UsbPort) -> None:
        self._port = port
        outs, ins = _bulk_pipes(port)
        self.is_split = len(outs) >= 2 and len(ins) >= 2
        self._outs, self._ins = outs[:2], ins[:2]
        self._pipe = 0

    async def write(self, frame: bytes) -> None:
        """A new question: the answer begins on the first pipe."""
        self._pipe = 0
        if self.is_split and isinstance(self._port, UsbPort):
            for endpoint, part in zip(self._outs, split_request(frame), strict=True):
                await self._port.write_to(endpoint, part, timeout_s=WRITE_TIMEOUT_S)
        else:
            await self._port.write(frame, timeout_s=WRITE_TIMEOUT_S)

    async def read(self, *, timeout_s: float) -> bytes:
        if self.is_split and isinstance(self._port, UsbPort):
            return await self._port.read_from(self._ins[self._pipe], max_bytes=READ_BYTES, timeout_s=timeout_s)
        return await self._port.read(max_bytes=READ_BYTES, timeout_s=timeout_s)

    def to_body(self) -> None:
        """The header came; what follows is on the second pipe, however many packets it has."""
        if self.is_split:
            self._pipe = 1

    async def drain(self) -> None:
        """Drop bytes of an earlier question; bounded, so that a stream without end cannot hold us."""
        for pipe in range(2 if self.is_split else 1):
            self._pipe = pipe
            for _ in range(DRAIN_READS):
                if not await self.read(timeout_s=0.001):
                    break
        self._pipe = 0


def _bulk_pipes(port: BytePort | UsbPort) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """An interrupt pipe beside one bulk pair does not make a unit with four bulk pipes."""
    if isinstance(port, InterfacePort):
        return port.bulk_out, port.bulk_in
    return (port.endpoints_out, port.endpoints_in) if isinstance(port, UsbPort) else ((), ())
