import subprocess
import sys
from typing import NamedTuple

import keras
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from keras_googlenet.data import datasets, image_files, multicrop, pipeline
from keras_googlenet.errors import UserError
from keras_googlenet.evaluation import class_matching, evaluation_set, measure, metrics
from keras_googlenet.evaluation.ensemble import compile_networks, make_ensemble, score_examples
from keras_googlenet.googlenet import GoogLeNet, inference_model

CLASSES = 7


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(2)
    return GoogLeNet(classes=CLASSES, input_shape=(65, 65, 3))


@pytest.fixture(scope="module")
def examples(photographs):
    images = np.concatenate([photographs[:, i : i + 65, i : i + 65] for i in (0, 9, 31)])
    return images, np.arange(len(images)) % CLASSES


def batches(examples, size):
    images, labels = examples
    return [(images[i : i + size], labels[i : i + size]) for i in range(0, len(images), size)]


class Network(NamedTuple):
    """The attributes of what `models.load` returns that evaluation reads."""

    model: keras.Model
    variant: str
    image_size: int


def evaluate(model, batches, variant="paper"):
    """One crop each, which is the whole image, from batches that are already in memory."""
    labels = [f"class {index}" for index in range(model.outputs[0].shape[-1])]
    classes = class_matching.match_classes([labels], labels)
    ensemble = make_ensemble([Network(model, variant, 65)], classes, [1])
    batches = (((images,), labels) for images, labels in batches)
    scored = score_examples(ensemble, compile_networks(ensemble), batches)
    records = [metrics.make_records(labels, scores.mean(axis=0)[None]) for labels, scores in scored]
    return metrics.head_metrics(np.concatenate(records), ensemble.heads)


def test_equals_numpy_on_the_whole_set(model, examples):
    images, labels = examples
    result = evaluate(model, batches(examples, 5))  # 5 + 5 + 2
    assert result["examples"] == 12
    outputs = model.predict_on_batch(images - np.float32([123, 117, 104]))
    for head, p in zip(("main", "aux1", "aux2"), outputs, strict=True):
        ranks = (p > p[np.arange(12), labels][:, None]).sum(axis=1)
        assert result[f"{head}_accuracy"] == pytest.approx(np.mean(ranks == 0))
        assert result[f"{head}_top5"] == pytest.approx(np.mean(ranks < 5))
        loss = -np.log(p[np.arange(12), labels].astype("float64")).mean()
        assert result[f"{head}_loss"] == pytest.approx(loss, rel=1e-5)


def test_batch_size_does_not_matter(model, examples):
    results = [evaluate(model, batches(examples, size)) for size in (1, 5, 12)]
    for result in results[1:]:
        assert result == pytest.approx(results[0], abs=1e-6)


def test_one_output_has_no_keys_of_absent_heads(model, examples):
    result = evaluate(inference_model(model), batches(examples, 12))
    assert set(result) == {"examples", "main_accuracy", "main_top5", "main_loss"}


def test_fewer_than_five_classes_are_always_in_the_top_five(examples):
    images, labels = examples
    model = GoogLeNet(classes=3, input_shape=(65, 65, 3))
    result = evaluate(model, [(images, labels % 3)])
    assert result["main_top5"] == 1


def test_a_model_file_needs_a_data_set():
    with pytest.raises(UserError, match="give --dataset"):
        evaluation_set.dataset_for([], None)


@pytest.fixture(scope="module")
def constant_images(tmp_path_factory):
    """Images of one color each: all crops of one are equal."""
    root = tmp_path_factory.mktemp("constant")
    files = {}
    for number, shape in enumerate([(90, 120), (130, 80), (100, 100)]):
        file = root / f"{number}.png"
        Image.new("RGB", shape, (80 * number, 200 - 70 * number, 30)).save(file)
        files[str(number)] = [str(file)]
    return datasets.folder_split(files, sorted(files))


def ensemble_of(networks, labels, dataset_labels, **kwargs):
    matched = class_matching.match_classes(labels, dataset_labels)
    return make_ensemble(networks, matched, **kwargs)


def test_a_constant_image_gives_equal_answers_whatever_the_crops(model, constant_images):
    ensemble = ensemble_of(
        [Network(model, "paper", 65)],
        [list("0123456")],
        list("0123456"),
        crops=(1, 10, 144),
        cumulative=True,
    )
    records = measure.measure_split(ensemble, constant_images, batch_size=100)
    assert ensemble.crop_counts == [1, 10, 144] and len(records) == 3
    confidence = records["results"]["confidence"]
    np.testing.assert_allclose(confidence - confidence[:, :, :1], 0, atol=1e-6)  # float32
    assert np.unique(confidence[:, 0, 0, 0]).size == 3


