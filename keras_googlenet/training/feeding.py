"""The batches of a run, as its network takes them: preprocessed, one label a head."""

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

from keras_googlenet.data import pipeline
from keras_googlenet.data.datasets import ImageDataset
from keras_googlenet.data.unreadable import PastUnreadable, Unreadable
from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import HEADS
from keras_googlenet.imagenet import preprocess_input
from keras_googlenet.training.distribution import spread, this_worker
from keras_googlenet.training.recipe import Recipe


class Feeding:
    """Makes the passes over a data set.

    Args:
        recipe: Says size, variant, seed and augmentation.
        dataset: What to learn and what to measure on.
        strategy: Spreads the batches.
        note: Is given a sentence for each unreadable image.

    Attributes:
        batch_size: Pictures a training step over all devices; fewer than the recipe's where the
            data set is smaller.
        steps: Training steps an epoch.
        validation_steps: Steps of a validation.

    Raises:
        UserError: If there are fewer pictures than devices.
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
                f"{recipe.dataset} has {train.size} pictures to train on for {replicas} devices; "
                "give a larger data set or --strategy none."
            )
        self.batch_size = pipeline.usable_batch_size(train.size, recipe.batch_size, replicas)
        self.steps = train.size // self.batch_size
        padded = math.ceil(validation.size / replicas) * replicas
        self._validation_batch_size = min(self.batch_size, padded)
        self.validation_steps = math.ceil(validation.size / self._validation_batch_size)
        self._unreadable_train = Unreadable(train, note)
        self._unreadable_validation = Unreadable(validation, note)

    @property
    def used_recipe(self) -> Recipe:
        """The recipe with the batch size that is used, which the learning rate scales with."""
        return dataclasses.replace(self.recipe, batch_size=self.batch_size)

    @property
    def element_spec(self) -> tuple:
        """What a batch of training looks like on one device."""
        size = self.recipe.image_size
        images = tf.TensorSpec((None, size, size, 3), tf.float32)
        labels = tf.TensorSpec((None, self.classes), tf.float32)
        return images, (labels,) * len(HEADS)

    def train(self, epoch: int, first_step: int = 0) -> PastUnreadable:
        """Returns an epoch, or what is left of it: `(images, (labels, labels, labels))`."""
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
                epoch=epoch,
                first_step=step,
                classes=self.classes,
                worker=self.worker,
                unreadable=self._unreadable_train.numbers,
            )
            return spread(self.strategy, batches.map(self._for_heads))

        def examples(step):
            begin = step * self.batch_size
            whole = pipeline.train_examples(split, recipe.seed, epoch, begin, self.batch_size)
            return whole.shard(self.worker.count, self.worker.index)

        view = pipeline.train_view(split, recipe.image_size, recipe.seed, augmentation, epoch)
        return PastUnreadable(build, examples, view, self._unreadable_train, first_step)

    def validation(self) -> PastUnreadable:
        """Returns a pass over the validation split, with weights: 0 for what only fills a batch."""
        split, size = self.dataset.validation, self.recipe.image_size
        batch_size, unreadable = self._validation_batch_size, self._unreadable_validation

        def build(step):
            batches = pipeline.validation_batches(
                split, size, batch_size, self.worker, unreadable.numbers, first_step=step
            )
            return spread(self.strategy, batches.map(self._one_hot).map(self._for_heads))

        def examples(step):
            whole = pipeline.validation_examples(split, step * batch_size, batch_size)
            return whole.shard(self.worker.count, self.worker.index)

        def view(_, source):
            return pipeline.evaluation_picture(split, source, size)

        return PastUnreadable(build, examples, view, unreadable)

    def _one_hot(self, images, labels, weights):
        return images, tf.one_hot(labels, self.classes), weights

    def _for_heads(self, images, *labels_and_weights):
        images = preprocess_input(images, self.recipe.variant)
        return images, *((tensor,) * len(HEADS) for tensor in labels_and_weights)
