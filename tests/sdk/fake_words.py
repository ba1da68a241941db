"""What every fake provider says: its texts and figures, values made from schemas, and a reply that tells how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

TEXT = "Hello, wörld! ☀️ 你好"
AFTER_TOOLS = "It is sunny in both."
THOUGHT = "The user greets; I greet back."
SIGNATURE = "c2lnbmVkLWJ5LXRoZS1wcm92aWRlcg=="
USAGE = (23, 7)  # tokens in, tokens out
CITIES = ("Paris", "Lima")
AUDIO = b"ID3" + bytes(range(256)) * 40
TRANSCRIPT = "Hello from the tape."

Body = dict[str, Any]


@dataclass
class Reply:
    """What goes back; events are sent one by one, and `end` says how the body ends: whole or cut."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    events: list[bytes] | None = None
    end: str = "whole"
    pause: bool = False  # before the last event, so that the ones before it have long been relayed


def document(body: Any) -> Reply:
    return Reply(200, json.dumps(body, ensure_ascii=False).encode(), {"x-request-id": "req_of_the_provider"})


def failure(dialect: str, status: int) -> Reply:
    message = f"refused with {status} by order"
    if dialect == "openai":
        told: Body = {"error": {"message": message, "type": _TYPES.get(status, "server_error"), "param": None}}
        told["error"]["code"] = "rate_limit_exceeded" if status == 429 else None
    elif dialect == "anthropic":
        kinds = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
        kind = kinds.get(status, "rate_limit_error" if status == 429 else "api_error")
        told = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    else:
        words = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 401: "UNAUTHENTICATED"}
        told = {"error": {"code": status, "message": message, "status": words.get(status, "INTERNAL")}}
    headers = {"retry-after": "1"} if status == 429 else {}
    return Reply(status, json.dumps(told).encode(), headers)


_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
}


def value_of(schema: Body, root: Body | None = None) -> Any:
    """A value of a JSON schema, always the same."""
    root = root or schema
    if "$ref" in schema:
        return value_of(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    for word in ("anyOf", "allOf"):
        if word in schema:
            return value_of(schema[word][0], root)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: value_of(each, root) for name, each in schema.get("properties", {}).items()}
        case "array":
            return [value_of(schema.get("items", {}), root)]
        case "integer" | "number":
            return 7
        case "boolean":
            return True
        case "null":
            return None
    return CITIES[0]


def arguments_of(schema: Body, count: int) -> list[Body]:
    """Arguments for as many calls as asked, each for another city where the schema has one."""
    made = []
    for city in CITIES[:count]:
        arguments = value_of(schema)
        made.append({**arguments, "city": city} if "city" in arguments else arguments)
    return made


def pieces(text: str) -> Iterator[str]:
    """Text in pieces of three characters."""
    yield from (text[at : at + 3] for at in range(0, len(text), 3))


def sse(data: Any, event: str = "") -> bytes:
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)}\n\n".encode()


def count_of(prompt: Any) -> int:
    return 2 if "both" in json.dumps(prompt) else 1
