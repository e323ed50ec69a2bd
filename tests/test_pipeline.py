import dataclasses
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from conftest import dtype_policy
from PIL import Image

from keras_googlenet.data import datasets, image_files, pipeline
from keras_googlenet.data.corrupt_images import CorruptImages, WithoutCorrupt, decode
from keras_googlenet.errors import UserError

SIZE = 65
GRAY = 90


@pytest.fixture(scope="module")
def dataset(image_folder):
    return datasets.open_dataset(str(image_folder))


def first(batches, count):
    return [tuple(part.numpy() for part in batch) for batch in batches.take(count)]


def train(split, augmentation=pipeline.Augmentation(area=(0.3, 1.0)), **arguments):  # noqa: B008
    settings = {"image_size": SIZE, "batch_size": 8, "seed": 0} | arguments
    return pipeline.train_batches(split, augmentation=augmentation, **settings)


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        for array, same in zip(batch, other, strict=True):
            np.testing.assert_array_equal(array, same)


PAPER = pipeline.Augmentation(random_interpolation=True, distort_colours=True)
MIXED = pipeline.Augmentation(mixup=0.2, cutmix=1.0)


@pytest.mark.parametrize("augmentation", [pipeline.Augmentation(), PAPER])
def test_training_batches(dataset, augmentation):
    batches = first(train(dataset.train, augmentation), -1)
    assert len(batches) == 3
    for images, labels in batches:
        assert images.shape == (8, SIZE, SIZE, 3) and images.dtype == "uint8"
        assert images.min() < 100 < images.max()
        assert labels.shape == (8,)


@pytest.mark.parametrize("ours", [pipeline.Augmentation(), PAPER])
def test_values_are_rounded_once_and_kept_in_their_range(ours, dataset, monkeypatch):
    """Resizing's weights may add up to a little more than 1."""
    rounded = first(train(dataset.train, ours), 1)[0][0].astype("float32")
    monkeypatch.setattr(pipeline, "_rounded", lambda images: images)
    plain = first(train(dataset.train, ours, corrupt=()), 1)[0][0]
    assert plain.dtype == "float32" and np.any(plain % 1 > 0.01)
    np.testing.assert_array_equal(rounded, np.clip(np.floor(plain + np.float32(0.5)), 0, 255))


def test_an_epoch_shows_each_example_once_and_is_shuffled(dataset):
    orders = []
    for epoch in (0, 1):
        batches = first(train(dataset.train, first_step=3 * epoch), -1)
        orders.append(np.concatenate([labels for _, labels in batches]))
        assert np.bincount(orders[-1]).tolist() == [8, 8, 8]
        assert np.any(np.diff(orders[-1]) < 0)
    assert np.any(orders[0] != orders[1])


