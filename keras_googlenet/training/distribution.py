"""Which devices a run uses, how it says so, and how batches and numbers go over them."""

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
    """Returns what distributes the work.

    Args:
        name: "none"; "mirrored", over the GPUs of this machine; "multiworker", over the machines
            that TF_CONFIG lists; or "auto": multiworker if TF_CONFIG is set, mirrored if there
            are several GPUs, otherwise none, since any strategy turns XLA off.

    Raises:
        UserError: If TF_CONFIG is needed and missing, or does not say who trains.
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
    """Reads TF_CONFIG, and leaves out of the cluster who does not train.

    Args:
        text: Its value. Parameter servers and evaluators in it are not waited for.

    Returns:
        What MultiWorkerMirroredStrategy asks for its workers; `None` if no cluster is set.

    Raises:
        UserError: If it is no JSON, or this process has no task that trains.
    """
    config = _parsed(text)
    cluster = config.get("cluster")
    if not cluster:
        return None
    try:
        kind, index = config["task"]["type"], int(config["task"].get("index", 0))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"TF_CONFIG lists a cluster but no task of this process; it must look like {_EXAMPLE}."
        ) from error
    if not isinstance(cluster, dict) or not all(isinstance(a, list) for a in cluster.values()):
        raise UserError(f"TF_CONFIG has no lists of addresses; it must look like {_EXAMPLE}.")
    if kind not in TRAINING_TASKS:
        raise UserError(
            f"TF_CONFIG gives this process the task {kind}, which train.py has no use for: all "
            f"workers hold all weights. Start it as {' or '.join(TRAINING_TASKS)} only."
        )
    training = {name: cluster[name] for name in TRAINING_TASKS if cluster.get(name)}
    if index not in range(len(training.get(kind, ()))):
        raise UserError(
            f"TF_CONFIG lists no {kind} {index}, which this process is to be; it must look like "
            f"{_EXAMPLE}."
        )
    together = sum(training.values(), [])
    if len(set(together)) < len(together):
        raise UserError("TF_CONFIG lists an address twice; give each worker a port of its own.")
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(training), task_type=kind, task_id=index, rpc_layer="grpc"
    )


def _parsed(text: str) -> dict:
    try:
        config = json.loads(text.strip() or "{}")
        if not isinstance(config, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        raise UserError(
            f"TF_CONFIG is no JSON ({error}); it must look like {_EXAMPLE}, or be unset."
        ) from error
    return config


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


def distribute(strategy: tf.distribute.Strategy, batches: tf.data.Dataset) -> tf.data.Dataset:
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


def mean_over_workers(
    strategy: tf.distribute.Strategy, worker: Worker, values: list[float]
) -> list[float]:
    """Returns the mean over the workers of each number; all of them must ask at the same step."""
    if worker.count == 1:
        return values
    total = _total(strategy, tf.constant(values, tf.float64)).numpy()
    return list(total / strategy.num_replicas_in_sync)


@tf.function
def _total(strategy: tf.distribute.Strategy, values: tf.Tensor) -> tf.Tensor:
    """Adds up what the replicas hold, each its worker's."""
    return strategy.reduce("SUM", strategy.run(tf.identity, args=(values,)), axis=None)


def check_same_step(strategy: tf.distribute.Strategy, worker: Worker, step: int):
    """Refuses to go on where workers read different checkpoints.

    Args:
        strategy: The one that they share.
        worker: Which of them this is.
        step: The step of the whole run that this one goes on from.

    Raises:
        UserError: If another worker goes on from another step.
    """
    (mean,) = mean_over_workers(strategy, worker, [step])
    if mean != step:
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
