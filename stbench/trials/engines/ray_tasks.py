"""A Ray task for each trial, on a cluster that is there or on one that is started on this machine.

A task starts a worker of its own, with the limits and the second attempt that a slot of this machine gives, so that
nothing of a trial stays in Ray's processes: no model on a GPU, no data in the object store. Ray repeats nothing by
itself. Tasks learn that all is to stop by a file in the results directory, which is gone then.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import Interrupted, PlaceError, UserError
from ...system.cores import usable_cores
from ...system.files import writing_to
from ...system.gpus import VISIBLE
from ..attempts import attempts_of, lost_in_a_row
from ..outcome import state_of
from ..run import end_from_outside
from ..state import FINAL_STATES
from .limits import Limits
from .process import Slot
from .protocol import Listener, Quiet
from .slots import STARTS, STOP_S, SlotsEngine
from .waiting import ATTEMPTS, Waiting

LOOK_S = 0.5
LISTEN_S = 10.0  # for a cluster's address to take a connection
PASSED_ON = ("STBENCH_DATA", "STBENCH_CACHE", "TORCH_HOME", "HF_HOME", "HF_HUB_OFFLINE", "XDG_CACHE_HOME")


@dataclass(frozen=True)
class RayEngine:
    """``address``: of a cluster, ``auto``, or None: ``RAY_ADDRESS``, else a cluster of this machine's own.

    ``max_parallel``: tasks at a time; None: as many as the cluster has GPUs (``slots_per_gpu`` on each) or cores.
    """

    address: str | None
    limits: Limits
    max_parallel: int | None = None
    slots_per_gpu: int = 1

    def run(self, results: Path, keys: Sequence[str], listener: Listener, should_stop: Callable[[], bool]) -> None:
        results = Path(results).absolute()
        with writing_to(results), _cluster(self.address) as ray, _flag(results) as flag:
            _Run(self, ray, results, flag, keys, listener).until_done(should_stop)


class _Run:
    def __init__(
        self, engine: RayEngine, ray: Any, results: Path, flag: Path, keys: Sequence[str], listener: Listener
    ) -> None:
        self.ray, self.results, self.flag, self.listener = ray, results, flag, listener
        self.limits = engine.limits
        self.waiting = Waiting(results, keys, listener)
        self.at_work: dict[Any, str] = {}
        self.begun: dict[str, int] = {}  # attempts at a trial when a task of it was lost
        self.lost_starts = 0
        resources = ray.cluster_resources()
        n_cpus, n_gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
        possible = n_gpus * engine.slots_per_gpu if n_gpus else n_cpus
        self.n_parallel = max(1, min(possible, engine.max_parallel or possible))
        self.threads = max(1, n_cpus // self.n_parallel)
        options = {"max_retries": 0, "num_cpus": self.threads, "num_gpus": 1 / engine.slots_per_gpu if n_gpus else 0}
        self.sharing = engine.slots_per_gpu if n_gpus else self._on_one_node()
        self.task = ray.remote(**options)(run_one)

    def _on_one_node(self) -> int:
        """Tasks that its largest node may be given at a time."""
        cores = [node["Resources"].get("CPU", 0) for node in self.ray.nodes() if node["Alive"]]
        return max(1, min(self.n_parallel, int(max(cores, default=0)) // self.threads))

    def until_done(self, should_stop: Callable[[], bool]) -> None:
        try:
            while self.waiting.open:
                if should_stop():
                    raise Interrupted("the trials at work were asked to save what they have")
                self._give_out()
                if not self.at_work:
                    time.sleep(LOOK_S)  # all that is left may be at work elsewhere
                    continue
                done, _ = self.ray.wait(list(self.at_work), num_returns=1, timeout=LOOK_S)
                for task in done:
                    self._settle(task)
        except BaseException:
            self._stop()
            raise

    def _give_out(self) -> None:
        while len(self.at_work) < self.n_parallel:
            key = self.waiting.next()
            if key is None:
                return
            task = self.task.remote(str(self.results), key, str(self.flag), self.threads, self.sharing, self.limits)
            self.at_work[task] = key
            self.listener.started(key)

    def _settle(self, task: Any) -> None:
        """A task has ended: what the directory says of its trial counts, and Ray's word explains it."""
        key = self.at_work.pop(task)
        reason = "its task ended, and the trial did not"
        try:
            self.ray.get(task)
        except self.ray.exceptions.OutOfMemoryError:
            reason = "Ray ended it since the node's memory was used up, by this trial or by others"
        except self.ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, UserError):
                raise PlaceError(f"{cause} (in a task of Ray)") from error
            if not isinstance(cause, Interrupted):
                raise
            reason = str(cause)
        except self.ray.exceptions.RayError as error:  # its process or its node is gone
            reason = f"its task of Ray was lost ({type(error).__name__})"
        state = state_of(self.results, key)
        if state.state not in FINAL_STATES:
            self._require_begun(key, reason)
            if lost_in_a_row(self.results, key) < ATTEMPTS:
                self.waiting.again(key)
                self.listener.again(key, reason)
                return
            state = end_from_outside(self.results, key, "killed", f"{reason}, {ATTEMPTS} times")
        self.waiting.settle(key)
        self.listener.ended(key, state)

    def _require_begun(self, key: str, reason: str) -> None:
        """Raise ``UserError`` where task after task is lost before it has begun: no trial is to blame for that."""
        n_begun = len(attempts_of(self.results, key))
        self.lost_starts = self.lost_starts + 1 if n_begun == self.begun.get(key, 0) else 0
        self.begun[key] = n_begun
        if self.lost_starts >= STARTS:
            raise PlaceError(
                f"Ray lost {STARTS} tasks one after the other before their trials had begun ({reason}) - look at the "
                "cluster (ray status), or choose another --engine"
            )

    def _stop(self) -> None:
        """Let the trials at work save what they have; what does not in time is ended, to be gone on with later."""
        self.flag.unlink(missing_ok=True)
        if self.at_work:
            self.ray.wait(list(self.at_work), num_returns=len(self.at_work), timeout=STOP_S + 5)
        for task in self.at_work:
            self.ray.cancel(task, force=True)


