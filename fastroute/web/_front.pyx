# cython: language_level=3
"""The front of the data plane: one coroutine from a request's head to the last byte of its answer.

Compiled because it is walked by every request. What is unusual is handed to the methods of `data.DataPlane`: a body that
comes in pieces, a refusal, a fault, and every answer that is not a whole one of the ordinary kind.
"""

from asyncio import CancelledError, get_running_loop

from fastroute._heads import HeadError, comment
from fastroute.callers import mistral
from fastroute.call import CallerGone, Failed
from fastroute.receipts.seal import receipt_id

from libc.time cimport time as wall_s

from fastroute cimport _heads
from fastroute._call cimport Call, Surface
from fastroute._domain cimport ENTRY, REF, of_entry, of_ref, settlement_of, usage_of
from fastroute._fields cimport at, must_be
from fastroute._gateway cimport Core
from fastroute._now cimport moment, task_of
from fastroute._sweep cimport Sweep
from fastroute.web._door cimport DoorCore

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr

cdef str START = "http.response.start", BODY = "http.response.body"
cdef dict ANSWERED = {"type": START, "status": 200, "headers": None}
cdef tuple JSON_TYPE = (b"content-type", b"application/json")
UNBUFFERED = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
STREAM = ((b"content-type", b"text/event-stream; charset=utf-8"), *UNBUFFERED)
cdef dict SAID = {}
cdef str last_model = None, last_reason = None
cdef bint last_fallback = False
cdef tuple last_said = ()
cdef enum:
    SAID_MAX = 1024


cdef class Front:
    def __init__(self, Core gateway not None, long long limit, DoorCore doorman not None, Sweep bodiless not None):
        self.gateway = gateway
        self.metrics = gateway.metrics
        self.active = (<object>gateway.metrics).active
        self.open = set()
        self.limit = limit
        self.doorman = doorman
        self.guards = doorman.guards
        self.caches = (<object>gateway).cache is not None
        self.bodiless = bodiless

    async def handle(self, Surface surface not None, serve, str model not None, bint stream, scope, receive, send):
        """Answer one request; `serve` does it once the body is read, None stands for the ordinary way."""
        cdef Call call
        cdef dict found = None
        cdef long long length
        cdef long long unread = -2
        cdef bytes body = b""
        cdef Core gateway = self.gateway
        cdef double now
        cdef bint passing
        loop = self.loop
        task = None if loop is None else task_of(loop)
        if task is None:
            # Asking for the loop is a system call each time, and this worker has one.
            loop = self.loop = get_running_loop()
            task = task_of(loop)
        now = moment(loop)
        call = Call.made(surface, receive, send, gateway.ids.request(), now, loop)
        call.model = model
        call.stream = stream
        self.open.add(call)
        self.active.inc()
        try:
            try:
                found = _heads.looked(scope["headers"], &passing)
            except HeadError as error:
                raise self.misread(error) from None
            if self.guards:
                account = self.doorman.meet(found, scope["query_string"])
                if account is None:
                    account = await self.doorman.find(found, scope["query_string"], scope)
                call.account = account
            mark = self.form_of(surface, found) if surface.opaque else None
            length = _heads.length(found)
            if length < -1 or length > self.limit:
                length = self.length_of(found)
            if length:
                self.bodiless.add_at(task, loop, now)
                try:
                    begun = await receive()
                except CancelledError:
                    if self.bodiless.drop(task):
                        raise
                    raise self.slow() from None
                finally:
                    self.bodiless.drop(task)
                whole = _heads.whole(begun, length)
                body = await self.rest_of(receive, begun, length) if whole is None else whole
            unread = 0
            if passing:
                call.passed = self.passed_on(found)
            agent = found.get(b"user-agent")
            if agent is not None and b"mistral" in <bytes>agent:
                call.mistral = True
            if mark is None:
                gateway.read(call, body)
            else:
                self.read_form(call, body, found, mark)
            if self.caches and serve is None:
                serve = self.cached(call, found, scope)
            if self.guards:
                self.doorman.admit(call, scope)
                if b"idempotency-key" in found and call.account.booked:
                    serve = self.once(call, found[b"idempotency-key"], scope, serve)
            if serve is not None:
                await serve(call)
            else:
                gateway.plan(call)
                call.created = wall_s(NULL)
                if call.stream:
                    await self.stream(call)
                else:
                    body = await gateway.relay.loop(call, None)
                    if call.mistral:
                        body = mistral.with_id(body, call.id)
                    await call.send(opening(call))
                    await call.send({"type": BODY, "body": body})
        except Failed as failed:
            if unread and found is not None:
                unread = _heads.length(found)
            await self.refuse(call, failed, unread)
        except CallerGone:
            self.left(call)
        except Exception as fault:
            await self.own_fault(call, fault)
        finally:
            self.open.discard(call)
            self.active.dec()
            gateway.finished(call)

    async def stream(self, Call call not None):
        """One streamed answer."""
        writer = self.writer(call)
        try:
            await self.gateway.relay.loop(call, writer)
        except Failed as failed:
            await writer.fail(failed)
        finally:
            await writer.rest()


