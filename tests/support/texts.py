"""Texts on which tokenizers are compared: Kazakh, code, spaces, digits, emoji, markup and control characters."""

TEXTS = [
    "What is 12 + 7?\nA. 18\nB. 19\nC. 24", "Қазақстанның астанасы қай қала?", "Сәлеметсіз бе, әлем! Ұлттық ұғым; іңкәр, һәм.",
    "def f(x):\n\treturn [i ** 2 for i in range(x)]  # quadratic\n\n\n", "👩‍👩‍👧‍👦 🇰🇿 🦙🦙 é é",
    "  two  spaces   three    four\n\n\n\nlines", "",
    " leading", "trailing ", "1234567890 3.14159", "<b>bold</b> &amp; <unused7>", "\x00\x01\ufeff",
]  # fmt: skip
