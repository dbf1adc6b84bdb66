"""`python -m tests.arm.decide QUESTIONS.jsonl [MODEL [TOKENS]] > READINGS.jsonl`: how a model reads questions on this processor.

MODEL is the demo unless it is given, TOKENS the largest batch. `margin` is the difference between the two best values that the
decision rests on: the smallest at any branch of the level and at the letter.
"""

import json
import pathlib
import sys
from collections.abc import Iterator

from edge_agent.core.question import Question
from edge_agent.core.records import Reading
from edge_agent.engine.llama import Options
from edge_agent.engine.local_model import LocalModel
from tests.support.paths import DEMO


def margin(reading: Reading) -> float:
    """The smallest difference between the two best at any choice; the demo model first chooses between `1` and `0`."""
    one = reading.level_probs[reading.levels.index("1.0")]
    below = sorted((p for level, p in zip(reading.levels, reading.level_probs, strict=True) if level != "1.0"), reverse=True)
    choices = [abs(one - (1 - one))]
    if reading.level != "1.0":
        choices.append((below[0] - below[1]) / sum(below))
    letters = sorted(reading.answer_probs, reverse=True)
    return min(*choices, letters[0] - letters[1])


def decide(questions: pathlib.Path, path: pathlib.Path = DEMO, n_batch: int = 256) -> Iterator[dict[str, object]]:
    """A reading for each line of a file of questions."""
    with LocalModel(path, options=Options(n_batch=n_batch)) as model:
        for line in questions.read_text().splitlines():
            row = json.loads(line)
            reading = model.read(Question(row["question"], tuple(row["options"])))
            assert isinstance(reading, Reading)
            yield {
                "level": reading.level,
                "letter": reading.letter,
                "margin": round(margin(reading), 4),
                "level_probs": [round(p, 4) for p in reading.level_probs],
                "answer_probs": [round(p, 4) for p in reading.answer_probs],
            }


if __name__ == "__main__":
    questions, *model = sys.argv[1:]
    for one in decide(pathlib.Path(questions), *map(pathlib.Path, model[:1]), *map(int, model[1:])):
        print(json.dumps(one))
