"""TensorBoard: scalars by round in an event file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from ...tasks.parameters import Parameters
from ...tasks.trackers import TRACKERS, Tracked
from .need import need


class TensorBoard(Parameters):
    """Where event files go."""

    into: str | None = Field(
        None, description="a folder, in which each run has one of its own; nothing said: tensorboard/ in the run's"
    )


@TRACKERS.register("tensorboard", TensorBoard)
def tensorboard(parameters: TensorBoard, run: Tracked) -> _Events:
    """Scalars by round in an event file, for TensorBoard."""
    need("tensorboard", "tensorboard")
    own = run.folder / "tensorboard"
    return _Events(own if parameters.into is None else Path(parameters.into) / run.folder.name)


class _Events:
    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(folder))

    def round(self, number: int, values: Mapping[str, float]) -> None:
        """Write the values of a round."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=number, summary=Summary(value=scalars)))
        self._writer.flush()

    def end(self, report: Path | None) -> None:
        """Close the file."""
        self._writer.close()
