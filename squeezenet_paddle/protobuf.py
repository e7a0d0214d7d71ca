"""Protocol buffer messages from a table, built at import.

A generated module would pin a protobuf version, and would clash with another package that registers
the same messages; these messages are in a pool of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def message_classes(
    package: str,
    messages: Mapping[str, Sequence[tuple[str, int, str]]],
    enums: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, Any]:
    """Makes the classes of messages, by name. As in proto2, a field is written if it was set.

    Args:
        package: their namespace.
        messages: the fields of each message: name, number, type. A type is a scalar, a message or
            an enum, followed by * for repeated, + for repeated and packed, = and a default.
        enums: the values of each enum, by "message.enum".
    """
    enums = enums or {}
    file = descriptor_pb2.FileDescriptorProto(
        name=f"squeezenet_paddle/{package}.proto", package=package, syntax="proto2"
    )
    declared = {name: file.message_type.add(name=name) for name in messages}
    for name, fields in messages.items():
        for field in fields:
            _add_field(declared[name], package, enums, *field)
    for path, values in enums.items():
        message_name, enum_name = path.split(".")
        enum = declared[message_name].enum_type.add(name=enum_name)
        for name, number in values.items():
            enum.value.add(name=name, number=number)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    descriptors = {name: pool.FindMessageTypeByName(f"{package}.{name}") for name in messages}
    if hasattr(message_factory, "GetMessageClass"):  # protobuf 4.22 and later
        return {name: message_factory.GetMessageClass(d) for name, d in descriptors.items()}
    factory = message_factory.MessageFactory(pool)
    return {name: factory.GetPrototype(d) for name, d in descriptors.items()}


def _add_field(
    message: Any, package: str, enums: Mapping[str, Any], name: str, number: int, kind: str
) -> None:
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
        field.type = _Field.TYPE_ENUM if kind in enums else _Field.TYPE_MESSAGE
        field.type_name = f".{package}.{kind}"
