"""A home with decisions in it, made without a process for each question."""

import pathlib

from edge_agent.core.question import Question
from edge_agent.core.records import Decision
from tests.support.spoken_model import UNSURE, SpokenModel, agent

CLAIM = Question("A claim of 1996 is barred after 15 years. In which year?", ("2009", "2011", "2013"))
KAZAKH = Question("Қазақстанның астанасы қай қала? Жауабын таңдаңыз.", ("Алматы", "Астана", "Шымкент"))
CHINESE = Question("哈萨克斯坦的首都是哪座城市？请选择正确的答案。", ("阿拉木图", "阿斯塔纳", "🙂 不知道"))


def asked(home: pathlib.Path, *questions: Question, cloud: str | None = None) -> list[Decision]:
    """Ask questions of a model that says A and is not sure: without a cloud, they wait."""
    with agent(home, SpokenModel(UNSURE), cloud) as one:
        return [one.ask(question) for question in questions]
