"""The input pipeline of a run: batch size, number of steps, and the batches of both splits."""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_googlenet.data import pipeline
from keras_googlenet.data.corrupt_images import CorruptImages, WithoutCorrupt, decode
from keras_googlenet.data.datasets import ImageDataset
from keras_googlenet.errors import UserError
from keras_googlenet.training.distribution import distribute, this_worker
from keras_googlenet.training.recipe import Recipe


class InputPipeline:
    """Makes the batches of a run; `say` receives a sentence for each corrupt image.

    Attributes:
        batch_size: Images per training step over all devices; at most the size of the training set.
        steps: Training steps of a whole epoch.
        epochs: Epochs of the run.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: ImageDataset,
        strategy: tf.distribute.Strategy,
        say: Callable[[str], None],
    ):
        self.recipe, self.dataset, self.strategy = recipe, dataset, strategy
        self.worker = this_worker(strategy)
        self.classes = len(dataset.labels)
        replicas = strategy.num_replicas_in_sync
        train, validation = dataset.train, dataset.validation
        if train.size < replicas:
            raise UserError(
                f"{recipe.dataset} has {train.size} images to train on for {replicas} devices; "
                "give a larger data set or --strategy none."
            )
        self.batch_size = pipeline.usable_batch_size(train.size, recipe.batch_size, replicas)
        self.steps = train.size // self.batch_size
        padded = math.ceil(validation.size / replicas) * replicas
        self._validation_batch_size = min(self.batch_size, padded)
        self._total_steps = recipe.max_steps or recipe.epochs * self.steps
        self.epochs = min(recipe.epochs, math.ceil(self._total_steps / self.steps))
        self._corrupt_train = CorruptImages(train, say, self.worker.count)
        self._corrupt_validation = CorruptImages(validation, say, self.worker.count)

    @property
    def used_recipe(self) -> Recipe:
        """The recipe with the batch size that is used, which the learning rate scales with."""
        return dataclasses.replace(self.recipe, batch_size=self.batch_size)

    def steps_of(self, epoch: int) -> int:
        """Returns the training steps of an epoch; `--max-steps` may cut the last one short."""
        return min(self.steps, self._total_steps - epoch * self.steps)

    def class_weights(self) -> tf.Tensor | None:
        """Returns the weight of an example of each class, 1 in the mean; `None` if all are 1."""
        if self.recipe.class_weights == "none":
            return None
        train, counts = self.dataset.train, np.zeros(self.classes)
        parts = [train.labels] if train.labels is not None else pipeline.read_labels(train)
        for labels in parts:
            counts += np.bincount(labels, minlength=self.classes)
        examples, present = counts.sum(), np.count_nonzero(counts)
        return tf.constant(examples / (present * np.maximum(counts, 1)), tf.float32)

    def train(self, first_step: int = 0) -> WithoutCorrupt:
        """Returns the batches of the run from a global step on, epoch after epoch.

        They are `(images, labels)`: `(n, size, size, 3)` uint8 RGB and `(n, classes)` float32.
        """
        recipe, split, corrupt = self.recipe, self.dataset.train, self._corrupt_train
        augmentation = pipeline.Augmentation(
            area=(recipe.min_crop_area, 1.0),
            random_interpolation=recipe.random_interpolation,
            distort_colours=recipe.distort_colours,
            randaugment=recipe.randaugment,
            mixup=recipe.mixup,
            cutmix=recipe.cutmix,
        )

        def build(step):
            batches = pipeline.train_batches(
                split,
                recipe.image_size,
                self.batch_size,
                recipe.seed,
                augmentation,
                first_step=step,
                steps=self._total_steps - step,
                classes=self.classes,
                worker=self.worker,
                corrupt=corrupt.indices,
            )
            return distribute(self.strategy, batches)

        crop = pipeline.train_crop(split, recipe.image_size, recipe.seed, augmentation)
        order = pipeline.Order(split.size, self.batch_size, recipe.seed)

        def crop_one(epoch, number):
            number = tf.constant(number, tf.int64)
            return crop(epoch, number, split.fetch(number[None])[0])

        def crops(step):
            here = order.of_step(step)[self.worker.index :: self.worker.count]
            return [(number, functools.partial(crop_one, epoch, number)) for epoch, number in here]

        return WithoutCorrupt(build, crops, corrupt, first_step)

    @functools.cached_property
    def validation(self) -> WithoutCorrupt:
        """The batches of the validation split, at most `--max-steps`: `(images, labels, weights)`.

        Images are float32, exactly those of evaluate.py. Weights `(n,)` are 0 for padding.
        """
        split, corrupt, classes = self.dataset.validation, self._corrupt_validation, self.classes
        size, batch_size = self.recipe.image_size, self._validation_batch_size
        steps = min(math.ceil(split.size / batch_size), self.recipe.max_steps or math.inf)

        @functools.lru_cache(maxsize=1)  # one graph for all passes, until a corrupt image is found
        def build(step, corrupt_count):
            batches = pipeline.validation_batches(
                split, size, batch_size, self.worker, corrupt.indices, first_step=step
            )
            batches = batches.map(lambda x, label, weight: (x, tf.one_hot(label, classes), weight))
            return distribute(self.strategy, batches.take(steps - step))

        def images(step):
            numbers = range(split.size)[step * batch_size : (step + 1) * batch_size]
            here = numbers[self.worker.index :: self.worker.count]
            return [(number, functools.partial(decode, split, number)) for number in here]

        return WithoutCorrupt(lambda step: build(step, len(corrupt.indices)), images, corrupt)
