"""``batchchat model``: the small model that provider ``local`` runs where no other is named."""

import click

__all__ = ["command"]


@click.group("model")
def command() -> None:
    """Install the small model of provider "local", or tell where it is.

    SmolLM2-135M-Instruct (Apache-2.0, 93 MB) shows that everything works; its answers are often wrong. For answers
    of use, give provider "local" another model: --model FILE.gguf.
    """


@command.command("install")
@click.option("--runtime", is_flag=True, help="Also install what runs it, the extra 'local'.")
@click.option("--within", metavar="DUR", help="Give up after that time, and ask no registry twice.  [default: 15m]")
def install(runtime: bool, within: str | None) -> None:
    """Install the model into this Python environment, unless it is there, and print its path."""
    import time

    from batchchat.durations import parse_duration
    from batchchat.local.install import install_model, install_runtime

    try:
        limit_s = 0.0 if within is None else parse_duration(within)
    except ValueError as error:
        raise click.UsageError(f"--within: {error}") from error
    began = time.monotonic()
    if runtime:
        install_runtime(limit_s)
    left_s = max(1.0, limit_s - (time.monotonic() - began)) if limit_s else 0.0
    click.echo(install_model(left_s).path)


@command.command("path")
def path() -> None:
    """Print the path of the installed model."""
    from batchchat.local import find_model

    click.echo(find_model(None).path)
