"""`edge-agent restore`: puts a backup in the place of the database."""

from __future__ import annotations

import pathlib

import click

from edge_agent.cli.app import EXIT_CODES, main, with_settings
from edge_agent.cli.show import print_json, say
from edge_agent.core.config import settings
from edge_agent.core.errors import EdgeAgentError
from edge_agent.model.calibration import SHOWN
from edge_agent.model.profile import Profile


@main.command(epilog=EXIT_CODES)
@click.argument("backup", type=click.Path(path_type=pathlib.Path))
@with_settings()
def restore(config: settings.Settings, backup: pathlib.Path, as_json: bool) -> None:
    """Put BACKUP in the place of the database.

    The backup is checked first and stays as it is. Stop everything that uses the database before. The replaced database is kept beside
    the new one, under a name with the date. Questions that were answered since the backup wait again, and the budget for the cloud is
    counted from the backup on.
    """
    from dataclasses import asdict

    from edge_agent.store.file.restore import restore as put_back

    restored = put_back(config.database, backup)
    calibration, about = _calibration(config)
    if as_json:
        print_json(asdict(restored) | {"calibration": calibration})
        return
    say(f"Restored {restored.questions} questions and {restored.decisions} decisions; {restored.waiting} wait for the cloud.")
    if restored.kept:
        say(f"The replaced database is kept as {restored.kept}.")
    if about:
        say(about)


def _calibration(config: settings.Settings) -> tuple[str | None, str]:
    """Put the calibration of the newest decision back into its folder, if it is for the model here; its sha256 if it is there, and words.

    What a file may say is checked as if a stranger had written it, because a backup may be anybody's.
    """
    from edge_agent.agent import assembly
    from edge_agent.model import catalog
    from edge_agent.model.calibration import parse, save
    from edge_agent.store.store import Store

    try:
        with Store(config.database) as store:
            sha256 = store.newest_calibration()
            text = store.calibration(sha256) if sha256 else None
            if sha256 is None or text is None:
                return None, ""
            path = config.calibrations_folder / f"{sha256}.json"
            if path.exists():
                return sha256, ""
            found = parse(text, f"{sha256[:SHOWN]} in the backup")
            facts = assembly.identify(store, catalog.files_of(config))
        if found.sha256 != sha256 or not found.fits(facts.sha256, facts.adapter_sha256, Profile.from_json(facts.profile).sha256):
            return None, (
                f"Its last decisions were made under the calibration {sha256[:SHOWN]}, which is for another model or adapter than "
                f"{facts.name}; choose that model again and restore once more, or run `edge-agent calibrate`."
            )
        save(config.calibrations_folder, found)
    except EdgeAgentError as error:
        return None, f"The calibration of its last decisions was not put back: {error}"
    return sha256, f"Its calibration is back, too: {found.in_words()}."
