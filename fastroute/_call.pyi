"""The face of a call: one caller's request on its way through the house."""

import asyncio
from collections.abc import Mapping
from typing import Any

from fastroute._scan import Scan
from fastroute.call import Failed, Receive, Send
from fastroute.callers import Caller
from fastroute.domain import Attempt, Entry
from fastroute.forms import Form
from fastroute.ledger.accounts import Account
from fastroute.ledger.unlimited import Unlimited
from fastroute.limits import Pass
from fastroute.ruling import Ruling

class Surface:
    """A door of the data plane: which operation it means, which dialects speak it natively, how to translate if not."""

    def __init__(self, name: str, operation: str, native: str, caller: Caller | None) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def operation(self) -> str: ...
    @property
    def opaque(self) -> bool:
        """Its operation is a path of the provider's own, whose bodies nobody here reads."""

    @property
    def talks(self) -> bool:
        """What is asked is a chat, in whatever words."""

    @property
    def native(self) -> str: ...
    @property
    def caller(self) -> Caller | None: ...

class Call:
    """One request's life: what was asked, what has happened so far, who still listens."""

    surface: Surface
    receive: Receive
    send: Send
    id: str
    started: float
    loop: Any
    """Asking for the running loop costs a system call each time; the call keeps the answer."""
    created: int
    decision_id: str
    model: str
    body: bytes
    decoded: dict[str, Any] | None
    scan: Scan | None
    words: dict[str, str] | None
    """What `auto` calls the models it chooses between, by entry; None for every other name."""
    form: Form | None
    """A body that is a form, which has no scan."""
    usage_options: bytes | None
    """What `stream_options` must say so that we are told the usage."""
    stream: bool
    hide_usage: bool
    """The caller did not ask for usage, so it shall not see any."""
    quality: bool
    wants_json: bool
    input_bound: int
    output_cap: int | None
    choices: int
    """How many answers were asked for in one; each has the whole output cap."""
    passed: Mapping[str, str]
    entries: list[Entry]
    entry: Entry | None
    """The one that is being tried, or was last."""
    reason: str
    account: Account | Unlimited
    set_cap: int | None
    """The cap that this gateway set on the attempt that is made, because its caller set none and a budget is limited."""
    permit: Pass | None
    """Its place among the requests that limits count."""
    short: Failed | None
    """Why its account does not pay for the next attempt."""
    ended: str | None
    """Why this gateway itself ends the answer: its key was revoked meanwhile."""
    details: dict[str, Any] | None
    """What else its receipt tells."""
    rules: Ruling | None
    """What the policy it was asked under says; None for every other name."""
    attempts: list[Attempt]
    upstream_ids: list[bytes]
    """What providers call the attempts that they answered."""
    exchange: Any
    first_chunk_at: float | None
    content_type: bytes
    """Of the answer that is being relayed."""
    mistral: bool
    """The caller's client is one of Mistral's, which are stricter than OpenAI's."""
    gone: bool
    status: int
    answered: int
    """The status of an answer that nobody here reads."""
    watcher: asyncio.Task[None] | None

    def __init__(
        self,
        surface: Surface,
        receive: Receive,
        send: Send,
        name: str,
        started: float,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None: ...
    @property
    def final(self) -> Attempt | None:
        """The attempt the caller reads of: the last, unless what an earlier one had to say was better than nothing."""

    @property
    def cost_picodollars(self) -> int | None:
        """What all attempts cost together; None as soon as one of them has no known price."""

    def known_as(self, name: bytes | None) -> int:
        """The id a provider gave to an attempt, which its support will ask for; one that is no id is not repeated."""

    def leave(self) -> None:
        """The caller is gone: whoever is working for it is told to stop."""

    def watch(self) -> None:
        """Look for the caller's leaving; `send` never tells."""

    def unwatch(self) -> int: ...
