"""Writes what `Familiarity` computes as nodes of an ONNX graph, with its integers as integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import numpy as np

from ..familiarity import LARGEST_ODDS, LEAST_OVERLAP, SHARPNESS, Familiarity, kin, unit
from .schema import DATA_TYPES

AddNode = Callable[..., str]  # (operator, inputs, output, **attributes) -> output
AddConstant = Callable[[str, np.ndarray], str]


def add_familiarity(
    familiarity: Familiarity, logits: str, means: str, node: AddNode, constant: AddConstant
) -> str:
    """Adds the nodes that make "familiarity", float32 [N, 1].

    Args:
        familiarity: of the model.
        logits, means: tensors, [N, C] and [N, M].
        node, constant: add a node, and a constant.
    """

    def numbers(name: str, values: object) -> str:
        return constant(f"familiarity/{name}", np.asarray(values, "float32"))

    def add(operator: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        return node(operator, inputs, f"familiarity/{name}", **attributes)

    classes = len(familiarity.prototypes)
    largest = add("ReduceMax", [logits], "largest", axes=[1], keepdims=1)
    first = add("ArgMax", [logits], "first", axis=1, keepdims=1)  # one class, of equal ones too
    ids = constant("familiarity/ids", np.arange(classes)[None].astype("int64"))
    equal = add("Equal", [first, ids], "is_first")
    given = add("Cast", [equal], "given", to=DATA_TYPES["float32"])  # [N, C], 1 at the class
    ones = numbers("ones", np.ones((classes, 1)))

    def of_given(values: str, name: str) -> str:
        """[N, 1]: of [N, C], the value of the class that an image is given."""
        return add("MatMul", [add("Mul", [values, given], f"{name}/masked"), ones], name)

    hidden = add("Mul", [given, numbers("hides", 1e9)], "hidden")
    others = add("Sub", [logits, hidden], "others")
    total = add("ReduceLogSumExp", [others], "total", axes=[1], keepdims=1)
    odds = add("Sub", [largest, total], "odds")
    terms = [add("Min", [odds, numbers("largest_odds", LARGEST_ODDS)], "confidence")]

    roots = add("Sqrt", [add("Max", [means, numbers("zero", 0)], "positive")], "roots")
    length = add("ReduceL2", [roots], "length", axes=[1], keepdims=1)
    length = add("Max", [length, numbers("tiny", 1e-12)], "length/positive")
    direction = add("Div", [roots, length], "direction")
    likenesses = []
    for i, prototypes in enumerate(familiarity.prototypes.transpose(1, 0, 2)):
        integers = constant(f"familiarity/prototypes/{i}", np.ascontiguousarray(prototypes.T))
        floats = add("Cast", [integers], f"prototypes/{i}/float", to=DATA_TYPES["float32"])
        product = add("MatMul", [direction, floats], f"likeness/{i}/integers")
        lengths = np.maximum(np.linalg.norm(prototypes.astype("float64"), axis=1), 1e-12)
        steps = numbers(f"likeness/{i}/steps", 1 / lengths)
        likenesses.append(add("Mul", [product, steps], f"likeness/{i}"))
    nearest = likenesses[0]
    if len(likenesses) > 1:
        nearest = add("Max", likenesses, "likeness/nearest")
    terms.append(of_given(nearest, "likeness"))

    if len(familiarity.groups):
        weights = familiarity.groups * float(familiarity.group_scale)
        directions = kin(weights)
        usual = unit(familiarity.usual.astype("float64") @ directions)
        integers = constant("familiarity/groups", familiarity.groups)
        floats = add("Cast", [integers], "groups/float", to=DATA_TYPES["float32"])
        scale = SHARPNESS * float(familiarity.group_scale)
        sizes = numbers("groups/sizes", np.log(familiarity.group_sizes))
        group_logits = add("Gemm", [means, floats, sizes], "groups/logits", alpha=scale, transB=1)
        shares = add("Softmax", [group_logits], "groups/shares", axis=1)
        # The direction in which an image lies: a sum of those of the groups, of the same integers.
        lengths = np.linalg.norm(weights - weights.mean(axis=0), axis=1)
        steps = float(familiarity.group_scale) / np.maximum(lengths, 1e-12)
        parts = add("Mul", [shares, numbers("groups/steps", steps)], "groups/parts")
        total = add("MatMul", [parts, numbers("groups/ones", np.ones((len(weights), 1)))], "sum")
        mean = numbers("groups/mean", familiarity.groups.mean(axis=0, keepdims=True))
        middle = add("MatMul", [total, mean], "groups/middle")
        place = add("Sub", [add("MatMul", [parts, floats], "groups/sums"), middle], "groups/place")
        length = add("ReduceL2", [place], "groups/length", axes=[1], keepdims=1)
        length = add("Max", [length, numbers("groups/tiny", 1e-12)], "groups/length/positive")
        alike = add("MatMul", [shares, numbers("usual", directions @ usual.T)], "kinship/all")
        terms.append(of_given(add("Div", [alike, length], "kinship/cosine"), "kinship"))

    if len(familiarity.axes):
        along = add("MatMul", [direction, numbers("axes", familiarity.axes.T)], "along")
        place = add("MatMul", [given, numbers("places", familiarity.places)], "place")
        middle = numbers("middle", familiarity.middle[None])
        distances = []
        for name, origin, weights in (
            ("all", middle, familiarity.narrowing),
            ("own", place, np.ones(len(familiarity.axes))),
        ):
            offset = add("Sub", [along, origin], f"closeness/{name}/offset")
            square = add("Mul", [offset, offset], f"closeness/{name}/square")
            column = numbers(f"closeness/{name}/weights", weights[:, None])
            distances.append(add("MatMul", [square, column], f"closeness/{name}"))
        terms.append(add("Sub", distances, "closeness"))

    if len(familiarity.known):
        overlap = add("MatMul", [shares, numbers("known", familiarity.known[:, None])], "known/sum")
        overlap = add("Add", [overlap, numbers("known/least", LEAST_OVERLAP)], "known/positive")
        terms.append(add("Log", [overlap], "overlap"))

    standardised = []
    for i, term in enumerate(terms):
        spread = familiarity.spread[:, i : i + 1].astype("float64") * len(terms)
        center = add(
            "MatMul",
            [given, numbers(f"{i}/centers", familiarity.center[:, i : i + 1])],
            f"{i}/center",
        )
        step = add("MatMul", [given, numbers(f"{i}/steps", 1 / spread)], f"{i}/step")
        difference = add("Sub", [term, center], f"{i}/difference")
        standardised.append(add("Mul", [difference, step], f"{i}/standardised"))
    return node("Sum", standardised, "familiarity")
