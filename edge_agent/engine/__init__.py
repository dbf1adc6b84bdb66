"""llama.cpp reads a question: the confidence first, then the answer."""
