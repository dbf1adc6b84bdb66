"""Procedurally generated multiple-choice questions in FogGen's seven domains, with a held-out split.

Needs only Python. `draw` returns questions; `python -m models.recipe.bank` writes them as JSONL.
"""

from models.recipe.bank.draw import DOMAINS, Item, draw, draw_facts, draw_many, held_out

__all__ = ["DOMAINS", "Item", "draw", "draw_facts", "draw_many", "held_out"]
