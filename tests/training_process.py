"""train.py in a process of its own: on several devices, with a small network, killed at a moment.

`python tests/training_process.py JSON` starts a new process with the arguments of `train` by name.
"""

import json
import os
import runpy
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

MOMENTS = {
    "step": "loop.Run._is_urgent",  # in the middle of an epoch, between two steps
    "validation": "loop.Run._stop_if_asked",  # between two batches of a validation
    "edge": "loop.Run._record_epoch",  # an epoch is measured, but not written
    "history": "rundir.write_history",  # the checkpoint is there, the row of history.csv is not
    "written": "checkpoints.Checkpoints._remove_old",  # the checkpoint has just got its name
    "results": "trainer.draw_curves",  # all epochs are done, no result is written
    "writing": "checkpoints.np.savez",  # half a checkpoint is on the disk
}


def train(flags, network="thin", moment=None, devices=1):
    """Runs train.py.

    Args:
        flags: Its command line.
        network: "small", a network with the outputs of GoogLeNet that is quick to build; "thin",
            GoogLeNet with few filters; or "whole".
        moment: Key of `MOMENTS`, the number of the call there, and the name of the signal that this
            process then sends to itself.
        devices: Number of logical devices that the CPU is divided into.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if devices > 1:
        divide_processor(devices)
    if moment:
        _send_signal_at(*moment)
    if network == "small":
        from keras_googlenet.training import train_steps as networks

        networks.build_network = small_network
    elif network == "thin":
        import thin_network

        thin_network.install()
    sys.argv = ["train.py", *map(str, flags)]
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


def divide_processor(devices):
    import tensorflow as tf

    os.environ.pop("TF_NUM_INTEROP_THREADS", None)  # devices on one thread wait for each other
    (processor,) = tf.config.list_physical_devices("CPU")
    logical = [tf.config.LogicalDeviceConfiguration() for _ in range(devices)]
    tf.config.set_logical_device_configuration(processor, logical)


def _send_signal_at(moment, count, name):
    from keras_googlenet.training import checkpoints, loop, rundir, trainer

    modules = {"loop": loop, "rundir": rundir, "checkpoints": checkpoints, "trainer": trainer}
    first, *path, attribute = MOMENTS[moment].split(".")
    owner = modules[first]
    for part in path:
        owner = getattr(owner, part)
    original, calls = getattr(owner, attribute), iter(range(1, 1_000_000))

    def count_call():
        if next(calls) == count:
            os.kill(os.getpid(), signal.Signals[name])

    def counted(*arguments, **keywords):
        count_call()
        return original(*arguments, **keywords)

    def half(file, **arrays):
        file.write(b"PK" + bytes(100_000))
        file.flush()
        count_call()
        file.seek(0)
        file.truncate()
        return original(file, **arrays)

    setattr(owner, attribute, half if moment == "writing" else counted)


def small_network(recipe, classes, weights, say):
    """Convolution, batch normalization and dropout under three heads."""
    import keras

    from keras_googlenet.layers import BatchNormalization
    from keras_googlenet.training.train_steps import synchronize_batch_norm

    image = x = keras.Input((recipe.image_size, recipe.image_size, 3), name="image")
    x = keras.layers.Conv2D(8, 5, strides=4, name="conv")(x)
    x = BatchNormalization(name="bn")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(keras.ops.relu(x))
    outputs = []
    rates = (recipe.dropout, recipe.aux_dropout, recipe.aux_dropout)
    for head, rate in zip(("main", "aux1", "aux2"), rates, strict=True):
        y = keras.layers.Dropout(rate, name=f"{head}_dropout")(x)
        outputs.append(keras.layers.Dense(classes, activation="softmax", name=head)(y))
    model = keras.Model(image, outputs)
    synchronize_batch_norm(model, recipe.sync_batch_norm)
    return model


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    train(**json.loads(sys.argv[1]))
