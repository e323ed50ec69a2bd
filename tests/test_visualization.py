import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_googlenet.errors import UserError
from keras_googlenet.features import circuits, dataset_examples, units, visualization
from keras_googlenet.googlenet import TABLE_1, GoogLeNet
from keras_googlenet.imagenet import preprocess_input
from keras_googlenet.normal_form import copy_trunk

FULL_WIDTH = True
SIZE = 48


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(4)
    return GoogLeNet(classes=5, input_shape=(65, 65, 3))


@pytest.fixture(scope="module")
def normalized():
    keras.utils.set_random_seed(5)
    model = GoogLeNet(classes=5, input_shape=(32, 32, 3), variant="batchnorm", aux_heads=False)
    generator = np.random.default_rng(5)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 2, w.shape) for w in layer.get_weights()])
    return model


def test_a_spectrum_of_one_wave_is_that_wave():
    spectrum = np.zeros((2, 1, 3, 16, 9), "float32")
    spectrum[0, 0, 0, 0, 2] = 0.5  # two periods across, of the first decorrelated color
    pixels = visualization.to_pixels(tf.constant(spectrum), 16).numpy()[0]
    along = np.log(pixels[..., 0] / (255 - pixels[..., 0]))  # undoes the sigmoid
    x = np.arange(16)
    wave = np.cos(2 * np.pi * 2 * x / 16)
    np.testing.assert_allclose(along, np.broadcast_to(along[0, 0] * wave, (16, 16)), atol=1e-4)
    # 0.5 x size / frequency x 2 / size^2 (both halves of the spectrum) / 4, times 0.26 / |column|
    amplitude = 0.5 * 16 / (2 / 16) * 2 / 16**2 / 4 * 0.26 / np.sqrt(0.26**2 + 2 * 0.27**2)
    assert along[0, 0] == pytest.approx(amplitude, rel=1e-4)


def test_pictures_begin_nearly_gray():
    pixels = visualization.to_pixels(
        tf.constant(visualization.random_spectrum(2, SIZE, 0)), SIZE
    ).numpy()
    assert pixels.shape == (2, SIZE, SIZE, 3)
    assert 110 < pixels.mean() < 145 and pixels.std() < 30


@pytest.mark.parametrize(
    ("shift", "scale", "degrees", "expected"),
    [
        ((3, 1), 1.0, 0, lambda image: np.roll(image, (-1, -3), axis=(0, 1))),
        ((0, 0), 1.0, 90, lambda image: np.rot90(image, 1)),  # counter-clockwise
        ((0, 0), 1.0, 0, lambda image: image),
    ],
)
def test_pictures_are_moved(shift, scale, degrees, expected, photographs):
    image = photographs[0, :64, :64]
    inner = slice(5, -5)
    moved = warped(image, shift, scale, degrees)[inner, inner]
    assert np.abs(moved - expected(image)[inner, inner]).max() < 0.5


def warped(image, shift, scale, degrees):
    return visualization.warp(
        image[None],
        tf.constant([shift], tf.float32),
        tf.constant([scale], tf.float32),
        tf.constant([np.radians(degrees)], tf.float32),
    )[0].numpy()


def test_pictures_grow_and_shrink_around_their_middle(photographs):
    image = photographs[0, :65, :65]  # its middle is a pixel, 32
    grown = warped(image, (0, 0), 2.0, 0)
    np.testing.assert_allclose(grown[::2, ::2], image[16:49, 16:49], atol=0.5)
    shrunk = warped(image, (0, 0), 0.5, 0)
    np.testing.assert_allclose(shrunk[17:48, 17:48], image[2:63:2, 2:63:2], atol=0.5)
    np.testing.assert_array_equal(shrunk[:15], np.full((15, 65, 3), 127.5))  # from beyond


def test_movements_differ_between_pictures_and_repeat(photographs):
    twice = np.stack([photographs[0]] * 2)
    once = visualization.transform(twice, tf.constant([1, 2])).numpy()
    again = visualization.transform(twice, tf.constant([1, 2])).numpy()
    np.testing.assert_array_equal(once, again)
    assert np.abs(once[0] - once[1]).max() > 20
    assert np.abs(once[0].mean() - twice[0].mean()) < 15


def mean_activation(model, layer, pictures, channel):
    network = keras.Model(model.inputs[0], model.get_layer(layer).output)
    resized = tf.image.resize(pictures, model.inputs[0].shape[1:3])
    return network(preprocess_input(resized.numpy()))[..., channel].numpy().mean()


def test_a_channel_answers_to_its_picture(model):
    layer = "inception_3a_output"
    drawn = visualization.visualize(model, layer, [5, 200], size=SIZE, steps=15)
    assert drawn.shape == (2, 1, SIZE, SIZE, 3) and 0 <= drawn.min() and drawn.max() <= 255
    start = visualization.to_pixels(
        tf.constant(visualization.random_spectrum(2, SIZE, 0)), SIZE
    ).numpy()
    for place, channel in enumerate((5, 200)):
        reached = mean_activation(model, layer, drawn[place], channel)
        before = mean_activation(model, layer, start[place : place + 1], channel)
        other = mean_activation(model, layer, drawn[1 - place], channel)
        assert reached > 1.5 * before and reached > other
    again = visualization.visualize(model, layer, [5, 200], size=SIZE, steps=15)
    np.testing.assert_array_equal(drawn, again)


