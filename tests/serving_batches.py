"""Batching as TensorFlow Serving does it: requests of several clients run as one.

A merged batch has one outcome. If it fails, every request in it fails with the same error.
"""

import threading
from dataclasses import dataclass, field

import numpy as np
from saved_model_loader import LoaderError


@dataclass
class _Task:
    inputs: dict
    size: int
    done: threading.Event = field(default_factory=threading.Event)
    outputs: dict | None = None
    error: LoaderError | None = None


class _Batch:
    def __init__(self):
        self.tasks, self.full = [], threading.Event()
        self.size = 0


class Batches:
    """Runs a SavedModel on merged requests; a stand-in for `SavedModel` to whoever calls it.

    Args:
        model: A `SavedModel`.
        parameters: `BatchingParameters`; `max_batch_size` and `batch_timeout_micros` count.
    """

    def __init__(self, model, parameters):
        self._model = model
        self.signatures = model.signatures
        self._most = parameters.max_batch_size.value
        self._timeout = parameters.batch_timeout_micros.value / 1e6
        self._lock = threading.Lock()
        self._open = {}  # signature -> the batch that still takes requests
        self.sizes = []  # of the batches that were run

    def run(self, signature: str, inputs: dict, timeout: float | None = None) -> dict:
        """As `SavedModel.run`, but waits for others up to `batch_timeout_micros`.

        The first request of a batch runs it; the others wait for the outcome.
        """
        task = _Task(inputs, len(next(iter(inputs.values()))))
        if task.size > self._most:
            raise LoaderError(
                3,  # INVALID_ARGUMENT
                f"Task size {task.size} is larger than maximum input batch size {self._most}",
            )
        with self._lock:
            batch = self._open.get(signature)
            is_first = batch is None or batch.size + task.size > self._most
            if is_first:
                batch = self._open[signature] = _Batch()
            batch.tasks.append(task)
            batch.size += task.size
            if batch.size == self._most:
                batch.full.set()
        if is_first:
            batch.full.wait(self._timeout)
            with self._lock:
                if self._open.get(signature) is batch:
                    del self._open[signature]
            self._run(signature, batch, timeout)
        task.done.wait()
        if task.error:
            raise task.error
        return task.outputs

    def _run(self, signature: str, batch: _Batch, timeout: float | None):
        self.sizes.append(batch.size)
        tasks = batch.tasks
        try:
            merged = {
                name: np.concatenate([task.inputs[name] for task in tasks])
                for name in tasks[0].inputs
            }
            outputs = self._model.run(signature, merged, timeout)
            ends = np.cumsum([task.size for task in tasks])[:-1]
            parts = {name: np.split(array, ends) for name, array in outputs.items()}
            for index, task in enumerate(tasks):
                task.outputs = {name: arrays[index] for name, arrays in parts.items()}
        except LoaderError as error:
            for task in tasks:
                task.error = error
        finally:
            for task in tasks:
                task.done.set()
