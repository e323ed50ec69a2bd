"""The rows of benchmarks.training: for each network its training step, speed and memory."""

import importlib
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CLASSES = 1000
PRODUCT = 4096  # side of the matrices whose product measures the peak speed
READ_EVERY = 10  # steps whose losses are read together, as in the loop
ROWS = {  # name: (kind, variant, precision, special setting)
    "batchnorm float32": ("keras", "batchnorm", "float32", None),
    "batchnorm bfloat16": ("keras", "batchnorm", "bfloat16", None),
    "paper float32": ("keras", "paper", "float32", None),
    "paper bfloat16": ("keras", "paper", "bfloat16", None),
    "torchvision float32": ("torch", "torchvision", "float32", None),
    "torchvision bfloat16": ("torch", "torchvision", "bfloat16", None),
    "batchnorm float32, not fused": ("keras", "batchnorm", "float32", "not fused"),
    "batchnorm bfloat16, not fused": ("keras", "batchnorm", "bfloat16", "not fused"),
    "batchnorm float32, --deterministic": ("keras", "batchnorm", "float32", "deterministic"),
    "paper bfloat16, --deterministic": ("keras", "paper", "bfloat16", "deterministic"),
}


def serve(name: str, settings: dict, pipe):
    """Builds a row and answers "turn" and "facts" until it receives `None`.

    Args:
        name: Key of `ROWS`.
        settings: Flags of benchmarks.training.
        pipe: Connection; the first message sent is the name of the device.
    """
    kind, variant, precision, special = ROWS[name]
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    kinds = {"keras": {"tensorflow": TensorFlow, "jax": Jax}.get(backend), "torch": Torch}
    row = kinds[kind](variant, precision, settings | {"special": special})
    pipe.send(row.device)
    for question in iter(pipe.recv, None):
        if question == "turn":
            started = time.perf_counter()
            for _ in range(settings["steps"]):
                row.step()
            row.wait()
            pipe.send(time.perf_counter() - started)
        else:
            pipe.send(row.facts())


def resident_bytes() -> int:
    """Returns the memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def peak_resident_bytes() -> int:
    """Returns the peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def random_batch(settings: dict):
    """Returns images `(n, size, size, 3)` uint8 and labels `(n,)`."""
    random, size = np.random.default_rng(0), settings["image_size"]
    images = random.integers(0, 256, (settings["batch_size"], size, size, 3), "uint8")
    return images, random.integers(0, CLASSES, settings["batch_size"])


def seconds_of(function, wait, repeats: int = 5) -> float:
    """Returns the seconds of the fastest of some calls, after one to warm up."""
    taken = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        wait(function())
        taken.append(time.perf_counter() - started)
    return min(taken[1:])


class TensorFlow:
    """Ours: the loop, its steps, a checkpoint and a validation."""

    def __init__(self, variant: str, precision: str, settings: dict):
        import tensorflow as tf

        self.import_bytes, self.settings = resident_bytes(), settings
        from keras_googlenet import layers
        from keras_googlenet.training import trainer
        from keras_googlenet.training.recipe import Recipe

        self.gpu = settings["device"] == "gpu"
        if self.gpu:
            self.device = tf.config.experimental.get_device_details(
                tf.config.list_physical_devices("GPU")[0]
            )["device_name"]
        else:
            tf.config.set_visible_devices([], "GPU")
            self.device = "CPU"
        self.tf, self.dtype = tf, getattr(tf, precision)
        self.recipe = Recipe(
            variant=variant,
            image_size=settings["image_size"],
            batch_size=settings["batch_size"],
            precision=precision,
            average_share=0.0,  # the peers have none
            keep="last",
            deterministic=settings["special"] == "deterministic",
        )
        trainer.prepare_keras(self.recipe)
        if settings["special"] == "not fused":
            layers.BatchNormalization._can_fuse = lambda *_: False
        self.folder = tempfile.TemporaryDirectory()
        self.run = self._run(Path(self.folder.name))
        images, labels = random_batch(settings)
        self.batch = (tf.constant(images), tf.one_hot(labels, CLASSES))

    def _run(self, folder: Path):
        """Returns a run on a few images of one of `CLASSES` classes; its epochs are not run."""
        from keras_googlenet.data.datasets import ImageDataset, folder_split
        from keras_googlenet.training.loop import Run
        from keras_googlenet.training.signals import Signals

        pixels = np.random.default_rng(1).integers(0, 256, (300, 400, 3), "uint8")
        encoded = self.tf.io.encode_jpeg(pixels).numpy()
        files = []
        for number in range(2 * self.settings["batch_size"]):
            files.append(folder / f"{number}.jpg")
            files[-1].write_bytes(encoded)
        labels = [f"class_{number}" for number in range(CLASSES)]
        split = folder_split({labels[0]: list(map(str, files))}, labels)
        strategy = self.tf.distribute.get_strategy()
        data = ImageDataset(labels, split, split)
        return Run(self.recipe, folder / "run", data, strategy, Signals(), 600.0)

    def step(self):
        """Runs a training step."""
        self.sums = self.run.train_step(self.batch)

    def wait(self):
        """Waits until the device has finished."""
        self.sums.numpy()

    def facts(self) -> dict:
        """Measures memory, peak speed and the loop; call it after training."""
        if self.gpu:
            peak = self.tf.config.experimental.get_memory_info("GPU:0")["peak"]
            self.import_bytes = 0
        else:
            peak = peak_resident_bytes()
        a = self.tf.cast(self.tf.random.normal((PRODUCT, PRODUCT)), self.dtype)
        product = self.tf.function(lambda: self.tf.matmul(a, a)[0, 0])
        return {
            "import_bytes": self.import_bytes,
            "peak_bytes": peak,
            "peak_flops": 2 * PRODUCT**3 / seconds_of(product, lambda x: x.numpy()),
            **self._loop_facts(),
        }

    def _loop_facts(self) -> dict:
        pending = [self.sums] * READ_EVERY
        with self.run.progress.bar_of(0, 0, READ_EVERY):
            read = seconds_of(lambda: self.run.read_losses(pending), lambda _: None)
        checkpoint = seconds_of(self.run.save, lambda _: None, repeats=2)
        validation = seconds_of(self.run.validate, lambda _: None, repeats=2)
        images = self.run.input.dataset.validation.size
        return {
            "read_seconds": read / READ_EVERY,
            "checkpoint_seconds": checkpoint,
            "validation_images_per_second": images / validation,
        }


