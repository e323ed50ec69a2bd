import gc
import weakref

import explaining_reference as direct
import keras
import numpy as np
import pytest
from conftest import dtype_policy

from keras_googlenet import explaining
from keras_googlenet.explaining import branches, cam
from keras_googlenet.explaining.cam import logit_network
from keras_googlenet.googlenet import TABLE_1, VARIANTS, GoogLeNet, inference_model
from keras_googlenet.imagenet import preprocess_input

SLOW = pytest.mark.slow  # not by the second, but together they would take a minute
TOLERANCE = 1e-5  # of the greatest value
MODULES_OF = {"main": tuple(TABLE_1), "aux1": ("3a", "3b", "4a"), "aux2": tuple(TABLE_1)[:6]}


def network(variant="paper", **arguments):
    keras.utils.set_random_seed(4)
    return GoogLeNet(classes=5, input_shape=(96, 96, 3), variant=variant, **arguments)


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def inputs(photographs):
    return preprocess_input(photographs, "paper")


def assert_near(ours, expected):
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE * np.abs(expected).max(), rtol=0)


def stretched(coarse):
    return np.stack([direct.stretch(cam, 96) for cam in coarse])


@pytest.mark.parametrize(
    "layer", ["inception_4c_output", pytest.param("inception_4c_3x3_relu", marks=SLOW)]
)
@pytest.mark.parametrize(
    ("method", "formula"),
    [
        ("gradcam", direct.gradcam),
        ("gradcam++", direct.gradcam_plus_plus),
        ("layercam", direct.layercam),
    ],
)
def test_equals_a_direct_implementation(model, photographs, inputs, method, formula, layer):
    ours = explaining.gradcam(model, photographs, class_index=3, layer=layer, method=method)
    assert ours.shape == (4, 96, 96) and ours.dtype == "float32"
    expected = formula(*direct.activations_and_gradients(model, inputs, 3, layer))
    assert expected.max() > 0
    assert_near(ours, stretched(expected))


@SLOW
def test_score_cam_equals_a_direct_implementation(model, photographs, inputs):
    layer = "inception_3b_pool_proj_relu"  # few channels: all take part
    ours = explaining.gradcam(model, photographs[:2], 3, layer, "scorecam")
    expected = direct.scorecam(
        model, inputs[:2], 3, layer, lambda cam: direct.stretch_corners(cam, 96)
    )
    assert_near(ours, stretched(expected))


def test_saliency_equals_a_direct_implementation(model, photographs, inputs):
    ours = explaining.gradcam(model, photographs, 1, method="saliency")
    expected = np.abs(direct.input_gradient(model, inputs, 1)).max(axis=-1)
    assert_near(ours, expected)


@SLOW
def test_smoothgrad_averages_over_noise(model, photographs, inputs, monkeypatch):
    monkeypatch.setattr(cam, "SMOOTHGRAD_SAMPLES", 3)
    generator = np.random.default_rng(0)
    noise_range = inputs[:2].max(axis=(1, 2, 3)) - inputs[:2].min(axis=(1, 2, 3))
    noise = generator.standard_normal((3, 2, 96, 96, 3), dtype="float32")
    noise *= 0.15 * noise_range[:, None, None, None]
    total = sum(direct.input_gradient(model, inputs[:2] + one, 1) for one in noise)
    ours = explaining.gradcam(model, photographs[:2], 1, method="smoothgrad")
    np.testing.assert_allclose(
        ours, np.abs(total / 3).max(axis=-1), atol=1e-4 * np.abs(total).max() / 3
    )


def test_on_the_last_module_it_is_the_class_activation_map(model, photographs, inputs):
    # Global average pooling and one linear layer follow, so a_k = W[k, c] / (h w).
    features = keras.Model(model.inputs[0], model.get_layer("inception_5b_output").output)
    weights = np.asarray(model.get_layer("main").kernel)[:, 2]
    expected = np.maximum(features.predict_on_batch(inputs) @ weights / 9, 0)
    assert expected.max() > 0
    assert_near(explaining.gradcam(model, photographs, 2), stretched(expected))


@pytest.mark.parametrize(
    ("variant", "head", "modules"),
    [
        ("paper", "main", None),
        pytest.param("paper", "aux1", None, marks=SLOW),
        ("batchnorm", "aux2", None),
        ("batchnorm", "main", ("4e", "5a", "5b")),  # which aux2 does not see
        pytest.param("google", "main", None, marks=SLOW),
        pytest.param("torchvision", "main", None, marks=SLOW),
        pytest.param("slim", "main", None, marks=SLOW),
        pytest.param("naive", "main", None, marks=SLOW),
    ],
)
def test_branches_add_up_to_the_map(variant, head, modules, photographs):
    model = network(variant, aux_heads=head != "main")
    inputs = preprocess_input(photographs[:1], variant)
    found = branches.branch_maps_of_modules(model, photographs[0], modules, 2, head=head)
    assert tuple(found) == (modules or MODULES_OF[head])
    for module, four in found.items():
        layer = f"inception_{module}_output"
        a, g = direct.activations_and_gradients(model, inputs, 2, layer, head)
        weighed = (g.mean((1, 2), keepdims=True) * a)[0]
        assert_near(sum(four.values()), weighed.sum(-1))
        parts = parts_of(weighed, VARIANTS[variant].widths[module])
        assert tuple(four) == tuple(parts)
        evidence = sum(abs(part.sum()) for part in parts.values())
        for branch, share in branches.shares(four).items():
            assert_near(four[branch], parts[branch].sum(-1))
            assert share == pytest.approx(parts[branch].sum() / evidence, abs=TOLERANCE)


