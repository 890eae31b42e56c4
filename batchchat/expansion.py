"""The prompts that one input line makes: one for each template, each point of the matrix and each sample."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from batchchat.errors import ConfigError
from batchchat.records import PromptId

__all__ = ["MOST_VARIANTS", "Expansion", "Variant"]

MOST_VARIANTS = 10_000
_NAME = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_HALF = re.compile(r"[\ud800-\udfff]")
_NOT_PARAMS = frozenset(("messages", "stream", "stream_options"))


class Variant(NamedTuple):
    """One of the prompts that a line makes.

    Attributes:
        suffix: What follows the line's id: ``/short@gpt-4,temperature=0.7#2``.
        template: Name of its template, None where the job has no several ones.
        model: Its model, None where the matrix has none.
        params: What the matrix lays over the sampling parameters.
        sample: Its number from 1, None where each prompt is asked once.
    """

    suffix: str
    template: str | None
    model: str | None
    params: dict[str, Any]
    sample: int | None

    def told(self, row_id: PromptId) -> dict[str, Any]:
        """What a result line says of it, with the id of the input line in its own type."""
        return {"id": row_id, **self.axes()}

    def axes(self) -> dict[str, Any]:
        """Template, model, parameters and sample, as far as it has them."""
        parts = (("template", self.template), ("model", self.model), ("params", self.params), ("sample", self.sample))
        return {name: value for name, value in parts if value is not None and value != {}}


class Expansion:
    """All variants of a line, in order: by template, by the matrix's values as they are given, by sample.

    Args:
        templates: Names of the prompt templates; empty where the job has no several ones.
        matrix: ``model`` or a sampling parameter, each with its values.
        samples: How often each is asked.

    Raises:
        ConfigError: A name or a value cannot be used, or there are too many variants.
    """

    def __init__(self, templates: Sequence[str], matrix: Mapping[str, Sequence[Any]], samples: int) -> None:
        for name in templates:
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"expected a name of letters, digits, '_', '.' and '-', found {name!r}", key="prompt.templates"
                )
        for key, values in matrix.items():
            _check_values(key, values)
        count = max(len(templates), 1) * samples
        for values in matrix.values():
            count *= len(values)
        if count > MOST_VARIANTS:
            raise ConfigError(
                f"templates, matrix and n make {count:,} prompts of each line, expected at most {MOST_VARIANTS:,}"
            )
        self.variants = tuple(_variants(templates, matrix, samples))
        self._by_axes = {_axes_key(variant.axes()): variant for variant in self.variants}
        self._check_suffixes()

    def __bool__(self) -> bool:
        """Whether a line makes prompts with ids of their own."""
        return bool(self.variants[0].suffix)

    def matching(self, told: Mapping[str, Any]) -> Variant:
        """The variant that a result line tells of.

        Raises:
            ValueError: There is none like it.
        """
        wanted = {name: value for name, value in told.items() if name != "id"}
        variant = self._by_axes.get(_axes_key(wanted))
        if variant is not None:
            return variant
        raise ValueError(
            f"found an earlier run's failure of the variant {_short(wanted)}, which this job does not ask for; "
            "give the same templates, matrix and n"
        )

    def _check_suffixes(self) -> None:
        """So that no two lines make one id: with ids that differ, none of the suffixes may be the end of another."""
        seen: dict[str, None] = {}
        for variant in self.variants:
            if variant.suffix in seen:
                raise ConfigError(f"two points make the same ids, ending in {variant.suffix!r}", key="matrix")
            seen[variant.suffix] = None
        for suffix in seen:
            starts = (at for at, letter in enumerate(suffix) if at and letter in "/@#")
            if any(suffix[at:] in seen for at in starts):
                raise ConfigError(
                    f"the value in {suffix!r} makes ids that another value may make as well", key="matrix"
                )


def _check_values(key: str, values: Sequence[Any]) -> None:
    where = f"matrix.{key}"
    if not key.strip() or key in _NOT_PARAMS:
        raise ConfigError(f"expected 'model' or the name of a sampling parameter, found {key!r}", key="matrix")
    if not values:
        raise ConfigError("expected at least one value, found an empty list", key=where)
    texts: dict[str, Any] = {}
    for value in values:
        if not isinstance(value, str | int | float) or (isinstance(value, str) and not value.strip()):
            raise ConfigError(f"expected texts, numbers, true or false, found {_short(value)}", key=where)
        if key == "model" and not isinstance(value, str):
            raise ConfigError(f"expected names of models, found {_short(value)}; put it in quotes", key=where)
        text = _text(value)
        if _HALF.search(key + text):
            # Results hold no such id, so that its answer would never be found again.
            raise ConfigError(f"found {text!r}, which is not UTF-8; expected text that is", key=where)
        if text in texts or any(_same_number(value, other) for other in texts.values()):
            raise ConfigError(f"found the value {_short(value)} twice, expected values that differ", key=where)
        texts[text] = value


def _same_number(left: Any, right: Any) -> bool:
    numbers = not isinstance(left, bool | str) and not isinstance(right, bool | str)
    return numbers and left == right


def _variants(templates: Sequence[str], matrix: Mapping[str, Sequence[Any]], samples: int) -> Iterator[Variant]:
    for template in templates or (None,):
        for point in product(*matrix.values()):
            values = dict(zip(matrix, point, strict=True))
            head = ("" if template is None else f"/{template}") + _point_suffix(values)
            model = values.pop("model", None)
            if samples == 1:
                yield Variant(head, template, model, values, None)
                continue
            for number in range(1, samples + 1):
                yield Variant(f"{head}#{number}", template, model, values, number)


def _point_suffix(values: Mapping[str, Any]) -> str:
    """``@model,temperature=0.7``: parameters by name, so that keys may change places in the job."""
    if not values:
        return ""
    parts = [_text(values["model"])] if "model" in values else []
    parts += [f"{name}={_text(values[name])}" for name in sorted(values) if name != "model"]
    return "@" + ",".join(parts)


def _axes_key(axes: Mapping[str, Any]) -> str:
    """Template, model, parameters and sample as one text, in which true and 1 differ."""
    return json.dumps(axes, sort_keys=True)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else f"{text[:200]}…"
