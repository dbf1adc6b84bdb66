"""Converts a safetensors checkpoint, with or without LoRA adapters, to GGUF. Needs no torch.

Runs from a checkout: `python -m convert SRC [--adapter DIR]... --quants Q8_0,Q4_K_M --out DIR`. Needs the `convert`
extra (gguf). The runtime never imports it.
"""
