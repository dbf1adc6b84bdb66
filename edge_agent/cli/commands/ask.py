"""`edge-agent ask`: asks one question, or those of a file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from edge_agent.cli import verbosity
from edge_agent.cli.app import EXIT_CODES, PROFILE, main, with_settings
from edge_agent.cli.show import print_decision, print_json
from edge_agent.core.asked import as_dict
from edge_agent.core.config import settings
from edge_agent.core.errors import BadQuestion

if TYPE_CHECKING:
    from edge_agent.core.records import Decision


@main.command(epilog=EXIT_CODES)
@click.argument("text", required=False)
@click.option("--option", "options", multiple=True, help="The text of one option. Repeat it for each option.")
@click.option("--batch", metavar="FILE", help="Ask every line of FILE, a JSON object each, and print an object for each; '-' is stdin.")
@click.option("--never-send", is_flag=True, help="Keep this question on the device, whatever the policy says.")
@click.option("--refresh", is_flag=True, help="Ask again, even if the answer is remembered.")
@with_settings("tau", "policy", "model", *PROFILE, "adapter", "cloud_url", "cloud_model")
def ask(
    config: settings.Settings,
    text: str | None,
    options: tuple[str, ...],
    batch: str | None,
    never_send: bool,
    refresh: bool,
    as_json: bool,
) -> None:
    """Ask a question.

    TEXT is the question, followed by its options: one a line ('A. ...', '1. ...' or '- ...'), or in a row ('A) ... B) ...'). With
    '-' it is read from stdin. Or give only the question, and each option with --option. TEXT may also be JSON:
    {"question": "...", "options": ["...", "..."]}. A model for open questions needs no options.
    """
    if batch is not None:
        if text is not None or options:
            raise click.UsageError("Give either a question or --batch.")
        _ask_all(config, batch, never_send, refresh)
        return
    from edge_agent.agent.agent import Agent
    from edge_agent.cli import asked

    text = _given(text)
    with Agent.open(config, one_question=True) as agent:
        one = asked.from_text(text, options, agent.profile.question_kind, never_send)
        decision = agent.ask(one.question, refresh or one.refresh, tau=one.tau, policy=one.policy)
        if as_json:
            print_json(as_dict(one, decision))
        else:
            print_decision(decision, verbosity.is_quiet(), config.adapter)
        if verbosity.is_verbose():
            verbosity.note(_timings(decision))
        sys.stdout.flush()  # before closing, which may take a moment
    if decision.is_lost:
        click.get_current_context().exit(74)  # the question is not queued, so this is not a success


def _ask_all(config: settings.Settings, name: str, never_send: bool, refresh: bool) -> None:
    """Ask every line of a file. Each answer is written at once, so that another program can wait for it."""
    from edge_agent.agent.agent import Agent
    from edge_agent.cli import asked

    with asked.opened(name) as file, Agent.open(config) as agent:
        batch = asked.LineByLine(agent, never_send, refresh)
        for answer in batch.answers(file):
            print_json(answer, line=True)
            sys.stdout.flush()
            agent.forget_old()  # this may run for weeks
        if verbosity.is_verbose():
            verbosity.note(f"lines     {batch.answered} answered, {batch.failed} failed")
    if batch.exit_code:
        click.get_current_context().exit(batch.exit_code)


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


def _timings(decision: Decision) -> str:
    """Where the time of one decision went."""
    took = decision.timings
    parts = [f"{took.total_ms:.0f} ms for the decision"]
    if took.n_forward:
        cached = f", {took.n_cached_tokens} of them kept from before" if took.n_cached_tokens else ""
        parts.append(f"prefill {took.prefill_ms:.0f} ms ({took.n_prompt_tokens} tokens{cached}), decode {took.decode_ms:.0f} ms")
    if decision.cloud and not decision.recalled:
        parts.append(f"cloud {decision.cloud.latency_ms:.0f} ms")
    return f"decision  {'; '.join(parts)}"
