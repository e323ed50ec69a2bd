"""The devices of a run: which they are, and how batches and numbers are distributed on them."""

import json
import os
import sys
from pathlib import Path

import tensorflow as tf

from keras_googlenet.data.pipeline import Worker
from keras_googlenet.errors import UserError
from keras_googlenet.training.recipe import Recipe

TRAINING_TASKS = ("chief", "worker")  # of TF_CONFIG; a chief is the first worker
_EXAMPLE = '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'


def choose_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Returns the strategy of TensorFlow that distributes the work.

    Args:
        name: "none"; "mirrored", over the GPUs of this machine; "multiworker", over the machines
            that TF_CONFIG lists; or "auto": multiworker if TF_CONFIG is set, mirrored if there
            are several GPUs, otherwise none, since any strategy turns XLA off.

    Raises:
        UserError: If TF_CONFIG is missing for "multiworker", or names no task that trains.
    """
    if name in ("auto", "multiworker"):
        resolver = cluster_resolver(os.environ.get("TF_CONFIG", ""))
        if resolver is not None:
            return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
        if name == "multiworker":
            raise UserError(
                "--strategy multiworker needs the environment variable TF_CONFIG, which lists the "
                "workers; docs/scaling.md has one."
            )
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        devices = gpus or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def cluster_resolver(text: str) -> tf.distribute.cluster_resolver.ClusterResolver | None:
    """Returns the training tasks of a TF_CONFIG; `None` if it lists no cluster.

    Parameter servers and evaluators are left out, because the strategy would wait for them.
    """
    try:
        config = json.loads(text.strip() or "{}")
        cluster = config.get("cluster")
    except (ValueError, AttributeError) as error:
        raise _malformed(f"is not a JSON object ({error})") from error
    if not cluster:
        return None
    try:
        kind, index = config["task"]["type"], int(config["task"].get("index", 0))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _malformed("lists a cluster but no task of this process") from error
    if not isinstance(cluster, dict) or not all(isinstance(a, list) for a in cluster.values()):
        raise _malformed("has no lists of addresses")
    if kind not in TRAINING_TASKS:
        raise UserError(
            f"TF_CONFIG gives this process the task {kind}, which train.py does not have: each "
            f"worker holds all weights. Start it as {' or '.join(TRAINING_TASKS)} only."
        )
    training = {name: cluster[name] for name in TRAINING_TASKS if cluster.get(name)}
    if index not in range(len(training.get(kind, ()))):
        raise _malformed(f"lists no {kind} {index}, the task of this process")
    addresses = sum(training.values(), [])
    if len(set(addresses)) < len(addresses):
        raise UserError("TF_CONFIG lists an address twice; give each worker a port of its own.")
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(training), task_type=kind, task_id=index, rpc_layer="grpc"
    )


def _malformed(what: str) -> UserError:
    return UserError(f"TF_CONFIG {what}; it must look like {_EXAMPLE}, or be unset.")


def this_worker(strategy: tf.distribute.Strategy) -> Worker:
    """Returns the index of this process among the workers, of which worker 0 writes files."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.cluster_spec():
        return Worker()
    cluster = resolver.cluster_spec().as_dict()
    chiefs, workers = len(cluster.get("chief", [])), len(cluster.get("worker", []))
    first = chiefs if resolver.task_type == "worker" else 0
    return Worker(first + resolver.task_id, chiefs + workers)


def check_recipe(recipe: Recipe, strategy: tf.distribute.Strategy):
    """Raises `UserError` for a recipe that several replicas cannot run."""
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


def distribute(strategy: tf.distribute.Strategy, batches: tf.data.Dataset) -> tf.data.Dataset:
    """Gives each replica of this worker an equal part of the worker's batches."""
    if strategy.num_replicas_in_sync == 1:
        return batches
    here = strategy.num_replicas_in_sync // this_worker(strategy).count

    def parts(tensor):
        return tf.reshape(tensor, (here, tensor.shape[0] // here, *tensor.shape[1:]))

    def replica_batches(context):
        return batches.map(lambda *batch: tf.nest.map_structure(parts, batch)).unbatch()

    return strategy.distribute_datasets_from_function(replica_batches)


def mean_over_workers(
    strategy: tf.distribute.Strategy, worker: Worker, values: list[float]
) -> list[float]:
    """Returns the mean of each value over the workers; all must call this at the same step."""
    if worker.count == 1:
        return values
    total = _total(strategy, tf.constant(values, tf.float64)).numpy()
    return list(total / strategy.num_replicas_in_sync)


@tf.function
def _total(strategy: tf.distribute.Strategy, values: tf.Tensor) -> tf.Tensor:
    """Adds up the values of all replicas."""
    return strategy.reduce("SUM", strategy.run(tf.identity, args=(values,)), axis=None)


def check_same_step(strategy: tf.distribute.Strategy, worker: Worker, step: int):
    """Raises `UserError` if the workers resume from different global steps."""
    (mean,) = mean_over_workers(strategy, worker, [step])
    if mean != step:
        raise UserError(
            "the workers found different checkpoints; give all of them the same --workdir on a "
            "file system that they share."
        )


def describe_devices(strategy: tf.distribute.Strategy) -> str:
    """Returns a line with devices and strategy; warns of a GPU that TensorFlow cannot use."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus and _driver_sees_gpu():
        print(
            "warning: this machine has an NVIDIA GPU that TensorFlow cannot use; "
            'install it with `python -m pip install "tensorflow[and-cuda]"`.',
            file=sys.stderr,
        )
    devices = ", ".join(_name(gpu) for gpu in gpus) or "CPU"
    replicas = strategy.num_replicas_in_sync
    name = type(strategy).__name__
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        name = "MultiWorkerMirroredStrategy"  # its class has another name inside TensorFlow
    return f"devices: {devices}; strategy: " + (
        f"{name}, {replicas} replicas" if replicas > 1 else "one device"
    )


def _driver_sees_gpu() -> bool:
    return any(Path("/proc/driver/nvidia/gpus").glob("*"))


def _name(gpu) -> str:
    return tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