def test_batch_size_does_not_matter_to_crops(model, image_folder):
    split = datasets.open_dataset(str(image_folder)).validation
    ensemble = ensemble_of(
        [Network(model, "paper", 65)], [list("0123456")], list("0123456"), crops=(10,)
    )
    one, other = (measure.measure_split(ensemble, split, size) for size in (7, 32))
    for field in ("loss", "confidence"):
        np.testing.assert_allclose(one["results"][field], other["results"][field], atol=1e-6)
    np.testing.assert_array_equal(one["top"], other["top"])


def test_a_network_of_another_order_of_classes_is_measured_by_name(image_folder):
    dataset = datasets.open_dataset(str(image_folder))
    network = Network(GoogLeNet(classes=3, input_shape=(65, 65, 3)), "paper", 65)
    ensemble = ensemble_of([network], [["star", "cross", "ring"]], dataset.labels, crops=(1,))
    records = measure.measure_split(ensemble, dataset.validation, batch_size=9)
    ((images, _),) = pipeline.evaluation_batches(dataset.validation, 65, 9)
    scores, *_ = network.model(images - np.float32([123, 117, 104]), training=False)
    own = scores.numpy()[np.arange(9), [1] * 3 + [2] * 3 + [0] * 3]  # cross, ring, star
    np.testing.assert_allclose(metrics.final_results(records)["loss"], -np.log(own), atol=1e-4)
    assert np.ptp(scores, axis=1).min() > 1e-3


@pytest.mark.slow
def test_an_ensemble_averages_each_network_in_its_own_way(image_folder):
    """Two variants, sizes and class orders; the averages are made here with plain NumPy."""
    dataset = datasets.open_dataset(str(image_folder))
    keras.utils.set_random_seed(4)
    shapes = {"batchnorm": 65, "slim": 72}
    networks = [
        Network(GoogLeNet(classes=3, input_shape=(size, size, 3), variant=name), name, size)
        for name, size in shapes.items()
    ]
    labels = [dataset.labels, dataset.labels[::-1]]
    ensemble = ensemble_of(networks, labels, dataset.labels, crops=(10,))
    records = measure.measure_split(ensemble, dataset.validation, batch_size=16)

    mean = 0
    for network, order in zip(networks, (slice(None), slice(None, None, -1)), strict=True):
        split, size = dataset.validation, network.image_size
        images, ten = map(image_files.read_image, split.files), multicrop.crop_set(10)
        side = round(256 / 224 * size)
        pixels = np.concatenate([multicrop.cut_crops(image, size, side, ten) for image in images])
        if network.variant == "slim":
            pixels = pixels / 127.5 - 1
        else:
            pixels = pixels - np.float32([123, 117, 104])
        outputs = inference_model(network.model).predict(pixels, verbose=0)
        mean = mean + outputs.reshape(9, 10, 3).mean(axis=1)[:, order] / 2
    np.testing.assert_allclose(records["scores"][:, :3], -np.sort(-mean), atol=1e-5)
    losses = -np.log(mean[np.arange(9), dataset.validation.labels])
    np.testing.assert_allclose(metrics.final_results(records)["loss"], losses, atol=1e-4)


def test_a_network_without_probabilities_is_refused(model, examples):
    broken = keras.models.clone_model(model)
    broken.get_layer("main").set_weights(
        [np.full_like(weight, np.nan) for weight in broken.get_layer("main").get_weights()]
    )
    with pytest.raises(UserError, match="not probabilities"):
        evaluate(broken, batches(examples, 5))


def test_sizes_below_the_crop_are_refused(model):
    with pytest.raises(UserError, match="224 or more"):
        ensemble_of([Network(model, "paper", 65)], [["a"]], ["a"], crops=(1,), sides=(200, 256))


REPLICAS = """
import sys
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_googlenet.evaluation.class_matching import match_classes
from keras_googlenet.evaluation.ensemble import Ensemble, Member, compile_networks, score_examples
from keras_googlenet.googlenet import GoogLeNet
images = np.random.default_rng(0).uniform(0, 255, (7, 65, 65, 3)).astype("float32")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
keras.utils.set_random_seed(1)
with strategy.scope():
    model = GoogLeNet(classes=4, input_shape=(65, 65, 3))
classes = match_classes([list("abcd")], list("abcd"))
ensemble = Ensemble([Member(model, "paper", np.arange(4))], (65,), classes)
results = []
for replicas, size in ((None, 7), (strategy, 4), (strategy, 3), (strategy, 1)):
    batches = [((images[i:i + size],), np.arange(7)[i:i + size]) for i in range(0, 7, size)]
    parts = list(score_examples(ensemble, compile_networks(ensemble, replicas), batches))
    assert np.concatenate([labels for labels, _ in parts]).tolist() == list(range(7))
    results.append(np.concatenate([scores for _, scores in parts], axis=3))
print(strategy.num_replicas_in_sync, max(np.abs(other - results[0]).max() for other in results))
"""


@pytest.mark.slow
def test_the_number_of_replicas_does_not_matter():
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS], cwd=ROOT, capture_output=True, text=True
    )
    replicas, difference = done.stdout.split()
    assert replicas == "2" and float(difference) < 1e-6, done.stderr
