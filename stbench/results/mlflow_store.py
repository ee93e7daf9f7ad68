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
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

REQUEST_LIMITS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
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


@contextlib.contextmanager
def opened(results: Path) -> Iterator[tuple[MlflowClient, str | None]]:
    """A client of the store, and where its artifacts go if that is ours to say (else ``None``)."""
    for name, value in REQUEST_LIMITS.items():
        os.environ.setdefault(name, value)
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
    _require_writable(path)
    with _plain(path) as plain:
        yield MlflowClient(tracking_uri=f"sqlite:///{plain}"), (path.parent / "mlartifacts").as_uri()


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
