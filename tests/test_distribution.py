"""Several replicas and several workers, against one device on the same global batches."""

import json
import socket

import keras
import numpy as np
import pytest
import tensorflow as tf
import training_process
from conftest import read_json
from processes import Process

from keras_googlenet import GoogLeNet
from keras_googlenet.errors import UserError
from keras_googlenet.training import distribution, train_steps
from keras_googlenet.training.optimizers import make_optimizer
from keras_googlenet.training.recipe import Recipe

# Sums of float32 in another order. The error is that of the gradients times the learning rate:
# 1.1e-6 in one or two weights of a layer at rates of 0.04 and 0.08, which is why 0.01 is compared.
TOLERANCE = 1e-6
MOVED = 1e-5  # the training that is compared moves the typical layer by more than this
# One step of a small network with batch normalization, in the norm of all values. Measured: 2.3e-7
# of the statistics, 4e-9 of the update; where each replica normalizes alone, 0.05 of the former.
TOLERANCE_STATISTICS = 1e-5
TOLERANCE_UPDATE = 1e-5
# 24 training images in batches of 10: two steps an epoch, 4 left out; 9 validation images.
FLAGS = ["--image-size", "65", "--batch-size", "10", "--epochs", "2", "--recipe", "bvlc-quick"]
FLAGS += ["--dropout", "0", "--aux-dropout", "0", "--min-crop-area", "0.99", "--seed", "3"]
FLAGS += ["--learning-rate", "0.01"]


def start(devices, data, workdir, *more, config=None, network="thin", moment=None):
    flags = [*FLAGS, "--dataset", data, "--workdir", workdir, *more]
    environment = {"TF_CONFIG": json.dumps(config)} if config else {}
    arguments = (training_process.train, flags, network, moment, devices)
    return Process(*arguments, folder=workdir.parent, environment=environment)


def weights(workdir):
    return keras.models.load_model(workdir / "model.keras").get_weights()


@pytest.mark.slow
def test_the_compared_training_moves_the_weights(single):
    keras.utils.set_random_seed(3)
    before = GoogLeNet(classes=3, input_shape=(65, 65, 3)).get_weights()
    steps = [np.abs(a - b).max() for a, b in zip(before, weights(single), strict=True)]
    assert np.median(steps) > MOVED, steps


def assert_agree(workdir, single, tolerance):
    for ours, theirs in zip(weights(workdir), weights(single), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)
    ours, theirs = read_json(workdir / "metrics.json"), read_json(single / "metrics.json")
    for key in set(ours) - {"seconds", "images_per_second", "kept_epoch", "data"}:
        assert ours[key] == pytest.approx(theirs[key], rel=1e-4), key


