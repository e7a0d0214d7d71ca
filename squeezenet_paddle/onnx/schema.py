"""The ONNX protocol buffer messages that a SqueezeNet file uses, with the fields that it uses.

Field names and numbers are those of onnx.proto; declared here, so that writing a file needs neither
the package `onnx` nor the protobuf version that it pins.
"""

from __future__ import annotations

from ..protobuf import message_classes

_MESSAGES = {
    "TensorProto": [
        ("dims", 1, "int64*"),
        ("data_type", 2, "int32"),
        ("name", 8, "string"),
        ("raw_data", 9, "bytes"),
    ],
    "AttributeProto": [
        ("name", 1, "string"),
        ("f", 2, "float"),
        ("i", 3, "int64"),
        ("ints", 8, "int64*"),
        ("type", 20, "int32"),
    ],
    "NodeProto": [
        ("input", 1, "string*"),
        ("output", 2, "string*"),
        ("name", 3, "string"),
        ("op_type", 4, "string"),
        ("attribute", 5, "AttributeProto*"),
    ],
    "Dimension": [("dim_value", 1, "int64"), ("dim_param", 2, "string")],
    "TensorShapeProto": [("dim", 1, "Dimension*")],
    "TensorTypeProto": [("elem_type", 1, "int32"), ("shape", 2, "TensorShapeProto")],
    "TypeProto": [("tensor_type", 1, "TensorTypeProto")],
    "ValueInfoProto": [("name", 1, "string"), ("type", 2, "TypeProto")],
    "GraphProto": [
        ("node", 1, "NodeProto*"),
        ("name", 2, "string"),
        ("initializer", 5, "TensorProto*"),
        ("input", 11, "ValueInfoProto*"),
        ("output", 12, "ValueInfoProto*"),
    ],
    "OperatorSetIdProto": [("domain", 1, "string"), ("version", 2, "int64")],
    "StringStringEntryProto": [("key", 1, "string"), ("value", 2, "string")],
    "ModelProto": [
        ("ir_version", 1, "int64"),
        ("producer_name", 2, "string"),
        ("producer_version", 3, "string"),
        ("graph", 7, "GraphProto"),
        ("opset_import", 8, "OperatorSetIdProto*"),
        ("metadata_props", 14, "StringStringEntryProto*"),
    ],
}

FLOAT_ATTRIBUTE, INT_ATTRIBUTE, INTS_ATTRIBUTE = 1, 2, 7  # of AttributeProto.AttributeType
# Of TensorProto.DataType.
DATA_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7}

_classes = message_classes("squeezenet_onnx", _MESSAGES)
ModelProto = _classes["ModelProto"]
GraphProto = _classes["GraphProto"]
