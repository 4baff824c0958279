"""The type of an option that takes a number: one that is there, and within bounds."""

import math
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """A FiniteRange is click's FloatRange, of which nan and the infinities are no part."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number; fail with the range where it is none, or outside."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number