cdef class StreamCore:
    def __init__(self, Call call not None, encoder, Sweep beats not None):
        self.call = call
        self.encoder = encoder
        self.calls = mistral.WholeCalls() if call.mistral and call.surface.name == "chat" else None
        # Google's SDKs take a comment for the beginning of a JSON text; a blank line they pass over, as everybody does.
        self.comments = call.surface.native != "google"
        self.beats = beats
        beats.add_at(self, call.loop, moment(call.loop))

    async def begin(self, Call call not None, entry):
        if self.beating is None:
            self.beats.drop(self)
        else:
            await self.rest()
        if not self.begun:
            await self.open(entry)

    async def send(self, bytes data not None):
        if self.calls is not None:
            data = self.calls.feed(data)
            if not data:
                return
        await self.call.send({"type": BODY, "body": data, "more_body": True})

    async def end(self, bytes data not None):
        if self.calls is not None:
            data = self.calls.feed(data)
        await self.call.send({"type": BODY, "body": data, "more_body": False})

    def comment(self, Call call not None):
        return comment(accounts(call)) if self.comments else b""

    def open(self, entry):
        cdef list headers = head(self.call, entry)
        self.begun = True
        self.call.status = 200
        headers += STREAM
        return self.call.send({"type": START, "status": 200, "headers": headers})

    async def rest(self):
        beat, self.beating = self.beating, None
        if beat is not None:
            await beat
        self.beats.drop(self)


cdef class Gate:
    def __call__(self, scope, receive, send):
        # Not `async`: the door's own coroutine is handed to the server, one less to walk through at every wake-up.
        if type(scope) is dict and (<dict>scope)["type"] == "http" and (<dict>scope)["method"] == "POST":
            path = (<dict>scope)["raw_path"]
            if type(path) is bytes and memchr(PyBytes_AS_STRING(path), b"%", PyBytes_GET_SIZE(path)) == NULL:
                door = self.data.posts.get((<dict>scope)["path"])
                if door is not None:
                    return door(scope, receive, send)
        return self.otherwise(scope, receive, send)


async def answer(Call call not None, bytes body not None):
    """A whole answer of 200."""
    await call.send(opening(call))
    await call.send({"type": BODY, "body": body})


cdef dict opening(Call call):
    """The message that begins a whole answer."""
    cdef list headers = head(call, call.entry)
    call.status = 200
    headers += accounts(call)
    headers.append(JSON_TYPE)  # its length is the server's to say, which sees the body
    cdef dict told = ANSWERED.copy()
    told["headers"] = headers
    return told


cpdef list head(Call call, entry):
    cdef list headers = _heads.names(call.id, call.decision_id, call.upstream_ids)
    if not call.free() and call.account.booked and call.decision_id:
        headers.append((b"x-router-receipt-id", receipt_id(call.id).encode()))
    if call.permit is not None:
        headers += call.permit.headers()
    if entry is not None:
        must_be(entry, ENTRY)
        ref = at(entry, of_entry.ref)
        must_be(ref, REF)
        name = at(entry, of_entry.id)
        first = call.entries[0]
        if entry is first:
            headers += said(at(ref, of_ref.model), call.reason, False)
        else:
            headers += said(at(ref, of_ref.model), "fallback", True)
            headers.append((b"x-router-original-model", ascii(first.ref.model)))
        # Asked for by another name than its own or its provider's: a tier's, an alias's, a policy's.
        if call.model != name and call.model and call.model != str(ref):
            word = call.model if call.words is None else call.words.get(name, call.model)
            headers.append((b"x-router-model-logical", ascii(word)))
    return headers


cpdef list accounts(Call call):
    final = call.final_attempt()
    usage = None if final is None else usage_of(settlement_of(final))
    return _heads.accounts(moment(call.loop) - call.started, call.cost(), usage)


cdef tuple said(str model, str reason, bint fallback):
    global last_model, last_reason, last_fallback, last_said
    if last_model is model and last_reason is reason and last_fallback == fallback:
        return last_said
    key = model, reason, fallback
    found = SAID.get(key)
    if found is None:
        if len(SAID) >= SAID_MAX:
            SAID.clear()
        found = SAID[key] = (
            (b"x-router-model", ascii(model)),
            (b"x-router-reason", reason.encode()),
            (b"x-router-fallback", b"true" if fallback else b"false"),
        )
    last_model, last_reason, last_fallback, last_said = model, reason, fallback, found
    return last_said


cdef bytes ascii(str text):
    """A model's name as a header may carry it."""
    return text.encode("ascii", "replace").translate(None, b"\r\n\0")
