"""Gemini-shaped callers: what their bodies become, and what they are answered."""

import pytest

from fastroute.callers import NativeOnly, ShapeError, embeddings, gemini

HI = [{"role": "user", "parts": [{"text": "hi"}]}]


def body(**fields):
    return {"contents": HI, **fields}


def config(**fields):
    return {"generationConfig": fields}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        (
            config(
                temperature=0.1, topP=0.9, topK=40.0, maxOutputTokens=9, stopSequences=["x"], seed=3, candidateCount=2
            ),
            {"temperature": 0.1, "top_p": 0.9, "top_k": 40, "max_tokens": 9, "stop": ["x"], "seed": 3, "n": 2},
        ),
        ({"generation_config": {"max_output_tokens": 9}}, {"max_tokens": 9}),
        (config(responseMimeType="application/json"), {"response_format": {"type": "json_object"}}),
        (
            config(responseMimeType="application/json", responseJsonSchema={"type": "object"}),
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "output", "schema": {"type": "object"}},
                }
            },
        ),
        (config(thinkingConfig={"thinkingBudget": 0}), {"reasoning_effort": "none"}),
        (config(thinkingConfig={"thinkingBudget": -1, "includeThoughts": True}), {}),
        (
            config(thinkingConfig={"thinkingBudget": 2000}),
            {"reasoning_effort": "low"},
        ),
        (config(thinkingConfig={"thinkingLevel": "HIGH"}), {"reasoning_effort": "high"}),
        (config(responseModalities=["TEXT"]), {}),
        ({"safetySettings": [{"category": "X"}], "labels": {}}, {}),
        ({"toolConfig": {"functionCallingConfig": {"mode": "NONE"}}}, {"tool_choice": "none"}),
        ({"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}, {"tool_choice": "required"}),
        (
            {"tool_config": {"function_calling_config": {"mode": "any", "allowed_function_names": ["f"]}}},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
    ],
)
def test_a_setting_keeps_its_meaning_in_chat(given, expected):
    chat = gemini.to_chat(body(**given), model="models/gemini-x")
    assert chat == {"model": "gemini-x", "messages": [{"role": "user", "content": "hi"}], **expected}


def test_streaming_is_said_by_the_path():
    assert gemini.to_chat(body(), "m", stream=True)["stream"] is True
    assert gemini.to_chat(body(model="m", stream=True))["stream"] is True
    assert "stream" not in gemini.to_chat(body(), "m")


def test_a_function_is_declared_with_json_schema():
    """Google's Schema has its types in capitals, a flag for null, and 64-bit numbers as strings."""
    parameters = {
        "type": "OBJECT",
        "propertyOrdering": ["a"],
        "required": ["a"],
        "properties": {
            "any_of": {"type": "STRING", "nullable": True, "description": "d"},
            "list": {"type": "ARRAY", "minItems": "1", "items": {"anyOf": [{"type": "INTEGER"}, {"type": "NUMBER"}]}},
        },
    }
    tools = [{"functionDeclarations": [{"name": "f", "description": "d", "parameters": parameters}, {"name": "g"}]}]
    f, g = gemini.to_chat(body(tools=tools), "m")["tools"]
    assert f["function"] == {
        "name": "f",
        "description": "d",
        "parameters": {
            "type": "object",
            "required": ["a"],
            "properties": {
                "any_of": {"type": ["string", "null"], "description": "d"},
                "list": {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "integer"}, {"type": "number"}]}},
            },
        },
    }
    assert g["function"] == {"name": "g", "parameters": {"type": "object", "properties": {}}}


