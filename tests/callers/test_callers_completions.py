"""Legacy completions callers: one prompt in, bare text out."""

import pytest

from fastroute.callers import NativeOnly, ShapeError, completions


def body(**fields):
    return {"model": "m", "prompt": "hi", **fields}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"prompt": ["hi"]}, {}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        (
            {"max_tokens": 5, "temperature": 0, "stop": "x", "n": 2, "best_of": 2, "seed": 1, "user": "u"},
            {"max_tokens": 5, "temperature": 0, "stop": "x", "n": 2, "seed": 1, "user": "u"},
        ),
        (
            {"stop": ["a"], "echo": False, "suffix": None, "logit_bias": {"5": 1}},
            {"stop": ["a"], "logit_bias": {"5": 1}},
        ),
    ],
)
def test_a_prompt_becomes_a_user_message(given, expected):
    assert completions.to_chat(body(**given)) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        **expected,
    }


@pytest.mark.parametrize(
    "given",
    [{"prompt": ["a", "b"]}, {"prompt": [1, 2]}, {"suffix": "x"}, {"echo": True}, {"logprobs": 0}, {"best_of": 3}],
)
def test_what_only_a_completions_model_can_do_is_named(given):
    with pytest.raises(NativeOnly) as caught:
        completions.to_chat(body(**given))
    assert caught.value.param == next(iter(given))
    assert completions.needs_native(body(**given)) == caught.value.what


@pytest.mark.parametrize("given", [{"prompt": None}, {"prompt": 3}, {"model": None}, {"stop": [1]}, {"n": 0}])
def test_a_malformed_field_is_refused(given):
    with pytest.raises(ShapeError) as caught:
        completions.to_chat(body(**given))
    assert caught.value.param.startswith(next(iter(given)))


def test_a_whole_answer_is_a_text_completion(answer, reply):
    assert completions.from_answer(answer("length", content="It rains"), reply()) == {
        "id": "cmpl-abc",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "some-model",
        "choices": [{"text": "It rains", "index": 0, "logprobs": None, "finish_reason": "length"}],
        "usage": {
            "prompt_tokens": 20,
            "completion_tokens": 9,
            "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 4},
        },
    }


@pytest.mark.parametrize("asked", [True, False])
def test_a_stream_tells_usage_only_to_those_who_asked(chunk, reply, run, read_sse, usage, asked):
    chunks = [
        chunk(role="assistant"),
        chunk(content="a"),
        chunk(content="b", index=1),
        chunk(finish="stop"),
        chunk(finish="eos", index=1),
        {"choices": [], "usage": usage},
    ]
    encoder = completions.stream(reply(stream_options={"include_usage": asked}))
    events = [data for name, data in read_sse(run(encoder, chunks))]
    choices = [event["choices"] for event in events[:-1]]
    told = {"logprobs": None, "finish_reason": None}
    assert choices[:4] == [
        [{"text": "a", "index": 0, **told}],
        [{"text": "b", "index": 1, **told}],
        [{"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"}],
        [{"text": "", "index": 1, "logprobs": None, "finish_reason": "stop"}],
    ]
    assert choices[4:] == ([[]] if asked else [])
    assert events[-1] == "[DONE]"
    if asked:
        assert events[-2]["usage"]["total_tokens"] == 29


def test_a_cut_stream_ends_in_an_error_and_never_in_done(chunk, reply, read_sse):
    encoder = completions.stream(reply())
    encoder.feed(chunk(content="a"))
    ((name, data),) = read_sse(encoder.finish())
    assert name is None
    assert set(data["error"]) == {"message", "type", "param", "code"}
    assert encoder.fail("a", "b", "c") == b""
