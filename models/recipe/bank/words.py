"""Small vocabularies of the bank: chemical elements and made-up identifiers."""

import random

ELEMENTS = {
    name: number
    for number, name in enumerate(
        (
            "hydrogen", "helium", "lithium", "beryllium", "boron", "carbon", "nitrogen", "oxygen", "fluorine", "neon",
            "sodium", "magnesium", "aluminium", "silicon", "phosphorus", "sulfur", "chlorine", "argon", "potassium",
            "calcium", "scandium", "titanium", "vanadium", "chromium", "manganese", "iron", "cobalt", "nickel",
            "copper", "zinc", "gallium", "germanium", "arsenic", "selenium", "bromine", "krypton",
        ),
        start=1,
    )
}  # fmt: skip


def element(rng: random.Random) -> tuple[int | str, ...]:
    return (rng.choice(list(ELEMENTS)),)


def identifier(rng: random.Random) -> tuple[int | str, ...]:
    """A pronounceable name of 3 to 9 letters."""
    length = rng.randint(3, 9)
    return ("".join(rng.choice("aeiou" if i % 2 else "bcdfglmnprst") for i in range(length)),)