def test_calls_without_ids_are_paired_by_name_in_order():
    contents = [
        {"role": "user", "parts": [{"text": "a"}, {"inlineData": {"mimeType": "image/png", "data": "QQ=="}}]},
        {
            "role": "model",
            "parts": [
                {"text": "thinking", "thought": True},
                {"text": "ok"},
                {"functionCall": {"name": "f", "args": {"n": 1}}, "thoughtSignature": "sig"},
                {"functionCall": {"name": "g"}},
                {"functionCall": {"name": "f", "args": {"n": 2}, "id": "mine"}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "g", "response": {"output": 0}}},
                {"functionResponse": {"name": "f", "response": {"output": 1}}},
                {"functionResponse": {"name": "f", "response": {"output": 2}}},
            ],
        },
    ]
    instruction = {"parts": [{"text": "be"}, {"text": "kind"}]}
    chat = gemini.to_chat({"contents": contents, "system_instruction": instruction}, "m")
    assert chat["messages"] == [
        {"role": "system", "content": "be\n\nkind"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}},
            ],
        },
        {
            "role": "assistant",
            "content": "ok",
            "tool_calls": [
                {
                    "id": "call_0",
                    "type": "function",
                    "function": {"name": "f", "arguments": '{"n":1}'},
                    "extra_content": {"google": {"thought_signature": "sig"}},
                },
                {"id": "call_1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                {"id": "mine", "type": "function", "function": {"name": "f", "arguments": '{"n":2}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": '{"output":0}'},
        {"role": "tool", "tool_call_id": "call_0", "content": '{"output":1}'},
        {"role": "tool", "tool_call_id": "mine", "content": '{"output":2}'},
    ]


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"tools": [{"googleSearch": {}}]}, "googleSearch"),
        ({"tools": [{"code_execution": {}}]}, "codeExecution"),
        ({"cachedContent": "cachedContents/x"}, "cached content"),
        ({"contents": [{"parts": [{"fileData": {"fileUri": "https://generativelanguage.googleapis.com/f"}}]}]}, "file"),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "video/mp4", "data": "QQ"}}]}]}, "video/mp4"),
        ({"contents": [{"role": "model", "parts": [{"executableCode": {"code": "1"}}]}]}, "executableCode"),
        (config(responseModalities=["IMAGE"]), "not text"),
    ],
)
def test_what_only_google_can_do_is_named(given, what):
    with pytest.raises(NativeOnly) as caught:
        gemini.to_chat(body(**given), "m")
    assert what in caught.value.what
    assert gemini.needs_native(body(**given)) == caught.value.what


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"contents": None}, "contents"),
        ({"contents": []}, "contents"),
        ({"contents": [1]}, "contents[0]"),
        ({"contents": [{"role": "user", "parts": [{}]}]}, "contents[0].parts[0]"),
        ({"contents": [{"role": "dog", "parts": []}]}, "contents[0].role"),
        (
            {"contents": [{"parts": [{"functionResponse": {"name": "f"}}]}]},
            "contents[0].parts[0].functionResponse.name",
        ),
        ({"contents": [{"parts": [{"functionCall": {"name": "f"}}]}]}, "contents[0].parts[0].functionCall"),
        ({"generationConfig": 1}, "generationConfig"),
        (config(maxOutputTokens="9"), "generationConfig.maxOutputTokens"),
        (config(maxOutputTokens=9, max_output_tokens=8), "generationConfig"),
        (config(responseMimeType="text/html"), "generationConfig.responseMimeType"),
        (config(thinkingConfig={"thinkingLevel": "vast"}), "generationConfig.thinkingConfig.thinkingLevel"),
        ({"tools": [{"functionDeclarations": [{}]}]}, "tools[0].functionDeclarations[0].name"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "X"}}}, "toolConfig.functionCallingConfig.mode"),
    ],
)
def test_a_malformed_field_is_named_by_its_path(given, param):
    with pytest.raises(ShapeError) as caught:
        gemini.to_chat(body(**given), "m")
    assert caught.value.param == param


def test_the_token_count_takes_contents_or_a_whole_request():
    whole = {
        "generateContentRequest": {"model": "models/x", "contents": HI, "systemInstruction": {"parts": [{"text": "s"}]}}
    }
    assert len(gemini.count_to_chat(whole, "m")["messages"]) == 2
    assert len(gemini.count_to_chat(body(), "m")["messages"]) == 1
    assert gemini.count(7)["totalTokens"] == 7


def test_a_whole_answer_is_a_generate_content_response(answer, tool_call, reply):
    signed = {"google": {"thought_signature": "sig"}}
    chat = answer(content="It rains", reasoning_content="hmm", tool_calls=[tool_call(extra_content=signed)])
    assert gemini.from_answer(chat, reply(generationConfig={"thinkingConfig": {"includeThoughts": True}})) == {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "hmm", "thought": True},
                        {"text": "It rains"},
                        {
                            "functionCall": {"id": "call_1", "name": "weather", "args": {"city": "Oslo"}},
                            "thoughtSignature": "sig",
                        },
                    ],
                    "role": "model",
                },
                "index": 0,
                "finishReason": "STOP",
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 20,
            "candidatesTokenCount": 5,
            "totalTokenCount": 29,
            "cachedContentTokenCount": 5,
            "thoughtsTokenCount": 4,
        },
        "modelVersion": "some-model",
        "responseId": "abc",
    }


