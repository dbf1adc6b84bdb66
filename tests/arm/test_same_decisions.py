"""200 questions are decided as on x86-64, except near ties. The questions and what x86-64 said are files of tests/arm/run.py."""

import json
import os
import pathlib

import pytest

from tests.arm.decide import NEAR_TIE, decide

FOLDER = pathlib.Path(os.environ["EDGE_AGENT_TEST_ARM"])
MOST_NEAR_TIES = 4


def test_questions_are_decided_as_on_x86_64(capsys: pytest.CaptureFixture[str]) -> None:
    there = [json.loads(line) for line in (FOLDER / "x86_64.jsonl").read_text().splitlines()]
    here = list(decide(FOLDER / "questions.jsonl"))
    (FOLDER / f"{os.environ['QEMU_CPU']}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in here))
    assert len(here) == len(there) == 200
    pairs = list(enumerate(zip(here, there, strict=True), 1))
    differing = [(n, ours, theirs) for n, (ours, theirs) in pairs if (ours["level"], ours["letter"]) != (theirs["level"], theirs["letter"])]
    largest = max(abs(p - q) for _, (ours, theirs) in pairs for p, q in zip(ours["level_probs"], theirs["level_probs"], strict=True))
    with capsys.disabled():
        print(f"\n{len(differing)} of 200 decisions differ from x86-64; level probabilities differ by at most {largest:.4f}")
        for n, ours, theirs in differing:
            here_there = f"{ours['level']} {ours['letter']} here, {theirs['level']} {theirs['letter']} there"
            print(f"  line {n} of questions.jsonl: {here_there}, margin {theirs['margin']}")
    assert len(differing) <= MOST_NEAR_TIES
    assert all(theirs["margin"] < NEAR_TIE for _, _, theirs in differing)
