"""Tests that name the mutants they catch: a check runs with the real part, and must fail with each broken variant."""

import functools
from collections.abc import Callable
from typing import Any

import pytest


def catches(real: Any, *mutants: Any, fails_with: type[BaseException] | tuple[type[BaseException], ...] = AssertionError) -> Callable:
    """Decorate a check whose first argument is `part`: it must pass with `real`, and fail with every one of `mutants`."""

    def decorate(check: Callable) -> Callable:
        @pytest.mark.parametrize("part", [pytest.param(real, id="real"), *(pytest.param(m, id=f"mutant-{m.__name__}") for m in mutants)])
        @functools.wraps(check)
        def test(part: Any, **fixtures: Any) -> None:
            if part is real:
                check(part, **fixtures)
            else:
                with pytest.raises(fails_with):
                    check(part, **fixtures)

        return test

    return decorate
