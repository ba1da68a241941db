"""Gemini's own Schema, an OpenAPI dialect with types in capitals, as JSON Schema."""

from __future__ import annotations

from typing import Any

from fastroute.callers.gemini_contents import camel
from fastroute.callers.shape import Body, ShapeError, a_list, a_string, an_object

COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
DEPTH_MAX = 64


def json_schema(schema: Any, param: str, depth: int = 0) -> Body:
    """The schema with types in small letters, `nullable` as a type, counts as numbers, and order hints left out."""
    if depth > DEPTH_MAX:
        raise ShapeError(param[:200], f"is nested deeper than {DEPTH_MAX}")
    given = camel(an_object(schema, param), param)
    told: Body = {}
    for key, value in given.items():
        at = f"{param}.{key}"
        if value is None or key in ("nullable", "propertyOrdering", "type"):
            continue
        if key in ("properties", "$defs"):
            # Keys here are the caller's own names: they stay as they are.
            told[key] = {
                name: json_schema(item, f"{at}.{name}", depth + 1) for name, item in an_object(value, at).items()
            }
        elif key == "items" or (key == "additionalProperties" and isinstance(value, dict)):
            told[key] = json_schema(value, at, depth + 1)
        elif key == "anyOf":
            told[key] = [json_schema(item, f"{at}[{i}]", depth + 1) for i, item in enumerate(a_list(value, at))]
        elif key == "example":
            told["examples"] = [value]
        elif key in COUNTS and isinstance(value, str):
            if not (value.isascii() and value.isdigit() and len(value) < 19):
                raise ShapeError(at, "must be a count")
            told[key] = int(value)  # protobuf writes its 64-bit numbers as strings
        else:
            told[key] = value
    kind = given.get("type")
    if kind is not None:
        name = a_string(kind, f"{param}.type").lower()
        if name != "type_unspecified":
            told["type"] = [name, "null"] if given.get("nullable") is True else name
    return told
