"""What is inside a TFLite file."""

from collections.abc import Collection

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

OPERATORS = {
    code: name
    for name, code in vars(schema.BuiltinOperator).items()
    if isinstance(code, int)
}
ALIGNMENT = 16  # bytes, of the weights: the format's own


def parse(content: bytes) -> schema.ModelT:
    """Reads a TFLite file into objects."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))


def operator_name(model: schema.ModelT, operator: schema.OperatorT) -> str:
    """Names an operator of a model, "CUSTOM" if it is not built in."""
    code = model.operatorCodes[operator.opcodeIndex]
    return OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def builtin_operators(content: bytes) -> list[str]:
    """Lists the operators of a TFLite file.

    Args:
        content: The file.

    Returns:
        Their names, in alphabetical order.

    Raises:
        RuntimeError: If one is not built in.
    """
    model = schema.Model.GetRootAs(content)
    codes = (model.OperatorCodes(i) for i in range(model.OperatorCodesLength()))
    operators = set()
    for code in codes:
        name = OPERATORS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        if name == "CUSTOM":
            raise RuntimeError(
                "A TFLite file must have built-in operators only. Received: "
                f"{code.CustomCode().decode()}."
            )
        operators.add(name)
    return sorted(operators)


def signature_graphs(model: schema.ModelT) -> dict[str, int]:
    """Numbers of the graphs that the signatures of a model run, by their names."""
    return {s.signatureKey.decode(): s.subgraphIndex for s in model.signatureDefs}


def connected(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    seeds: Collection[str],
    kinds: Collection[str],
) -> list[schema.OperatorT]:
    """Finds the operators of some kinds that hang together with some others.

    Args:
        model: The model of the graph.
        graph: One of its graphs.
        seeds: Names of the operators to begin at.
        kinds: Names of the operators to go on to, against and along the arrows.

    Returns:
        The operators that are reached, the first ones among them, each once.
    """
    of_tensor = {}
    for operator in graph.operators:
        for tensor in (*operator.inputs, *operator.outputs):
            of_tensor.setdefault(tensor, []).append(operator)
    constants = set(of_tensor).difference(*(o.outputs for o in graph.operators))
    todo = [o for o in graph.operators if operator_name(model, o) in seeds]
    reached = {}
    while todo:
        operator = todo.pop()
        if id(operator) not in reached:
            reached[id(operator)] = operator
            tensors = {*operator.inputs, *operator.outputs} - constants
            neighbors = (o for tensor in tensors for o in of_tensor[tensor])
            todo += [o for o in neighbors if operator_name(model, o) in kinds]
    return list(reached.values())


class _SharingBuilder(flatbuffers.Builder):
    """Writes equal strings and equal vectors once."""

    def __init__(self, size):
        super().__init__(size)
        self._written = {}

    def CreateString(self, text):  # noqa: N802, FlatBuffers
        return self._once(("text", text), super().CreateString, text)

    def CreateNumpyVector(self, values):  # noqa: N802, FlatBuffers
        if values.dtype == np.uint8:  # the weights
            self.Prep(ALIGNMENT, values.nbytes)
        key = (values.dtype.str, values.tobytes())
        return self._once(key, super().CreateNumpyVector, values)

    def _once(self, key, create, value):
        if key not in self._written:
            self._written[key] = create(value)
        return self._written[key]


def compact(content: bytes) -> bytes:
    """Writes a TFLite file anew, so that a further signature costs little.

    The weights are shared already. Graphs of the same layers also have names, shapes
    and scales of channels in common: each is written once. For that a tensor loses
    the name of the model before its own, and the names of what was fused into it.

    Args:
        content: The file.

    Returns:
        A smaller file that computes the same.
    """
    model = parse(content)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.name = short_name(tensor.name.decode())
    builder = _SharingBuilder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def short_name(name: str) -> str:
    """The name of a tensor without the model's, and without what was fused into it.

    Example:
    >>> short_name("deit_1/block_0_1/mlp_1/fc1_1/MatMul;deit_1/block_0_1/mlp_1/BiasAdd")
    'block_0_1/mlp_1/fc1_1/MatMul'
    """
    return name.split(";")[0].split("/", 1)[-1]
