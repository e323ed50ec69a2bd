"""A network as a flat list of calls without nested models, and networks built from such calls."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import keras
from keras import tree

from keras_googlenet.errors import UserError


@dataclass(eq=False)
class Value:
    """A tensor of a network."""

    tensor: keras.KerasTensor
    call: "Call | None" = None  # what computes it; `None` for the image


@dataclass(eq=False)
class Call:
    """A layer, or an operation of `keras.ops`, on its inputs."""

    operation: keras.Operation
    args: Sequence  # with a `Value` for each tensor
    kwargs: dict  # likewise
    outputs: list[Value] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the layer or operation."""
        return self.operation.name

    @property
    def inputs(self) -> list[Value]:
        """The tensors among the arguments."""
        return _values_in((self.args, self.kwargs))


@dataclass(eq=False)
class FlatNetwork:
    """What a network computes, without the models nested inside."""

    image: Value
    calls: list[Call]  # in an order in which they can be computed
    outputs: list[Value]
    has_nested_models: bool


def _values_in(structure) -> list[Value]:
    return [item for item in tree.flatten(structure) if isinstance(item, Value)]


def flatten(model: keras.Model, outputs: Sequence | None = None) -> FlatNetwork:
    """Lists the calls of a network, with those of nested models in place of the models.

    Args:
        model: Functional or Sequential, with one input. It is left as it is, and shares its layers.
        outputs: Tensors of it to end at; its own outputs if not given.

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
        raise UserError(f"the model has {len(model.inputs)} inputs ({names}), not one image.")
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
    """Traces a model from `outputs` back to its inputs, whose values are `values`."""
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
    if isinstance(operation, keras.Layer):  # the caller of the copy decides about `training`
        kwargs = {key: value for key, value in kwargs.items() if key not in ("training", "mask")}
    if _is_graph(operation):
        nested.append(operation)
        return _trace(operation, _values_in((args, kwargs)), operation.outputs, calls, nested)
    call = Call(operation, args, kwargs)
    call.outputs = [Value(tensor, call) for tensor in node.output_tensors]
    calls.append(call)
    return call.outputs


def needed_for(
    values: Iterable[Value], calls: Sequence[Call], start: Value | None = None
) -> list[Call]:
    """Returns those of `calls`, in their order, that compute `values`, from `start` if given."""
    wanted = {id(value.call) for value in values}
    needed = []
    for call in reversed(calls):
        if id(call) in wanted:
            needed.append(call)
            wanted.update(id(value.call) for value in call.inputs if value is not start)
    return needed[::-1]


class Builder:
    """Builds a network of copies of layers, with their weights.

    Args:
        start: The value of the original that `image` replaces.
        image: The input of the copy.
        reserved: Names that a layer gets only where `copy` is given them.
    """

    def __init__(self, start: Value, image: keras.KerasTensor, reserved: Iterable[str] = ()):
        self._tensors = {id(start): image}
        self._used_names = set(reserved)

    def tensor(self, value: Value) -> keras.KerasTensor:
        """Returns the tensor of the copy for a value of the original."""
        return self._tensors[id(value)]

    def skip(self, call: Call):
        """Passes the input of a call on as its output."""
        self._tensors[id(call.outputs[0])] = self.tensor(call.inputs[0])

    def copy(self, call: Call, name: str | None = None, **changes):
        """Copies a call, with `changes` to the configuration of its layer."""
        config = {k: v for k, v in call.operation.get_config().items() if k[:5] != "lora_"}
        if isinstance(call.operation, keras.Layer):
            config |= changes | {"name": name or self._free_name(call.name)}
        copied = type(call.operation).from_config(config)
        self.call(copied, call)
        if isinstance(call.operation, keras.Layer):
            values = {}
            call.operation.save_own_variables(values)  # low-rank adapters merged into the kernel
            copied.load_own_variables(values)

    def call(self, operation: keras.Operation, call: Call):
        """Calls an operation in place of that of `call`."""
        args, kwargs = tree.map_structure(
            lambda item: self.tensor(item) if isinstance(item, Value) else item,
            (call.args, call.kwargs),
        )
        outputs = tree.flatten(operation(*args, **kwargs))
        self._tensors.update(zip(map(id, call.outputs), outputs, strict=True))

    def _free_name(self, name: str) -> str:
        names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        free = next(name for name in names if name not in self._used_names)
        self._used_names.add(free)
        return free
