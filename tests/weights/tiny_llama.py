"""A Llama of a few kilobytes with weights at random, and a tokenizer with a token for every byte: what it says is nonsense,
and every count of it can be checked by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for turn in messages %}{% if turn.role == 'parrot' %}{{ raise_exception('no parrots') }}{% endif %}"
    "<{{ turn.role }}>{{ turn.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
CONTEXT = 2048
END = 257


def templated(*turns: tuple[str, str]) -> str:
    """What the template makes of a conversation."""
    return "".join(f"<{role}>{text}\n" for role, text in turns) + "<assistant>"


def make(directory: Path, *, template: bool = True) -> Path:
    """Write the model and its tokenizer; the same bytes every time."""
    import numpy
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    directory.mkdir(parents=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: place for place, letter in enumerate(letters)} | {"<s>": 256, "</s>": END}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    told: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    if template:
        told["chat_template"] = TEMPLATE
    (directory / "tokenizer_config.json").write_text(json.dumps(told))

    width, inner, layers, size = 32, 64, 2, 258
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": size,
        "max_position_embeddings": CONTEXT, "bos_token_id": 256, "eos_token_id": END, "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6, "dtype": "float32",
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    draw = numpy.random.default_rng(7)

    def some(*shape: int) -> Any:
        return (draw.standard_normal(shape) * 0.5).astype("float32")

    one = numpy.ones(width, dtype="float32")
    tensors = {"model.embed_tokens.weight": some(size, width), "model.norm.weight": one}
    for layer in range(layers):
        own = f"model.layers.{layer}"
        tensors |= {f"{own}.self_attn.{name}_proj.weight": some(width, width) for name in "qkvo"}
        tensors |= {f"{own}.mlp.{name}_proj.weight": some(inner, width) for name in ("gate", "up")}
        tensors |= {f"{own}.mlp.down_proj.weight": some(width, inner)}
        tensors |= {f"{own}.{name}_layernorm.weight": one for name in ("input", "post_attention")}
    head = some(size, width)
    # Only letters are ever likely: what is said is then text, a token a letter.
    plain = [vocabulary[letter] for letter in "abcdefghijklmnopqrstuvwxyz"]
    silent = numpy.ones(size, dtype=bool)
    silent[plain] = False
    head[silent] = 0
    tensors["lm_head.weight"] = head
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory
