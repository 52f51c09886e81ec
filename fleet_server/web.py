"""`python -m fleet_server.web`: the console as a process of its own."""

from __future__ import annotations

import os
import ssl

import uvicorn

from fleet_server.app import create_app
from fleet_server.authority.authority import Authority
from fleet_server.processes import start_logging
from fleet_server.punctual import HEAD_MAX_BYTES, PunctualProtocol
from fleet_server.settings import Settings, load

SHUTDOWN_S = 3
"""Pages with a live stream never end by themselves."""


def server(settings: Settings) -> uvicorn.Server:
    config = uvicorn.Config(
        create_app(settings),
        host=settings.web.host,
        port=settings.web.port,
        http=PunctualProtocol,
        h11_max_incomplete_event_size=HEAD_MAX_BYTES,
        log_config=None,
        access_log=False,
        server_header=False,
        # A proxy in front runs on this machine; nobody else may say where a request came from.
        forwarded_allow_ips="127.0.0.1",
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    config.load()
    if settings.web.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(*Authority(settings.layout.authority).server_files)
        config.ssl = context
    return uvicorn.Server(config)


def main() -> None:
    settings = load(os.environ)
    start_logging(settings)
    server(settings).run()


if __name__ == "__main__":
    main()
