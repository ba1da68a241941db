"""The face of the compiled readers: a request's body in one pass, and the streams that come back.

They never await, log or read a clock. Work is linear in the bytes given, whatever they say and however they are cut.
"""

from collections.abc import Iterable
from typing import Final

from fastroute.errors import FastrouteError

MAX_DEPTH: Final[int]
MAX_MESSAGES: Final[int]
MAX_TOOLS: Final[int]
MAX_NUMBER: Final[int]
"""Characters of one number."""
MAX_KEYS: Final[int]
"""Keys of one object."""
MAX_EVENT_BYTES: Final[int]

WHYS: Final[tuple[str, ...]]
"""syntax, not_object, depth, duplicate_key, utf8, surrogate, number, too_many_keys, too_many_messages, too_many_tools,
type, too_large, event_too_large."""

class ScanError(FastrouteError):
    """Bytes were refused; `why` is one of WHYS, `offset` the byte, and `message` never tells the content.

    The one exception is a key given twice, which is named, cut to 40 characters.
    """

    why: str
    offset: int
    message: str
    def __init__(self, why: str, offset: int, message: str | None = None) -> None: ...

class Scan:
    """What one body says; made by a scanner. It holds on to the body."""

    @property
    def body(self) -> bytes: ...
    @property
    def model(self) -> str | None:
        """None when absent or null."""

    @property
    def stream(self) -> bool:
        """False when absent or null."""

    @property
    def text_bytes(self) -> int:
        """At least the bytes of text that any prompt template makes of this body.

        Every string, escapes undone; and wherever JSON itself reaches the model (all but the frame of the body and of
        each message) also keys, numbers and quotes, with brackets, commas and colons twice for the white space beside
        them.
        """

    @property
    def messages(self) -> int:
        """Elements of `messages`; 0 when that is absent or no array."""

    @property
    def tools(self) -> int:
        """Elements of `tools`; 0 when that is absent or no array."""

    @property
    def media(self) -> int:
        """Objects in messages, input, prompt, system and contents that look like an image, audio, video or a file."""

    def span(self, name: bytes) -> tuple[int, int] | None:
        """Where the value of a top-level name stands; None when absent. `ValueError` for a name never asked for."""

    def raw(self, name: bytes) -> bytes | None:
        """The bytes of that value, as JSON."""

    def integer(self, name: bytes) -> int | None:
        """That value as an integer; None when absent or null, `ScanError("type")` when it is anything else."""

    def most(self, names: tuple[bytes, ...]) -> int | None:
        """The largest of these values as integers; None when all are absent or null, `ScanError("type")` as `integer`."""

    def usage_options(self) -> bytes | None:
        """What `stream_options` must become for usage to be sent; None when the body asks for it already."""

    def rewrite(self, changes: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The body with top-level values replaced, or added at its end where absent; each name at most once.

        Replacements are JSON and are not looked at. Every other byte stays.
        """

class RequestScanner:
    """Proves bodies and notes where the top-level values of `names` stand. Made once; it keeps nothing between bodies.

    Nine names always count: model, stream, stream_options, messages, tools, input, prompt, system, contents,
    and up to 32 are possible in all. Names are plain ASCII without quotes or backslashes.
    """

    def __init__(self, names: Iterable[bytes] = (), max_depth: int = 64) -> None: ...
    def scan(self, body: bytes) -> Scan:
        """One pass. `ScanError` unless the body is one JSON object, strictly as RFC 8259 says it.

        That is: UTF-8 without a byte order mark, no NaN, nothing after the end, no half surrogate pairs; besides, no
        key twice in one object (compared with escapes undone), and no more than the limits above. `model` must be a
        string or null and `stream` a boolean or null.
        """

def scan_request(body: bytes, max_depth: int = 64) -> Scan:
    """`RequestScanner((), max_depth).scan(body)`, for those who ask once."""

def splice(body: bytes, start: int, end: int, replacement: bytes) -> bytes:
    """`body` with the bytes from `start` to `end` replaced."""

def json_string(text: str) -> bytes:
    """Text as a JSON string."""

class EventSplitter:
    """Cuts a server-sent event stream into events by the WHATWG rules; how the bytes are cut up makes no difference.

    CR, LF and CRLF end lines, a byte order mark may stand first, comments, `id` and `retry` are passed over. Once an
    event was larger than the limit every call raises `ScanError("event_too_large")`; events before it are given first.
    """

    def __init__(self, max_event_bytes: int = 1 << 20) -> None: ...
    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """The events these bytes complete: (name or "", data with its lines joined by LF)."""

    def end(self) -> bool:
        """Whether the stream stopped inside an event, which is then not given."""

class ChatStreamScanner:
    """Reads an OpenAI-shaped chat stream on its way through.

    `feed` gives back what may be relayed, byte for byte, in the call that completes it: whole events and comments.
    Never relayed: `[DONE]` and whatever follows it; an error event and whatever follows it; and, with `hide_usage`, an
    event that brings usage and no choice. An event that is not JSON is relayed and counted. Too large: as in
    EventSplitter.
    """

    def __init__(self, hide_usage: bool, max_event_bytes: int = 1 << 20) -> None: ...
    def feed(self, data: bytes) -> bytes: ...
    def end(self) -> bool:
        """Whether the stream stopped inside an event. A whole `[DONE]` without its blank line counts as done."""

    @property
    def content_seen(self) -> bool:
        """Whether any choice said anything: text, reasoning, a refusal, a tool call or another field of its delta."""

    @property
    def content_bytes(self) -> int:
        """Bytes of all that was said, escapes undone; events that could not be read count whole. Never too few."""

    @property
    def doubtful(self) -> bool:
        """Whether clients would trip over something that the last piece completed, or might.

        The first event or one with usage lacks a field that all have, a finish reason is unknown, a delta of tool calls
        has a name or lacks an index.
        """

    @property
    def finish_reason(self) -> str | None:
        """The last one given."""

    @property
    def model(self) -> str | None:
        """The first one named."""

    @property
    def usage(self) -> bytes | None:
        """The last usage object, as JSON."""

    @property
    def error(self) -> bytes | None:
        """The data of the error event: `{"error": ...}`, `{"object": "error"}`, or any named `error`."""

    @property
    def done(self) -> bool:
        """Whether `[DONE]` was seen."""

    @property
    def events(self) -> int:
        """Events read, the withheld ones included."""

    @property
    def malformed(self) -> int:
        """Events that were relayed without being understood."""

class Words:
    """A few words that are looked for, together and in one pass, wherever they stand between quotes.

    A body with a letter spelled as an escape counts as one that has them: a word may be hidden in it.
    """

    def __init__(self, words: Iterable[bytes]) -> None: ...
    def within(self, body: bytes) -> bool: ...

def plain_usage(usage: bytes) -> tuple[int, int, int, int] | None:
    """The same tokens as `plain_answer`, of a `usage` object alone; None is no verdict either."""

def plain_answer(body: bytes) -> tuple[int, int, int, int] | None:
    """(prompt, completion, cached, reasoning) tokens of a whole chat answer that may pass byte for byte, else None.

    None is no verdict: a field is missing, a finish reason is one that clients do not know, something else is told of the
    usage, there is an error, or this is not quite JSON. Whoever asks takes the long way then.
    """
