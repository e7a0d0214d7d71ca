"""The Caffe protocol buffer messages that a SqueezeNet file uses, with the fields that it uses.

Field names, numbers and enum values are those of BVLC Caffe's caffe.proto.
"""

from __future__ import annotations

from typing import Any

from ..protobuf import message_classes

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

# message -> its fields: name, number, type as `message_classes` reads it
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
    "InnerProductParameter": [("num_output", 1, "uint32")],
    "BatchNormParameter": [("use_global_stats", 1, "bool"), ("eps", 3, "float")],
    "ScaleParameter": [("bias_term", 4, "bool")],
    "InputParameter": [("shape", 1, "BlobShape*")],
    "TransformationParameter": [
        ("scale", 1, "float=1"),
        ("mirror", 2, "bool"),
        ("crop_size", 3, "uint32"),
        ("mean_file", 4, "string"),
        ("mean_value", 5, "float*"),
        ("force_gray", 7, "bool"),
    ],
    # Before there was a TransformationParameter, each kind of data had these numbers itself.
    "DataParameter": [
        ("scale", 2, "float=1"),
        ("mean_file", 3, "string"),
        ("crop_size", 5, "uint32"),
        ("mirror", 6, "bool"),
    ],
    "ImageDataParameter": [
        ("scale", 2, "float=1"),
        ("mean_file", 3, "string"),
        ("crop_size", 5, "uint32"),
        ("mirror", 6, "bool"),
        ("new_height", 9, "uint32"),
        ("new_width", 10, "uint32"),
        ("is_color", 11, "bool=true"),
    ],
    "MemoryDataParameter": [
        ("channels", 2, "uint32"),
        ("height", 3, "uint32"),
        ("width", 4, "uint32"),
    ],
    "DummyDataParameter": [("shape", 6, "BlobShape*")],
    "LayerParameter": [
        ("name", 1, "string"),
        ("type", 2, "string"),
        ("bottom", 3, "string*"),
        ("top", 4, "string*"),
        ("blobs", 7, "BlobProto*"),
        ("transform_param", 100, "TransformationParameter"),
        ("concat_param", 104, "ConcatParameter"),
        ("convolution_param", 106, "ConvolutionParameter"),
        ("data_param", 107, "DataParameter"),
        ("dropout_param", 108, "DropoutParameter"),
        ("dummy_data_param", 109, "DummyDataParameter"),
        ("eltwise_param", 110, "EltwiseParameter"),
        ("image_data_param", 115, "ImageDataParameter"),
        ("inner_product_param", 117, "InnerProductParameter"),
        ("memory_data_param", 119, "MemoryDataParameter"),
        ("pooling_param", 121, "PoolingParameter"),
        ("relu_param", 123, "ReLUParameter"),
        ("batch_norm_param", 139, "BatchNormParameter"),
        ("elu_param", 140, "ELUParameter"),
        ("scale_param", 142, "ScaleParameter"),
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
        ("data_param", 11, "DataParameter"),
        ("dropout_param", 12, "DropoutParameter"),
        ("image_data_param", 15, "ImageDataParameter"),
        ("pooling_param", 19, "PoolingParameter"),
        ("memory_data_param", 22, "MemoryDataParameter"),
        ("eltwise_param", 24, "EltwiseParameter"),
        ("dummy_data_param", 26, "DummyDataParameter"),
        ("relu_param", 30, "ReLUParameter"),
        ("transform_param", 36, "TransformationParameter"),
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


_classes = message_classes("caffe", _MESSAGES, _ENUMS)
NetParameter: Any = _classes["NetParameter"]
LayerParameter: Any = _classes["LayerParameter"]
BlobProto: Any = _classes["BlobProto"]
BlobShape: Any = _classes["BlobShape"]
