"""A network as a flat list of calls, whatever models it nests, and networks made of such calls."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import keras
from keras import tree

from keras_googlenet.errors import UserError


@dataclass(eq=False)
class Value:
    """A tensor of a network.

    Attributes:
        tensor: Its shape and type.
        call: What computes it; `None` for the image.
    """

    tensor: keras.KerasTensor
    call: "Call | None" = None


@dataclass(eq=False)
class Call:
    """A layer, or an operation of `keras.ops`, on its inputs.

    Attributes:
        operation: What is called.
        args: Positional arguments, with a `Value` for each tensor.
        kwargs: Keyword arguments, alike.
        outputs: What comes out.
    """

    operation: keras.Operation
    args: Sequence
    kwargs: dict
    outputs: list[Value] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the layer or operation."""
        return self.operation.name

    @property
    def inputs(self) -> list[Value]:
        """The tensors among the arguments."""
        return [one for one in tree.flatten((self.args, self.kwargs)) if isinstance(one, Value)]


@dataclass(eq=False)
class FlatNetwork:
    """What a network computes, without the models that it nests.

    Attributes:
        image: The input.
        calls: In an order in which they can be computed.
        outputs: One a tensor that the network returns.
        nests: Whether it had models inside.
    """

    image: Value
    calls: list[Call]
    outputs: list[Value]
    nests: bool


def flatten(model: keras.Model, outputs: Sequence | None = None) -> FlatNetwork:
    """Lists the calls of a network, with those of nested models in place of the models.

    Args:
        model: Functional or Sequential, with one input. It is left as it is.
        outputs: Tensors of it to end at; its own outputs if not given.

    Returns:
        The calls; their layers are those of `model`.

    Raises:
        UserError: If it is another kind of model or has several inputs.
    """
    if not _is_graph(model):
        raise UserError(
            "`model` must be a functional or Sequential Keras model that has been built. "
            f"Received: model={getattr(model, 'name', model)!r} of {type(model).__name__}."
        )
    if len(model.inputs) != 1:
        names = ", ".join(tensor.name for tensor in model.inputs)
        raise UserError(f"the model takes {len(model.inputs)} inputs ({names}), not one image.")
    image = Value(model.inputs[0])
    calls, nested = [], []
    values = _trace(model, [image], model.outputs if outputs is None else outputs, calls, nested)
    return FlatNetwork(image, calls, values, bool(nested))


def _is_graph(model) -> bool:
    try:
        return isinstance(model, keras.Model) and bool(model.inputs) and bool(model.outputs)
    except (AttributeError, ValueError):  # a subclass, or a Sequential without a shape
        return False


def _trace(model, values: list[Value], outputs, calls: list[Call], nested: list) -> list[Value]:
    """Follows a model from `outputs` back to its inputs, for which `values` stand."""
    known = dict(zip(map(id, model.inputs), values, strict=True))

    def value_of(tensor) -> Value:
        if id(tensor) not in known:
            operation, node_index, _ = tensor._keras_history
            node = operation._inbound_nodes[node_index]
            for before in node.input_tensors:
                value_of(before)
            args, kwargs = node.arguments.fill_in(known)
            outputs = _traced_call(operation, args, kwargs, node, calls, nested)
            known.update(zip(map(id, node.output_tensors), outputs, strict=True))
        return known[id(tensor)]

    return [value_of(tensor) for tensor in outputs]


def _traced_call(operation, args, kwargs, node, calls: list[Call], nested: list) -> list[Value]:
    if isinstance(operation, keras.Layer):  # inference decides by itself what `training` is
        kwargs = {key: value for key, value in kwargs.items() if key not in ("training", "mask")}
    if _is_graph(operation):
        nested.append(operation)
        values = [one for one in tree.flatten((args, kwargs)) if isinstance(one, Value)]
        return _trace(operation, values, operation.outputs, calls, nested)
    call = Call(operation, args, kwargs)
    call.outputs = [Value(tensor, call) for tensor in node.output_tensors]
    calls.append(call)
    return call.outputs


def needed_for(
    values: Iterable[Value], calls: Sequence[Call], begin: Value | None = None
) -> list[Call]:
    """Returns those of `calls`, in their order, that compute `values`, from `begin` if given."""
    wanted = {id(value.call) for value in values}
    needed = []
    for call in reversed(calls):
        if id(call) in wanted:
            needed.append(call)
            wanted.update(id(value.call) for value in call.inputs if value is not begin)
    return needed[::-1]


class Builder:
    """Makes a network of copies of layers, with their weights.

    Args:
        value: Where the copy begins.
        tensor: The input that stands for it.
        reserved: Names that only those layers get which ask for them.
    """

    def __init__(self, value: Value, tensor: keras.KerasTensor, reserved: Iterable[str] = ()):
        self._tensors = {id(value): tensor}
        self._taken = set(reserved)

    def tensor(self, value: Value) -> keras.KerasTensor:
        """Returns the copy's tensor for one of the flat network."""
        return self._tensors[id(value)]

    def skip(self, call: Call):
        """Leaves out a call that changes nothing."""
        self._tensors[id(call.outputs[0])] = self.tensor(call.inputs[0])

    def copy(self, call: Call, name: str | None = None, **changes):
        """Copies a call, with `changes` to the configuration of its layer."""
        config = {k: v for k, v in call.operation.get_config().items() if k[:5] != "lora_"}
        if isinstance(call.operation, keras.Layer):
            config |= changes | {"name": name or self._free_name(call.name)}
        copied = type(call.operation).from_config(config)
        self.call(copied, call)
        if isinstance(call.operation, keras.Layer):
            copy_variables(call.operation, copied)

    def call(self, operation: keras.Operation, call: Call):
        """Calls an operation where `call` calls its own."""
        args, kwargs = tree.map_structure(
            lambda one: self.tensor(one) if isinstance(one, Value) else one,
            (call.args, call.kwargs),
        )
        outputs = tree.flatten(operation(*args, **kwargs))
        self._tensors.update(zip(map(id, call.outputs), outputs, strict=True))

    def _free_name(self, name: str) -> str:
        names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        free = next(one for one in names if one not in self._taken)
        self._taken.add(free)
        return free


def copy_variables(source: keras.Layer, target: keras.Layer):
    """Copies what a layer has learned, low-rank adapters (LoRA) merged into its kernel."""
    values = {}
    source.save_own_variables(values)
    target.load_own_variables(values)