def parts_of(weighed, widths):
    """Cuts the channels of a module where the columns of Table 1 say."""
    columns = [widths.conv1x1, widths.conv3x3, widths.conv5x5, widths.pool_proj]
    names = ("1x1", "3x3", "5x5", "pool")
    return dict(zip(names, np.split(weighed, np.cumsum(columns)[:-1], axis=-1), strict=True))


@SLOW
def test_a_branch_is_gradcam_on_its_own_layer(model, photographs):
    # The pool's branch passes one ReLU only, whose output the concatenation takes unchanged.
    for branch, layer in (
        ("3x3", "inception_4d_3x3_relu"),
        ("pool", "inception_4d_pool_proj_relu"),
    ):
        alone = explaining.gradcam(model, photographs[:1], 1, layer)[0]
        part = explaining.branch_maps(model, photographs[0], "4d", 1)[branch]
        assert_near(direct.stretch(np.maximum(part, 0), 96), alone)


def test_the_last_modules_evidence_is_the_logit(model, photographs, inputs):
    found = explaining.branch_maps(model, photographs[1], class_index=4)
    logit = keras.Model(model.inputs[0], direct.logits(model, "main"))(inputs[1:2])[0, 4]
    bias = float(np.asarray(model.get_layer("main").bias)[4])
    total = sum(part.astype("float64").sum() for part in found.values())
    assert total == pytest.approx(float(logit) - bias, rel=1e-5)


@SLOW
def test_mixed_precision_is_explained_in_float32(photographs):
    with dtype_policy("mixed_bfloat16"):
        mixed = network("batchnorm")
    full = network("batchnorm")
    full.set_weights(mixed.get_weights())
    for method in ("gradcam", "saliency"):
        np.testing.assert_array_equal(
            explaining.gradcam(mixed, photographs[:1], 1, method=method),
            explaining.gradcam(full, photographs[:1], 1, method=method),
        )
    assert mixed.get_layer("conv1_7x7_s2").compute_dtype == "bfloat16"


