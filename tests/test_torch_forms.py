"""What torch.save and safetensors write, by torch's own code, against torchvision's network."""

import argparse
import collections
import contextlib
import copy
import dataclasses
import datetime
import enum
import functools
import os
import pathlib
import sys

import numpy as np
import pytest
import thin_network
import torchvision_peer
from test_caffe import logits_of

from keras_googlenet.errors import UserError
from keras_googlenet.imagenet import preprocess_input
from keras_googlenet.weights.conversion import convert_file

torch = pytest.importorskip("torch")
nn = torch.nn
pytestmark = pytest.mark.peers("torch", "torchvision")

CLASSES, FEATURES = 7, 1024 // thin_network.SHARE
TOLERANCE = 1e-4  # of logits, whatever the type of the file: the peer's weights are rounded alike
IMAGES = np.random.default_rng(1).uniform(0, 255, (1, 224, 224, 3)).astype("float32")
INPUTS = preprocess_input(IMAGES, "torchvision")
SAVES = {
    "zip": torch.save,
    "before 1.6": functools.partial(torch.save, _use_new_zipfile_serialization=False),
    "safetensors": pytest.importorskip("safetensors.torch").save_file,
}
in_both_forms = pytest.mark.parametrize("save", ["zip", "before 1.6"])


@pytest.fixture(scope="module")
def network():
    return torchvision_peer.random_network(classes=CLASSES, share=thin_network.SHARE)


def check(path, network, heads=3, **options):
    """Converts a file and compares its logits with those of torchvision's network."""
    conversion = convert_file(path, **options)
    assert conversion.model.output_names == ["main", "aux1", "aux2"][:heads]
    assert conversion.absent == ["aux1", "aux2"][: 3 - heads]
    expected = torchvision_peer.logits(copy.deepcopy(network), INPUTS)[:heads]
    for actual, wanted in zip(logits_of(conversion.model, IMAGES), expected, strict=True):
        assert np.abs(wanted).max() > 0.1
        np.testing.assert_allclose(actual, wanted, atol=TOLERANCE)
    return conversion


@dataclasses.dataclass
class Settings:
    rate: float


Phase = enum.Enum("Phase", ["TRAIN"])


class Holder(nn.ModuleDict):
    """A network of somebody who keeps torchvision's in an attribute."""


def beside(network, key="state_dict", **more):
    return {"epoch": 3, "arch": "googlenet", key: network.state_dict(), **more}


def trained(network, optimizer_class, **options):
    """The state of an optimizer and of its scheduler after a step, beside the weights."""
    other = copy.deepcopy(network)
    optimizer = optimizer_class(other.parameters(), 0.1, **options)
    for parameter in other.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 30).state_dict()
    return beside(network, "model", optimizer=optimizer.state_dict(), lr_scheduler=scheduler)


def views_of_one_storage(state):
    flat = torch.cat([value.float().ravel() for value in state.values()])
    pieces = flat.split([value.numel() for value in state.values()])
    return {n: p.view(state[n].shape) for n, p in zip(state, pieces, strict=True)}


def transposed(state):
    return {n: v.t().contiguous().t() if v.ndim == 2 else v for n, v in state.items()}


LAST = torch.channels_last
NUMPY = {"best": np.float64(71.2), "curve": np.arange(3.0), "rng": np.random.get_state()}
TORCH = {"size": torch.Size([1, 2]), "dtype": torch.half, "device": torch.device("cpu")}
FORMS = {
    "Parameters": lambda n: dict([*n.named_parameters(), *n.named_buffers()]),
    "views of one storage": lambda n: views_of_one_storage(n.state_dict()),
    "transposed": lambda n: transposed(n.state_dict()),
    "channels_last": lambda n: copy.deepcopy(n).to(memory_format=LAST).state_dict(),
    "state_dict": beside,
    "model": lambda n: beside(n, "model"),
    "model_state_dict": lambda n: beside(n, "model_state_dict", loss=torch.tensor(0.5)),
    "SGD": lambda n: trained(n, torch.optim.SGD, momentum=0.9),
    "Adam": lambda n: trained(n, torch.optim.Adam),
    "Namespace": lambda n: beside(n, args=argparse.Namespace(out=pathlib.Path("runs"), lr=0.1)),
    "times": lambda n: beside(n, when=datetime.datetime.now(), took=datetime.timedelta(1)),
    "NumPy": lambda n: beside(n, **NUMPY),
    "torch": lambda n: beside(n, **TORCH, rng=[torch.get_rng_state()]),
    "own classes": lambda n: beside(n, settings=Settings(0.1), phase=Phase.TRAIN),
    "others": lambda n: beside(n, a=collections.defaultdict(list), b={1, 2}),
}
OTHER_LAYOUTS = ("Parameters", "views of one storage", "transposed", "channels_last", "Adam")


@pytest.mark.parametrize(
    ("form", "save"),
    [*((form, "zip") for form in FORMS), *((form, "before 1.6") for form in OTHER_LAYOUTS)],
)
def test_forms_of_a_checkpoint(form, save, network, tmp_path):
    SAVES[save](FORMS[form](network), tmp_path / "w.pth")
    check(tmp_path / "w.pth", network)


