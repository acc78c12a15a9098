"""ComfyUI's own parser of prompts: its functions, extracted from its source, without its models.

`comfy.sd1_clip` imports torch and transformers, but these functions need neither.
"""

import ast
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path("comfy", "sd1_clip.py")
FUNCTIONS = ("parse_parentheses", "token_weights", "escape_important", "unescape_important", "expand_directory_list")


@dataclass(frozen=True)
class Embedding:
    """The file of an embedding, in place of its content."""

    file: str
    shape: Sequence[int] = (1,)


class EnginePrompts:
    """The engine's parser of prompts."""

    def __init__(self, engine: Path) -> None:
        source = engine / SOURCE
        tree = ast.parse(source.read_text(encoding="utf-8"))
        definitions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        search = definitions["load_embed"]
        assert isinstance(search, ast.FunctionDef)
        # The statements after this one load the file.
        end = [ast.unparse(statement) for statement in search.body].index("embed_path = valid_file")
        search.body[end:] = ast.parse("return Embedding(valid_file)").body
        extracted: list[ast.stmt] = [*(definitions[name] for name in FUNCTIONS), search, definitions["SDTokenizer"]]
        self._names: dict[str, Any] = {
            "os": os,
            "re": re,
            "logging": logging,
            "CLIPTokenizer": None,
            "Embedding": Embedding,
        }
        exec(compile(ast.Module(extracted, []), str(source), "exec"), self._names)

    def segments(self, prompt: str) -> list[tuple[str, float]]:
        """Return the parts of a prompt with their weights."""
        escaped: Callable[[str], str] = self._names["escape_important"]
        parts: list[tuple[str, float]] = self._names["token_weights"](escaped(prompt), 1.0)
        return [(self._names["unescape_important"](part), weight) for part, weight in parts]

    def words(self, prompt: str, embeddings: Path) -> list[tuple[str | Embedding, float]]:
        """Return the texts to be tokenized and the embeddings, in order, with their weights."""
        kind = self._names["SDTokenizer"]
        tokenizer = kind.__new__(kind)
        tokenizer.__dict__ |= {
            "tokenizer": lambda text: {"input_ids": [text]},
            **{"tokens_start": 0, "tokenizer_adds_end_token": False, "start_token": None, "end_token": None},
            **{"max_length": 10**9, "min_length": None, "min_padding": None, "pad_to_max_length": False},
            **{"max_word_length": 8, "disable_weights": False, "embedding_identifier": "embedding:"},
            **{"embedding_directory": str(embeddings), "embedding_size": 768, "embedding_key": "clip_l"},
        }
        (batch,) = tokenizer.tokenize_with_weights(prompt)
        return list(batch)
