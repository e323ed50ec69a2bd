"""Which devices a run uses, how it says so, and how batches and steps are spread over them."""

import os
import sys
from pathlib import Path

import keras
import tensorflow as tf

from keras_googlenet.data.pipeline import Worker
from keras_googlenet.errors import UserError
from keras_googlenet.training.recipe import Recipe


def choose_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Returns what spreads the work.

    Args:
        name: "none"; "mirrored", over the GPUs of this machine; "multiworker", over the machines
            that TF_CONFIG lists; or "auto": multiworker if TF_CONFIG is set, mirrored if there
            are several GPUs, otherwise none, since any strategy turns XLA off.

    Raises:
        UserError: If "multiworker" has no TF_CONFIG.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if name == "auto":
        several = "mirrored" if len(gpus) > 1 else "none"
        name = "multiworker" if "TF_CONFIG" in os.environ else several
    if name == "multiworker":
        if "TF_CONFIG" not in os.environ:
            raise UserError(
                "--strategy multiworker needs the environment variable TF_CONFIG, which lists the "
                "workers; docs/scaling.md has one."
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def this_worker(strategy: tf.distribute.Strategy) -> Worker:
    """Returns which of how many processes this is; the one with index 0 writes."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.cluster_spec():
        return Worker()
    cluster = resolver.cluster_spec().as_dict()
    chiefs, workers = len(cluster.get("chief", [])), len(cluster.get("worker", []))
    first = chiefs if resolver.task_type == "worker" else 0
    return Worker(first + resolver.task_id, chiefs + workers)


def check_recipe(recipe: Recipe, strategy: tf.distribute.Strategy):
    """Refuses what several replicas cannot do.

    Raises:
        UserError: If `recipe` wants XLA, or a batch that does not divide.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas > 1 and recipe.jit:
        raise UserError(
            f"--jit works on one device only, and this run has {replicas}; leave it out or give "
            "--strategy none."
        )
    if recipe.batch_size % replicas:
        raise UserError(
            f"--batch-size must be a multiple of the {replicas} devices; it is {recipe.batch_size}."
        )


def spread(strategy: tf.distribute.Strategy, batches: tf.data.Dataset) -> tf.data.Dataset:
    """Hands the batches of this worker out to its replicas, a part each.

    Args:
        strategy: Says how many replicas there are.
        batches: Tensors, in any structure, of the same first dimension: a multiple of this
            worker's replicas.

    Returns:
        `batches` on one device, otherwise a `tf.distribute.DistributedDataset`.
    """
    if strategy.num_replicas_in_sync == 1:
        return batches
    here = strategy.num_replicas_in_sync // this_worker(strategy).count

    def parts(tensor):
        return tf.reshape(tensor, (here, tensor.shape[0] // here, *tensor.shape[1:]))

    def replica_batches(context):
        return batches.map(lambda *batch: tf.nest.map_structure(parts, batch)).unbatch()

    return strategy.distribute_datasets_from_function(replica_batches)


class SpreadModel(keras.Model):
    """A network whose `fit` and `evaluate` also work on several workers, batch by batch in sight.

    Those of `keras.Model` fail on several workers (keras #20585) for two reasons: they reduce the
    first batch to learn its shape, and they reduce scalars over an axis that scalars lack. Here
    `build_metrics` learns the shapes, and steps are reduced over the replicas only.

    Attributes:
        fetch: Called with the iterator to get a batch; whoever wants to take the time, or to pass
            by what cannot be read, puts his own function here.
    """

    fetch = staticmethod(next)

    def build_metrics(self, element_spec):
        """Makes the variables of metrics and optimizer.

        Args:
            element_spec: `(images, labels)` as the batches have them, a `tf.TensorSpec` each.
        """
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=element_spec)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Does nothing: `build_metrics` did it."""

    def make_train_function(self, force=False):
        """Makes what `fit` calls with its iterator at each step."""
        if self.train_function is None or force:
            self.train_function = self._spread(self.train_step)

    def make_test_function(self, force=False):
        """Makes what `evaluate` calls with its iterator at each step."""
        if self.test_function is None or force:
            self.test_function = self._spread(self.test_step)

    def _spread(self, step):
        strategy = self.distribute_strategy

        @tf.function(jit_compile=self.jit_compile)
        def on_all_replicas(batch):
            logs = strategy.run(step, args=(batch,))
            return {name: strategy.reduce("MEAN", log, axis=None) for name, log in logs.items()}

        return lambda iterator: on_all_replicas(self.fetch(iterator))


def any_worker(strategy: tf.distribute.Strategy, worker: Worker, wishes: list[bool]) -> list[bool]:
    """Returns, for each wish, whether a worker has it; all workers must ask at the same step."""
    if worker.count == 1:
        return wishes
    return [count > 0 for count in _total(strategy, tf.constant(wishes, tf.float32)).numpy()]


@tf.function
def _total(strategy: tf.distribute.Strategy, values: tf.Tensor) -> tf.Tensor:
    """Adds up what the replicas hold, each its worker's."""
    return strategy.reduce("SUM", strategy.run(tf.identity, args=(values,)), axis=None)


def check_same_place(strategy: tf.distribute.Strategy, worker: Worker, place: int):
    """Refuses to go on where workers read different checkpoints.

    Raises:
        UserError: If another worker stands at another step.
    """
    if worker.count == 1:
        return

    replicas = strategy.num_replicas_in_sync
    if int(_total(strategy, tf.constant(place, tf.int64))) != place * replicas:
        raise UserError(
            "the workers found different checkpoints; give all of them the same --workdir on a "
            "file system that they share."
        )


def describe_devices(strategy: tf.distribute.Strategy) -> str:
    """Names the devices and the strategy in a line, and warns of a GPU that lies idle."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus and _driver_sees_gpu():
        print(
            "warning: this machine has an NVIDIA GPU that TensorFlow cannot use; "
            'install it with `python -m pip install "tensorflow[and-cuda]"`.',
            file=sys.stderr,
        )
    devices = ", ".join(_name(gpu) for gpu in gpus) or "CPU"
    replicas = strategy.num_replicas_in_sync
    several_workers = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    kind = "MultiWorkerMirroredStrategy" if several_workers else type(strategy).__name__
    several = f"{kind}, {replicas} replicas"
    return f"devices: {devices}; strategy: {several if replicas > 1 else 'one device'}"


def _driver_sees_gpu() -> bool:
    return any(Path("/proc/driver/nvidia/gpus").glob("*"))


def _name(gpu) -> str:
    return tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
