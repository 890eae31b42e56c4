"""``batchchat schema`` and ``batchchat providers``, and the documents that repeat what they tell."""

import json
import re
from pathlib import Path

from click.testing import CliRunner

from batchchat.cli.providers import command as providers
from batchchat.cli.schema import command as schema
from batchchat.durations import parse_duration, parse_rate
from batchchat.job_config import JobConfig
from batchchat.job_schema import attribute_docs, list_settings

ROOT = Path(__file__).parents[2]


def shown(command, *arguments):
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0
    assert result.stderr == ""
    return result.stdout


def test_schema_names_every_key_with_a_description():
    properties = json.loads(shown(schema))["properties"]
    for setting in list_settings(JobConfig):
        section, _, key = setting.key.partition(".")
        found = properties[section]["properties"][key] if key else properties[section]
        assert found["description"], setting.key
    assert "source" not in properties


def test_schema_refuses_unknown_keys_and_allows_variables_where_numbers_stand():
    whole = json.loads(shown(schema))
    assert whole["additionalProperties"] is False
    assert whole["properties"]["timeout"]["additionalProperties"] is False
    assert {"type": "string", "pattern": r"\$\{"} in whole["properties"]["concurrency"]["anyOf"]


def test_schema_gives_durations_and_rates_as_they_are_written():
    properties = json.loads(shown(schema))["properties"]
    idle = properties["timeout"]["properties"]["idle"]
    assert idle["type"] == ["string", "number"]
    assert idle["default"] == "1m"
    assert all(parse_duration(example) >= 0 for example in idle["examples"])
    one, many = properties["rate"]["anyOf"]
    assert many == {"type": "array", "items": one}
    assert all(parse_rate(example) for example in one["examples"])


def test_schema_has_the_settings_of_each_installed_provider():
    *kinds, unnamed = json.loads(shown(schema))["properties"]["provider"]["oneOf"]
    by_name = {kind["properties"]["name"]["const"]: kind for kind in kinds}
    assert {"ai-engine", "chatgpt4online", "openai"} <= set(by_name)
    assert "bot_id" in by_name["ai-engine"]["properties"]
    assert "model" in by_name["openai"]["properties"]
    assert by_name["openai"]["additionalProperties"] is False
    assert set(unnamed["not"]["properties"]["name"]["enum"]) == set(by_name)


def test_schema_beside_the_jobs_is_the_one_that_is_printed():
    """``batchchat schema > jobs/job.schema.json`` brings it up to date."""
    assert (ROOT / "jobs/job.schema.json").read_text(encoding="utf-8") == shown(schema)


def test_providers_are_listed_with_settings_types_and_defaults():
    text = shown(providers)
    assert "ai-engine (batchchat.providers.ai_engine:AIEngine)\n  Provider ai-engine: " in text
    assert re.search(r"^  bot_id +Chatbot of the site. \(text; default: default\)$", text, re.MULTILINE)
    assert re.search(r"^  stream +Whether .*\(true or false; default: true\)$", text, re.MULTILINE)
    assert "``" not in text


def test_providers_as_json_are_a_list_of_objects():
    found = {provider["name"]: provider for provider in json.loads(shown(providers, "--json"))}
    settings = {setting["key"]: setting for setting in found["openai"]["settings"]}
    assert settings["stream"]["default"] is True
    assert settings["stream"]["type"] == "true or false"
    assert settings["model"]["required"] is False
    assert found["openai"]["class"] == "batchchat.providers.openai:OpenAIChat"


def test_every_setting_of_an_installed_provider_is_described():
    for provider in json.loads(shown(providers, "--json")):
        for setting in provider["settings"]:
            assert setting["description"], (provider["name"], setting["key"])


def test_documented_keys_and_defaults_are_those_of_the_structs():
    text = (ROOT / "docs/jobs.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `([a-z_.]+)` \| (\S+) \|", text, re.MULTILINE))
    assert documented == {
        setting.key: "—" if setting.default is None else f"`{str(setting.default).lower()}`"
        for setting in list_settings(JobConfig)
    }


def test_attributes_of_a_docstring_are_read_over_several_lines_and_for_several_names():
    class Documented:
        """First line.

        Attributes:
            one, two: Both of
                these.
            three: Another: with a colon.

        Source: not an attribute.
        """

    assert attribute_docs(Documented) == {
        "one": "Both of these.",
        "two": "Both of these.",
        "three": "Another: with a colon.",
    }
