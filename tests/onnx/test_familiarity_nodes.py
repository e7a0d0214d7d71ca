"""The nodes of `add_familiarity` alone, beside numpy, where an image is no ordinary one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from networks import small_calibration
from onnx import TensorProto, helper, numpy_helper

from squeezenet_paddle.onnx.familiarity import add_familiarity


@pytest.mark.parametrize(("groups", "axes"), [(0, 3), (1, 3), (4, 3), (4, 0)])
def test_equal_logits_and_dead_maps(groups: int, axes: int) -> None:
    """A ReLU behind conv10 can make all logits 0: the image is given the first class, then."""
    familiarity = small_calibration(5, groups, axes=axes).familiarity
    nodes, constants = [], []

    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(name: str, values: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(values, name))
        return name

    add_familiarity(familiarity, "logits", "means", node, constant)
    inputs = [("logits", 5), ("means", 512)]
    graph = helper.make_graph(
        nodes,
        "familiarity",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", size]) for n, size in inputs],
        [helper.make_tensor_value_info("familiarity", TensorProto.FLOAT, ["n", 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (4, 5)).astype("float32")
    logits[1], logits[2, :2] = 0, 3
    means = rng.uniform(0, 1, (4, 512)).astype("float32")
    means[3] = 0
    found = session.run(None, {"logits": logits, "means": means})[0][:, 0]
    np.testing.assert_allclose(found, familiarity(logits, means), rtol=1e-4, atol=1e-4)