def with_a_head_beside_it(network):
    backbone = copy.deepcopy(network)
    backbone.fc = nn.Identity()
    return Holder({"backbone": backbone, "head": network.fc})


PREFIXES = {
    "module.": nn.DataParallel,
    "_orig_mod.": torch.compile,
    "module._orig_mod.": lambda network: nn.DataParallel(torch.compile(network)),
    "model.": lambda network: Holder({"model": network}),
    "backbone.": with_a_head_beside_it,
}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_is_found(prefix, network, tmp_path):
    state = PREFIXES[prefix](network).state_dict()
    assert all(name.startswith((prefix, "head.")) for name in state)
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    check(tmp_path / "w.pth", network)


@pytest.mark.parametrize("averages_first", [True, False])
@pytest.mark.parametrize("key", ["ema", "model_ema"])
def test_plain_weights_win_over_their_averages(key, averages_first, network, tmp_path):
    other = torchvision_peer.random_network(1, CLASSES, thin_network.SHARE)
    parts = {"model": network, key: torch.optim.swa_utils.AveragedModel(other)}
    names = sorted(parts, key=lambda name: (name == key) != averages_first)
    torch.save({name: parts[name].state_dict() for name in names}, tmp_path / "w.pth")
    notes = check(tmp_path / "w.pth", network).notes
    assert any(key in note for note in notes), notes


def linear(given=FEATURES, made=CLASSES, **options):
    return nn.Linear(given, made, **options)


def chain(*layers, **named):
    return nn.Sequential(collections.OrderedDict(named)) if named else nn.Sequential(*layers)


CLASSIFIERS = {
    "dropout": lambda: chain(nn.Dropout(), linear()),
    "named": lambda: chain(drop=nn.Dropout(), out=linear()),
    "no bias": lambda: linear(bias=False),
    "other count": lambda: linear(made=5),
    "two": lambda: chain(linear(made=32), nn.ReLU(), nn.Dropout(), linear(32)),
    "two, named": lambda: chain(hidden=linear(made=32), act=nn.ReLU(), top=linear(32)),
    "three": lambda: chain(linear(made=64), nn.ReLU(), linear(64, 32), nn.ReLU(), linear(32)),
    "tanh": lambda: chain(linear(made=32), nn.Tanh(), linear(32)),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_other_classifiers(name, network, tmp_path):
    torch.manual_seed(2)
    changed = copy.deepcopy(network)
    changed.fc = CLASSIFIERS[name]().eval()
    torch.save(changed.state_dict(), tmp_path / "w.pth")
    options = {"activation": name} if name == "tanh" else {}
    notes = check(tmp_path / "w.pth", changed, 1 if name == "other count" else 3, **options).notes
    assert any("relu" in note for note in notes) == (name[:3] in ("two", "thr")), notes


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aux2.fc1.weight": None}, "aux2.fc1"),
        ({"aux1.fc1.weight": lambda v: v * float("nan")}, "aux1.fc1"),
        ({f"aux{n}.fc2": lambda v: torch.cat([v] * 9) for n in (1, 2)}, "63"),
        ({"aux": None}, ""),
    ],
    ids=["array missing", "no numbers", "other count", "no heads"],
)  # fmt: skip
def test_auxiliary_heads_that_do_not_fit_are_left_out(changes, reason, network, tmp_path):
    state = network.state_dict()
    for start, change in changes.items():
        for name in [name for name in state if name.startswith(start)]:
            value = state.pop(name)
            state |= {name: change(value)} if change else {}
    torch.save(state, tmp_path / "w.pth")
    notes = check(tmp_path / "w.pth", network, heads=1).notes
    assert not reason or any("aux" in note and reason in note for note in notes), notes


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_types_of_numbers(dtype, save, network, tmp_path):
    rounded = copy.deepcopy(network).to(getattr(torch, dtype))
    SAVES[save](rounded.state_dict(), tmp_path / "w")
    check(tmp_path / "w", rounded.float())


def test_one_class_is_a_sigmoid(tmp_path):
    network = torchvision_peer.random_network(classes=1, share=thin_network.SHARE)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    actual = convert_file(tmp_path / "w.pth").model(INPUTS)
    for one, other in zip(actual, torchvision_peer.logits(network, INPUTS), strict=True):
        np.testing.assert_allclose(one, 1 / (1 + np.exp(-other)), atol=1e-5)


def refusal(path):
    with pytest.raises(UserError) as error:
        convert_file(path)
    assert "\n" not in str(error.value)
    return str(error.value)


TO_DO = "torch.save(model.state_dict(),"
WHOLE = {  # a model that is saved with its code, and the class that the sentence names
    "model": (lambda n: n, "googlenet.GoogLeNet"),
    "in a checkpoint": (lambda n: {"epoch": 3, "model": n}, "googlenet.GoogLeNet"),
    "own class": (lambda n: Holder({"model": n}), f"{__name__}.Holder"),
}


