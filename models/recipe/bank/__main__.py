"""`python -m models.recipe.bank --domain law --n 1000 --split test`: questions as JSONL on stdout."""

import argparse
import json

from models.recipe.bank.draw import DOMAINS, draw_many


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.recipe.bank", description=__doc__)
    parser.add_argument("--domain", choices=DOMAINS, help="one domain; all seven in turn without it")
    parser.add_argument("--n", type=int, default=1000, help="questions a domain (default 1000)")
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for domain in [arguments.domain] if arguments.domain else DOMAINS:
        for item in draw_many(arguments.seed, arguments.n, arguments.split, domain):
            row = {"question": item.stem, "options": list(item.options), "answer": item.letter}
            row |= {"domain": item.domain, "difficulty": item.difficulty, "rule": item.rule, "content": item.content}
            print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
