"""Every variant with an eighth of its filters.

The layers, their names and their connections are those of the whole network, and it is built,
saved and run in a fraction of the time. `conftest.py` puts it under every key of `VARIANTS`, save
in modules that say `FULL_WIDTH = True`: those that count parameters or compare with a publisher.
"""

import contextlib
import dataclasses

from keras_googlenet.googlenet import VARIANTS, Variant, Widths

SHARE = 8


def thinned(spec: Variant) -> Variant:
    return dataclasses.replace(
        spec,
        widths={
            name: Widths(*(n // SHARE for n in widths)) for name, widths in spec.widths.items()
        },
        stem=tuple(filters // SHARE for filters in spec.stem),
        aux_conv=spec.aux_conv // SHARE,
        aux_fc=spec.aux_fc // SHARE,
    )


WHOLE = dict(VARIANTS)
THIN = {name: thinned(spec) for name, spec in WHOLE.items()}


def install(variants=THIN):
    """Makes `GoogLeNet` build these variants from now on."""
    VARIANTS.update(variants)


@contextlib.contextmanager
def installed(variants=THIN):
    """The same for the time of a block, whatever was built before it."""
    before = dict(VARIANTS)
    install(variants)
    try:
        yield
    finally:
        install(before)
