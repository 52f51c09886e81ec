"""The peer that the agent stands beside: an idle ThingsBoard IoT gateway, connected to a broker, without any connector."""

from __future__ import annotations

import getpass
import json
import shutil
from pathlib import Path

from fleet_server.broker.mosquitto import find
from fleet_server.settings import Settings
from tests.bench import environments
from tests.support.processes import Child, Processes, free_port
from tests.support.waiting import wait_until


def start(python: Path, folder: Path, processes: Processes) -> Child:
    """Start it as its own command does, with its shipped configuration but for the broker's address; returns when it is connected."""
    folder.mkdir()
    port = free_port()
    _start_open_broker(folder, processes, port)
    shipped = json.loads((_package(python) / "config" / "tb_gateway.json").read_text("utf-8"))
    shipped["thingsboard"] |= {"host": "127.0.0.1", "port": port}
    (folder / "tb_gateway.json").write_text(json.dumps(shipped), "utf-8")
    for name in ("logs.json", "list.json", "statistics.json"):
        shutil.copy(_package(python) / "config" / name, folder)
    shutil.copytree(_package(python) / "config" / "statistics", folder / "statistics")
    (folder / "logs").mkdir()
    gateway = processes.start(
        [python, "-c", "from thingsboard_gateway.tb_gateway import daemon; daemon()"],
        # By itself it would install packages that it misses, and ask its maker's server for updates; here it stays on this machine.
        env={
            "TB_GW_CONFIG_DIR": str(folder),
            "TB_GW_LOGS_PATH": str(folder / "logs"),
            "PIP_NO_INDEX": "1",
            "HTTPS_PROXY": "http://127.0.0.1:9",
        },
        cwd=folder,
    )
    wait_until(lambda: _connected(folder) or not gateway.running, f"{environments.PEER} to reach the broker", timeout_s=60)
    if not gateway.running:
        raise environments.NoEnvironment(f"{environments.PEER} ended: {gateway.output()[-500:]}")
    return gateway


def _start_open_broker(folder: Path, processes: Processes, port: int) -> None:
    config = folder / "open.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser {getpass.getuser()}\n"
        f"log_dest file {folder / 'broker.log'}\nlog_type all\n",
        "utf-8",
    )
    (folder / "broker.log").touch()
    processes.start([find(Settings()), "-c", config])


def _connected(folder: Path) -> bool:
    return "Sending CONNACK" in (folder / "broker.log").read_text("utf-8", errors="replace")


def _package(python: Path) -> Path:
    return environments.site_packages(python) / "thingsboard_gateway"
