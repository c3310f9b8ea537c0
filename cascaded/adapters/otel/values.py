"""Values as OTLP has them."""

from collections.abc import Iterable, Mapping

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue

Value = str | bool | int | float | list[str] | None


def pairs(values: Mapping[str, Value]) -> list[KeyValue]:
    """Attributes; those that are `None` are left out."""
    return [
        KeyValue(key=key, value=_any(value)) for key, value in values.items() if value is not None
    ]


def texts(labels: Iterable[tuple[str, str]]) -> list[KeyValue]:
    """Attributes that are texts."""
    return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in labels]


def _any(value: str | bool | int | float | list[str]) -> AnyValue:
    match value:
        case str():
            return AnyValue(string_value=value)
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case _:
            return AnyValue(
                array_value=ArrayValue(values=[AnyValue(string_value=one) for one in value])
            )
