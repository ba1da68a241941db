"""The list of models, as each family of clients reads it."""

from fastroute.callers import models
from fastroute.domain import Entry, ModelRef

ENTRIES = [
    Entry(
        "gpt", ModelRef("openai", "gpt-4o"), "openai", capabilities=("tools", "vision"), context_window=9, max_output=5
    ),
    Entry("a/b:c", ModelRef("local", "b"), "local"),
]


def test_openais_list_carries_what_mistrals_clients_need():
    """A bare list crashes openai-python; a model without `type` is nothing to mistralai."""
    made = models.openai_list(ENTRIES, created=3)
    assert made["object"] == "list"
    assert [model["id"] for model in made["data"]] == ["gpt", "a/b:c"]
    assert all(model["object"] == "model" and model["type"] == "base" for model in made["data"])
    first = made["data"][0]
    assert (first["created"], first["owned_by"], first["max_context_length"]) == (3, "openai", 9)
    assert first["capabilities"]["function_calling"] is first["capabilities"]["vision"] is True
    assert "max_context_length" not in made["data"][1]


def test_anthropics_list_is_one_page():
    made = models.anthropic_list(ENTRIES)
    assert (made["has_more"], made["first_id"], made["last_id"]) == (False, "gpt", "a/b:c")
    assert made["data"][0] == {
        "type": "model",
        "id": "gpt",
        "display_name": "gpt",
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 9,
        "max_tokens": 5,
    }
    assert models.anthropic_list([]) == {"data": [], "has_more": False, "first_id": None, "last_id": None}


def test_googles_list_stands_under_models():
    made = models.gemini_list(ENTRIES)["models"]
    assert [model["name"] for model in made] == ["models/gpt", "models/a/b:c"]
    assert (made[0]["inputTokenLimit"], made[0]["outputTokenLimit"]) == (9, 5)
    assert "inputTokenLimit" not in made[1]
    assert "generateContent" in made[1]["supportedGenerationMethods"]