def test_the_order_of_an_epoch_depends_on_seed_and_epoch(dataset):
    def numbers(seed, epoch):
        steps = range(3 * epoch, 3 * epoch + 3)
        places = [place for step in steps for place in pipeline.Order(24, 8, seed).of_step(step)]
        assert {found for found, _ in places} == {epoch}
        return [number for _, number in places]

    orders = [numbers(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(found) == list(range(24)) for found in orders)
    assert len(set(map(tuple, orders))) == 4 and orders[0] == numbers(0, 0)


@pytest.mark.parametrize(("size", "seed"), [(10, 0), (100, 3)])
def test_every_example_is_as_likely_at_every_place(size, seed):
    """Chi-squared of which example comes first, in the middle, last, over 2,000 epochs."""
    epochs, expected = 2000, 2000 / size
    places = tf.range(epochs * size, dtype=tf.int64)
    _, numbers = pipeline.Order(size, size, seed).at(places)
    by_epoch = numbers.numpy().reshape(epochs, size)
    assert np.all(np.sort(by_epoch, axis=1) == np.arange(size))
    for place in (0, size // 2, size - 1):
        counts = np.bincount(by_epoch[:, place], minlength=size)
        chi_squared = np.sum((counts - expected) ** 2 / expected)
        degrees = size - 1
        assert abs(chi_squared - degrees) < 4 * (2 * degrees) ** 0.5  # four standard deviations


@pytest.fixture(scope="module")
def ramps(tmp_path_factory):
    """40 images that fade from black on the left to white on the right."""
    folder = tmp_path_factory.mktemp("ramps")
    ramp = np.repeat(np.linspace(0, 255, 80).astype("uint8")[None], 80, axis=0)
    for name in ("a", "b"):
        (folder / name).mkdir()
        for number in range(20):
            Image.fromarray(ramp).save(folder / name / f"{number}.png")
    return datasets.open_dataset(str(folder)).validation


def test_every_other_crop_is_mirrored_and_shows_a_part(ramps):
    shown = {}
    for least in (0.99, 0.08):
        augmentation = pipeline.Augmentation(area=(least, 1.0))
        ((images, _),) = first(train(ramps, augmentation, batch_size=40), -1)
        red = images[..., 0].astype("float32")
        shown[least] = (red[:, :, -1] - red[:, :, 0]).mean(axis=1) / 255
        assert 8 < np.sum(shown[least] > 0) < 32
    assert np.abs(shown[0.99]).min() > 0.8  # the least width of 99% of the area at 4/3
    assert np.abs(shown[0.08]).min() < 0.5 and np.unique(shown[0.08]).size > 20


def test_an_example_looks_otherwise_in_each_epoch_and_under_each_seed(ramps):
    def crop_bytes(seed, epoch, index):
        look = pipeline.train_crop(ramps, SIZE, seed, pipeline.Augmentation())
        crop, _ = look(epoch, tf.constant(index, tf.int64), ramps.files[0])
        return crop.numpy().tobytes()

    keys = [(0, 0, 3), (1, 0, 3), (0, 1, 3), (0, 0, 4)]
    assert len({crop_bytes(*key) for key in keys}) == 4
    assert crop_bytes(0, 0, 3) == crop_bytes(0, 0, 3)


@pytest.mark.parametrize("augmentation", [PAPER, MIXED])
def test_the_stream_depends_on_the_seed_only(dataset, augmentation):
    tf.random.set_seed(1)
    once = first(train(dataset.train, augmentation, classes=3), -1)
    tf.random.set_seed(2)
    assert_same(once, first(train(dataset.train, augmentation, classes=3), -1))
    other = first(train(dataset.train, augmentation, classes=3, seed=1), -1)
    assert any(np.any(a[0] != b[0]) for a, b in zip(once, other, strict=True))


def test_the_stream_is_the_same_on_one_thread_and_on_eight(dataset):
    batches = []
    for threads in (1, 8):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        batches.append(first(train(dataset.train, PAPER).with_options(options), -1))
    assert_same(*batches)


def test_the_stream_begins_at_any_step_without_decoding_what_it_skips(dataset):
    whole = first(train(dataset.train, first_step=6), -1)
    wanted = {number for _, number in pipeline.Order(24, 8, 0).of_step(8)}
    decoded = []

    def read(number, source):
        tf.py_function(lambda found: decoded.append(int(found)), [number], [])
        return dataset.train.open(number, source)

    split = dataclasses.replace(dataset.train, open=read)
    assert_same(whole[2:], first(train(split, first_step=8), -1))
    assert sorted(decoded) == sorted(wanted)


def test_workers_share_each_batch(dataset):
    parts = [first(train(dataset.train, worker=pipeline.Worker(i, 2)), -1) for i in (0, 1)]
    for batch, *halves in zip(first(train(dataset.train), -1), *parts, strict=True):
        for whole, even, odd in zip(batch, *halves, strict=True):
            np.testing.assert_array_equal(whole[::2], even)
            np.testing.assert_array_equal(whole[1::2], odd)


def test_folders_are_shuffled_as_a_whole(tmp_path):
    """A buffer shorter than a folder, whose classes stand in a row, would show them in a row."""
    for name in ("ant", "bee"):
        for number in range(60):
            save(tmp_path / name / f"{number:02}.png")
    split = datasets.open_dataset(str(tmp_path), validation_split=0.1).train
    numbers = [number for _, number in pipeline.Order(split.size, 54, 0).of_step(0)]
    assert 15 < sum(split.labels[numbers]) < 39


@pytest.mark.parametrize(
    ("size", "batch", "parts", "usable"),
    [(100, 32, 1, 32), (24, 500, 1, 24), (25, 32, 2, 24), (3, 32, 2, 2)],
)
def test_a_split_smaller_than_a_batch_is_one_batch(size, batch, parts, usable):
    assert pipeline.usable_batch_size(size, batch, parts) == usable


def test_corrupt_images_are_replaced_by_readable_ones():
    images = tf.reshape(tf.range(4.0), (4, 1, 1, 1))
    readable = tf.constant([False, True, False, True])
    images, labels = pipeline.replace_corrupt(images, tf.range(4), readable)
    assert labels.numpy().tolist() == [1, 1, 1, 3] == images.numpy().ravel().tolist()
    with pytest.raises(tf.errors.InvalidArgumentError, match="no image of a batch is readable"):
        pipeline.replace_corrupt(images, labels, tf.zeros(4, bool))


@pytest.fixture
def damaged(tmp_path):
    """150 gray images of two classes in folders; the caller breaks some."""
    for name in ("ant", "bee"):
        for number in range(75):
            save(tmp_path / "train" / name / f"{number:02}.png")
        save(tmp_path / "val" / name / "0.png")
    return tmp_path


def passing(split, corrupt, seed=0, batch_size=8):
    def build(step):
        settings = {"batch_size": batch_size, "first_step": step}
        return train(split, seed=seed, corrupt=corrupt.indices, **settings)

    def examples_of(step):
        numbers = [n for _, n in pipeline.Order(split.size, batch_size, seed).of_step(step)]
        return [(number, partial(decode, split, number)) for number in numbers]

    return list(WithoutCorrupt(build, examples_of, corrupt))


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8\xff\xe0 truncated"])
def test_a_corrupt_image_is_skipped_counted_and_named(content, damaged):
    bad = damaged / "train" / "bee" / "07.png"
    bad.write_bytes(content)
    split = datasets.open_dataset(str(damaged)).train
    notes = []
    batches = passing(split, CorruptImages(split, notes.append))
    assert len(batches) == 150 // 8
    assert all(np.all(images.numpy() == GRAY) for images, _ in batches)  # no blank one
    assert len(notes) == 1 and str(bad) in notes[0] and notes[0].endswith("; 1 so far")
    reason = {b"": "the file is empty", b"text": "it is text, not an image"}
    assert f"({reason.get(content, 'it is cut off or damaged')})" in notes[0]


def test_over_one_percent_corrupt_stops(damaged):
    for number in range(2):
        (damaged / "train" / "ant" / f"{number:02}.png").write_bytes(b"")
    split = datasets.open_dataset(str(damaged)).train
    with pytest.raises(UserError, match="2 of 150 images cannot be read, more than 1%"):
        passing(split, CorruptImages(split, lambda _: None))


@pytest.mark.parametrize("known", [False, True])
def test_nothing_stands_in_for_a_whole_batch(known, damaged):
    bad = damaged / "train" / "bee" / "07.png"
    bad.write_bytes(b"")
    split = datasets.open_dataset(str(damaged)).train
    corrupt = CorruptImages(split, lambda _: None)
    corrupt.indices |= {split.files.index(str(bad))} if known else set()
    with pytest.raises(UserError, match="no image of a batch can be read.*greater --batch-size"):
        passing(split, corrupt, batch_size=1)


def test_validation_batches_are_full_and_count_each_example_once(dataset):
    batches = first(pipeline.validation_batches(dataset.validation, SIZE, 4), -1)
    assert [images.shape[0] for images, *_ in batches] == [4, 4, 4]
    weights = np.concatenate([weights for *_, weights in batches])
    assert weights.tolist() == [1] * 9 + [0] * 3
    plain = first(pipeline.evaluation_batches(dataset.validation, SIZE, 9), -1)
    np.testing.assert_array_equal(np.concatenate([b[0] for b in batches])[:9], plain[0][0])
    without = first(pipeline.validation_batches(dataset.validation, SIZE, 9, corrupt={4}), -1)
    assert without[0][2].tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 1]


def test_evaluation_shows_each_example_once_in_order(dataset):
    batches = first(pipeline.evaluation_batches(dataset.validation, SIZE, 4), -1)
    assert [len(labels) for _, labels in batches] == [4, 4, 1]
    assert np.concatenate([labels for _, labels in batches]).tolist() == [0] * 3 + [1] * 3 + [2] * 3
    crops = next(image_files.image_batches(dataset.validation.files, SIZE, [], 9)).images
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), crops)


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (GRAY,) * 3).save(path)


