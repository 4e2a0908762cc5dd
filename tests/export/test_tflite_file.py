import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from keras_deit.export.tflite_file import (
    builtin_operators,
    compact,
    connected,
    operator_name,
    parse,
    signature_graphs,
)


def file_with_operator(code, name=None):
    """A TFLite file with one operator code and nothing else."""
    operator = schema.OperatorCodeT()
    operator.builtinCode, operator.customCode = code, name
    operator.deprecatedBuiltinCode = min(code, 127)
    model = schema.ModelT()
    model.operatorCodes = [operator]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.fixture(scope="module")
def two_signatures(tmp_path_factory):
    """`double` and `triple` of the same product, and the product's matrix."""
    matrix = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    module = tf.Module()

    def times(factor):
        @tf.function(input_signature=[tf.TensorSpec((1, 64), tf.float32, "x")])
        def function(x):
            with tf.name_scope("a_model"), tf.name_scope("a_layer"):
                return {"y": tf.nn.relu(tf.matmul(x, matrix, name="product")) * factor}

        return function

    module.double, module.triple = times(2.0), times(3.0)
    folder = str(tmp_path_factory.mktemp("file") / "model")
    signatures = {"double": module.double, "triple": module.triple}
    tf.saved_model.save(module, folder, signatures)
    return tf.lite.TFLiteConverter.from_saved_model(folder).convert(), matrix


def test_reads_the_name_of_an_operator_of_any_age():
    assert builtin_operators(file_with_operator(0)) == ["ADD"]
    assert builtin_operators(file_with_operator(150)) == ["GELU"]  # above 127


def test_an_operator_that_is_not_built_in_is_refused():
    custom = file_with_operator(schema.BuiltinOperator.CUSTOM, "FlexErf")
    message = r"A TFLite file must have built-in operators only\. Received: FlexErf\."
    with pytest.raises(RuntimeError, match=message):
        builtin_operators(custom)


def chain():
    """0 -> ADD -> 1 -> MUL -> 2 -> EXP, 2 -> NEG; EXP and SIN share the constant 9."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.operatorCodes, graph.operators = [], []
    operators = {
        "ADD": ([0, -1], [1]),
        "MUL": ([1], [2]),
        "EXP": ([2, 9], [3]),
        "NEG": ([2], [4]),
        "SIN": ([9, -1], [5]),
    }
    for index, (name, (inputs, outputs)) in enumerate(operators.items()):
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        operator.opcodeIndex, operator.inputs, operator.outputs = index, inputs, outputs
        model.operatorCodes.append(code)
        graph.operators.append(operator)
    return model, graph


@pytest.mark.parametrize(
    ("seeds", "kinds", "expected"),
    [
        ({"MUL"}, set(), {"MUL"}),
        ({"MUL"}, {"ADD"}, {"MUL", "ADD"}),  # against the arrow
        ({"MUL"}, {"EXP", "NEG"}, {"MUL", "EXP", "NEG"}),  # along it
        ({"EXP"}, {"NEG"}, {"EXP", "NEG"}),  # both use what MUL makes
        ({"ADD"}, {"EXP", "NEG"}, {"ADD"}),  # MUL is between
        ({"ADD"}, {"MUL", "EXP", "NEG"}, {"ADD", "MUL", "EXP", "NEG"}),
        ({"EXP", "ADD"}, set(), {"EXP", "ADD"}),
        ({"EXP"}, {"SIN"}, {"EXP"}),  # a constant does not connect
        ({"SUB"}, {"ADD", "MUL"}, set()),
    ],
)
def test_goes_on_to_the_kinds_that_are_asked_for(seeds, kinds, expected):
    model, graph = chain()
    reached = [operator_name(model, o) for o in connected(model, graph, seeds, kinds)]
    assert set(reached) == expected
    assert len(reached) == len(expected)


def test_a_compact_file_computes_the_same_in_each_signature(two_signatures):
    content, matrix = two_signatures
    small = compact(content)
    assert signature_graphs(parse(small)) == signature_graphs(parse(content))
    x = np.random.default_rng(1).normal(size=(1, 64)).astype(np.float32)
    interpreter = Interpreter(model_content=small)
    for name, factor in (("double", 2), ("triple", 3)):
        y = interpreter.get_signature_runner(name)(x=x)["y"]
        np.testing.assert_allclose(y, factor * np.maximum(x @ matrix, 0), rtol=1e-4)


def test_a_compact_file_says_each_thing_once(two_signatures):
    content, matrix = two_signatures
    small = compact(content)
    assert len(small) < len(content)
    weights = matrix.T.tobytes()
    assert small.count(weights) == 1
    assert small.index(weights) % 16 == 0
    name = b"a_layer/product"
    assert 0 < small.count(name) < content.count(name)
    assert b"a_model" not in small
