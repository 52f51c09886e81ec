"""`python -m fleet_server.enrolment`: the only process besides the supervisor that touches the authority's private keys."""

from __future__ import annotations

import os
import time

from fleet_server.authority.authority import Authority
from fleet_server.channel import Channel
from fleet_server.db import open_raw
from fleet_server.enrolment.controllers import Desk, make_app
from fleet_server.enrolment.listener import server
from fleet_server.processes import start_logging
from fleet_server.settings import load
from fleet_server.updates.serving import Files, mounted


def main() -> None:
    settings = load(os.environ)
    start_logging(settings)
    authority = Authority(settings.layout.authority)
    channel = Channel(lambda: open_raw(settings.layout.database), "db")
    desk = Desk(settings, authority, channel, lambda: time.time_ns() // 1_000_000)
    files = Files(settings.layout.updates)
    application = mounted(make_app(desk), files)
    try:
        server(application, authority, settings.enrolment.host, settings.enrolment.port).run()
    finally:
        files.close()
        channel.close()


if __name__ == "__main__":
    main()
