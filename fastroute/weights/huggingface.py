"""Causal language models of Hugging Face by transformers: safetensors only, no code but the library's own.

The one file that knows torch and transformers; they are imported when weights are loaded, in the process that owns them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from fastroute.weights.asked import Asked, Done, Refused
from fastroute.weights.serving import Server
from fastroute.weights.source import Running, Spec, WeightsError
from fastroute.weights.words import Speller, Stops

# Nothing that is executed when it is read: no pickles (.bin, .pt), no Python.
_FILES: Final = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


class _Enough(Exception):
    """A stop was met."""


def serve(spec: Spec, token: str, hub_token: str | None) -> Running:
    """Load the weights and answer on a port of loopback; `WeightsError` when they cannot be loaded."""
    server = Server(HuggingFace(spec, hub_token), token)
    server.start()
    return Running(server.port, server)


class HuggingFace:
    """One model and its tokenizer, generating for one caller at a time."""

    def __init__(self, spec: Spec, hub_token: str | None = None) -> None:
        self.name = spec.source.name
        path = _directory(spec, hub_token)
        if not any(Path(path).glob("*.safetensors")):
            raise WeightsError(
                f"{self.name} has no .safetensors; weights as pickles are not read, for that would run them"
            )
        torch: Any = import_module("torch")
        transformers: Any = import_module("transformers")
        transformers.logging.set_verbosity_error()
        torch.set_num_threads(spec.threads)
        self._torch = torch
        self._device = _device(torch, spec.device)
        safely = {"trust_remote_code": False, "local_files_only": True}
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(path, **safely)
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                path, use_safetensors=True, dtype="auto", **safely
            )
            self._model = model.to(self._device).eval()
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            # Its words name directories of ours, and some of them run over pages: they go to the log.
            raise WeightsError(f"transformers cannot load {self.name} ({type(error).__name__})") from error
        known = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        self._context = min(spec.context, known) if isinstance(known, int) else spec.context
        ends = self._model.generation_config.eos_token_id
        if ends is None:
            ends = self._tokenizer.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])

    def run(self, wanted: Asked, hear: Callable[[str], None]) -> Done:
        """Generate until an end of the model's own, a stop, or as many tokens as were asked for or fit."""
        torch = self._torch
        prompt: list[int] = self._tokens(wanted)
        room = self._context - len(prompt)
        if room < 1:
            raise Refused(
                f"the prompt has {len(prompt)} tokens, and these weights read {self._context} together with the answer",
                "messages" if wanted.messages is not None else "prompt",
                "context_length_exceeded",
            )
        most = min(wanted.max_tokens, room)
        listener = _Listener(self._decode, wanted.stops, self._ends, hear)
        # The library's own seed is the same at every start: what nobody asked to repeat shall not be repeated.
        torch.manual_seed(wanted.seed) if wanted.seed is not None else torch.seed()
        sampling: dict[str, Any] = {"do_sample": False}
        if wanted.temperature > 0:
            sampling = {"do_sample": True, "temperature": wanted.temperature, "top_p": wanted.top_p}
        ids = torch.tensor([prompt], device=self._device)
        pad = next(iter(self._ends), 0)
        try:
            with torch.inference_mode():
                self._model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=most,
                    pad_token_id=pad,
                    streamer=listener,
                    **sampling,
                )
            listener.finish()
        except _Enough:
            pass
        finish = "stop" if listener.ended else "length"
        return Done(finish, len(prompt), listener.count)

    def _tokens(self, wanted: Asked) -> list[int]:
        if wanted.messages is None:
            return self._encode(wanted.prompt) or self._beginning()
        turns = [{"role": turn.role, "content": turn.content} for turn in wanted.messages]
        if self._tokenizer.chat_template is None:
            # Weights that were taught no form of conversation: the plainest there is.
            lines = [f"{turn['role']}: {turn['content']}" for turn in turns]
            return self._encode("\n".join([*lines, "assistant:"]))
        errors: Any = import_module("jinja2").exceptions
        try:
            text: str = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except errors.TemplateError as error:
            # A template says in its own words what it takes: no system message, say, or turns that alternate.
            raise Refused(f"the template of these weights refuses the messages: {error}", "messages") from None
        return self._encode(text, add_special_tokens=False)  # the template has them

    def _encode(self, text: str, **how: bool) -> list[int]:
        tokens: list[int] = self._tokenizer(text, **how)["input_ids"]
        return tokens

    def _beginning(self) -> list[int]:
        begin = self._tokenizer.bos_token_id
        if begin is None:
            raise Refused("the prompt is empty, and these weights have no token to begin with", "prompt")
        return [begin]

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


class _Listener:
    """What `generate` gives its tokens to: the prompt first, then one after another."""

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        stops: tuple[str, ...],
        ends: frozenset[int],
        hear: Callable[[str], None],
    ) -> None:
        self._speller, self._stops, self._ends, self._hear = Speller(decode), Stops(stops), ends, hear
        self._begun = False
        self.count = 0
        self.ended = False

    def put(self, value: Any) -> None:
        if not self._begun:
            self._begun = True
            self._hear("")
            return
        for token in value.reshape(-1).tolist():
            self.count += 1
            self.ended = token in self._ends
            self._tell("" if self.ended else self._speller.feed(token))

    def end(self) -> None:
        """The library's word; what is left is told by `finish`, where a fault of it is ours to handle."""

    def finish(self) -> None:
        """No more tokens come: what is unfinished is told as it is."""
        self._tell(self._speller.end())
        self._hear(self._stops.end())

    def _tell(self, text: str) -> None:
        self._hear(self._stops.feed(text))
        if self._stops.met:
            self.ended = True
            raise _Enough


def _device(torch: Any, wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise WeightsError("HF_DEVICE is cuda, and torch finds no CUDA device here; set it to cpu or auto")
    return wanted


def _directory(spec: Spec, hub_token: str | None) -> str:
    """Where the files are: the directory itself, ours of a repository, the library's own, or fetched now if that is allowed."""
    if spec.source.path is not None:
        return spec.source.path
    repo = spec.source.repo or ""
    kept = Path(spec.cache_dir) / repo.replace("/", "_")
    hub: Any = import_module("huggingface_hub")
    if spec.download:
        try:
            # Files that are there and whole are not fetched again.
            fetched: str = hub.snapshot_download(
                repo, local_dir=kept, allow_patterns=list(_FILES), token=hub_token or False
            )
            return fetched
        except (OSError, ValueError, RuntimeError) as error:
            if not (kept / "config.json").is_file():
                what = f"the hub did not give {repo} ({type(error).__name__})"
                raise WeightsError(f"{what}; one behind a licence wants HUGGING_FACE_HUB_TOKEN") from error
    if (kept / "config.json").is_file():
        return str(kept)
    try:
        found: str = hub.snapshot_download(repo, local_files_only=True)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{repo} is not on this machine; put its files into {kept.name} under HF_CACHE_DIR, or set weights.download"
        ) from error
    return found