@pytest.fixture(scope="module")
def single(image_folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("single") / "run"
    start(1, image_folder, workdir, "--strategy", "none").finish()
    return workdir


@pytest.mark.slow
def test_two_replicas_agree_with_one_device(single, image_folder, tmp_path):
    process = start(2, image_folder, tmp_path / "run", "--strategy", "mirrored")
    assert "MirroredStrategy, 2 replicas" in process.finish()
    assert_agree(tmp_path / "run", single, TOLERANCE)


def statistics_and_weights(workdir):
    model = keras.models.load_model(workdir / "model.keras")
    moving = [variable for variable in model.variables if variable.name.startswith("moving")]
    return flat(moving), flat(model.trainable_variables)


def flat(variables):
    return np.concatenate([variable.numpy().ravel() for variable in variables])


@pytest.mark.slow
@pytest.mark.parametrize("synchronized", [True, False])
def test_sync_batch_norm_uses_the_whole_batch(synchronized, image_folder, tmp_path):
    flags = ["--batch-size", "24", "--epochs", "1", "--learning-rate", "0.02", "--strategy"]
    one = start(1, image_folder, tmp_path / "one", *flags, "none", network="small")
    more = ["--sync-batch-norm"] if synchronized else []
    two = start(2, image_folder, tmp_path / "two", *flags, "mirrored", *more, network="small")
    one.finish(), two.finish()
    keras.utils.set_random_seed(3)
    small = training_process.small_network(Recipe(image_size=65, dropout=0), 3, None, print)
    before = flat(small.trainable_variables)
    moving, weights = statistics_and_weights(tmp_path / "one")
    moving_of_two, weights_of_two = statistics_and_weights(tmp_path / "two")
    norm = np.linalg.norm
    far = norm(moving_of_two - moving) / norm(moving)
    if synchronized:
        assert far < TOLERANCE_STATISTICS
        assert norm(weights_of_two - weights) < TOLERANCE_UPDATE * norm(weights - before)
    else:
        assert 10 * TOLERANCE_STATISTICS < far < 0.3  # depends on which images are in which half


def print_first_step(devices):
    """Prints the sums of the first step of a small network, clipped, and its updated weights."""
    training_process.divide_processor(devices)
    strategy = distribution.choose_strategy("mirrored" if devices > 1 else "none")
    keras.utils.set_random_seed(3)
    generator = np.random.default_rng(0)
    recipe = Recipe(
        image_size=65,
        dropout=0,
        aux_dropout=0,
        clip_norm=0.05,
        sync_batch_norm=devices > 1,
        schedule="steps",
    )
    images = generator.integers(0, 256, (8, 65, 65, 3), "uint8")
    labels = np.eye(3, dtype="float32")[generator.integers(0, 3, 8)]
    batches = tf.data.Dataset.from_tensors((images, labels))
    with strategy.scope():
        model = training_process.small_network(recipe, 3, None, print)
        optimizer = make_optimizer(recipe, steps_per_epoch=10)
        optimizer.build(model.trainable_variables)
    step = train_steps.make_train_step(model, optimizer, recipe, strategy)
    for batch in distribution.distribute(strategy, batches):
        sums = step(batch).numpy().tolist()
    print(json.dumps([sums, flat(model.trainable_variables).tolist()]))


@pytest.mark.slow
def test_a_step_on_two_devices_is_that_on_one(tmp_path):
    """The loss monitor looks at these numbers; gradients are clipped once they are added up."""
    found = []
    for devices in (1, 2):
        process = Process(print_first_step, devices, folder=tmp_path)
        found.append(json.loads(process.finish().splitlines()[-1]))
    (sums, weights), (sums_of_two, weights_of_two) = found
    assert np.ravel(sums_of_two) == pytest.approx(np.ravel(sums), rel=1e-4) and sums[0][1] > 0.5
    np.testing.assert_allclose(weights_of_two, weights, rtol=0, atol=TOLERANCE)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def as_two_workers(start_one):
    """Starts two processes, each by its index and its own TF_CONFIG."""
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    return [
        start_one(index, {"cluster": cluster, "task": {"type": "worker", "index": index}})
        for index in (0, 1)
    ]


def call_on_two_workers(function, argument, folder):
    """Starts two processes that call the same function."""

    def start_one(index, config):
        environment = {"TF_CONFIG": json.dumps(config)}
        return Process(function, argument, folder=folder, environment=environment)

    return as_two_workers(start_one)


def start_workers(data, workdir, *more, moments=(None, None), network="thin"):
    """Starts train.py on two workers; `moments` says which gets a signal, and where."""

    def start_one(index, config):
        more_of_it = {"config": config, "network": network, "moment": moments[index]}
        return start(1, data, workdir, *more, **more_of_it)

    return as_two_workers(start_one)


@pytest.mark.slow
def test_two_workers_agree_with_one_device_and_one_writes(single, image_folder, tmp_path):
    texts = [worker.finish() for worker in start_workers(image_folder, tmp_path / "run")]
    assert all("MultiWorkerMirroredStrategy, 2 replicas" in text for text in texts)
    assert "epoch 2/2" in texts[0] and "epoch 2/2" not in texts[1]
    assert_agree(tmp_path / "run", single, TOLERANCE)
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 3


@pytest.mark.slow
def test_a_signal_to_one_worker_stops_all_and_they_resume(single, image_folder, tmp_path):
    """They agree when they read their losses: at each step here, else about once a second."""
    moments, flags = (None, ("step", 3, "SIGTERM")), ("--checkpoint-minutes", "0")
    workers = start_workers(image_folder, tmp_path / "run", *flags, moments=moments)
    assert [worker.join() for worker in workers] == [143, 143], [w.text for w in workers]
    texts = [worker.finish() for worker in start_workers(image_folder, tmp_path / "run")]
    assert "resumed at epoch 2, step 1" in texts[0]
    assert_agree(tmp_path / "run", single, TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_worker_that_loses_another_asks_to_be_restarted(lost, image_folder, tmp_path):
    moments = [None, None]
    moments[lost] = ("step", 3, "SIGKILL")
    workers = start_workers(image_folder, tmp_path / "run", moments=moments, network="small")
    assert workers[1 - lost].join() == 138, workers[1 - lost].text
    text = workers[1 - lost].text
    assert "error: another worker was lost; start the same command again" in text


def check_steps(steps):
    """Compares the global steps of two workers, as one of them."""
    strategy = distribution.choose_strategy()
    worker = distribution.this_worker(strategy)
    distribution.check_same_step(strategy, worker, steps[worker.index])


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "agree"), [((5, 5), True), ((5, 6), False)])
def test_workers_with_different_checkpoints_are_refused(steps, agree, tmp_path):
    for worker in call_on_two_workers(check_steps, steps, tmp_path):
        assert (worker.join() == 0) == agree, worker.text
        assert ("the workers found different checkpoints" in worker.text) != agree


def test_recipes_for_one_device_are_refused_on_several():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    distribution.check_recipe(Recipe(jit=True), strategy)

    class Three:
        num_replicas_in_sync = 3

    with pytest.raises(UserError, match="--jit works on one device only, and this run has 3"):
        distribution.check_recipe(Recipe(jit=True, batch_size=9), Three())
    with pytest.raises(UserError, match="multiple of the 3 devices; it is 256"):
        distribution.check_recipe(Recipe(), Three())


@pytest.mark.parametrize("value", [None, "", "  \n", "{}", '{"cluster": {}}', '{"task": {}}'])
def test_several_workers_need_tf_config(value, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if value is not None:
        monkeypatch.setenv("TF_CONFIG", value)
    assert distribution.choose_strategy("auto").num_replicas_in_sync == 1
    with pytest.raises(UserError, match="needs the environment variable TF_CONFIG"):
        distribution.choose_strategy("multiworker")
    assert distribution.this_worker(distribution.choose_strategy("none")) == (0, 1)


@pytest.mark.parametrize(
    ("kind", "index", "place"), [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)]
)
def test_the_chief_comes_before_the_workers(kind, index, place):
    class Resolver:
        task_type, task_id = kind, index

        def cluster_spec(self):
            return tf.train.ClusterSpec({"chief": ["a:1"], "worker": ["b:1", "c:1"]})

    class Strategy:
        cluster_resolver = Resolver()

    assert distribution.this_worker(Strategy()) == (place, 3)


CLUSTER = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("worker", "TF_CONFIG is not a JSON object .*, or be unset"),
        ("[]", "TF_CONFIG is not a JSON object"),
        ({"cluster": CLUSTER}, "no task of this process; it must look like"),
        ({"cluster": CLUSTER, "task": None}, "no task of this process"),
        ({"cluster": CLUSTER, "task": {"index": 0}}, "no task of this process"),
        ({"cluster": CLUSTER, "task": {"type": "worker", "index": "x"}}, "no task of this"),
        *(
            ({"cluster": cluster, "task": {"type": "worker", "index": 0}}, "no lists of addresses")
            for cluster in ("a:1", ["a:1"], {"worker": "a:1"}, {"worker": {"0": "a:1"}})
        ),
        ({"cluster": CLUSTER, "task": {"type": "worker", "index": 2}}, "lists no worker 2"),
        ({"cluster": CLUSTER, "task": {"type": "worker", "index": -1}}, "lists no worker -1"),
        (
            {"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}},
            "an address twice",
        ),
        *(
            (
                {"cluster": CLUSTER | {kind: ["d:1"]}, "task": {"type": kind, "index": 0}},
                f"the task {kind}, .* Start it as chief or worker only",
            )
            for kind in ("ps", "evaluator", "master", "sous-chef")
        ),
    ],
)
def test_a_tf_config_without_a_training_task_is_refused(config, sentence):
    text = config if isinstance(config, str) else json.dumps(config)
    with pytest.raises(UserError, match=sentence):
        distribution.cluster_resolver(text)


def test_parameter_servers_and_evaluators_are_left_out():
    config = {"cluster": CLUSTER | {"ps": ["d:1"], "evaluator": ["e:1"]}}
    config["task"] = {"type": "worker", "index": "1"}  # a number as text, as TensorFlow takes it
    resolver = distribution.cluster_resolver(json.dumps(config))
    assert resolver.cluster_spec().as_dict() == CLUSTER
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)


@pytest.mark.slow
def test_a_chief_beside_servers_trains_alone(image_folder, tmp_path):
    """TensorFlow's own strategy waits for the servers for good."""
    (chief, other) = (f"localhost:{port}" for port in free_ports(2))
    cluster = {"chief": [chief], "ps": [other], "evaluator": ["localhost:1"]}
    config = {"cluster": cluster, "task": {"type": "chief", "index": 0}}
    start(1, image_folder, tmp_path / "run", config=config, network="small").finish()
    assert read_json(tmp_path / "run" / "metrics.json")["epochs"] == 2
