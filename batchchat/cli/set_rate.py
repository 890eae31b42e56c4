"""``batchchat set-rate``: other rates for a run that is going on."""

import click

from batchchat.cli.live_text import tell

__all__ = ["command"]


@click.command("set-rate")
@click.argument("results", metavar="RESULTS")
@click.argument("rates", metavar="N/UNIT...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the run as it is now.")
def command(results: str, rates: tuple[str, ...], as_json: bool) -> None:
    """Change the rates of the run that writes RESULTS, at once: 200/s, 60/min, 1000/h, 10000/d, or none.

    All of several hold. What the run has sent already counts in the new ones. The job file stays as it is.
    """
    from batchchat.durations import parse_rate

    if rates == ("none",):
        rates = ()
    for text in rates:
        try:
            parse_rate(text)
        except ValueError as error:
            raise click.UsageError(f"{error}; or none alone, for no limit") from None
    tell(results, "set-rate", rates=rates, as_json=as_json)
