"""``batchchat pause``: holds a run that is going on."""

import click

from batchchat.cli.live_text import tell

__all__ = ["command"]


@click.command("pause")
@click.argument("results", metavar="RESULTS")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the run as it is now.")
def command(results: str, as_json: bool) -> None:
    """Hold the run that writes RESULTS: it sends nothing new until 'batchchat resume'.

    What is on its way may finish. The run goes on to heed signals and its deadline.
    """
    tell(results, "pause", as_json=as_json)