def test_names_that_nobody_knows():
    with pytest.raises(UserError, match="there is no folder ./nowhere"):
        datasets.open_dataset("./nowhere")
    with pytest.raises(UserError, match="knows no data set 'shapez'"):
        datasets.open_dataset("shapez")


def test_data_sets_that_are_fetched_by_hand_say_which_file(tmp_path):
    with pytest.raises(UserError, match="ILSVRC2012_img_train.tar") as caught:
        datasets.open_dataset("imagenet2012", str(tmp_path))
    manual = tmp_path / "downloads" / "manual"
    for part in (str(manual), "ILSVRC2012_img_val.tar", "https://image-net.org"):
        assert part in str(caught.value)
    manual.mkdir(parents=True)
    (manual / "ILSVRC2012_img_train.tar").write_bytes(b"")
    with pytest.raises(UserError, match="ILSVRC2012_img_val.tar"):
        datasets.open_dataset("imagenet2012", str(tmp_path))


def test_randaugment_computes_in_float32_whatever_the_networks_precision(dataset):
    with dtype_policy("mixed_float16"):
        batches = first(train(dataset.train, pipeline.Augmentation(randaugment=True)), 1)
    images = batches[0][0]
    assert images.dtype == "uint8" and images.shape == (8, SIZE, SIZE, 3)
    assert np.ptp(images) > 100
