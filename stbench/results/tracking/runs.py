"""The runs of one benchmark in MLflow: its experiment, the parent, a child for each trial, and each of them once.

MLflow gives a new run an identity of its own choice, so an answer that is lost, or another process that feeds the same
benchmark, leaves two where one was meant. So runs are found by tags: a run is looked for before it is created, and
looked for again afterwards. Of several the first by time of start and identity stays. Neither ever changes, so whoever
looks agrees which one that is, and nobody removes the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .asking import Asking
from .limits import LONGEST_PARAM, LONGEST_TAG, Point, batches, cut_all
from .store import passes_by

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "stbench"
PARENT_TAG, OF_TAG, KEY_TAG = "stbench.run", "stbench.benchmark", "stbench.key"
ENDED_TAG, EPOCHS_TAG = "stbench.ended", "stbench.epochs"
PAGE = 1000  # runs in an answer


class RefusedError(Exception):
    """MLflow cannot be fed before somebody does something; the message says what."""


class Gone(Exception):  # noqa: N818 - not an error: whoever works on it looks again
    """A run was deleted meanwhile: by another process that feeds the same benchmark, or by a person."""


@dataclass
class KnownRun:
    """A run as MLflow has it, as far as it was read or written from here."""

    id: str
    started: int  # milliseconds since the epoch
    status: str
    ended: int | None  # milliseconds since the epoch
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]  # name to the latest value

    @classmethod
    def of(cls, run: Run) -> KnownRun:
        data, info = run.data, run.info
        return cls(
            info.run_id,
            info.start_time or 0,
            info.status,
            info.end_time,
            {**data.tags},
            {**data.params},
            {**data.metrics},
        )

    def forget(self) -> None:
        """Nothing more will be logged of it: what it holds need not be known."""
        self.tags = {name: value for name, value in self.tags.items() if name in (ENDED_TAG, EPOCHS_TAG)}
        self.params, self.metrics = {}, {}

    def contradicts(self, params: Mapping[str, object]) -> bool:
        """Whether it has a parameter of another value; none can be changed."""
        return any(self.params.get(name, value) != value for name, value in cut_all(params, LONGEST_PARAM).items())

    @property
    def epochs(self) -> int:
        """The last epoch of its curve that is complete there."""
        return int(self.tags.get(EPOCHS_TAG, 0))


class BenchmarkRuns:
    """The runs of the benchmark ``benchmark`` (the id in its ``run.json``).

    ``cut`` is given the names of parameters and tags that were too long.
    """

    def __init__(
        self,
        client: MlflowClient,
        ask: Asking,
        benchmark: str,
        name: str,
        artifacts: str | None,
        cut: dict[str, None],
    ) -> None:
        self.client, self.ask, self.benchmark, self.cut = client, ask, benchmark, cut
        self.experiment = ask(lambda: self._find_experiment(artifacts))
        self.parent = ask(lambda: self._find_parent(name))
        self.children = ask(self._find_children)

    def _find_experiment(self, artifacts: str | None) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            try:
                return str(self.client.create_experiment(EXPERIMENT, artifact_location=artifacts))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self.client.get_experiment_by_name(EXPERIMENT)  # another process was quicker
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise RefusedError(
                f"its experiment '{EXPERIMENT}' is deleted; "
                f"'mlflow experiments restore --experiment-id {found.experiment_id}' brings it back"
            )
        return str(found.experiment_id)

    def _find_parent(self, name: str) -> KnownRun:
        mine = {PARENT_TAG: self.benchmark}
        found = self._search(mine)
        if not found:
            tags = mine | {"mlflow.runName": name}
            created = self.client.create_run(self.experiment, tags=tags, run_name=name)
            found = self._search(mine) or [created]
        return self._only(found)

    def _find_children(self) -> dict[str, KnownRun]:
        """Every trial's run, by the trial's key."""
        of_parent = self._search({"mlflow.parentRunId": self.parent.id})  # up to 0.2 a run did not name its benchmark
        found = {run.info.run_id: run for run in [*of_parent, *self._search({OF_TAG: self.benchmark})]}
        by_key: dict[str, list[Run]] = {}
        for run in found.values():
            if KEY_TAG in run.data.tags:
                by_key.setdefault(run.data.tags[KEY_TAG], []).append(run)
        return {key: self._adopted(self._only(runs)) for key, runs in by_key.items()}

    def child(self, key: str, started: int, name: str) -> KnownRun:
        """The run of the trial ``key``, created where there is none. ``started``: milliseconds since the epoch."""

        def find() -> KnownRun:
            mine = {OF_TAG: self.benchmark, KEY_TAG: key}
            found = self._search(mine)
            if not found:
                tags = mine | {"mlflow.parentRunId": self.parent.id, "mlflow.runName": name}
                created = self.client.create_run(self.experiment, start_time=started, tags=tags, run_name=name)
                found = self._search(mine) or [created]
            return self._adopted(self._only(found))

        self.children[key] = self.ask(find)
        return self.children[key]

    def remove(self, key: str) -> None:
        """Delete the run of a trial: it tells of an earlier attempt."""
        self.ask(lambda: self._delete(self.children[key].id))
        del self.children[key]

    def log(
        self,
        run: KnownRun,
        metrics: Iterable[Point] = (),
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, object] | None = None,
    ) -> None:
        """Add to a run the metrics, and the parameters and tags that it does not have yet.

        What was logged by a request whose answer was lost is logged again, equal in all parts, which changes nothing.
        """
        from mlflow.entities import Metric, Param, RunTag

        params, tags = params or {}, tags or {}
        new_params = dict(cut_all(params, LONGEST_PARAM).items() - run.params.items())
        new_tags = dict(cut_all(tags, LONGEST_TAG).items() - run.tags.items())
        self.cut |= {name: None for name in new_params if len(str(params[name])) > LONGEST_PARAM}
        self.cut |= {name: None for name in new_tags if len(str(tags[name])) > LONGEST_TAG}
        for batch in batches(metrics, new_params, new_tags):
            entities: dict[str, Any] = {
                "metrics": [Metric(point.name, point.value, point.when, point.step) for point in batch.metrics],
                "params": [Param(name, value) for name, value in batch.params.items()],
                "tags": [RunTag(name, value) for name, value in batch.tags.items()],
            }
            self._of(run, partial(self.client.log_batch, run.id, **entities))
            run.metrics.update({point.name: point.value for point in batch.metrics})
            run.params.update(batch.params)
            run.tags.update(batch.tags)

    def latest_metrics(self, run: KnownRun) -> dict[str, float]:
        """Name to the value that MLflow takes to be the latest."""
        return {**self.ask(lambda: self.client.get_run(run.id)).data.metrics}

    def set_status(self, run: KnownRun, status: str, ended: int | None = None) -> None:
        """RUNNING, FINISHED, FAILED or KILLED; ``ended``: milliseconds since the epoch, of one that will not go on."""
        if run.status == status and (ended is None or run.ended == ended):
            return
        if ended is None:
            self._of(run, lambda: self.client.update_run(run.id, status=status))
        else:
            self._of(run, lambda: self.client.set_terminated(run.id, status=status, end_time=ended))
        run.status, run.ended = status, ended

    def _of(self, run: KnownRun, call: Callable[[], object]) -> None:
        """Ask something of a run; ``Gone`` where it is refused because the run is not there any more."""
        from mlflow.exceptions import MlflowException

        try:
            self.ask(call)
        except MlflowException as error:
            if passes_by(error):
                raise
            if self.ask(lambda: self._is_deleted(run.id)):
                raise Gone(f"run {run.id} was deleted meanwhile") from error
            self.ask(call)  # it is refused, too, where another process writes the same at the same moment

    def _only(self, found: Iterable[Run]) -> KnownRun:
        """The run that stays, of several that were created for the same; the others are deleted."""
        first, *others = sorted(found, key=lambda run: (run.info.start_time or 0, run.info.run_id))
        for other in others:
            self._delete(other.info.run_id)
        return KnownRun.of(first)

    def _adopted(self, run: KnownRun) -> KnownRun:
        """A child below the parent that stayed; the one below which it was created may be gone."""
        for name, value in {"mlflow.parentRunId": self.parent.id, OF_TAG: self.benchmark}.items():
            if run.tags.get(name) != value:
                self._of(run, partial(self.client.set_tag, run.id, name, value))
                run.tags[name] = value
        if ENDED_TAG in run.tags:
            run.forget()
        return run

    def _delete(self, run_id: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.delete_run(run_id)
        except MlflowException:
            if not self._is_deleted(run_id):
                raise

    def _is_deleted(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage == "deleted")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return True
            raise

    def _search(self, tags: Mapping[str, str]) -> list[Run]:
        condition = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        found: list[Run] = []
        token: str | None = None
        while True:
            page = self.client.search_runs([self.experiment], condition, max_results=PAGE, page_token=token)
            found += list(page)
            token = page.token
            if not token:
                return found
