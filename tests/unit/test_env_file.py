"""A ``.env`` file counts where it is named, behind the environment, and no value of it is ever told."""

from pathlib import Path

import pytest

from batchchat.config import Override, load_job
from batchchat.env_file import with_env_file
from batchchat.errors import ConfigError


def written(folder: Path, text: str | bytes) -> str:
    path = folder / ".env"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("KEY=abc\n", "abc"),
        ("export KEY='a b'", "a b"),
        ("\ufeffKEY=abc # comment\r\n", "abc"),
        ('# first\n\nKEY="a\\nb"\n', "a\nb"),
        ("OTHER\nKEY=é", "é"),
        ("KEY=\n", ""),
        ("KEY=1\nKEY=2\n", "2"),
        ("", None),
    ],
)
def test_lines_in_the_usual_forms_are_read(tmp_path: Path, text: str, value: str | None) -> None:
    assert with_env_file(written(tmp_path, text), {}).get("KEY") == value


def test_environment_wins(tmp_path: Path) -> None:
    assert with_env_file(written(tmp_path, "A=file\nB=file\n"), {"A": "own"}) == {"A": "own", "B": "file"}


def test_without_a_name_no_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "KEY=abc\n")
    monkeypatch.chdir(tmp_path)
    assert "KEY" not in with_env_file(None, {})


@pytest.mark.parametrize(
    ("text", "line"),
    [("A=1\n\nsecret words here\n", 3), ("=secret\n", 1), ('A="secret\nB=2\n', 1), ("A=1\n{secret}=2\n\n", None)],
)
def test_line_that_is_none_is_told_by_its_number(tmp_path: Path, text: str, line: int | None) -> None:
    path = written(tmp_path, text)
    if line is None:  # an odd name, but one that the format allows
        assert with_env_file(path, {})["A"] == "1"
        return
    with pytest.raises(ConfigError) as caught:
        with_env_file(path, {})
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert "secret" not in str(caught.value).removeprefix(path)


@pytest.mark.parametrize("data", [b"A=\xff\xfe\n", b"A=secret\0\n", b"A=1\n" * 300_000])
def test_file_that_is_no_env_file_is_one_sentence(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        with_env_file(written(tmp_path, data), {})
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_missing_file_and_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        with_env_file(str(tmp_path / "none"), {})
    with pytest.raises(ConfigError, match="no regular file"):
        with_env_file(str(tmp_path), {})


def job(folder: Path, text: str) -> str:
    path = folder / "job.yaml"
    path.write_text(text)
    return str(path)


def test_file_fills_the_variables_of_the_job_that_names_it(tmp_path: Path) -> None:
    env = written(tmp_path, "SERVICE=http://file\nMODEL=m\n")
    path = job(
        tmp_path,
        f"provider: {{name: openai, base_url: '${{SERVICE}}', model: '${{MODEL}}'}}\nenv_file: '${{DIR}}/{Path(env).name}'\n",
    )
    loaded = load_job(path, environ={"SERVICE": "http://own", "DIR": str(tmp_path)})
    assert loaded.provider == {"name": "openai", "base_url": "http://own", "model": "m"}
    assert loaded.env_file == env


def test_option_takes_the_place_of_the_key(tmp_path: Path) -> None:
    env = written(tmp_path, "MODEL=m\n")
    path = job(tmp_path, "provider: {name: openai, model: '${MODEL}'}\nenv_file: /no/such/file\n")
    loaded = load_job(path, {"env_file": Override(env, "--env-file")}, environ={})
    assert loaded.provider["model"] == "m"
    assert loaded.env_file == env


def test_missing_file_of_a_job_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="/no/such/file"):
        load_job(job(tmp_path, "env_file: /no/such/file\n"), environ={})
