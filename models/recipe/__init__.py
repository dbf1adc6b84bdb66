"""How to make a FogGen model: question bank, tokenizer, base, and rounds of LoRA fine-tuning on its own self-assessment.

Made `models/demo`. Needs the `recipe` extra (torch, transformers, peft). The product never imports it.
"""
