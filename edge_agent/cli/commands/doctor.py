"""`edge-agent doctor`: checks this installation."""

from __future__ import annotations

import sys

import click

from edge_agent.cli.app import EXIT_CODES, PROFILE, main, with_settings
from edge_agent.cli.show import print_check, print_json
from edge_agent.core.config import loading, settings
from edge_agent.core.errors import BadSetting


@main.command(epilog=EXIT_CODES)
@click.option("--cloud", "call_cloud", is_flag=True, help="Also ask the cloud a test question: up to three calls, which it may bill.")
@with_settings("model", *PROFILE, "adapter", "cloud_url", "cloud_model", load=loading.examine)
def doctor(config: tuple[settings.Settings, list[BadSetting]], call_cloud: bool, as_json: bool) -> None:
    """Check the settings, build, model, calibration, database and cloud, and the device: its disk, storage, clock, power and processor.

    A line with !! is a warning: it works, but may fail one day, or is slower than it could be. Warnings leave the exit code at 0; with
    --json they are in `warnings`.

    A wrong setting is one failed check; the other checks use its default. The cloud is not called without --cloud.
    """
    from dataclasses import asdict

    from edge_agent.agent.doctor import examine

    checks = examine(*config, call_cloud=call_cloud)
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            print_check(check.name, check.exit_code == 0, check.detail, check.warnings)
    sys.exit(next((check.exit_code for check in checks if check.exit_code), 0))
