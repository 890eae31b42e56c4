"""Integers of thousands of digits from text and to text.

``int`` and ``str`` refuse more than 4300 digits, as their time grows with the square of the number; ``Decimal`` takes
them, but its way from and to ``int`` is no faster: a million digits would take more than a minute.
"""

from decimal import MAX_EMAX, MAX_PREC, Decimal, Inexact, localcontext

__all__ = ["integer_digits", "parse_integer"]

_FEW_DIGITS = 2000
_FEW_BITS = 6000


def parse_integer(digits: str) -> int:
    """The integer that decimal digits tell, with or without a sign."""
    if len(digits) <= _FEW_DIGITS:
        return int(digits)
    if digits[0] == "-":
        return -parse_integer(digits[1:])
    half = len(digits) // 2
    scale: int = 10**half
    return parse_integer(digits[:-half]) * scale + parse_integer(digits[-half:])


def integer_digits(number: int) -> str:
    """The decimal digits of an integer."""
    if number.bit_length() <= _FEW_BITS:
        return str(int(number))
    if number < 0:
        return f"-{integer_digits(-number)}"
    with localcontext() as context:
        context.prec, context.Emax = MAX_PREC, MAX_EMAX
        context.traps[Inexact] = True
        return f"{_decimal(number, number.bit_length()):f}"


def _decimal(number: int, bits: int) -> Decimal:
    """Put together from halves, as multiplication of decimals is far faster than their making of an ``int``."""
    if bits <= _FEW_BITS:
        return Decimal(number)
    half = bits // 2
    high = number >> half
    return _decimal(high, bits - half) * Decimal(2) ** half + _decimal(number - (high << half), half)
