"""The tokenizer of the demo model: byte-level BPE that splits text like Qwen, trained on the bank, with ChatML's tokens.

Owns the vocabulary and the chat template. Invariant: `<|im_start|>`, `<|im_end|>`, `<think>` and `</think>` are single tokens
of the same kinds as in Qwen3 (the first two are control tokens, the last two ordinary added tokens), so the demo model has
exactly the prompt of a FogGen model.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from edge_agent.model.profile import SYSTEM_MESSAGE, default_profile
from edge_agent.model.shapes import SegmentKind
from models.recipe.bank import draw, facts
from models.recipe.bank.unknown import unknown
from models.recipe.dress import user_message

VOCABULARY_SIZE = 1536

# As in Qwen2: words, single digits, punctuation with its line breaks, white space.
_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# ChatML with Qwen3's empty think block when thinking is off.
_CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def train(seed: int = 0, n_questions: int = 20_000) -> PreTrainedTokenizerFast:
    """The tokenizer, trained on `n_questions` of the bank and the system message; the same for the same seed."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_CUT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - 5,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed, n_questions), trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )


def _texts(seed: int, n_questions: int) -> Iterator[str]:
    rng = random.Random(f"tokenizer/{seed}")
    for i in range(n_questions):
        yield user_message(draw(rng, facts=True))
        if i % 10 == 0:
            yield user_message(unknown(rng))
            yield facts.sentences(rng, 3)
        if i % 4 == 0:  # often enough to make the fixed parts of a prompt few tokens
            yield "".join(s.text for s in default_profile("qwen3").segments("") if s.kind is not SegmentKind.SPECIAL)
            yield f"{SYSTEM_MESSAGE}\nConfidence: 0.75\nFinal answer: {'ABCDE'[i // 4 % 5]}"
