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
def install() -> None:
    """Install the model into this Python environment, unless it is there, and print its path."""
    from batchchat.local.install import install_model

    click.echo(install_model().path)


@command.command("path")
def path() -> None:
    """Print the path of the installed model."""
    from batchchat.local import find_model

    click.echo(find_model(None).path)
