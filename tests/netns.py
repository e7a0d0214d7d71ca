"""Two hosts on this machine: network namespaces with a cable between them."""

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

PORT = 47000  # each host has all of its own


@dataclass(frozen=True)
class Host:
    name: str  # of the namespace
    address: str

    def popen(self, *command: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Starts a command there; its output and errors come together."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(env or {})},
        )


@contextlib.contextmanager
def two_hosts() -> Iterator[list[Host]]:
    """Skips the test where the system does not let us make them."""
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
    """Runs a script on all hosts as one job of paddle.distributed.launch, a process on each.

    Returns:
        Exit code and output of each host; what the script wrote comes last.
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
