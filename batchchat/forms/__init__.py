"""Forms of prompt and result files, and conversion between them; each has a module, ``registry`` knows them by name.

A line of any form is read as a flat line (docs/input.md, docs/results.md), and written from one.
"""

from batchchat.forms.asks import AskSettings
from batchchat.forms.conversion import Conversion, Converted, FaultyInputError, LostError, convert
from batchchat.forms.losses import Loss
from batchchat.forms.registry import READ_FORMS, WRITE_FORMS

__all__ = [
    "READ_FORMS",
    "WRITE_FORMS",
    "AskSettings",
    "Conversion",
    "Converted",
    "FaultyInputError",
    "Loss",
    "LostError",
    "convert",
]
