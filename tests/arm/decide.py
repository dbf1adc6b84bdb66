"""`python -m tests.arm.decide QUESTIONS.jsonl > READINGS.jsonl`: how the demo model reads questions on this processor.

`margin` is how much probability must move from what was chosen to the next best before the choice changes: half of their
difference, the smallest at any branch of the level and at the letter. Below `NEAR_TIE` two processors may choose differently,
because they round differently. On x86-64 alone, batches of 32 tokens in place of 256 move a level's probability by up to 0.017.
"""

import json
import pathlib
import sys
from collections.abc import Iterator

from edge_agent.core.question import Question
from edge_agent.core.records import Reading
from edge_agent.engine.local_model import LocalModel
from tests.support.paths import DEMO

NEAR_TIE = 0.01


def margin(reading: Reading) -> float:
    """Half of the smallest difference between the two best at any choice; the demo model first chooses between `1` and `0`."""
    one = reading.level_probs[reading.levels.index("1.0")]
    below = sorted((p for level, p in zip(reading.levels, reading.level_probs, strict=True) if level != "1.0"), reverse=True)
    choices = [abs(one - (1 - one))]
    if reading.level != "1.0":
        choices.append((below[0] - below[1]) / sum(below))
    letters = sorted(reading.answer_probs, reverse=True)
    return min(*choices, letters[0] - letters[1]) / 2


def decide(questions: pathlib.Path) -> Iterator[dict[str, object]]:
    """A reading for each line of a file of questions."""
    with LocalModel(DEMO) as model:
        for line in questions.read_text().splitlines():
            row = json.loads(line)
            reading = model.read(Question(row["question"], tuple(row["options"])))
            assert isinstance(reading, Reading)
            yield {
                "level": reading.level,
                "letter": reading.letter,
                "margin": round(margin(reading), 4),
                "level_probs": [round(p, 4) for p in reading.level_probs],
            }


if __name__ == "__main__":
    for one in decide(pathlib.Path(sys.argv[1])):
        print(json.dumps(one))
