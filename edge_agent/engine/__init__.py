"""The local model, run by llama.cpp: it reads a question and returns a confidence, then an answer."""
