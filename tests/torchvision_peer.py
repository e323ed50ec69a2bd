"""torchvision's own GoogLeNet, with random weights and statistics, as the peer to agree with."""

import functools
import importlib.util
from pathlib import Path


def import_models():
    """torchvision.models; its wheel needs operators declared when its C++ part cannot be loaded."""
    import torch

    if not _load_operators(torch):
        library = torch.library.Library("torchvision", "DEF")
        for name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"):
            for suffix in ("", "_backward"):
                _declare(library, f"{'_' if suffix else ''}{name}{suffix}")
        for name in ("nms", "qnms"):
            _declare(library, name)
    import torchvision.models

    return torchvision.models


def _load_operators(torch) -> bool:
    """Whether the C++ part fits the installed torch, with or without CUDA."""
    folder = Path(importlib.util.find_spec("torchvision").origin).parent
    try:
        for file in folder.glob("_C*.so"):
            torch.ops.load_library(file)
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")


def _declare(library, name):
    try:
        library.define(f"{name}(Tensor x) -> Tensor")
    except RuntimeError:  # it is there already
        pass


def random_network(seed=0, classes=1000, share=1):
    """GoogLeNet in evaluation mode whose statistics, scales and offsets are all random.

    With a `share`, torchvision's own blocks are made with that part of their filters.
    """
    import_models()
    import torch
    from torchvision.models.googlenet import BasicConv2d, GoogLeNet, Inception, InceptionAux

    def conv(given, made, **options):
        return BasicConv2d(given if given == 3 else given // share, made // share, **options)

    torch.manual_seed(seed)
    blocks = [
        conv,
        *(functools.partial(part, conv_block=conv) for part in (Inception, InceptionAux)),
    ]
    network = GoogLeNet(classes, init_weights=False, blocks=blocks)
    if share > 1:
        network.fc = torch.nn.Linear(1024 // share, classes)
        for head in (network.aux1, network.aux2):
            head.fc1 = torch.nn.Linear(2048 // share, 1024 // share)
            head.fc2 = torch.nn.Linear(1024 // share, classes)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith(("running_var", "bn.weight")):
                value.uniform_(0.5, 1.5)
            elif name.endswith(("running_mean", "bn.bias")):
                value.uniform_(-0.2, 0.2)
            elif name.endswith("conv.weight"):
                value.normal_(0, (2 / value[0].numel()) ** 0.5)
    return network.eval()


def logits(network, images):
    """Logits of main, aux1 and aux2 for preprocessed images `(n, h, w, 3)`."""
    import torch

    heads = {}
    network.fc.register_forward_hook(lambda layer, given, made: heads.update(main=made))
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    network.eval()
    taps = {}
    network.inception4a.register_forward_hook(lambda layer, given, made: taps.update(aux1=made))
    network.inception4d.register_forward_hook(lambda layer, given, made: taps.update(aux2=made))
    with torch.no_grad():
        network(x)
        for head in ("aux1", "aux2"):
            heads[head] = getattr(network, head)(taps[head])
    return [heads[head].numpy() for head in ("main", "aux1", "aux2")]
