"""Tokenizers of every common kind, trained here on a few lines, each with a chat template."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pipeline.judge.prompt import PromptTemplate, load_prompt
from pipeline.models.chat import Chat

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TRIMMING = CHATML.replace("m['content']", "m['content'] | trim")
INST = "<s>[INST] {{ messages[0]['content'] }} [/INST]"

CORPUS = [
    "Please act as an impartial judge and evaluate the quality of the two responses to the user prompt.",
    "The Start of Answer A, the End of Answer B. The answer is better: A or B.",
    "Rivers run to the sea, and the rain fills them again. Water, ice, vapour: 100 °C.",
    "def add(a, b):\n    return a + b  # sum\n",
    "<|The Start of Answer A|>\nRivers run to the sea.\n<|The End of Answer A|>\n",
    "<|The Start of Answer B|>\nIt rains.\n\n<|The End of Answer B|>\n",
    "Der Fluß fließt; naïve café. Привет, мир! 你好,世界。こんにちは 🙂 👩‍👩‍👧",
] * 4
LLAMA_3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def wrapped(backend: Tokenizer, template: str, unk: str | None = None) -> PreTrainedTokenizerFast:
    """With the special tokens of ChatML and of Llama, as a tokenizer of transformers."""
    backend.add_special_tokens([name for name in SPECIAL if name != "<unk>" or unk == "<unk>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, unk_token=unk)


def byte_level() -> PreTrainedTokenizerFast:
    """As Llama 3: byte-level BPE; its words take the line ends after punctuation with them."""
    backend = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(LLAMA_3_WORDS), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    return wrapped(backend, CHATML)


def byte_level_nfc() -> PreTrainedTokenizerFast:
    """As Qwen: the same after composing characters."""
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def unigram() -> PreTrainedTokenizerFast:
    """As XLM-R or Gemma: SentencePiece Unigram with byte fallback; pieces may hold line ends."""
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trained.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(vocab_size=220, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False),
    )
    pieces = [(piece, score) for piece, score in json.loads(trained.to_str())["model"]["vocab"] if piece != "<unk>"]
    joined = [(piece, -2.0) for piece in (">\n", ".\n", "\n<|", "\n\n", "!\n<")]
    vocab = [("<unk>", 0.0), *pieces, *joined, *((name, -20.0) for name in BYTES)]
    backend = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    return wrapped(backend, CHATML, unk="<unk>")


def metaspace_bpe() -> PreTrainedTokenizerFast:
    """As Llama 2 and Mistral: SentencePiece BPE with byte fallback over the whole text; brackets that are no tokens."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    vocab = {piece: i for i, piece in enumerate(["<unk>", *BYTES, *model["vocab"]])}
    merges = [tuple(merge) for merge in model["merges"]]
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return wrapped(backend, INST, unk="<unk>")


def wordpiece(normalizer: normalizers.Normalizer | None) -> PreTrainedTokenizerFast:
    """As BERT: white space is dropped, unknown words become one token."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if normalizer is not None:
        backend.normalizer = normalizer
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]"], show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    return wrapped(backend, CHATML, unk="[UNK]")


BUILT: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte_level": byte_level,
    "byte_level_nfc": byte_level_nfc,
    "unigram": unigram,
    "metaspace_bpe": metaspace_bpe,
    "wordpiece": lambda: wordpiece(None),
    "wordpiece_lower": lambda: wordpiece(normalizers.BertNormalizer(lowercase=True)),
    "wordpiece_nfkc": lambda: wordpiece(normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])),
}

BYTE_PRESERVING = ("default", "byte_level", "unigram", "metaspace_bpe")
"""Those whose tokens, put together, are the text again."""


@pytest.fixture(scope="session")
def built() -> dict[str, PreTrainedTokenizerFast]:
    """The tokenizers above by name."""
    return {name: build() for name, build in BUILT.items()}


@pytest.fixture(scope="session")
def all_tokenizers(built: dict[str, Any], default_tokenizer: Any) -> dict[str, Any]:
    """The same, and that of the default model."""
    return {"default": default_tokenizer, **built}


@pytest.fixture(scope="session")
def chats(all_tokenizers: dict[str, Any]) -> dict[str, Chat]:
    """The chat format of each."""
    return {name: Chat(tokenizer) for name, tokenizer in all_tokenizers.items()}


@pytest.fixture(scope="session")
def prompt(root: Path) -> PromptTemplate:
    """The prompt of the paper."""
    return load_prompt(root / "pipeline" / "judge" / "prompt.txt")