class Jax:
    """Our network under JAX, with the same step written for it."""

    def __init__(self, variant: str, precision: str, settings: dict):
        import jax
        import keras

        self.import_bytes, self.settings = resident_bytes(), settings
        from keras_googlenet import HEADS, GoogLeNet, preprocess_input

        self.jax, self.dtype = jax, precision
        self.platform = jax.devices("gpu" if settings["device"] == "gpu" else "cpu")[0]
        self.device = f"{self.platform.device_kind}, JAX"
        policy = precision if precision == "float32" else f"mixed_{precision}"
        keras.config.set_dtype_policy(policy)
        size = settings["image_size"]
        with jax.default_device(self.platform):
            model = GoogLeNet(variant=variant, input_shape=(size, size, 3))
            optimizer = keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=4e-5)
            optimizer.build(model.trainable_variables)
            images, labels = random_batch(settings)
            self.batch = jax.device_put((images, np.eye(CLASSES, dtype="float32")[labels]))

        def loss(trainable, others, images, labels):
            x = preprocess_input(images.astype("float32"), variant)
            predictions, others = model.stateless_call(trainable, others, x, training=True)
            losses = [
                keras.losses.categorical_crossentropy(labels, p, label_smoothing=0.1).mean()
                for p in predictions
            ]
            return sum(w * head for w, head in zip(HEADS.values(), losses, strict=True)), others

        @jax.jit
        def step(state, images, labels):
            trainable, others, moments = state
            (value, others), gradients = jax.value_and_grad(loss, has_aux=True)(
                trainable, others, images, labels
            )
            trainable, moments = optimizer.stateless_apply(moments, gradients, trainable)
            return (trainable, others, moments), value

        groups = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
        self.state = tuple([variable.value for variable in group] for group in groups)
        self.train = step

    def step(self):
        """Runs a training step."""
        self.state, self.value = self.train(self.state, *self.batch)

    def wait(self):
        """Waits until the device has finished."""
        self.value.block_until_ready()

    def facts(self) -> dict:
        """Measures memory and peak speed."""
        numbers = self.platform.memory_stats()  # none on a CPU
        peak = numbers["peak_bytes_in_use"] if numbers else peak_resident_bytes()
        with self.jax.default_device(self.platform):
            a = self.jax.numpy.ones((PRODUCT, PRODUCT), self.dtype)
        product = self.jax.jit(lambda a: a @ a)
        return {
            "import_bytes": 0 if numbers else self.import_bytes,
            "peak_bytes": peak,
            "peak_flops": 2
            * PRODUCT**3
            / seconds_of(lambda: product(a), lambda x: x.block_until_ready()),
        }


class Torch:
    """torchvision's network, eager, channels last, with both auxiliary heads."""

    def __init__(self, variant: str, precision: str, settings: dict):
        import torch

        self.import_bytes, self.settings = resident_bytes(), settings
        sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
        models = importlib.import_module("torchvision_peer").import_models()
        self.gpu = settings["device"] == "gpu"
        self.torch_device = "cuda" if self.gpu else "cpu"
        self.device = torch.cuda.get_device_name() if self.gpu else "CPU"
        torch.set_num_threads(settings["threads"])
        self.torch, self.dtype = torch, getattr(torch, precision)
        network = models.googlenet(weights=None, aux_logits=True, init_weights=False)
        self.network = network.train().to(self.torch_device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=4e-5
        )
        self.loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
        images, labels = random_batch(settings)
        x = torch.from_numpy(images).permute(0, 3, 1, 2).to(self.torch_device)
        self.images = (x.float() / 127.5 - 1).to(memory_format=torch.channels_last)
        self.labels = torch.from_numpy(labels).to(self.torch_device)

    def step(self):
        """Runs a training step."""
        self.optimizer.zero_grad(set_to_none=True)
        mixed = self.dtype != self.torch.float32
        with self.torch.autocast(self.torch_device, dtype=self.torch.bfloat16, enabled=mixed):
            outputs = self.network(self.images)
            losses = [self.loss(head, self.labels) for head in outputs]
        value = losses[0] + 0.3 * losses[1] + 0.3 * losses[2]
        value.backward()
        self.optimizer.step()

    def wait(self):
        """Waits until the device has finished."""
        if self.gpu:
            self.torch.cuda.synchronize()

    def facts(self) -> dict:
        """Measures memory and peak speed."""
        torch = self.torch
        peak = torch.cuda.max_memory_allocated() if self.gpu else peak_resident_bytes()
        a = torch.ones((PRODUCT, PRODUCT), dtype=self.dtype, device=self.torch_device)
        return {
            "import_bytes": 0 if self.gpu else self.import_bytes,
            "peak_bytes": peak,
            "peak_flops": 2 * PRODUCT**3 / seconds_of(lambda: a @ a, lambda _: self.wait()),
        }