def test_thoughts_nobody_asked_for_are_not_told(answer, reply):
    made = gemini.from_answer(answer("stop", content="x", reasoning_content="hmm"), reply())
    assert made["candidates"][0]["content"]["parts"] == [{"text": "x"}]


@pytest.mark.parametrize(
    ("finish", "expected"), [("stop", "STOP"), ("length", "MAX_TOKENS"), ("content_filter", "SAFETY"), ("eos", "STOP")]
)
def test_every_finish_reason_becomes_one_google_knows(answer, reply, finish, expected):
    assert gemini.from_answer(answer(finish, content="x"), reply())["candidates"][0]["finishReason"] == expected


def test_a_stream_has_no_event_names_and_whole_calls(chunk, reply, run, read_sse, usage):
    chunks = [
        chunk(role="assistant", content=""),
        chunk(content="It "),
        chunk(content="rains"),
        chunk(tool_calls=[{"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": '{"a"'}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
        chunk(finish="tool_calls"),
        {"choices": [], "usage": usage},
    ]
    events = read_sse(run(gemini.stream(reply()), chunks))
    assert [name for name, _ in events] == [None] * 3
    said = [data["candidates"][0]["content"]["parts"] for _, data in events]
    assert said == [
        [{"text": "It "}],
        [{"text": "rains"}],
        [{"functionCall": {"id": "call_1", "name": "weather", "args": {"a": 1}}}],
    ]
    assert [data["candidates"][0].get("finishReason") for _, data in events] == [None, None, "STOP"]
    assert [("usageMetadata" in data) for _, data in events] == [False, False, True]


def test_a_failure_is_googles_error_and_no_end(chunk, reply, read_sse):
    encoder = gemini.stream(reply())
    encoder.feed(chunk(content="x"))
    assert read_sse(encoder.fail("timeout_error", "idle", "Too slow", 504)) == [
        (None, {"error": {"code": 504, "message": "Too slow", "status": "DEADLINE_EXCEEDED"}})
    ]
    assert encoder.finish() == b""


def test_a_stream_that_named_no_finish_reason_does_not_end_cleanly(chunk, reply, read_sse):
    encoder = gemini.stream(reply())
    encoder.feed(chunk(content="x"))
    assert [list(data) for _, data in read_sse(encoder.finish())] == [["error"]]


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (429, "RESOURCE_EXHAUSTED"),
        (500, "INTERNAL"),
        (503, "UNAVAILABLE"),
        (599, "INTERNAL"),
        (418, "INVALID_ARGUMENT"),
    ],
)
def test_the_error_envelope_is_googles(status, word):
    assert gemini.error(status, "k", "c", "said") == {"error": {"code": status, "message": "said", "status": word}}


def test_embeddings_travel_alone_or_in_a_batch():
    one = {"content": {"parts": [{"text": "a"}, {"text": "b"}]}, "outputDimensionality": 8, "taskType": "X"}
    expected = {"model": "e", "input": ["a\nb"], "encoding_format": "float", "dimensions": 8}
    assert embeddings.to_embeddings(one, "models/e") == expected
    batch = {"requests": [{"model": "models/e", "content": {"parts": [{"text": t}]}} for t in "ab"]}
    assert embeddings.to_embeddings(batch, "e") == {"model": "e", "input": ["a", "b"], "encoding_format": "float"}
    answer = {"data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]}
    assert embeddings.from_embeddings(answer, batch=True) == {"embeddings": [{"values": [1.0]}, {"values": [2.0]}]}
    assert embeddings.from_embeddings(answer, batch=False) == {"embedding": {"values": [1.0]}}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"requests": []},
        {"requests": [3]},
        {"content": {"parts": [{"inlineData": {}}]}},
        {"content": "x"},
        {"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 0},
    ],
)
def test_a_malformed_embedding_is_refused(given):
    with pytest.raises(ShapeError):
        embeddings.to_embeddings(given, "e")
