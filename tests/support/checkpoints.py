"""The demo checkpoint, and checkpoints that tests write."""

import json
import pathlib
import struct

import gguf
import numpy as np

from convert import architectures
from tests.support.paths import ROOT

BASE, ADAPTER = ROOT / "models" / "demo" / "base", ROOT / "models" / "demo" / "adapter"


def write_safetensors(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    header, data = {}, b""
    for name, array in ((name, array.astype("<f4")) for name, array in tensors.items()):
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


def tensors(path: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    """Type and bytes of every tensor of a GGUF."""
    return {t.name: (int(t.tensor_type), t.data.tobytes()) for t in gguf.GGUFReader(path).tensors}


GEMMA_PIECES = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{i:02X}>" for i in range(256)), "\u2581", "a", "b", "ab", "\u2581ab"]
GEMMA_ADDED = ["<start_of_turn>", "<end_of_turn>"]


def gemma_checkpoint(folder: pathlib.Path, added: tuple[str, ...] = (), **changes: object) -> pathlib.Path:
    """A tiny random Gemma 3 whose tokenizer is as transformers saves Gemma's. `added` tokens have no row in the embedding."""
    folder.mkdir(parents=True)
    inside = [*GEMMA_PIECES, *GEMMA_ADDED]
    roles = {"bos_token": "<bos>", "eos_token": "<end_of_turn>", "unk_token": "<unk>", "pad_token": "<pad>"}
    special = [*roles.values(), "<eos>", "<start_of_turn>", *added]
    ids = {text: i for i, text in enumerate([*inside, *added])}
    tokenizer = {
        "added_tokens": [{"id": i, "content": text, "special": True} for text, i in ids.items() if text in special],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": None,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
            "vocab": {text: i for text, i in ids.items() if text not in added}, "merges": [["a", "b"], ["\u2581", "ab"]],
        },
    }  # fmt: skip
    config = {
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "vocab_size": len(inside), "hidden_size": 96,
        "intermediate_size": 128, "num_hidden_layers": 7, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 32,
        "query_pre_attn_scalar": 32, "sliding_window": 16, "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
        "eos_token_id": [1, ids["<end_of_turn>"]], "bos_token_id": 2, "pad_token_id": 0, **changes,
    }  # fmt: skip
    rng = np.random.default_rng(0)
    shapes = architectures.of(config).shapes(config)
    write_safetensors(folder / "model.safetensors", {name: rng.standard_normal(shape) * 0.1 for name, shape in shapes.items()})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GemmaTokenizer", **roles}))
    (folder / "config.json").write_text(json.dumps(config))
    return folder
