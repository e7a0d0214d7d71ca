"""The part of Caffe's protocol buffer messages that a SqueezeNet file uses.

Field names, numbers and enum values are those of BVLC Caffe's caffe.proto. The descriptors are
built here, at import, in a pool of their own: a generated module would pin a protobuf version, and
would clash with another package that registers Caffe's messages.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "bool": _Field.TYPE_BOOL,
    "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
}

# message.enum -> its values
_ENUMS = {
    "PoolingParameter.PoolMethod": {"MAX": 0, "AVE": 1, "STOCHASTIC": 2},
    "PoolingParameter.RoundMode": {"CEIL": 0, "FLOOR": 1},
    "EltwiseParameter.EltwiseOp": {"PROD": 0, "SUM": 1, "MAX": 2},
    "V1LayerParameter.LayerType": {
        "NONE": 0,
        "ACCURACY": 1,
        "BNLL": 2,
        "CONCAT": 3,
        "CONVOLUTION": 4,
        "DATA": 5,
        "DROPOUT": 6,
        "EUCLIDEAN_LOSS": 7,
        "FLATTEN": 8,
        "HDF5_DATA": 9,
        "HDF5_OUTPUT": 10,
        "IM2COL": 11,
        "IMAGE_DATA": 12,
        "INFOGAIN_LOSS": 13,
        "INNER_PRODUCT": 14,
        "LRN": 15,
        "MULTINOMIAL_LOGISTIC_LOSS": 16,
        "POOLING": 17,
        "RELU": 18,
        "SIGMOID": 19,
        "SOFTMAX": 20,
        "SOFTMAX_LOSS": 21,
        "SPLIT": 22,
        "TANH": 23,
        "WINDOW_DATA": 24,
        "ELTWISE": 25,
        "POWER": 26,
        "SIGMOID_CROSS_ENTROPY_LOSS": 27,
        "HINGE_LOSS": 28,
        "MEMORY_DATA": 29,
        "ARGMAX": 30,
        "THRESHOLD": 31,
        "DUMMY_DATA": 32,
        "SLICE": 33,
        "MVN": 34,
        "ABSVAL": 35,
        "SILENCE": 36,
        "CONTRASTIVE_LOSS": 37,
        "EXP": 38,
        "DECONVOLUTION": 39,
    },
}

# message -> its fields: name, number, type; * repeated, + repeated and packed, = a default
_MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    "BlobShape": [("dim", 1, "int64+")],
    "BlobProto": [
        ("num", 1, "int32"),
        ("channels", 2, "int32"),
        ("height", 3, "int32"),
        ("width", 4, "int32"),
        # On the wire a packed list of numbers is a string of bytes: declared as one, numpy reads
        # it at once, whatever the speed of this protobuf.
        ("data", 5, "bytes*"),
        ("diff", 6, "bytes*"),
        ("shape", 7, "BlobShape"),
        ("double_data", 8, "bytes*"),
        ("double_diff", 9, "bytes*"),
    ],
    # The same with the numbers declared as in caffe.proto, for lists that are not packed.
    "BlobNumbers": [("data", 5, "float+"), ("double_data", 8, "double+")],
    "ConvolutionParameter": [
        ("num_output", 1, "uint32"),
        ("bias_term", 2, "bool=true"),
        ("pad", 3, "uint32*"),
        ("kernel_size", 4, "uint32*"),
        ("group", 5, "uint32=1"),
        ("stride", 6, "uint32*"),
        ("pad_h", 9, "uint32"),
        ("pad_w", 10, "uint32"),
        ("kernel_h", 11, "uint32"),
        ("kernel_w", 12, "uint32"),
        ("stride_h", 13, "uint32"),
        ("stride_w", 14, "uint32"),
        ("dilation", 18, "uint32*"),
    ],
    "PoolingParameter": [
        ("pool", 1, "PoolingParameter.PoolMethod"),
        ("kernel_size", 2, "uint32"),
        ("stride", 3, "uint32=1"),
        ("pad", 4, "uint32"),
        ("kernel_h", 5, "uint32"),
        ("kernel_w", 6, "uint32"),
        ("stride_h", 7, "uint32"),
        ("stride_w", 8, "uint32"),
        ("pad_h", 9, "uint32"),
        ("pad_w", 10, "uint32"),
        ("global_pooling", 12, "bool"),
        ("round_mode", 13, "PoolingParameter.RoundMode"),
    ],
    "ConcatParameter": [("concat_dim", 1, "uint32=1"), ("axis", 2, "int32=1")],
    "EltwiseParameter": [
        ("operation", 1, "EltwiseParameter.EltwiseOp=SUM"),
        ("coeff", 2, "float*"),
    ],
    "DropoutParameter": [("dropout_ratio", 1, "float=0.5")],
    "ReLUParameter": [("negative_slope", 1, "float")],
    "ELUParameter": [("alpha", 1, "float=1")],
    "InputParameter": [("shape", 1, "BlobShape*")],
    "LayerParameter": [
        ("name", 1, "string"),
        ("type", 2, "string"),
        ("bottom", 3, "string*"),
        ("top", 4, "string*"),
        ("blobs", 7, "BlobProto*"),
        ("concat_param", 104, "ConcatParameter"),
        ("convolution_param", 106, "ConvolutionParameter"),
        ("dropout_param", 108, "DropoutParameter"),
        ("eltwise_param", 110, "EltwiseParameter"),
        ("pooling_param", 121, "PoolingParameter"),
        ("relu_param", 123, "ReLUParameter"),
        ("elu_param", 140, "ELUParameter"),
        ("input_param", 143, "InputParameter"),
    ],
    "V0LayerParameter": [("name", 1, "string"), ("type", 2, "string")],
    "V1LayerParameter": [
        ("layer", 1, "V0LayerParameter"),  # the V0 format nests the layer once more
        ("bottom", 2, "string*"),
        ("top", 3, "string*"),
        ("name", 4, "string"),
        ("type", 5, "V1LayerParameter.LayerType"),
        ("blobs", 6, "BlobProto*"),
        ("concat_param", 9, "ConcatParameter"),
        ("convolution_param", 10, "ConvolutionParameter"),
        ("dropout_param", 12, "DropoutParameter"),
        ("pooling_param", 19, "PoolingParameter"),
        ("eltwise_param", 24, "EltwiseParameter"),
        ("relu_param", 30, "ReLUParameter"),
    ],
    "NetParameter": [
        ("name", 1, "string"),
        ("layers", 2, "V1LayerParameter*"),
        ("input", 3, "string*"),
        ("input_dim", 4, "int32*"),
        ("input_shape", 8, "BlobShape*"),
        ("layer", 100, "LayerParameter*"),
    ],
}


def _add_field(message: Any, name: str, number: int, kind: str) -> None:
    kind, _, default = kind.partition("=")
    repeated = kind[-1] in "*+"
    field = message.field.add(
        name=name,
        number=number,
        label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL,
    )
    if kind.endswith("+"):
        field.options.packed = True
    if default:
        field.default_value = default
    kind = kind.rstrip("*+")
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _Field.TYPE_ENUM if kind in _ENUMS else _Field.TYPE_MESSAGE
        field.type_name = f".caffe.{kind}"


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="squeezenet_paddle/caffe.proto", package="caffe", syntax="proto2"
    )
    messages = {}
    for message_name, fields in _MESSAGES.items():
        messages[message_name] = message = file.message_type.add(name=message_name)
        for field in fields:
            _add_field(message, *field)
    for path, values in _ENUMS.items():
        message_name, enum_name = path.split(".")
        enum = messages[message_name].enum_type.add(name=enum_name)
        for name, number in values.items():
            enum.value.add(name=name, number=number)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    descriptors = {name: pool.FindMessageTypeByName(f"caffe.{name}") for name in _MESSAGES}
    if hasattr(message_factory, "GetMessageClass"):  # protobuf 4.22 and later
        return {name: message_factory.GetMessageClass(d) for name, d in descriptors.items()}
    factory = message_factory.MessageFactory(pool)
    return {name: factory.GetPrototype(d) for name, d in descriptors.items()}


_classes = _build()
NetParameter: Any = _classes["NetParameter"]
LayerParameter: Any = _classes["LayerParameter"]
BlobNumbers: Any = _classes["BlobNumbers"]
