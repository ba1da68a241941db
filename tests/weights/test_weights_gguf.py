"""A small open model really answers: through a gateway process with OpenAI's client, whole, streamed and by a schema."""

import json
import threading
import time

import httpx
import openai
import pytest

ASKED = "Write one sentence about the purple-zebra sea."


@pytest.fixture(scope="module")
def gateway(smollm2, tmp_path_factory, kit):
    """Two workers, one of which may be asked while the other relays."""
    state_dir = tmp_path_factory.mktemp("smol") / "data"
    config = f"models: [{{id: smol, weights: {smollm2}}}]\nrelay: {{first_chunk_ms: 60000}}\n"
    gateway = kit.start(state_dir, config=config, workers=2)
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def client(gateway):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key="any", max_retries=0) as client:
        yield client


def told(client, **how):
    return client.chat.completions.create(
        **({"model": "smol", "max_tokens": 12, "messages": [{"role": "user", "content": ASKED}]} | how)
    )


def host_of(gateway) -> int:
    [path] = (gateway.state_dir / "run" / "weights").glob("*.json")
    return json.loads(path.read_bytes())["pid"]


def test_it_answers_whole_and_its_tokens_are_counted(client):
    answer = told(client, temperature=0)
    assert answer.choices[0].message.content.strip()
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert 20 < answer.usage.prompt_tokens < 60
    assert 1 < answer.usage.completion_tokens <= 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_it_answers_in_a_stream_as_it_speaks(client):
    chunks = list(told(client, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) > 2
    assert chunks[-1].usage.completion_tokens <= 12


def test_a_schema_holds_it_to_json(client):
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    answer = told(client, max_tokens=40, response_format=form)
    assert json.loads(answer.choices[0].message.content)["colour"] in ("red", "blue")


def test_a_gateway_that_relays_it_goes_on_answering_others(gateway, client):
    """Generation is another process's work: the loop is never held, and a caller who leaves ends it."""
    thread = threading.Thread(target=told, args=(client,), kwargs={"max_tokens": 40})
    thread.start()
    slowest = 0.0
    while thread.is_alive():
        started = time.monotonic()
        assert gateway.get("/healthz").body == b"ok"
        slowest = max(slowest, time.monotonic() - started)
    assert slowest < 1
    url = f"http://127.0.0.1:{gateway.port}/v1/chat/completions"
    body = {"model": "smol", "messages": [{"role": "user", "content": "Count to a million."}], "stream": True}
    with httpx.stream("POST", url, json=body, timeout=60) as answer:
        next(answer.iter_lines())
    told(client, max_tokens=1)  # the only slot there is was given back


def test_after_kill_9_the_next_request_has_it_again(gateway, client, end):
    pid = host_of(gateway)
    end(pid)
    assert told(client, max_tokens=2).usage.completion_tokens <= 2
    assert host_of(gateway) != pid


def test_nothing_of_what_was_asked_is_written_down(gateway, client):
    told(client, max_tokens=1)
    with pytest.raises(openai.BadRequestError):
        told(client, messages=[{"role": "user", "content": "purple-zebra " * 3000}])
    with pytest.raises(openai.BadRequestError):
        told(client, extra_body={"grammar": "root ::= purple-zebra"})
    assert told(client, max_tokens=1).usage.completion_tokens == 1
    for path in gateway.state_dir.rglob("*"):
        if path.is_file():
            assert b"purple-zebra" not in path.read_bytes(), path
    assert "purple-zebra" not in "".join(gateway.log)