def test_the_model_is_unchanged(model, photographs):
    before = model.predict_on_batch(photographs)
    weights = model.get_weights()
    for method in ("gradcam", "gradcam++", "saliency"):
        explaining.gradcam(model, photographs[:1], method=method)
    explaining.branch_maps(model, photographs[0])
    assert model.get_layer("main").activation is keras.activations.softmax
    for ours, theirs in zip(before, model.predict_on_batch(photographs), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_copy_is_made_once_and_follows_the_weights(photographs):
    model = network(aux_heads=False)
    copied = logit_network(model)
    before = explaining.gradcam(model, photographs[:1], 1)
    other = network("paper", aux_heads=False)
    for layer in other.layers:
        layer.set_weights([1.1 * weight for weight in layer.get_weights()])
    changed = explaining.gradcam(other, photographs[:1], 1)  # of a copy that is new
    assert not np.allclose(before, changed, rtol=0.01)
    model.set_weights(other.get_weights())
    assert logit_network(model) is copied
    np.testing.assert_array_equal(explaining.gradcam(model, photographs[:1], 1), changed)
    model.get_layer("conv1_7x7_s2").kernel.assign_add(
        0.01 * np.ones(model.get_layer("conv1_7x7_s2").kernel.shape, "float32")
    )
    assert not np.allclose(explaining.gradcam(model, photographs[:1], 1), changed, rtol=1e-3)
    assert logit_network(other) is not copied


def test_the_copy_goes_with_its_model():
    model = network(aux_heads=False)
    references = weakref.ref(model), weakref.ref(logit_network(model))
    del model
    gc.collect()  # the model, and with it the entry that holds the copy
    gc.collect()
    assert [reference() for reference in references] == [None, None]


@pytest.mark.parametrize(
    ("size", "head", "layer"),
    [
        # Cells across in modules 3, 4 and 5: 28, 14, 7 at 224 pixels; 9, 5, 3 at 72; 4, 2, 1 at 32.
        (224, "main", "inception_5b_output"),
        (224, "aux1", "inception_4a_output"),
        (224, "aux2", "inception_4d_output"),
        (128, "main", "inception_4e_output"),
        (72, "main", "inception_4e_output"),
        (72, "aux1", "inception_4a_output"),
        (32, "main", "inception_3b_output"),
        (None, "main", "inception_5b_output"),
    ],
)
def test_the_default_layer_has_five_cells(size, head, layer):
    model = GoogLeNet(classes=3, input_shape=(size, size, 3), aux_heads=head != "main")
    assert cam.default_layer(logit_network(model, head)) == layer


def test_no_layer_is_the_default_one(model, photographs):  # 6 cells across in 4 at 96 pixels
    ours = explaining.gradcam(model, photographs, 1, None)
    np.testing.assert_array_equal(
        ours, explaining.gradcam(model, photographs, 1, "inception_4e_output")
    )


@SLOW
def test_the_best_class_is_the_main_heads(model, photographs):
    best = inference_model(model).predict_on_batch(preprocess_input(photographs, "paper"))
    separate = [
        explaining.gradcam(model, photographs[i : i + 1], class_index=int(best[i].argmax()))[0]
        for i in range(4)
    ]
    np.testing.assert_allclose(explaining.gradcam(model, photographs), separate, atol=1e-6)


def test_the_class_asked_for_is_explained_of_each_head(model, photographs, inputs):
    layer = "inception_3b_output"
    seen = []
    for head in ("main", "aux1", "aux2"):
        for index in (0, 2):
            ours = explaining.gradcam(model, photographs[:1], index, layer, head=head)
            maps_ = direct.activations_and_gradients(model, inputs[:1], index, layer, head)
            assert_near(ours, stretched(direct.gradcam(*maps_)))
            seen.append(ours)
    assert len({image.tobytes() for image in seen}) == 6


def test_a_class_by_name_or_one_for_each_image(model, photographs):
    labels = ["n01440764 tench", "n01443537 goldfish", "a", "b", "c"]
    third = explaining.gradcam(model, photographs[:2], 1)
    for name in ("goldfish", "n01443537", "1"):
        named = explaining.gradcam(model, photographs[:2], name, labels=labels)
        np.testing.assert_array_equal(named, third)
    mixed = explaining.gradcam(model, photographs[:2], ["goldfish", 3], labels=labels)
    np.testing.assert_allclose(mixed[0], third[0], atol=1e-6)
    assert not np.allclose(mixed[1], third[1], atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "inception_6a_output"}, "inception_5a_output.*layer='inception_6a_output'"),
        ({"layer": "image"}, "must be a feature map"),
        ({"layer": "aux1"}, "must be a feature map that the head main sees"),
        ({"head": "aux1"}, "head aux1 sees, such as inception_.*layer='inception_5b_output'"),
        ({"head": "aux3"}, r"\['main', 'aux1', 'aux2'\]. Received: head='aux3'"),
        ({"class_index": 5}, r"in \[0, 5\).*Received: class_index=5"),
        ({"class_index": [1, 2]}, "one for all images or one for each"),
        ({"class_index": [1, None, 1, 1]}, "one for all images or one for each"),
        ({"class_index": 1.5}, r"in \[0, 5\)"),
        ({"class_index": ["class_9"]}, "no class 'class_9' among the 5"),
        ({"class_index": "class_9"}, "no class 'class_9' among the 5; the nearest are class_"),
        ({"method": "magic"}, "method='magic'"),
    ],
)
def test_mistakes(model, photographs, arguments, message):
    with pytest.raises(ValueError, match=message):
        explaining.gradcam(model, photographs, **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images[..., :1], r"n x 96 x 96 x 3.*shape \(4, 96, 96, 1\)"),
        (lambda images: images[0], r"shape \(96, 96, 3\)"),
        (lambda images: images[:, 1:], r"shape \(4, 95, 96, 3\)"),
        (lambda images: images[:0], "at least one image"),
        (lambda images: images / 0, "4 of 4 with NaN"),
    ],
)
@pytest.mark.filterwarnings("ignore:(divide|invalid value)")
def test_mistakes_of_images(model, photographs, inputs, change, message):
    with pytest.raises(ValueError, match=message):
        explaining.gradcam(model, change(photographs))
    with pytest.raises(ValueError, match=message):
        cam.map_logits(logit_network(model), change(inputs), [1], "conv2_3x3", "gradcam")


def test_mistakes_of_branches(model, photographs):
    with pytest.raises(ValueError, match="such as 5b, 5a.*Received: module='5c'"):
        explaining.branch_maps(model, photographs[0], "5c")
    with pytest.raises(ValueError, match=r"shape \(1, 96, 96, 1\)"):
        explaining.branch_maps(model, photographs[0, ..., :1])
    with pytest.raises(ValueError, match=r"head aux1 sees \(3a, 3b, 4a\)"):
        explaining.branch_maps(model, photographs[0], "5b", head="aux1")


def test_a_model_without_inception_modules_is_refused(photographs):
    image = keras.Input((96, 96, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    other = keras.Model(image, keras.layers.Dense(5, name="main")(x))
    for explain in (
        lambda: explaining.gradcam(other, photographs),
        lambda: explaining.branch_maps(other, photographs[0]),
    ):
        with pytest.raises(ValueError, match="must be a GoogLeNet"):
            explain()
