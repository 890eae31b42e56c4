"""``batchchat resume``: lets a paused run go on."""

import click

from batchchat.cli.live_text import tell

__all__ = ["command"]


@click.command("resume")
@click.argument("results", metavar="RESULTS")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the run as it is now.")
def command(results: str, as_json: bool) -> None:
    """Let the paused run that writes RESULTS go on.

    A run that has ended is not meant: give its 'batchchat run' command again.
    """
    tell(results, "resume", as_json=as_json)
