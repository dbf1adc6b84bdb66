"""How fast `edge-agent serve` is, and whether it stays as it is. A real server process, with a home of its own, on loopback.

    python -m benchmarks.serve load [MODEL.gguf] [--clients 1,8,64] [--seconds 5]     many clients: throughput, waiting, memory
    python -m benchmarks.serve overhead [MODEL.gguf] [--pairs 100]                    what HTTP adds to Agent.ask
    python -m benchmarks.serve ratios [MODEL.gguf] [--rounds 5]                       recalled against fresh; 8 questions at once
    python -m benchmarks.serve start [MODEL.gguf] [--rounds 5]                        from the start of the process to an answer
    python -m benchmarks.serve soak [MODEL.gguf] [--minutes 60] [--clients 8]         mixed traffic; ends with 1 if anything grows

Without a file, the demo model answers. Linux only, because memory and file handles come from /proc.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from benchmarks import serve_load, serve_overhead, serve_ratios, serve_soak, serve_start
from benchmarks.serve_http import DEMO


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    load, overhead, ratios, start, soak = (commands.add_parser(name) for name in ("load", "overhead", "ratios", "start", "soak"))
    for command in (load, overhead, ratios, start, soak):
        command.add_argument("model", type=pathlib.Path, nargs="?", default=DEMO)
    load.add_argument("--clients", default="1,8,64")
    load.add_argument("--seconds", type=float, default=5)
    load.add_argument("--routes", default=",".join(serve_load.ROUTES))
    overhead.add_argument("--pairs", type=int, default=100)
    ratios.add_argument("--rounds", type=int, default=5)
    ratios.add_argument("--questions", type=int, default=8)
    ratios.add_argument("--tokens", type=int, default=400)
    start.add_argument("--rounds", type=int, default=5)
    soak.add_argument("--minutes", type=float, default=60)
    soak.add_argument("--clients", type=int, default=8)
    soak.add_argument("--kinds", default=",".join(serve_soak.KINDS), help="which traffic, to find out what leaks")
    given = parser.parse_args()
    if given.command == "load":
        serve_load.run(given.model, [int(n) for n in given.clients.split(",")], given.seconds, given.routes.split(","))
    elif given.command == "overhead":
        serve_overhead.run(given.model, given.pairs)
    elif given.command == "ratios":
        serve_ratios.run(given.model, given.rounds, given.questions, given.tokens)
    elif given.command == "start":
        serve_start.run(given.model, given.rounds)
    elif wrong := serve_soak.run(given.model, given.minutes, given.clients, given.kinds.split(",")):
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
