"""Compares edge-agent with other ways to run the same GGUF, in one run.

    python -m benchmarks.peers MODEL.gguf [--rounds 3] [--limit 12] [--threads N] [--checkpoint FOLDER] [--out results.jsonl]

Every way has its own process, which keeps its model open. Each question goes to all processes, in a new random order for each
question, so that noise of the machine affects all alike. No question is asked twice, because llama.cpp's server caches what it
has seen. Before each timed question, the process answers another one, so that it is not timed while it wakes up. The time of a
way that generates is normalised to the 14 tokens of a normal answer: the time to its first token, plus 14 times the time of
one token. Needs `xllamacpp` for llama.cpp's own server; --checkpoint adds generation with transformers in bf16.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pathlib
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edge_agent.core.question import Question
from edge_agent.measure.bench import machine
from edge_agent.model.answers import AnswerFormat
from edge_agent.model.profile import LEVELS, default_profile
from tests.support.grammar import gbnf

ANSWER_TOKENS = 14
WARM_UP = 2
TYPED_KEYS, KEY_S = 20, 0.2  # the last keys before Enter, at 60 words a minute
BUILTIN = pathlib.Path(machine.__file__).parent / "questions.jsonl"

Ask = Callable[[Question], float]
"""Answers a question and returns the time in ms."""


def prompt(question: Question) -> str:
    """The whole prompt of FogGen as text."""
    return "".join(segment.text for segment in default_profile("qwen3").segments(question.user_message))


def grammar(question: Question) -> str:
    """llama.cpp's grammar of the legal answers."""
    return gbnf(AnswerFormat(LEVELS, question.letters))


def edge_agent(path: str, n_threads: int) -> Ask:
    """A reading of edge-agent."""
    from edge_agent.engine.llama import Options
    from edge_agent.engine.local_model import LocalModel

    model = LocalModel(pathlib.Path(path), options=Options(n_threads=n_threads))
    return lambda question: _timed(lambda: model.read(question))


def edge_agent_surprised(path: str, n_threads: int) -> Ask:
    """A reading that needs a second pass, because the model never prints the likely level."""
    from edge_agent.engine.llama import Options
    from edge_agent.engine.local_model import LocalModel

    profile = replace(default_profile("qwen3"), likely_level=LEVELS[0])
    model = LocalModel(pathlib.Path(path), profile, Options(n_threads=n_threads))
    return lambda question: _timed(lambda: model.read(question))


def typed_ahead(path: str, n_threads: int) -> Ask:
    """The time from Enter to the reading, after the last letters were typed."""
    from edge_agent.engine.draft import Draft
    from edge_agent.engine.llama import Options
    from edge_agent.engine.local_model import LocalModel

    model = LocalModel(pathlib.Path(path), options=Options(n_threads=n_threads))

    def ask(question: Question) -> float:
        text = question.user_message
        with Draft(model.draft) as draft:
            for end in range(len(text) - TYPED_KEYS, len(text) + 1):
                draft.update(text[:end])
                time.sleep(KEY_S)
            return _timed(lambda: model.read(question))

    return ask


def pasted(path: str, n_threads: int) -> Ask:
    """The same, but the last word comes together with Enter."""
    from edge_agent.engine.draft import Draft
    from edge_agent.engine.llama import Options
    from edge_agent.engine.local_model import LocalModel

    model = LocalModel(pathlib.Path(path), options=Options(n_threads=n_threads))

    def ask(question: Question) -> float:
        with Draft(model.draft) as draft:
            draft.update(question.user_message.rsplit(" ", 1)[0])
            draft.wait()
            return _timed(lambda: model.read(question))

    return ask


def bare_prefill(path: str, n_threads: int) -> Ask:
    """The floor: one evaluation, in one batch, of the tokens that a reading needs."""
    from edge_agent.engine.llama import Options
    from edge_agent.engine.local_model import LocalModel

    model = LocalModel(pathlib.Path(path), options=Options(n_threads=n_threads))

    def ask(question: Question) -> float:
        reading = model.read(question)
        tokens = [*model.prompt_tokens(question), *model.answer_tokens(question, reading)[:-1]]
        return model.time_evaluation(tokens, reading.timings.n_cached_tokens)

    return ask


def llama_cpp_python(path: str, n_threads: int, cold: bool = False) -> Ask:
    """A completion of llama-cpp-python with the grammar. `cold` drops its cache before each question."""
    import llama_cpp

    model = llama_cpp.Llama(path, n_ctx=2048, n_batch=512, n_threads=n_threads, n_threads_batch=n_threads, verbose=False)

    def ask(question: Question) -> float:
        legal = llama_cpp.LlamaGrammar.from_string(grammar(question), verbose=False)
        if cold:
            model.reset()
        started, ends = time.perf_counter(), []
        for _ in model.create_completion(prompt(question), grammar=legal, temperature=0, max_tokens=64, stream=True):
            ends.append(time.perf_counter())
        return _normalised(ends[0] - started, ends[-1] - ends[0], len(ends) - 1)

    return ask


def llama_cpp_python_cold(path: str, n_threads: int) -> Ask:
    """The same without a cache from the question before."""
    return llama_cpp_python(path, n_threads, cold=True)


