"""Where MLflow keeps what it is fed: a server that somebody else runs, or a SQLite file beside the results directory.

It may be broken, slow or away, so it is asked a few times and not for long. What it answers is told apart: an outage
passes, a refusal (no permission, a place that is read-only, an old database) stays until somebody does something.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

QUIET = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}  # of the two lines for every run of a server
NO_RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}  # of MLflow's own, which create again what was created
REQUEST_TIMEOUT_S = "20"  # unless the user has another
AGAIN = 2  # times that what an outage ended is asked once more, unless the user has another number
DATABASE_ATTEMPTS = 3  # MLflow makes ten, over a minute and a half
SPECIAL = frozenset("?#%")  # mean something in a URL, and versions of SQLAlchemy differ in how to write them
OUTAGES = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "ABORTED"}
REFUSALS = ("out-of-date database schema", "no such table", "readonly database", "unable to open", "not a database")


def tracking_uri(results: Path) -> str:
    """``MLFLOW_TRACKING_URI`` where it is set, else a SQLite file beside the results directory.

    The file is named from its folder where the folder's path cannot stand in a URL as it is.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return given
    path = own_database(results)
    if SPECIAL.isdisjoint(str(path)):
        return f"sqlite:///{path}"
    return f"sqlite:///{path.name} in {path.parent}"


def own_database(results: Path) -> Path:
    return results.resolve().parent / "mlflow.db"


@dataclass(frozen=True)
class Store:
    """An opened store.

    ``artifacts``: where those of a new experiment go, if that is ours to say. ``again``: how often to ask once more
    after an outage; ``backoff_s``: how long to wait before the first time.
    """

    client: MlflowClient
    artifacts: str | None
    again: int
    backoff_s: float


@contextlib.contextmanager
def opened(results: Path) -> Iterator[Store]:
    """The store that ``results`` are recorded in. While it is open MLflow asks once and prints nothing."""
    again = max(0, int(os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES", AGAIN)))
    backoff_s = max(0.0, float(os.environ.get("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", 1)))
    timeout = {"MLFLOW_HTTP_REQUEST_TIMEOUT": os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", REQUEST_TIMEOUT_S)}
    with _environment(QUIET | NO_RETRIES | timeout), _client(results) as (client, artifacts):
        # a SQLite file has waited for its lock already
        own_file = tracking_uri(results).startswith("sqlite:")
        yield Store(client, artifacts, 0 if own_file else again, backoff_s)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have variables of the process's environment, which MLflow reads at each request, for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _client(results: Path) -> Iterator[tuple[MlflowClient, str | None]]:
    from mlflow import MlflowClient

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri and uri.partition(":")[0] in ("http", "https"):
        yield MlflowClient(tracking_uri=uri), None
        return
    from mlflow.store.db import utils

    utils.MAX_RETRY_COUNT = min(utils.MAX_RETRY_COUNT, DATABASE_ATTEMPTS)
    logging.getLogger("mlflow.store.db.utils").setLevel(
        logging.ERROR
    )  # its tables are no news, its failures ours to tell
    if uri:
        local = (results.resolve().parent / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
        yield MlflowClient(tracking_uri=uri), local
        return
    path = own_database(results)
    with _plain(path) as plain:
        if not path.exists():
            _make(plain)
        _require_writable(path)
        yield MlflowClient(tracking_uri=f"sqlite:///{plain}"), (path.parent / "mlartifacts").as_uri()


def _make(path: Path) -> None:
    """Make the SQLite file with all its tables; it appears complete or not at all, whoever else makes it meanwhile.

    MLflow makes its tables one after the other, over seconds. It refuses, for good, a file whose making was ended.
    """
    from mlflow.store.db import utils

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        new = Path(folder) / path.name
        engine = utils.create_sqlalchemy_engine(f"sqlite:///{new}")  # type: ignore[no-untyped-call]
        utils._initialize_tables(engine)  # type: ignore[no-untyped-call]
        engine.dispose()
        with contextlib.suppress(FileExistsError):  # another process was quicker
            try:
                os.link(new, path)
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                if not path.exists():
                    os.replace(new, path)


def _require_writable(path: Path) -> None:
    """Find out in one attempt what MLflow would try for minutes."""
    with contextlib.closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.execute("ROLLBACK")


@contextlib.contextmanager
def _plain(path: Path) -> Iterator[Path]:
    """``path``, by way of a link where a URL cannot hold it. SQLite follows it, so its journal lies beside the file."""
    if SPECIAL.isdisjoint(str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="stbench-mlflow-") as folder:
        link = Path(folder) / "store"
        link.symlink_to(path.parent, target_is_directory=True)
        yield link / path.name


def passes_by(error: Exception) -> bool:
    """Whether the same attempt may succeed later, with nothing done but waiting."""
    from mlflow.exceptions import MlflowException

    text = str(error)
    if any(refusal in text for refusal in REFUSALS):
        return False
    if isinstance(error, MlflowException):
        return error.error_code in OUTAGES
    if isinstance(error, sqlite3.OperationalError):  # a database that is locked, a disk that is full
        return True
    if isinstance(error, OSError):  # of requests too, whose errors of a URL are ValueErrors beside
        return isinstance(error, ConnectionError | TimeoutError) or _is_request_outage(error)
    return type(error).__module__.startswith("sqlalchemy") and type(error).__name__ == "OperationalError"


def _is_request_outage(error: OSError) -> bool:
    import requests

    return isinstance(error, requests.ConnectionError | requests.Timeout)
