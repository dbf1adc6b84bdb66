"""How a FogGen model is made: question bank, tokenizer, base, one self-assessed round of LoRA SFT.

The workshop behind `models/demo`; needs the `recipe` extra (torch, transformers, peft). Nothing imports it.
"""