def server(path: str, n_threads: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """llama.cpp's own server, without HTTP."""
    import xllamacpp

    for descriptor in (1, 2):  # the server logs every request
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_parallel = 2048, 512, 512, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = n_threads
    running = xllamacpp.Server(params)
    return running.handle_completions


def server_grammar(path: str, n_threads: int) -> Ask:
    """The server with a cached prompt and the grammar."""
    complete = server(path, n_threads)

    def ask(question: Question) -> float:
        request = {"prompt": prompt(question), "grammar": grammar(question), "temperature": 0, "n_predict": 64, "cache_prompt": True}
        started = time.perf_counter()
        timings = complete(request)["timings"]
        whole = time.perf_counter() - started
        decode, n = timings["predicted_ms"] / 1000, timings["predicted_n"]
        return _normalised(whole - decode, decode, n)

    return ask


def server_probabilities(path: str, n_threads: int) -> Ask:
    """The fastest use of the server: a cached prompt, and one token with probabilities for each choice."""
    complete = server(path, n_threads)

    def ask(question: Question) -> float:
        started, text = time.perf_counter(), prompt(question)
        for said in ("Confidence: ", "Confidence: 0.", "Confidence: 0.75\nFinal answer:"):
            complete({"prompt": text + said, "n_predict": 1, "n_probs": 20, "temperature": 0, "cache_prompt": True})
        return (time.perf_counter() - started) * 1000

    return ask


def transformers_generate(path: str, n_threads: int) -> Ask:
    """transformers in bf16, 14 tokens, no grammar. `path` is the checkpoint."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(n_threads)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).eval()

    def ask(question: Question) -> float:
        inputs = tokenizer(prompt(question), return_tensors="pt")
        return _timed(lambda: model.generate(**inputs, max_new_tokens=ANSWER_TOKENS, min_new_tokens=ANSWER_TOKENS, do_sample=False))

    return ask


WAYS: dict[str, Callable[[str, int], Ask]] = {
    "edge-agent": edge_agent,
    "edge-agent, when the level is another than expected": edge_agent_surprised,
    "edge-agent, typed ahead, then Enter": typed_ahead,
    "edge-agent, typed ahead but for the last word": pasted,
    "bare prefill of the same tokens": bare_prefill,
    "llama-cpp-python, grammar, warm": llama_cpp_python,
    "llama-cpp-python, grammar, cold": llama_cpp_python_cold,
    "llama.cpp's server, grammar, prompt cached": server_grammar,
    "llama.cpp's server, probabilities, prompt cached": server_probabilities,
}


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def _normalised(before_s: float, decode_s: float, n_tokens: int) -> float:
    return (before_s + decode_s / max(1, n_tokens) * ANSWER_TOKENS) * 1000


def _only_once(question: Question, mark: str) -> Question:
    """The question with a unique beginning."""
    return Question(f"Case {mark}. {question.stem}", question.options)


def _serve(way: str, path: str, n_threads: int, pipe: Any) -> None:
    """The process of one way: receives questions and sends times until None comes."""
    ask = (WAYS | {"transformers": transformers_generate})[way](path, n_threads)
    pipe.send("ready")
    while (pair := pipe.recv()) is not None:
        other, question = pair
        ask(other)
        pipe.send(ask(question))


def compare(paths: dict[str, str], questions: list[Question], rounds: int, n_threads: int) -> dict[str, list[float]]:
    """The times in ms of every way (from name to model path), for all questions and rounds in the same order."""
    rng, context = random.Random(0), multiprocessing.get_context("spawn")
    pipes, children = {}, []
    for way, path in paths.items():
        pipes[way], theirs = context.Pipe()
        children.append(context.Process(target=_serve, args=(way, path, n_threads, theirs), daemon=True))
        children[-1].start()
        pipes[way].recv()
    times: dict[str, list[float]] = {way: [] for way in paths}
    for number in range(rounds):
        for at, question in enumerate(questions):
            pair = _only_once(question, f"{number}a{at}"), _only_once(question, f"{number}b{at}")
            for way in rng.sample(list(pipes), len(pipes)):
                pipes[way].send(pair)
                took = pipes[way].recv()
                if number or at >= WARM_UP:
                    times[way].append(took)
            print(f"\rround {number + 1}/{rounds}, question {at + 1}/{len(questions)}", end="", flush=True)
    print()
    for way, child in zip(pipes, children, strict=True):
        pipes[way].send(None)
        child.join(10)
    return times


def main() -> None:
    """Compare, print a table, and append a line to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=12)
    parser.add_argument("--threads", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--checkpoint", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    questions = [Question.from_json(json.loads(line)) for line in BUILTIN.read_text().splitlines()][: arguments.limit]
    paths = dict.fromkeys(WAYS, str(arguments.model))
    if arguments.checkpoint:
        paths["transformers"] = str(arguments.checkpoint)
    times = compare(paths, questions, arguments.rounds, arguments.threads)
    ours = statistics.median(times["edge-agent"])
    print(f"{'way':50} {'median ms':>10} {'p95 ms':>8}   against edge-agent")
    for way, found in times.items():
        p95 = statistics.quantiles(found, n=20)[-1]
        ratio = statistics.median(theirs / own for theirs, own in zip(found, times["edge-agent"], strict=True))
        print(f"{way:50} {statistics.median(found):10.1f} {p95:8.1f}   {ratio:.2f}")
    if arguments.out:
        about = machine.describe(multiprocessing.cpu_count())
        line = {
            "model": arguments.model.name,
            "processor": about.processor,
            "n_threads": arguments.threads,
            "edge_agent_ms": ours,
            "times_ms": times,
        }
        with arguments.out.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
