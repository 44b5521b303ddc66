"""MLflow: a run with its parameters, metrics by round and the report."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from ...tasks.parameters import Parameters
from ...tasks.trackers import TRACKERS, Tracked, TrackerError
from .need import need

RUN = "codistill.run"
"""The tag by which a run is found again that goes on after it was cut off."""


class MLflow(Parameters):
    """Where runs are told."""

    uri: str | None = Field(
        None, description="a tracking server or database; else MLFLOW_TRACKING_URI, else sqlite:///mlflow.db"
    )
    experiment: str = Field("codistill", min_length=1)


@TRACKERS.register("mlflow", MLflow)
def mlflow(parameters: MLflow, run: Tracked) -> _Run:
    """A run in MLflow, with metrics by round and the report."""
    need("mlflow", "mlflow")
    return _Run(parameters, run)


class _Run:
    def __init__(self, parameters: MLflow, run: Tracked) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        import mlflow
        from mlflow.exceptions import MlflowException

        uri = parameters.uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        try:
            self._client: Any = mlflow.MlflowClient(uri)
            known = self._client.get_experiment_by_name(parameters.experiment)
            experiment = known.experiment_id if known else self._client.create_experiment(parameters.experiment)
            self._id = self._found(experiment, run)
        except MlflowException as error:
            reason = str(error).strip().splitlines()[0]
            sentence = f"track.mlflow: {uri} cannot be used ({reason}); correct the address, or start it"
            raise TrackerError(sentence) from None

    def _found(self, experiment: str, run: Tracked) -> str:
        mark = f"{run.digest} {run.folder.resolve()}"
        earlier = self._client.search_runs([experiment], f"tags.`{RUN}` = '{mark}'", max_results=1)
        if earlier:
            found: str = earlier[0].info.run_id
            self._client.update_run(found, status="RUNNING")
            return found
        made: str = self._client.create_run(experiment, run_name=run.folder.name, tags={RUN: mark}).info.run_id
        for name, value in run.said.items():
            self._client.log_param(made, name, value)
        return made

    def round(self, number: int, values: Mapping[str, float]) -> None:
        """Tell the values of a round."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(name, value, now, number) for name, value in values.items()])

    def end(self, report: Path | None) -> None:
        """Hand in the report and say how the run ended."""
        if report is not None:
            self._client.log_artifact(self._id, str(report))
        self._client.set_terminated(self._id, "FAILED" if report is None else "FINISHED")
