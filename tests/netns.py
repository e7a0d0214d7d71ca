"""Two hosts on this machine: network namespaces joined by a virtual cable."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PORT = 47000  # free, as every namespace has its own ports


@dataclass(frozen=True)
class Host:
    name: str  # of the namespace
    address: str

    def popen(self, *command: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Starts a command on the host, with standard error in its output."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(env or {})},
        )


@contextlib.contextmanager
def two_hosts() -> Iterator[list[Host]]:
    """Makes two hosts; skips the test if the system does not allow it."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need the command `ip` (iproute2)")
    hosts = [Host(f"squeezenet-{os.getpid()}-{i}", f"10.231.0.{i}") for i in (1, 2)]
    made = []
    try:
        for host in hosts:
            done = subprocess.run(
                ["ip", "netns", "add", host.name], capture_output=True, text=True, check=False
            )
            if done.returncode:
                pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
            made.append(host)
        a, b = hosts
        _ip(
            "link",
            "add",
            "cable",
            "netns",
            a.name,
            "type",
            "veth",
            "peer",
            "cable",
            "netns",
            b.name,
        )
        for host in hosts:
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                _ip("-n", host.name, "link", "set", device, "up")
        yield hosts
    finally:
        for host in made:
            _ip("netns", "delete", host.name)


def run_job(
    hosts: list[Host], folder: Path, *script: object, env: dict[str, str] | None = None
) -> list[tuple[int, str]]:
    """Runs a script as one job of paddle.distributed.launch, with one process on each host.

    Returns:
        Exit code and output of each host; the output of the script comes last.
    """
    running = [
        host.popen(
            *(sys.executable, "-m", "paddle.distributed.launch", "--nnodes", len(hosts)),
            *("--master", f"{hosts[0].address}:{PORT}", "--host", host.address),
            *("--nproc_per_node", 1, "--log_dir", folder / f"log-{host.name}", *script),
            env=env,
        )
        for host in hosts
    ]
    try:
        outputs = [each.communicate(timeout=100)[0] for each in running]
        return [(each.returncode, output) for each, output in zip(running, outputs)]
    finally:
        for each in running:
            each.kill()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
