"""What one caller sends may cost that caller an error, and nobody else anything."""

import json
import sys

import pytest

kit = sys.modules["gateway_kit"]

MESSAGES = '"messages":[{"role":"user","content":"hi"}]'


def ask(gateway, body, path="/v1/chat/completions", *headers):
    request = kit.post(body if isinstance(body, bytes) else body.encode(), path)
    for header in headers:
        request = request.replace(b"\r\n\r\n", b"\r\n%b\r\n\r\n" % header, 1)
    with gateway.connect() as sock:
        sock.sendall(request)
        return kit.read_reply(sock)


@pytest.mark.parametrize("name", ["q" * 257, "q" * 3_000_000, "a\\u0001b", "a\\u007f", "line\\nend"])
@pytest.mark.parametrize("prefix", ["dummy:", "up:", ""])
def test_a_name_that_no_model_has_is_refused_before_it_is_kept_or_repeated(gateway, prefix, name):
    """Names are remembered, logged, labelled and sent back: a long one would fill memory, a strange one a header."""
    reply = ask(gateway, f'{{"model":"{prefix}{name}",{MESSAGES}}}')
    assert (reply.status, reply.json["error"]["code"]) == (400, "invalid_model")
    assert len(reply.body) < 1000


BAD_BODIES = [
    ("/v1/messages", f'{{"model":"up:x","max_tokens":1,"temperature":1e999,{MESSAGES}}}'),
    ("/v1/messages/count_tokens", f'{{"model":"up:x","temperature":1e999,{MESSAGES}}}'),
    ("/v1/responses", '{"model":"up:x","temperature":1e999,"input":"hi"}'),
    ("/v1beta/models/up:x:generateContent", '{"contents":[{"parts":[{"text":"x"}]}],"x":1e999}'),
    ("/v1/chat/completions", f'{{"model":"up:x","stream":true,"stream_options":5,{MESSAGES}}}'),
]


@pytest.mark.parametrize(("path", "body"), BAD_BODIES)
def test_bad_input_is_the_callers_fault_in_the_callers_envelope_and_no_lanes(gateway, path, body):
    for _ in range(4):
        reply = ask(gateway, body, path)
        assert reply.status == 400, reply.body
        assert "error" in reply.json
    assert "degraded" not in gateway.get("/health").json["lanes"].values()


@pytest.mark.parametrize("header", [b"openai-organization: \xe9", b"openai-beta: a\tb"])
def test_a_header_that_cannot_be_passed_on_is_refused(gateway, header):
    for _ in range(4):
        assert ask(gateway, f'{{"model":"up:x",{MESSAGES}}}', "/v1/chat/completions", header).status == 400
    assert "degraded" not in gateway.get("/health").json["lanes"].values()


def test_betas_in_several_lines_are_one_list(gateway, upstream):
    name = upstream.plays(kit.good)
    lines = (b"openai-beta: one", b"openai-beta: two")
    assert ask(gateway, f'{{"model":"{name}",{MESSAGES}}}', "/v1/chat/completions", *lines).status == 200
    head = upstream.first(name).head.decode("latin-1").lower()
    assert sorted(head.split("openai-beta: ")[1].split("\r\n")[0].split(", ")) == ["one", "two"]


@pytest.mark.parametrize(
    "path", ["/v1/api_keys", "/v1/keys", "/v1/files", "/v1/responses/resp_1/cancel", "/v1/batch/jobs", "/v1/credits"]
)
def test_what_belongs_to_the_providers_account_is_not_passed_through(gateway, path):
    assert ask(gateway, '{"model":"up:x","apiKeyType":"ADMIN"}', path).status == 404


def test_names_that_anything_answers_to_do_not_become_labels(gateway):
    for number in range(20):
        assert ask(gateway, f'{{"model":"dummy:zz{number}",{MESSAGES}}}').status == 200
    assert b"zz1" not in gateway.get("/metrics").body


def test_the_larger_of_two_caps_is_what_is_reserved_for():
    from fastroute._scan import RequestScanner

    caps = (b"max_tokens", b"max_completion_tokens")
    scan = RequestScanner(caps).scan(json.dumps({"max_tokens": 1, "max_completion_tokens": 100_000}).encode())
    assert scan.most(caps) == 100_000
