"""`edge-agent ask`: asks one question."""

from __future__ import annotations

import sys

import click

from edge_agent.cli.app import EXIT_CODES, main, with_settings
from edge_agent.cli.show import print_decision, print_json
from edge_agent.core import settings
from edge_agent.core.errors import BadQuestion


@main.command(epilog=EXIT_CODES)
@click.argument("text", required=False)
@click.option("--option", "options", multiple=True, help="The text of one option. Repeat it for each option.")
@click.option("--never-send", is_flag=True, help="Keep this question on the device, whatever the policy says.")
@click.option("--refresh", is_flag=True, help="Ask again, even if the answer is remembered.")
@with_settings("tau", "policy", "model", "adapter", "cloud_url", "cloud_model")
def ask(config: settings.Settings, text: str | None, options: tuple[str, ...], never_send: bool, refresh: bool, as_json: bool) -> None:
    """Ask a question.

    TEXT is the question, followed by one option on each line ('A. ...', 'B. ...'). With '-' it is read from stdin. Or
    give only the question, and each option with --option. A model for open questions needs no options.
    """
    from dataclasses import replace

    from edge_agent.agent.agent import Agent
    from edge_agent.core.question import Question

    text = _given(text)
    with Agent.open(config, one_question=True) as agent:
        kind = agent.profile.question_kind
        question = Question(text, options, kind) if options else Question.parse(text, kind)
        question = replace(question, never_send=never_send)
        decision = agent.ask(question, refresh=refresh)
        if as_json:
            print_json(decision.to_dict())
        else:
            print_decision(decision)
        sys.stdout.flush()  # before closing, which may take a moment
    if decision.provisional and not decision.persisted:
        click.get_current_context().exit(74)  # the question is not queued, so this is not a success


def _given(text: str | None) -> str:
    """The question's text, from the command line or stdin."""
    if text is None:
        raise click.UsageError("Give a question, or '-' to read it from stdin.")
    if text != "-":
        return text
    if sys.stdin is None:
        raise BadQuestion("There is no stdin to read from; give the question as an argument.")
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadQuestion(f"The question on stdin is not UTF-8 (byte {error.start}); check its encoding.") from error
