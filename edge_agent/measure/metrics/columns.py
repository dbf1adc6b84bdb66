"""Columns of figures: their checks, their sums by level, and the same formula for one sample or for many resamples.

Owns what all metrics share and no metric. Invariant: what leaves a check is a finite number in its range, or nan where nan was
allowed; all else raises `BadData` with the name and the value that was wrong.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, cast

import numpy as np
import numpy.typing as npt

from edge_agent.core.errors import BadData

Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float64] | npt.NDArray[np.int64]
P = ParamSpec("P")
ROUNDING = 1e-9
_MOST = 1_000_000
LARGEST = 1e100  # beyond it a sum of squares may not be a number


class Metric(Protocol[P]):
    """A figure of some columns that can also be computed for many resamples at once."""

    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> float:
        """The figure; nan where it is undefined. Raises `BadData`."""

    @property
    def resampled(self) -> Callable[Concatenate[Weights | None, P], Floats]:
        """The formula. `weights` (m, n) say how often each of m resamples holds each question; returns (m,)."""


def metric(formula: Callable[Concatenate[Weights | None, P], Floats]) -> Metric[P]:
    """Turn a formula over resamples into a `Metric`.

    The first parameter of `formula` is its weights: None counts every question once and returns one figure, (m, n) returns (m,).
    """

    @functools.wraps(formula)
    def figure(*args: P.args, **kwargs: P.kwargs) -> float:
        return float(formula(None, *args, **kwargs))

    signature = inspect.signature(formula)
    shown = signature.replace(parameters=list(signature.parameters.values())[1:], return_annotation="float")
    vars(figure).update(resampled=formula, __signature__=shown)
    return cast("Metric[P]", figure)


def by_level(weights: Weights | None, score: Floats, *columns: Floats) -> tuple[Floats, Floats, list[Floats]]:
    """The different values of `score`, rising (k,); the number of questions at each (..., k); and the sum of each column (..., k)."""
    values, group = np.unique(score, return_inverse=True)
    if weights is None:
        counts = np.bincount(group, minlength=len(values)).astype(np.float64)
        return values, counts, [np.bincount(group, weights=column, minlength=len(values)).astype(np.float64) for column in columns]
    weights = checked_weights(weights, len(score))
    if not len(score):
        nothing = np.zeros(weights.shape)
        return values, nothing, [nothing for _ in columns]
    order = np.argsort(group, kind="stable")
    if (order[1:] < order[:-1]).any():
        weights = weights[..., order]
        columns = tuple(column[order] for column in columns)
    if len(values) == len(score):
        return values, weights.astype(np.float64), [np.multiply(weights, column, dtype=np.float64) for column in columns]
    starts = np.searchsorted(group[order], np.arange(len(values)))
    sums = [np.add.reduceat(weights * column, starts, axis=-1) for column in columns]
    return values, np.add.reduceat(weights, starts, axis=-1).astype(np.float64), sums


def ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> Floats:
    """`above / below`, nan where `below` is 0 or either is nan."""
    top, bottom = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    quotient: Floats = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)
    return quotient


def mean_of(weights: Weights | None, values: Floats) -> Floats:
    """The mean of `values` (n,) in every resample; nan without questions."""
    if weights is None:
        return np.asarray(values.mean() if len(values) else math.nan)
    weights = checked_weights(weights, len(values))
    return ratio(weights @ values, weights.sum(axis=-1))


def shares(**arrays: npt.ArrayLike) -> list[Floats]:
    """The arrays as float64 (n,) of fractions 0 to 1, all of one length. Raises `BadData` with the name of a wrong one."""
    checked: list[Floats] = []
    for name, array in arrays.items():
        values = numbers(name, array)
        if values.ndim != 1:
            raise BadData(f"The array {name} has {values.ndim} dimensions; give one.")
        wrong = values[~((values >= 0) & (values <= 1))]
        if len(wrong):
            raise BadData(f"The array {name} holds {wrong[0]:g}; give fractions from 0 to 1.")
        if checked and len(values) != len(checked[0]):
            raise BadData(f"{name} has {len(values)} entries but {next(iter(arrays))} has {len(checked[0])}; give arrays of one length.")
        checked.append(values)
    return checked


def truths(name: str, array: npt.ArrayLike, n: int) -> Floats:
    """An array (n,) of 0 and 1. Raises `BadData`."""
    (values,) = shares(**{name: array})
    if ((values != 0) & (values != 1)).any():
        raise BadData(f"Not all entries of {name} are true or false; give 1 or true, and 0 or false.")
    if len(values) != n:
        raise BadData(f"{name} has {len(values)} entries for {n} questions; give one for each.")
    return values


def costs(name: str, value: npt.ArrayLike, n: int) -> Floats:
    """A cost for all questions, or one for each, as float64 (n,): finite and not below 0. Raises `BadData`."""
    values = numbers(name, value)
    if values.shape not in {(), (n,)}:
        raise BadData(f"{name} has the shape {values.shape}; give one cost, or one for each of {n} questions.")
    wrong = values[~((values >= 0) & (values < LARGEST))]
    if wrong.size:
        raise BadData(f"The value of {name} is {wrong.flat[0]:g}; give a cost of 0 or more, below {LARGEST:g}.")
    return np.broadcast_to(values, (n,))


def numbers(name: str, array: npt.ArrayLike) -> Floats:
    """The array as float64 of any shape and value. Raises `BadData` if it holds anything but numbers."""
    try:
        values = np.asarray(array)
        if values.dtype.kind == "c":
            raise TypeError("complex numbers have no order")
        return values.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadData(f"The array {name} does not hold numbers ({error}); give fractions from 0 to 1.") from error


def fraction(name: str, value: float) -> float:
    """A fraction 0 to 1, or nan. Raises `BadData`."""
    number = _number(name, value)
    if not (math.isnan(number) or 0 <= number <= 1):
        raise BadData(f"The value of {name} is {value!r}; give a fraction from 0 to 1.")
    return number


def cost(name: str, value: float) -> float:
    """A finite number that is not below 0. Raises `BadData`."""
    number = _number(name, value)
    if not 0 <= number < LARGEST:
        raise BadData(f"The value of {name} is {value!r}; give a cost of 0 or more, below {LARGEST:g}.")
    return number


def count(name: str, value: int) -> int:
    """A whole number from 1 to a million. Raises `BadData`."""
    if not isinstance(value, (int, np.integer)) or not 1 <= value <= _MOST:
        raise BadData(f"The {name} is {value!s:.20}; give a whole number from 1 to {_MOST}.")
    return int(value)


def rising_levels(levels: npt.ArrayLike) -> Floats:
    """The levels as float64 (k,), at least one, rising, 0 to 1. Raises `BadData`."""
    (at,) = shares(levels=levels)
    if not len(at) or (np.diff(at) <= 0).any():
        raise BadData(f"The levels are {at.tolist()!s:.80}; give at least one, in rising order.")
    return at


def checked_weights(weights: Weights, n: int) -> Weights:
    """Weights (n,) or (m, n): whole numbers that are not below 0. Raises `BadData`."""
    if weights.ndim not in {1, 2} or weights.shape[-1] != n:
        raise BadData(f"The weights have the shape {weights.shape}; give one for each of {n} questions, or rows of these.")
    whole = weights.dtype.kind in "iu" or (np.isfinite(weights).all() and (weights == np.floor(weights)).all())
    if not whole or (weights.size and weights.min() < 0):
        raise BadData("Not all weights are whole numbers of 0 or more; give how often each question counts.")
    return weights


def _number(name: str, value: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadData(f"The value of {name} is {value!r}; give a number.") from error
