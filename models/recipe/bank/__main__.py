"""`python -m models.recipe.bank --domain law --n 1000 --split test`: questions as JSONL on stdout."""

import argparse
import json

from models.recipe.bank.draw import DOMAINS, Item, draw_facts, draw_many


def _print(item: Item) -> None:
    row = {"question": item.stem, "options": list(item.options), "answer": item.letter}
    row |= {"domain": item.domain, "difficulty": item.difficulty, "rule": item.rule, "content": item.content}
    print(json.dumps(row, ensure_ascii=False))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.recipe.bank", description=__doc__)
    parser.add_argument("--domain", choices=DOMAINS, help="one domain (default: all seven)")
    parser.add_argument("--n", type=int, default=1000, help="questions for each domain (default 1000)")
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--facts", action="store_true", help="write the few hundred facts instead, each three times")
    arguments = parser.parse_args()
    if arguments.facts:
        for item in draw_facts(arguments.seed, 3, arguments.split):
            _print(item)
        return
    for domain in [arguments.domain] if arguments.domain else DOMAINS:
        for item in draw_many(arguments.seed, arguments.n, arguments.split, domain):
            _print(item)


if __name__ == "__main__":
    main()
