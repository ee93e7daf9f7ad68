"""A real Slurm of one node, on loopback, for the tests of its engine: munge, slurmctld and slurmd from packages.

``OneNode.start()`` needs root, as slurmd starts jobs as other users; there is no accounting, so no ``sacct``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")  # where daemons are, also where PATH does not say so
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={second}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters={resources}
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=0
MpiDefault=none
ReturnToService=2
KillWait=5
InactiveLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes={host} MaxTime=00:10:00 State=UP
"""


def lacking() -> str:
    """Why there can be no such cluster here; empty where there can."""
    absent = [name for name in NEEDED if _found(name) is None]
    if absent:
        return f"no {', '.join(absent)}: install munge, slurmctld, slurmd and slurm-client"
    return "" if os.getuid() == 0 else "slurmd starts jobs as root alone"


def _found(name: str) -> str | None:
    return shutil.which(name) or next((path for place in SBIN if os.access(path := f"{place}/{name}", os.X_OK)), None)


@contextmanager
def one_node(more: str = "", memory: bool = False) -> Iterator[Path]:
    """A cluster for this context; gives its configuration, for ``SLURM_CONF``.

    ``more``: further lines of it, with ``{host}`` for the node; ``memory``: it is given out as cores are.
    """
    folder = Path(tempfile.mkdtemp(prefix="one-node-"))  # short: a socket's path may have 107 characters
    folder.chmod(0o755)
    try:
        yield _start(folder, more, memory)
    finally:
        for daemon in ("slurmd", "slurmctld", "munged"):
            _end(folder / f"{daemon}.pid")
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, more: str, memory: bool) -> Path:
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    port = _free_port()
    host = socket.gethostname().partition(".")[0]
    conf = folder / "slurm.conf"
    facts = {
        "folder": folder,
        "host": host,
        "port": port,
        "second": _free_port(),
        "cpus": os.cpu_count(),
        "resources": "CR_CPU_Memory" if memory else "CR_CPU",
    }
    conf.write_text((CONF + more).format(**facts))
    munge = [f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in ("key-file", "socket", "log-file")]
    subprocess.run(
        [_found("munged"), "--force", *munge, f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munge.seed"],
        check=True,
    )
    environment = os.environ | {"SLURM_CONF": str(conf)}
    for daemon in ("slurmctld", "slurmd"):
        subprocess.run([_found(daemon), "-f", str(conf)], check=True, env=environment)
    until = time.monotonic() + 30
    while True:
        state = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, env=environment)
        if "idle" in state.stdout:
            return conf
        if time.monotonic() > until:
            raise RuntimeError(f"the node never became idle: {state.stdout} {state.stderr}")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _end(pid_file: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
            time.sleep(0.05)
