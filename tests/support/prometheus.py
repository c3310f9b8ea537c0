"""A real Prometheus, and its promtool."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

ROOT = Path(__file__).parents[2]
UNPACKED = ROOT / ".stamps/prometheus/usr/bin"
WAIT_S = 30.0


def _found(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:{UNPACKED}")


PROMETHEUS, PROMTOOL = _found("prometheus"), _found("promtool")
needs_prometheus = pytest.mark.skipif(
    not (PROMETHEUS and PROMTOOL),
    reason="needs prometheus and promtool: on Debian and Ubuntu, apt-get install prometheus",
)


def promtool(*arguments: str, told: str = "") -> str:
    """What it says where it is content."""
    assert PROMTOOL is not None
    ran = subprocess.run(
        [PROMTOOL, *arguments], input=told, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@contextmanager
def prometheus(config: str, folder: Path) -> Iterator[httpx2.Client]:
    """One with this configuration, on a loopback port."""
    assert PROMETHEUS is not None
    (folder / "prometheus.yml").write_text(config)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                PROMETHEUS,
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/tsdb",
                f"--web.listen-address={address}",
            ],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx2.Client(base_url=f"http://{address}", timeout=10) as http:
            _until_ready(http, process, folder)
            yield http
    finally:
        process.terminate()
        process.wait(20)


def _until_ready(http: httpx2.Client, process: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if http.get("/-/ready").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError((folder / "prometheus.log").read_text())
