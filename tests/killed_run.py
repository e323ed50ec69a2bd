"""Runs train.py and kills it: `killed_run.py NETWORK MOMENT COUNT SIGNAL -- flags of train.py`.

NETWORK is "googlenet", or "small" for one of its shape that is quickly built. MOMENT is where the
COUNT-th passage sends SIGNAL to this very process; "never" leaves it alone.
"""

import os
import runpy
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

MOMENTS = {
    "step": "run.Run.on_train_batch_end",  # in the middle of an epoch, between two steps
    "validation": "run.Run.on_test_batch_end",  # between two batches of a validation
    "edge": "run.Run._end_epoch",  # an epoch is measured, nothing of it written
    "history": "rundir.write_history",  # the checkpoint is there, the row of history.csv is not
    "written": "checkpoints.Checkpoints._remove_old",  # the checkpoint has just got its name
    "results": "trainer.draw_curves",  # all epochs are done, the results are not
    "writing": "checkpoints.np.savez",  # half a checkpoint is on the disk
}


def main():
    network, moment, count, name, _, *flags = sys.argv[1:]
    passages = iter(range(1, 1_000_000))

    def pass_by():
        if next(passages) == int(count):
            os.kill(os.getpid(), signal.Signals[name])

    if moment != "never":
        install(moment, pass_by)
    if network == "small":
        from keras_googlenet.training import trainer

        trainer.build_network = small_network
    sys.argv = ["train.py", *flags]
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


def install(moment, pass_by):
    from keras_googlenet.training import checkpoints, run, rundir, trainer

    modules = {"run": run, "rundir": rundir, "checkpoints": checkpoints, "trainer": trainer}
    *path, name = MOMENTS[moment].split(".")
    owner = modules[path[0]]
    for part in path[1:]:
        owner = getattr(owner, part)
    original = getattr(owner, name)

    def passing(*arguments, **keywords):
        pass_by()
        return original(*arguments, **keywords)

    def half(file, **arrays):
        file.write(b"PK" + bytes(100_000))
        file.flush()
        pass_by()
        file.seek(0)
        file.truncate()
        return original(file, **arrays)

    setattr(owner, name, half if moment == "writing" else passing)


def small_network(recipe, classes, weights, say):
    """Convolution, batch normalisation and dropout under three heads."""
    import keras

    from keras_googlenet.training.distribution import SpreadModel

    image = x = keras.Input((recipe.image_size, recipe.image_size, 3), name="image")
    x = keras.layers.Conv2D(8, 5, strides=4, name="conv")(x)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(keras.ops.relu(x))
    outputs = []
    for head, rate in (("main", recipe.dropout), ("aux1", 0.5), ("aux2", 0.5)):
        y = keras.layers.Dropout(rate, name=f"{head}_dropout")(x)
        outputs.append(keras.layers.Dense(classes, activation="softmax", name=head)(y))
    return SpreadModel(image, outputs)


if __name__ == "__main__":
    main()
