"""The batches of a run: sizes, steps, and the passes over its data set."""

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
    """Makes the passes over a data set.

    Args:
        recipe: Says size, seed, augmentation and how long.
        dataset: What to learn and what to measure on.
        strategy: Distributes the batches.
        note: Is given a sentence for each unreadable image.

    Attributes:
        batch_size: Images a training step over all devices; fewer than the recipe's where the
            data set is smaller.
        steps: Training steps of a whole epoch.
        epochs: Epochs of the run.

    Raises:
        UserError: If there are fewer images than devices.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: ImageDataset,
        strategy: tf.distribute.Strategy,
        note: Callable[[str], None],
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
        self._most_steps = recipe.max_steps or recipe.epochs * self.steps
        self.epochs = min(recipe.epochs, math.ceil(self._most_steps / self.steps))
        self._unreadable_train = CorruptImages(train, note, self.worker.count)
        self._unreadable_validation = CorruptImages(validation, note, self.worker.count)

    @property
    def used_recipe(self) -> Recipe:
        """The recipe with the batch size that is used, which the learning rate scales with."""
        return dataclasses.replace(self.recipe, batch_size=self.batch_size)

    def steps_of(self, epoch: int) -> int:
        """Returns the training steps of an epoch: all, or what `--max-steps` leaves of the last."""
        return min(self.steps, self._most_steps - epoch * self.steps)

    def class_weights(self) -> tf.Tensor | None:
        """Returns what an example of each class counts, a mean of 1; `None` where all count 1."""
        if self.recipe.class_weights == "none":
            return None
        train, counts = self.dataset.train, np.zeros(self.classes)
        labels = [train.labels] if train.labels is not None else pipeline.read_labels(train)
        for some in labels:
            counts += np.bincount(some, minlength=self.classes)
        examples, present = counts.sum(), np.count_nonzero(counts)
        return tf.constant(examples / (present * np.maximum(counts, 1)), tf.float32)

    def train(self, first_step: int = 0) -> WithoutCorrupt:
        """Returns the batches of the run from a step on, epoch after epoch: `(images, labels)`.

        Images are `(n, size, size, 3)` uint8 RGB, labels `(n, classes)` float32.
        """
        recipe, split = self.recipe, self.dataset.train
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
                steps=self._most_steps - step,
                classes=self.classes,
                worker=self.worker,
                corrupt=self._unreadable_train.indices,
            )
            return distribute(self.strategy, batches)

        view = pipeline.train_crop(split, recipe.image_size, recipe.seed, augmentation)
        order_of_run = pipeline.Order(split.size, self.batch_size, recipe.seed)

        def views(step):
            here = order_of_run.of_step(step)[self.worker.index :: self.worker.count]
            return [
                (number, functools.partial(view_one, epoch, tf.constant(number, tf.int64)))
                for epoch, number in here
            ]

        def view_one(epoch, number):
            return view(epoch, number, split.fetch(number[None])[0])

        return WithoutCorrupt(build, views, self._unreadable_train, first_step)

    @functools.cached_property
    def validation(self) -> WithoutCorrupt:
        """Passes over the validation split: `(images, labels, weights)`.

        Images are float32, to the last digit what evaluate.py shows the network; weights `(n,)`
        are 0 for what only fills a batch. With `--max-steps`, at most as many batches.
        """
        split, size = self.dataset.validation, self.recipe.image_size
        batch_size, unreadable = self._validation_batch_size, self._unreadable_validation
        whole = math.ceil(split.size / batch_size)
        steps = min(whole, self.recipe.max_steps or whole)

        @functools.lru_cache(maxsize=1)
        def build(step, known):
            batches = pipeline.validation_batches(
                split, size, batch_size, self.worker, unreadable.indices, first_step=step
            )
            return distribute(self.strategy, batches.map(self._one_hot).take(steps - step))

        def views(step):
            numbers = range(split.size)[step * batch_size : (step + 1) * batch_size]
            here = numbers[self.worker.index :: self.worker.count]
            return [(number, functools.partial(decode, split, number)) for number in here]

        return WithoutCorrupt(lambda step: build(step, len(unreadable.indices)), views, unreadable)

    def _one_hot(self, images, labels, weights):
        return images, tf.one_hot(labels, self.classes), weights
