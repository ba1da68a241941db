"""A step's description of its work, read strictly: the first rule that fails is the error.

The order of the rules is part of the contract, so the parser walks them by hand instead of leaving it to a decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import msgspec
from msgspec import Struct

from fastroute import _scan
from fastroute.domain import (
    CAPABILITIES,
    MICRODOLLARS_MAX,
    RUNTIME_PREFERENCES,
    TOKENS_MAX,
    Agent,
    Descriptor,
    ExpectedTokens,
    RuntimePreference,
)
from fastroute.errors import DescriptorError

LATENCY_MAX_MS = 1_000_000_000
ITERATIONS_MAX = 1_000_000


class RouteRequest(Struct, frozen=True):
    """A descriptor together with the place in a workflow that asks."""

    descriptor: Descriptor
    workflow_id: str | None = None
    step_id: str | None = None
    parent_step_id: str | None = None


def parse(body: object) -> Descriptor:
    """A descriptor from its JSON object; `DescriptorError` names the first field that breaks a rule.

    An absent field and an explicit null are the same; any other value is taken as it stands, never replaced.
    """
    if not isinstance(body, Mapping):
        raise DescriptorError("body", f"is a JSON object, not {_shown(body)}")
    if body.get("quality_bar") is not None:
        raise DescriptorError(
            "quality_bar", "is reserved and takes only null today; leave it out", kind="quality_bar_unsupported"
        )
    task_class = body.get("task_class")
    if not isinstance(task_class, str) or not task_class:
        raise DescriptorError("task_class", f"is a non-empty string, not {_shown(task_class)}")
    budget = _positive(body, "budget_ceiling_microdollars", MICRODOLLARS_MAX)
    latency = _positive(body, "latency_tolerance_ms", LATENCY_MAX_MS)
    capabilities = _capabilities(body.get("capabilities"))
    preference: RuntimePreference = "any"
    preferred = body.get("runtime_preference")
    if preferred is not None:
        if preferred not in RUNTIME_PREFERENCES:
            raise DescriptorError(
                "runtime_preference", f"is one of {', '.join(RUNTIME_PREFERENCES)}, not {_shown(preferred)}"
            )
        preference = preferred
    expected = _expected_tokens(body.get("expected_tokens"))
    agent = _agent(body.get("agent"))
    iterations = body.get("max_outcome_iterations")
    if iterations is not None:
        iterations = _positive(body, "max_outcome_iterations", ITERATIONS_MAX)
    return Descriptor(
        task_class=task_class,
        budget_ceiling_microdollars=budget,
        latency_tolerance_ms=latency,
        expected_tokens=expected,
        capabilities=capabilities,
        runtime_preference=preference,
        agent=agent,
        max_outcome_iterations=iterations,
    )


def parse_route_request(body: object) -> RouteRequest:
    """The body of `POST /v1/route`, decoded: a descriptor's fields and the three optional ids beside them."""
    descriptor = parse(body)
    assert isinstance(body, Mapping)
    ids = {}
    for field in ("workflow_id", "step_id", "parent_step_id"):
        value = body.get(field)
        if value is not None and not isinstance(value, str):
            raise DescriptorError(field, f"is a string or null, not {_shown(value)}")
        ids[field] = value
    return RouteRequest(descriptor, **ids)


def decode_route_request(text: bytes) -> RouteRequest:
    """The same from bytes; what is not strict JSON (a key twice, depth without end) is refused as the body."""
    try:
        _scan.scan_request(text)
    except _scan.ScanError as error:
        raise DescriptorError("body", f"cannot be read: {error.message}") from None
    return parse_route_request(msgspec.json.decode(text))


def _positive(body: Mapping[str, Any], field: str, most: int) -> int:
    value = body.get(field)
    if not _is_integer(value) or not 0 < value <= most:
        raise DescriptorError(field, f"is an integer from 1 to {most}, not {_shown(value)}")
    return value


def _capabilities(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise DescriptorError("capabilities", f"is a list, not {_shown(value)}")
    for name in value:
        if name not in CAPABILITIES:
            raise DescriptorError("capabilities", f"are among {', '.join(CAPABILITIES)}; {_shown(name)} is not")
    return tuple(dict.fromkeys(value))  # asking twice is asking once


def _expected_tokens(value: object) -> ExpectedTokens | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise DescriptorError("expected_tokens", f'is an object {{"in": int, "out": int}}, not {_shown(value)}')
    for key in ("in", "out"):
        if key not in value:
            raise DescriptorError("expected_tokens", f"needs both in and out; {key} is missing")
        count = value[key]
        if not _is_integer(count) or not 0 <= count <= TOKENS_MAX:
            raise DescriptorError("expected_tokens", f"{key} is an integer from 0 to {TOKENS_MAX}, not {_shown(count)}")
    return ExpectedTokens(value["in"], value["out"])


def _agent(value: object) -> Agent | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise DescriptorError("agent", f"is an object with a digest, not {_shown(value)}")
    digest = value.get("digest")
    if not isinstance(digest, str) or not digest:
        raise DescriptorError("agent", f"digest is a non-empty string, not {_shown(digest)}")
    for key in ("name", "version"):
        text = value.get(key)
        if text is not None and not isinstance(text, str):
            raise DescriptorError("agent", f"{key} is a string or null, not {_shown(text)}")
    return Agent(digest, value.get("name"), value.get("version"))


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """A refused value as its writer would recognise it, cut short."""
    if value is None:
        return "null"
    try:
        text = msgspec.json.encode(value, enc_hook=str).decode(errors="replace")
    except (ValueError, RecursionError):  # a number or a nesting that JSON itself cannot hold
        return f"a {type(value).__name__} beyond all bounds"
    return text if len(text) <= 60 else text[:57] + "..."