@pytest.mark.slow
def test_classes_branches_neurons_and_directions_have_pictures(model):
    logits = visualization.visualize(model, "main", [1], size=SIZE, steps=8)
    network = visualization.unit_network(model, "main")
    start = visualization.to_pixels(
        tf.constant(visualization.random_spectrum(1, SIZE, 0)), SIZE
    ).numpy()
    before, after = (network([preprocess_input(x)])[0, 1].numpy() for x in (start, logits[0]))
    assert after > before
    assert visualization.visualize(model, "inception_3b_5x5", size=SIZE, steps=1).shape[:2] == (
        1,
        1,
    )
    neuron = visualization.visualize(model, "conv2_3x3", [7], size=SIZE, steps=8, neuron=True)[0, 0]
    moved = np.abs(neuron - start[0]).mean(axis=-1)
    assert moved[16:32, 16:32].mean() > 2 * moved[:6].mean()  # it sees 19 pixels in the middle
    direction = np.zeros((1, 192), "float32")
    direction[0, 7] = 1
    ours = visualization.visualize(model, "conv2_3x3", direction, size=SIZE, steps=2)
    np.testing.assert_array_equal(
        ours, visualization.visualize(model, "conv2_3x3", [7], size=SIZE, steps=2)
    )


@pytest.mark.slow
def test_diversity_makes_pictures_less_alike(model):
    layer, network = "inception_3a_output", visualization.unit_network(model, "inception_3a_output")

    def likeness(weight):
        visualization._DIVERSITY, kept = weight, visualization._DIVERSITY
        try:
            drawn = visualization.visualize(model, layer, [5], size=SIZE, steps=20, diversity=2)[0]
        finally:
            visualization._DIVERSITY = kept
        x = np.maximum(network([preprocess_input(drawn)]).numpy(), 0).reshape(2, -1, 256)
        first, second = (np.ravel(one.T @ one) for one in x)
        return first @ second / np.linalg.norm(first) / np.linalg.norm(second)

    assert likeness(2.0) < likeness(0.0)


def responses(model, source_shape, source_layer, target, channel):
    """What a unit in the middle answers to each input of a linear copy, by probing it."""
    reduce = model.get_layer(f"{target}_reduce")
    last = model.get_layer(target)
    image = keras.Input(source_shape)
    linear = keras.Model(image, last(reduce(image)))
    zero = linear(np.zeros((1, *source_shape), "float32")).numpy()
    return linear, zero


def test_expanded_weights_are_the_responses_of_the_linear_network(model):
    channels = sum(TABLE_1["4b"][i] for i in (0, 2, 4, 5))
    linear, zero = responses(model, (7, 7, channels), None, "inception_4c_5x5", 9)
    found = circuits.expanded_weights(
        model,
        units.Units("inception_4b_output", (3, 400)),
        units.Units("inception_4c_5x5", (9,)),
    )
    assert found.shape == (2, 1, 5, 5)
    for row, channel in enumerate((3, 400)):
        probe = np.zeros((1, 7, 7, channels), "float32")
        probe[0, 3, 3, channel] = 1
        answer = (linear(probe).numpy() - zero)[0, 1:6, 1:6, 9]
        # a weight below the middle answers to what is below, so the response is turned round
        np.testing.assert_allclose(found[row, 0], answer[::-1, ::-1], atol=1e-6)


def test_names_of_the_same_channel_have_the_same_weights(model):
    first = circuits.expanded_weights(
        model,
        units.Units("inception_4b_output", (160 + 5,)),
        units.Units("inception_4c_output", (128 + 17,)),
    )
    second = circuits.expanded_weights(
        model, units.Units("inception_4b_3x3", (5,)), units.Units("inception_4c_3x3_relu", (17,))
    )
    np.testing.assert_array_equal(first, second)
    pooled = circuits.expanded_weights(
        model, units.Units("inception_4e_output", (0,)), units.Units("inception_5a_pool_proj", (3,))
    )
    kernel = np.asarray(model.get_layer("inception_5a_pool_proj").kernel)
    np.testing.assert_array_equal(pooled[0, 0], kernel[:, :, 0, 3])


@pytest.mark.slow
def test_batch_normalization_is_multiplied_in(normalized):
    found = circuits.expanded_weights(
        normalized,
        units.Units("inception_3a_output", (1,)),
        units.Units("inception_3b_3x3", (2,)),
    )[0, 0]
    scaled = []
    for name in ("inception_3b_3x3_reduce", "inception_3b_3x3"):
        gamma, _, _, variance = normalized.get_layer(f"{name}_bn").get_weights()
        kernel = np.asarray(normalized.get_layer(name).kernel)
        scaled.append(kernel * gamma / np.sqrt(variance + 1e-3))
    expected = np.zeros((3, 3))
    for middle in range(128):
        expected += scaled[0][0, 0, 1, middle] * scaled[1][:, :, middle, 2]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("inception_4a_output", "inception_4c_3x3"),
        ("inception_4c_output", "inception_4b_3x3"),
        ("conv1_7x7_s2", "inception_3a_3x3"),
    ],
)
def test_far_channels_have_no_weights_between_them(model, source, target):
    with pytest.raises(UserError, match="does not feed .* directly"):
        circuits.expanded_weights(model, units.Units(source, (0,)), units.Units(target, (0,)))


