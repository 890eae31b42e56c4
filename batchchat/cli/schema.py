"""``batchchat schema``: the job file's JSON Schema."""

import click

__all__ = ["command"]


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of the job file, with the settings of every installed provider.

    Editors that know the YAML language server check a job file against it when its first line is
    "# yaml-language-server: $schema=./job.schema.json".
    """
    import json

    from batchchat.job_schema import job_json_schema

    click.echo(json.dumps(job_json_schema(), indent=2, ensure_ascii=False))