def run_one(results: str, key: str, flag: str, threads: int, sharing: int, limits: Limits) -> None:
    """What a task does, in a process of Ray's. Nobody hears it: the command reads the directory."""
    gpu = os.environ.get(VISIBLE)
    SlotsEngine([Slot(threads, gpu, sharing)], limits).run(
        Path(results), [key], Quiet(), lambda: not os.path.exists(flag)
    )


def require_ray() -> None:
    """Raise ``UserError`` where Ray is not installed."""
    import importlib.util

    if importlib.util.find_spec("ray") is None:
        raise UserError("--engine ray needs Ray - pip install 'stbench[ray]'")


@contextmanager
def _flag(results: Path) -> Iterator[Path]:
    """A file that says that tasks are to go on."""
    path = results / f".ray-{secrets.token_hex(4)}"
    path.touch()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _require_listener(address: str) -> None:
    """Raise ``OSError`` where nobody listens at ``HOST:PORT``; Ray itself would wait for minutes."""
    host, _, port = address.partition("://")[2].rpartition(":") if "://" in address else address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=LISTEN_S).close()


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected. Raises ``UserError``: it is not installed, there is no such cluster, or versions differ."""
    require_ray()
    import ray

    address = address or os.environ.get("RAY_ADDRESS")
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    common: dict[str, Any] = {
        "log_to_driver": False,
        "configure_logging": False,
        "runtime_env": {"env_vars": environment},
    }
    place = None
    try:
        if address:
            _require_listener(address)
            ray.init(address=address, **common)
        else:
            # of its own, short enough for a socket's name: /tmp/ray belongs to whoever came first
            place = tempfile.mkdtemp(prefix="stray", dir="/tmp")
            ray.init(num_cpus=usable_cores(), include_dashboard=False, _temp_dir=place, **common)
    except Exception as error:
        ray.shutdown()
        said = " ".join(str(error).split())[:300]
        where = f"the Ray cluster at {address} cannot be used" if address else "Ray cannot be started on this machine"
        raise UserError(f"{where}: {said} - give its --ray-address, or --engine local") from error
    try:
        yield ray
    finally:
        ray.shutdown()
        if place is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(place)