def test_units_are_read(model):
    labels = ["a", "b", "star", "d", "e"]
    read = units.parse_units("inception_4c_output:3,12-14", model)
    assert read == ("inception_4c_output", (3, 12, 13, 14))
    assert units.parse_units("inception_4c_5x5", model).channels is None
    assert units.parse_units("main:star,1", model, labels).channels == (2, 1)
    assert units.unit_name(read, 3, labels) == "inception_4c_output:3"
    assert units.unit_name(units.Units("main", (2,)), 2, labels) == "star"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inception_4k_output:1", "nearest are inception_4e_output"),
        ("inception_4c_output:510-512", "channels 0 to 511; '510-512' is none"),
        ("inception_4c_output:x", "'x' is none of them"),
        ("inception_4c_output:5-2", "'5-2' is none of them"),
        ("main:stra", "no class 'stra' among the 5; the nearest are star"),
    ],
)
def test_units_that_do_not_exist(model, text, message):
    with pytest.raises(UserError, match=message):
        units.parse_units(text, model, ["a", "b", "star", "d", "e"])


def test_a_convolution_stands_for_what_goes_into_its_relu(model, normalized, photographs):
    for network, variant in ((model, "paper"), (normalized, "batchnorm")):
        inputs = preprocess_input(photographs[:1, :65, :65], variant)
        for layer in ("inception_3a_5x5", "inception_3a_5x5_relu"):
            ours = visualization.unit_network(network, layer)([inputs]).numpy()
            relu = network.get_layer("inception_3a_5x5_relu").output
            unit = copy_trunk(network, relu, any_size=True)
            assert ours.min() < 0
            np.testing.assert_allclose(np.maximum(ours, 0), unit([inputs]), atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "directions", "message"),
    [
        ("inception_9z_output", None, "no layer 'inception_9z_output'; the nearest are inception_"),
        ("pool5", None, "no layer 'pool5'"),
        ("inception_3a_output", [3, 999], r"channels, 0 to 255.*Received: \[3, 999\]"),
        ("inception_3a_output", [-1], "0 to 255"),
        ("inception_3a_output", [[1.0, 2.0]], r"\(n, 256\)"),
    ],
)
def test_pictures_of_what_does_not_exist(model, layer, directions, message):
    with pytest.raises(UserError, match=message):
        visualization.visualize(model, layer, directions, size=SIZE, steps=1)


def test_the_receptive_field_is_what_changes_a_unit(model):
    generator = np.random.default_rng(0)
    for layer, side in (
        ("conv2_3x3_reduce", 160),
        ("inception_3a_output", 160),
        ("aux1_conv", 320),
    ):
        network = visualization.unit_network(model, layer)
        image = tf.constant(generator.uniform(-99, 99, (1, side, side, 3)), tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(image)
            answers = network([image])
            middle = tf.reduce_sum(answers[0, answers.shape[1] // 2, answers.shape[2] // 2])
        touched = np.abs(tape.gradient(middle, image).numpy()).sum(axis=(0, 3)) > 0
        extent = max(np.ptp(np.flatnonzero(touched.any(axis=axis))) + 1 for axis in (0, 1))
        field = dataset_examples.receptive_field(network.output)
        assert 0.6 * field <= extent <= field  # max pools pass one of their inputs only
    before = dataset_examples.receptive_field(model.get_layer("inception_4a_output").output)
    assert field == before + 4 * 16  # five cells of an average pool, 16 pixels apart


def test_the_crops_are_of_the_images_that_excite_most(model):
    generator = np.random.default_rng(0)
    images = generator.uniform(100, 150, (6, 65, 65, 3)).astype("float32")
    network = keras.Model(model.inputs[0], model.get_layer("conv1_7x7_s2").output)
    answers = network(preprocess_input(images)).numpy()[..., 11]
    order = np.argsort(-answers.max(axis=(1, 2)))[:2]
    found = dataset_examples.top_crops(
        model, "conv1_7x7_s2", [11], [images[:4], images[4:]], count=2
    )[0]
    for number, crop in zip(order, found, strict=True):
        assert crop.shape == (7, 7, 3)
        windows = np.lib.stride_tricks.sliding_window_view(images[number], (7, 7), axis=(0, 1))
        near = np.abs(np.moveaxis(windows, 2, -1) - crop).max(axis=(2, 3, 4))
        assert near.min() <= 0.51
        place = np.array(np.unravel_index(near.argmin(), near.shape))
        unit = np.array(np.unravel_index(answers[number].argmax(), answers[number].shape))
        first = np.clip(2 * unit - 3, 0, 65 - 7)  # stride 2, three pixels before
        assert np.abs(place - first).max() <= 2 and place[0] != place[1]