@in_both_forms
@pytest.mark.parametrize("form", WHOLE)
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_whole_model_is_refused(form, save, network, tmp_path):
    make, name = WHOLE[form]
    SAVES[save](make(network), tmp_path / "w.pth")
    said = refusal(tmp_path / "w.pth")
    assert name in said and TO_DO in said and "trust" not in said.lower()


@pytest.mark.parametrize("trace", [False, True], ids=["script", "trace"])
def test_torchscript_is_refused(trace, network, tmp_path):
    example = torch.ones(1, 3, 224, 224)
    program = torch.jit.trace(network, example) if trace else torch.jit.script(network)
    program.save(tmp_path / "w.pt")
    said = refusal(tmp_path / "w.pt")
    assert "TorchScript" in said and TO_DO in said and "trust" not in said.lower()


def test_a_class_of_a_script_is_named(network, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "Holder", Holder, raising=False)
    monkeypatch.setattr(Holder, "__module__", "__main__")
    torch.save(Holder({"model": network}), tmp_path / "w.pth")
    assert "__main__.Holder" in refusal(tmp_path / "w.pth")


class Calls:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@in_both_forms
@pytest.mark.parametrize("call", [(os.system, "touch pwned"), (eval, "open('pwned', 'w')")])
def test_nothing_of_a_pickle_is_run(call, save, network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for made in (Calls(*call), network.state_dict() | {"conv1.conv.weight": Calls(*call)}):
        SAVES[save](made, "w.pth")
        assert "nothing of it was run" in refusal("w.pth")
    SAVES[save](beside(network, args=Calls(*call)), "w.pth")
    with contextlib.suppress(UserError):
        convert_file("w.pth")
    assert not os.path.exists("pwned")
    torch.load("w.pth", weights_only=False)
    assert os.path.exists("pwned"), "the file does nothing, so the test shows nothing"


def test_a_renamed_layer_is_recognized(network, tmp_path):
    state, scope = network.state_dict(), "inception4c.branch2.1"
    state[f"{scope}.convolution.weight"] = state.pop(f"{scope}.conv.weight")
    torch.save(state, tmp_path / "w.pth")
    said = refusal(tmp_path / "w.pth")
    assert f"{scope}.conv.weight" in said and f"{scope}.convolution.weight" in said
    assert "(32, 16, 3, 3)" in said and "damaged" not in said


def wrapped_inside(state):
    inner = "inception4a._checkpoint_wrapped_module."
    return {name.replace("inception4a.", inner): value for name, value in state.items()}


BESIDE = {
    "wrappers inside": wrapped_inside,
    "a convolution": lambda state: state | {"fc.weight": state["fc.weight"][:, :, None, None]},
    "tuple": lambda state: ({"epoch": 1}, state),
    "pairs": lambda state: list(state.items()),
    "NumPy": lambda state: {name: value.numpy() for name, value in state.items()},
    "bytes": lambda state: {name.encode(): value for name, value in state.items()},
    "its loss": lambda state: state | {"criterion.weight": torch.ones(CLASSES)},
}


@pytest.mark.parametrize("form", BESIDE)
def test_containers_of_other_kinds(form, network, tmp_path):
    torch.save(BESIDE[form](network.state_dict()), tmp_path / "w.pth")
    check(tmp_path / "w.pth", network)


EXTRA = {
    "bn.weight": torch.ones(FEATURES),  # behind the pool
    "fc.lora_A": torch.ones(4, FEATURES),
    "inception3a.se.fc1.weight": torch.ones(4, 32),
    "attention.0.weight": torch.ones(FEATURES, FEATURES, 1, 1),
    "std": torch.ones(3),  # of a preprocessing inside
}


@pytest.mark.parametrize("name", EXTRA)
def test_what_computes_and_has_no_place_is_refused(name, network, tmp_path):
    torch.save(network.state_dict() | {name: EXTRA[name]}, tmp_path / "w.pth")
    with pytest.raises(
        UserError, match=f"no place for {name} .*--classifier fc|{name}, of which weights are"
    ):
        convert_file(tmp_path / "w.pth")
    if "lora" not in name:
        conversion = check(tmp_path / "w.pth", network, classifier="fc")
        assert name in conversion.notes[-1]


WRONG = {
    "conv1.conv.weight": (torch._neg_view, "negated view"),
    "conv1.bn.running_var": (torch.neg, "variances below 0"),
    "conv2.conv.weight": (lambda value: value * float("nan"), "NaN"),
}


@pytest.mark.parametrize("name", WRONG)
def test_numbers_that_would_be_wrong(name, network, tmp_path):
    change, message = WRONG[name]
    torch.save(network.state_dict() | {name: change(network.state_dict()[name])}, tmp_path / "w")
    with pytest.raises(UserError, match=message):
        convert_file(tmp_path / "w")


def test_two_networks_in_one_file_are_a_question(network, tmp_path):
    two = {f"{net}.{n}": v for net in ("left", "right") for n, v in network.state_dict().items()}
    torch.save(two, tmp_path / "w.pth")
    with pytest.raises(UserError, match="several networks .*--classifier left.fc"):
        convert_file(tmp_path / "w.pth")
    check(tmp_path / "w.pth", network, classifier="right.fc")
