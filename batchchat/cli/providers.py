"""``batchchat providers``: what is installed, and what each provider can be told."""

from collections.abc import Iterable, Iterator
from typing import Any

import click

__all__ = ["command"]


@click.command("providers")
@click.option("--json", "as_json", is_flag=True, help="A JSON list, one object for each provider.")
def command(as_json: bool) -> None:
    """List the installed providers with their settings, which stand under "provider" in a job file."""
    found = [_describe(kind, target) for kind, target in _installed().items()]
    if as_json:
        import json

        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    click.echo("\n\n".join("\n".join(_block(provider)) for provider in found))
    for sentence in _clashes():
        click.echo(f"batchchat: {sentence}", err=True)


def _installed() -> dict[str, str]:
    from batchchat.providers import installed_providers

    return installed_providers()


def _clashes() -> Iterable[str]:
    from batchchat.providers import name_clashes

    return name_clashes().values()


def _describe(kind: str, target: str) -> dict[str, Any]:
    """A provider as plain values; one that cannot be loaded has ``problem`` in the place of ``settings``."""
    import msgspec

    from batchchat.errors import UnknownProviderError
    from batchchat.job_schema import list_settings, summary_line
    from batchchat.providers import load_provider

    described: dict[str, Any] = {"name": kind, "class": target}
    try:
        provider = load_provider(kind)
    except UnknownProviderError as error:
        return described | {"problem": str(error)}
    try:
        settings = [msgspec.to_builtins(setting) for setting in list_settings(provider.Config)]
    except Exception as error:  # a plug-in's struct may name types that are not there
        return described | {"problem": f"its settings cannot be read: {error}"}
    return described | {"summary": summary_line(provider).replace("``", ""), "settings": settings}


def _block(provider: dict[str, Any]) -> Iterator[str]:
    yield f"{provider['name']} ({provider['class']})"
    if "problem" in provider:
        yield f"  cannot be used: {provider['problem']}"
        return
    yield f"  {provider['summary']}"
    settings = provider["settings"]
    width = max((len(setting["key"]) for setting in settings), default=0)
    for setting in settings:
        if setting["required"]:
            default = "; needed"
        else:
            default = "" if setting["default"] is None else f"; default: {_written(setting['default'])}"
        yield f"  {setting['key']:{width}}  {setting['description'].replace('``', '')} ({setting['type']}{default})"


def _written(value: Any) -> str:
    """A default as YAML writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
