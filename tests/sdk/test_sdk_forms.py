"""Forms pass byte for byte to the provider that their model names: the SDK's recordings, pictures and masks."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from tests.sdk.fake_words import TRANSCRIPT

SOUND = b"RIFF\x00\xff\r\n--not-the-boundary\r\n" + bytes(range(256)) * 64
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 16


def fields(raw: bytes) -> list[tuple[bytes, bytes]]:
    """Heads and values of a form, by the plainest reading there is."""
    mark = raw.split(b"\r\n", 1)[0]
    return [tuple(part.strip(b"\r\n").split(b"\r\n\r\n", 1)) for part in raw.split(mark)[1:-1]]  # type: ignore[misc]  # two


def test_a_recording_is_transcribed_through_the_sdk(oai: openai.OpenAI, gateway: Any) -> None:
    reply = oai.audio.transcriptions.create(model="scribe", file=("a.wav", SOUND), language="en")
    assert reply.text == TRANSCRIPT
    assert gateway.last.path == "/oai/v1/audio/transcriptions"
    assert gateway.last.headers["authorization"] == "Bearer sk-upstream-openai"
    told = {head.split(b'name="')[1].split(b'"')[0]: value for head, value in fields(gateway.last.raw)}
    assert told[b"model"] == b"gpt-4o-transcribe"
    assert told[b"language"] == b"en"
    assert told[b"file"] == SOUND


def test_nothing_but_the_model_is_changed(http: httpx.Client, gateway: Any) -> None:
    """Byte for byte: odd headers of parts, their order, and the boundary stay as they came."""
    body = (
        b'--x y:z\r\nContent-Disposition: form-data; name="file"; filename="b\xc3\xa4r.wav"\r\nX-Odd: 1\r\n\r\n'
        + SOUND
        + b"\r\n--x y:z\r\ncontent-disposition: form-data; name=model\r\n\r\nscribe\r\n--x y:z--\r\ntail"
    )
    kind = 'multipart/form-data; charset=utf-8; boundary="x y:z"'
    reply = http.post("/v1/audio/transcriptions", content=body, headers={"content-type": kind})
    assert reply.json()["text"] == TRANSCRIPT
    assert gateway.last.raw == body.replace(b"\r\nscribe\r\n", b"\r\ngpt-4o-transcribe\r\n")
    assert gateway.last.headers["content-type"] == kind


def test_a_transcript_is_metered_by_what_it_says_it_used(oai: openai.OpenAI) -> None:
    raw = oai.audio.transcriptions.with_raw_response.create(model="scribe", file=SOUND)
    assert (raw.headers["x-router-tokens-input"], raw.headers["x-router-tokens-output"]) == ("14", "6")
    assert raw.headers["x-router-cost-usd"].rstrip("0") == "0.000095"
    assert raw.headers["x-router-model"] == "gpt-4o-transcribe"


def test_a_transcript_streams(oai: openai.OpenAI) -> None:
    events = list(oai.audio.transcriptions.create(model="scribe", file=SOUND, stream=True))
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]


def test_subtitles_come_back_as_the_text_they_are(oai: openai.OpenAI) -> None:
    reply: Any = oai.audio.transcriptions.create(model="scribe", file=SOUND, response_format="vtt")
    assert reply.startswith("WEBVTT")


def test_a_recording_is_translated(http: httpx.Client, gateway: Any) -> None:
    reply = http.post("/v1/audio/translations", files={"file": SOUND}, data={"model": "scribe"})
    assert reply.json()["text"] == TRANSCRIPT
    assert gateway.last.path == "/oai/v1/audio/translations"


def test_pictures_are_edited_through_the_sdk(oai: openai.OpenAI, gateway: Any) -> None:
    raw = oai.images.with_raw_response.edit(
        model="painter", image=[("a.png", PICTURE), ("b.png", PICTURE)], mask=PICTURE, prompt="A balloon", n=2
    )
    data: Any = raw.parse().data
    assert data[0].b64_json == "aGk="
    assert raw.headers["x-router-tokens-output"] == "300"
    values = [value for _, value in fields(gateway.last.raw)]
    assert values.count(PICTURE) == 3
    assert b"gpt-image-1" in values


def test_a_form_without_a_model_goes_to_nobody_while_several_could_be_meant(http: httpx.Client) -> None:
    refused = http.post("/v1/images/variations", files={"image": PICTURE})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "model_required"
    assert "which provider is meant" in refused.json()["error"]["message"]


def test_a_form_fails_over_like_everything_else(oai: openai.OpenAI, gateway: Any) -> None:
    """The second target is asked with the same bytes and its own name."""
    reply = oai.audio.transcriptions.with_raw_response.create(model="scribes", file=SOUND)
    assert reply.headers["x-router-fallback"] == "true"
    assert gateway.last.path == "/oai/v1/audio/transcriptions"
    assert b"gpt-4o-transcribe" in gateway.last.raw


def test_a_provider_of_another_dialect_is_told_so(oai: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no provider of this model offers /v1/audio/transcriptions"):
        oai.audio.transcriptions.create(model="claude", file=SOUND)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "boundary"),
        (b"--b\r\nContent-Disposition: form-data; name=model\r\n\r\nscribe", "middle of a part"),
        (b"--b\r\nContent-Disposition: form-data; name=model\r\n\r\nscribe\r\n--bc\r\n", "boundary"),
        (
            b"--b\r\nContent-Disposition: form-data; name=model\r\n\r\nscribe\r\n"
            b"--b\r\nContent-Disposition: form-data; name=model\r\n\r\nother\r\n--b--",
            "given twice",
        ),
        (b'--b\r\nContent-Disposition: form-data; name=model; filename="m"\r\n\r\nscribe\r\n--b--', "not a file"),
        (b"--b\r\nX: 1\r\n\r\nscribe\r\n--b--", "what it is"),
    ],
)
def test_a_form_that_two_readers_could_read_in_two_ways_is_refused(
    http: httpx.Client, gateway: Any, body: bytes, word: str
) -> None:
    before = len(gateway.providers.seen)
    kind = {"content-type": "multipart/form-data; boundary=b"}
    reply = http.post("/v1/audio/transcriptions", content=body, headers=kind)
    assert reply.status_code == 400
    assert word in reply.json()["error"]["message"]
    assert len(gateway.providers.seen) == before


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=b"]
)
def test_a_form_without_a_boundary_is_no_form(http: httpx.Client, kind: str) -> None:
    reply = http.post("/v1/audio/transcriptions", content=b"--b--", headers={"content-type": kind})
    assert reply.status_code == 415


def test_a_form_larger_than_a_body_may_be_is_refused(oai: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        oai.audio.transcriptions.create(model="scribe", file=bytes(5 << 20))
    assert refused.value.status_code == 413


def test_a_form_is_nothing_for_a_route_that_is_read_here(http: httpx.Client) -> None:
    reply = http.post("/v1/chat/completions", files={"file": SOUND}, data={"model": "gpt"})
    assert reply.status_code == 400


def test_files_of_the_account_are_nobodys_to_upload(oai: openai.OpenAI) -> None:
    """All callers share the account: what one uploads another could read."""
    with pytest.raises(openai.NotFoundError):
        oai.files.create(file=SOUND, purpose="user_data")
