"""How much memory a process may need that answers with a model.

Owns the sum, from what the file says about itself. Measures nothing: `edge-agent bench` does. Invariant: the sum is an upper limit,
so that a service that is limited to it is not killed for its ordinary work.
"""

from __future__ import annotations

import pathlib

from edge_agent.core.errors import ModelRefused
from edge_agent.model import gguf
from edge_agent.model.catalog import ModelFiles

N_CTX = 2048  # tokens in the KV cache: the engine's default, which a test compares
_CACHED_BYTES = 2  # one number of the KV cache is a half float
_PROCESS_BYTES = 256 << 20  # Python, the server, the vocabulary, the compute buffer, SQLite's caches, threads
_STEP_BYTES = 16 << 20
_MOST = 1 << 20  # of a file's numbers; those of real models are below


def needed_bytes(model: ModelFiles, n_ctx: int = N_CTX) -> int:
    """The most memory that a server with this model may need: twice the files, the KV cache, and 256 MiB, in steps of 16 MiB.

    Twice: the files stay mapped while their weights may be kept rearranged, too. The system can drop mapped pages and read them
    again, so a service that is limited to this sum has more than it needs. Raises `ModelMissing` and `ModelRefused`.
    """
    total = 2 * model.size_bytes + kv_bytes_per_token(model.path) * n_ctx + _PROCESS_BYTES
    return -(-total // _STEP_BYTES) * _STEP_BYTES


def kv_bytes_per_token(path: pathlib.Path) -> int:
    """What one token takes in the KV cache, in bytes: a key and a value for each head of each layer."""
    header = gguf.read_model(path)

    def number(name: str, otherwise: int | None = None) -> int:
        value = header.metadata.get(f"{header.architecture}.{name}", otherwise)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MOST:
            raise ModelRefused(f"The model file '{path}' does not say how large it is ({name:.80} is {value!r:.40}); convert it again.")
        return value

    heads = number("attention.head_count")
    size = number("embedding_length") // heads
    of_key, of_value = number("attention.key_length", size), number("attention.value_length", size)
    return number("block_count") * number("attention.head_count_kv", heads) * (of_key + of_value) * _CACHED_BYTES
