"""The faults that the suite knows; each is a function that does the fault to a world."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.world import World

__all__ = ["GROUPS", "Case", "Unavailable", "all_cases", "case"]

GROUPS = ("death", "power", "disk", "network", "service", "process", "input", "unattended")
_cases: dict[str, "Case"] = {}


class Unavailable(Exception):
    """The fault cannot be made here, such as without root; the table says so."""


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        name: The function's name.
        group: One of ``GROUPS``.
        fault: The fault in a few words, as the table tells it.
        tries: How often the suite tries it, each time with another seed.
        in_test: How many of these tries ``make test`` makes; 0 for none.
        within_s: Seconds in which one try has to be over on a busy machine.
        limits: Whether limits are judged by the server's clock.
    """

    name: str
    group: str
    fault: str
    attack: Callable[["World"], None]
    tries: int
    in_test: int
    within_s: float
    limits: bool


def case(
    group: str, fault: str, *, tries: int = 1, in_test: int = 0, within_s: float = 120, limits: bool = False
) -> Callable:
    """Registers the function as what does the fault to a world; see ``Case``."""

    def register(attack: Callable[["World"], None]) -> Callable[["World"], None]:
        name = attack.__name__
        assert group in GROUPS, group
        assert name not in _cases, f"two cases are called {name}"
        _cases[name] = Case(name, group, fault, attack, tries, in_test, within_s, limits)
        return attack

    return register


def all_cases() -> list[Case]:
    """Every case, group by group."""
    from tests.chaos import cases

    for module in pkgutil.iter_modules(cases.__path__):
        importlib.import_module(f"{cases.__name__}.{module.name}")
    return sorted(_cases.values(), key=lambda each: GROUPS.index(each.group))
