"""Real MLflow servers on loopback: over SQLite and PostgreSQL, behind a bad proxy, killed half way and restarted."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import own_sections
import pytest
from mlflow import MlflowClient
from test_feeding import require_each_once, runs_of, until

from stbench.results.tracking.feed import Feed
from stbench.results.tracking.follow import Report, follow

pytestmark = pytest.mark.slow
N_TRIALS = 12
SECONDS_TO_START = 240


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """``mlflow server``, which may be killed and started again on the same port and database."""

    def __init__(self, database: str, folder: Path) -> None:
        self.database, self.folder, self.port = database, folder, free_port()
        self.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", self.database, "--default-artifact-root", str(self.folder / "artifacts")]
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until(self._answers, SECONDS_TO_START)

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "server.log").read_text()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        return False

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'server.db'}"


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[str]:
    """A PostgreSQL of its own, in a folder of its own; root lends it to the user postgres, as it refuses root."""
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL: pip install 'psycopg[binary]'")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    programs = found[-1].parent if found else Path(shutil.which("initdb") or "").parent
    if not (programs / "initdb").is_file():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    folder = Path("/tmp") / f"stbench-postgresql-{os.getpid()}"  # its socket's path must be short, and its way open
    folder.mkdir(mode=0o700)
    port = free_port()
    try:
        if as_user:
            shutil.chown(folder, "postgres")
        words = [*as_user, str(programs / "initdb"), "-D", str(folder / "db"), "-A", "trust", "-U", "stbench"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd="/")
        serve = [*as_user, str(programs / "postgres"), "-D", str(folder / "db"), "-k", str(folder), "-p", str(port)]
        with open(tmp_path / "postgresql.log", "wb") as log:
            process = subprocess.Popen([*serve, "-h", "127.0.0.1"], stdout=log, stderr=log, cwd="/")
        try:
            import psycopg

            uri = f"postgresql://stbench@127.0.0.1:{port}/postgres"

            def answers() -> bool:
                with contextlib.suppress(psycopg.OperationalError), psycopg.connect(uri):
                    return True
                return False

            until(answers)
            yield uri.replace("postgresql:", "postgresql+psycopg:")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server(request.getfixturevalue(request.param), tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running.uri)
    yield running
    running.kill()


@pytest.fixture
def run_trials(tmp_path: Path, stbench_command: Callable) -> Callable:
    """``run_trials(*words)``: twelve trials by ``stbench run``."""
    manifest = own_sections.write_manifest(tmp_path / "data", {"S1": "p1", "S2": "p2"})

    def run(*words: str) -> tuple[Path, object]:
        results = tmp_path / "r"
        seeds = ("--seeds", ",".join(map(str, range(N_TRIALS // 2))))
        method = ("--methods", "training_mean", "--preset", "quick")
        done = stbench_command("run", *method, *seeds, *words, "--dataset", manifest, "--out", results)
        assert done.code == 0, done.err
        return results, done

    return run


class BadProxy:
    """Passes everything on to a server, and of every third POST says 502, whatever the server answered."""

    def __init__(self, port: int) -> None:
        lock, posts = threading.Lock(), [0]

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                status, content = answer.status, answer.read()
                connection.close()
                with lock:
                    posts[0] += self.command == "POST"
                    if self.command == "POST" and posts[0] % 3 == 0:
                        status, content = 502, b"bad gateway"
                self.send_response(status)
                self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815 - names that http.server asks for

            def log_message(self, *words: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.uri = f"http://127.0.0.1:{self.server.server_address[1]}"


def test_a_bad_proxy_two_at_once_and_a_server_that_dies(
    server: Server, run_trials: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = BadProxy(server.port)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    results, done = run_trials()
    assert f"recorded in MLflow: {proxy.uri}" in done.err
    assert "🏃" not in done.out + done.err  # no line for each run
    assert "🧪" not in done.out + done.err
    client = MlflowClient(tracking_uri=server.uri)
    require_each_once(client, N_TRIALS)
    proxy.server.shutdown()

    # two at once, of which neither knows
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    experiment = client.get_experiment_by_name("stbench").experiment_id
    for run in client.search_runs([experiment]):
        client.delete_run(run.info.run_id)
    command = [sys.executable, "-m", "stbench.cli", "track", str(results)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "View run" not in "".join(said)
    require_each_once(client, N_TRIALS)

    # killed half way, and started again
    for run in client.search_runs([experiment]):
        client.delete_run(run.info.run_id)
    reports: list[Report] = []

    def half_is_there() -> bool:
        return len(runs_of(client)[1]) >= N_TRIALS // 2

    def kill_half_way() -> None:
        until(half_is_there)
        server.kill()

    killer = threading.Thread(target=kill_half_way)
    killer.start()

    def rest(seconds: float) -> bool:
        if reports[-1].error:
            if not killer.is_alive() and len([report for report in reports if report.error]) == 2:
                server.start()
            return False
        return True

    with contextlib.closing(Feed(results, 600)) as feed:
        follow(feed, reports.append, rest, is_owned=True)
    killer.join()
    assert any(report.error and report.passes for report in reports)
    assert not reports[-1].error
    require_each_once(client, N_TRIALS)


def test_a_run_feeds_while_its_trials_run_and_is_not_delayed_by_a_dead_server(
    tmp_path: Path, sqlite: str, run_trials: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of it: ``stbench run``, its feeder process, a server that is away when it begins and then comes."""
    from stbench.cli import feeding

    server = Server(sqlite, tmp_path)
    server.kill()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setattr(feeding, "START_S", 0.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def come_later() -> None:
        time.sleep(15)
        server.start()

    later = threading.Thread(target=come_later)
    later.start()
    curve = f"{Path(__file__).parent / 'curve_method.py'}:Curve"
    clock = tmp_path / "epochs.txt"
    clock.write_text("3")
    client = MlflowClient(tracking_uri=server.uri)
    seen: list[tuple[str, list[int]]] = []

    def let_it_end() -> None:
        """Once the curve of the trial at work is there."""
        until(lambda: not later.is_alive(), SECONDS_TO_START)

        def curve_is_there() -> bool:
            for run in runs_of(client)[1] if client.get_experiment_by_name("stbench") else ():
                if "train/loss" in run.data.metrics:
                    points = client.get_metric_history(run.info.run_id, "train/loss")
                    seen.append((run.info.status, [point.step for point in points]))
                    return True
            return False

        with contextlib.suppress(AssertionError):  # asserted below, by whoever waits for the run
            until(curve_is_there, 180)
        clock.write_text("5")

    watcher = threading.Thread(target=let_it_end)
    watcher.start()
    try:
        _, done = run_trials("--methods", curve, "--set", f"{curve}.clock={clock}", "--seeds", "0")
    finally:
        watcher.join()
        server.kill()
    assert seen == [("RUNNING", [1, 2])]
    assert done.err.count("could not be fed") == 1
    assert done.err.count("MLflow is back, and has what it missed") == 1
    assert f"recorded in MLflow: {server.uri}" in done.err
