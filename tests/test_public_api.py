"""What programs may import, and what importing costs."""

import importlib
import pkgutil
import subprocess
import sys
from importlib.metadata import version as installed_version

import pytest

import batchchat
from batchchat.version import VERSION

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(batchchat.__path__, "batchchat.")
    if module.name != "batchchat.__main__"
)


def by_kind(name: str) -> tuple[bool, bool, str]:
    """Constants, then classes, then functions, as the linter sorts them."""
    return not name.isupper(), not name[0].isupper(), name


def output_of(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True).stdout


def test_public_names_are_these() -> None:
    assert batchchat.__all__ == [
        "BatchchatError",
        "Completion",
        "JobConfig",
        "Outcome",
        "Prompt",
        "Provider",
        "RunReport",
        "load_job",
        "read_frame",
        "run_job",
        "run_job_sync",
        "stream",
        "to_frame",
    ]


def test_public_names_are_sorted_and_can_be_imported() -> None:
    assert batchchat.__all__ == sorted(batchchat.__all__)
    for name in batchchat.__all__:
        assert getattr(batchchat, name).__name__ == name
    assert set(batchchat.__all__) <= set(dir(batchchat))


def test_star_import_gives_every_public_name() -> None:
    assert (
        output_of("from batchchat import *\nprint(run_job.__name__, BatchchatError.__name__)")
        == "run_job BatchchatError\n"
    )


def test_unknown_name_is_told_as_python_does() -> None:
    with pytest.raises(AttributeError, match="module 'batchchat' has no attribute 'nope'"):
        batchchat.nope  # noqa: B018


def test_providers_can_be_imported_by_their_class_names() -> None:
    from batchchat.providers import AIEngine, Chatgpt4Online, OpenAIChat

    assert issubclass(Chatgpt4Online, AIEngine)
    assert OpenAIChat.kind == "openai"


@pytest.mark.parametrize("name", MODULES)
def test_every_module_lists_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)
    assert isinstance(module.__all__, list)
    assert module.__all__ == sorted(module.__all__, key=by_kind)
    assert len(module.__all__) == len(set(module.__all__))
    for offered in module.__all__:
        assert getattr(module, offered, None) is not None, offered
        assert not offered.startswith("_")


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip()
    for offered in module.__all__:
        value = getattr(module, offered)
        if callable(value) and getattr(value, "__module__", None) == name and not hasattr(value, "params"):
            assert (value.__doc__ or "").strip(), offered


def test_import_loads_neither_http_nor_command_line_nor_terminal_libraries() -> None:
    heavy = ["aiohttp", "click", "rich", "jinja2", "yaml", "msgspec", "orjson", "asyncio", "zstandard", "uvloop"]
    assert output_of(f"import sys, batchchat\nprint([name for name in {heavy!r} if name in sys.modules])") == "[]\n"


def test_errors_and_values_load_no_library_for_http_or_terminals() -> None:
    code = (
        "import sys, batchchat\nbatchchat.BatchchatError, batchchat.Outcome, batchchat.JobConfig\n"
        "print([name for name in ('click', 'rich', 'jinja2') if name in sys.modules])"
    )
    assert output_of(code) == "[]\n"


def test_running_a_job_loads_no_library_for_terminals() -> None:
    code = "import sys\nfrom batchchat import run_job, stream\nprint([name for name in ('click', 'rich') if name in sys.modules])"
    assert output_of(code) == "[]\n"


def test_version_is_the_installed_one() -> None:
    assert installed_version("batchchat") == VERSION


def test_package_tells_type_checkers_that_it_is_typed() -> None:
    from importlib.resources import files

    assert (files("batchchat") / "py.typed").is_file()
