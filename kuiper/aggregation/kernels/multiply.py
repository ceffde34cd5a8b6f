"""LLVM code for products of small float64 matrices, a tile at a time in vector registers.

Left to itself LLVM takes vectors of half the width that AVX-512 has. Sums are fused (one rounding per
multiply-add) where the machine can, and in an order that depends on nothing but the sizes.

Dimension letters: p points, w columns, n rows, m vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

TILE = 4
LANES = 8 if llvm.get_host_cpu_features().get("avx512f") else 4
PANEL = TILE * LANES
"""Columns of which `panel` makes sums at a time."""
_I32, _I64, _F64 = ir.IntType(32), ir.IntType(64), ir.DoubleType()
_VECTOR = ir.VectorType(_F64, LANES)
_FUSED = ("contract",)


@intrinsic
def dots(typing: Any, block: Any, i: Any, j: Any, width: Any, sums: Any, tile: Any) -> Any:
    """sums[tile, TILE r + c] += block[i + r, :width] * block[j + c, :width] for r, c < TILE, lane by lane.

    Args:
        block: (p, w) float64, unit stride; zero from `width` on to the next multiple of LANES.
        sums: (t, TILE TILE LANES) float64, contiguous.
    """
    signature = types.void(block, i, j, width, sums, tile)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        points = _Matrix(context, builder, signature.args[0], arguments[0])
        target = _Matrix(context, builder, signature.args[4], arguments[4]).row(arguments[5], 0)
        left = [points.row(arguments[1], r) for r in range(TILE)]
        right = [points.row(arguments[2], c) for c in range(TILE)]
        places = [[_ahead(builder, target, (TILE * r + c) * LANES) for c in range(TILE)] for r in range(TILE)]
        totals = [[cgutils.alloca_once_value(builder, _vector(builder, place)) for place in row] for row in places]
        with steps(builder, arguments[3], LANES) as k:
            xs, ys = ([_vector(builder, builder.gep(row, [k])) for row in rows] for rows in (left, right))
            _accumulate(builder, totals, xs, ys)
        for row, some in zip(places, totals, strict=True):
            for place, total in zip(row, some, strict=True):
                _store(builder, builder.load(total), place)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def panel(typing: Any, rows: Any, weights: Any, first: Any, n: Any, sums: Any, column: Any) -> Any:
    """sums[v, column + k] = sum over i < n of weights[v, i] rows[i, k], for TILE v from `first`, k < PANEL.

    Args:
        rows: (n, PANEL) float64, all finite: weights of 0 are multiplied by, too. Added in their order.
        weights: (m, n) float64, m a multiple of TILE.
        sums: (m, w) float64, unit stride.
    """
    signature = types.void(rows, weights, first, n, sums, column)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, factors, target = (_Matrix(context, builder, signature.args[place], arguments[place])
                                   for place in (0, 1, 4))
        left = [factors.row(arguments[2], r) for r in range(TILE)]
        totals = _totals(builder)
        with steps(builder, arguments[3], 1) as i:
            row = source.row(i, 0)
            ys = [_vector(builder, _ahead(builder, row, c * LANES)) for c in range(TILE)]
            xs = [spread(builder, builder.load(builder.gep(one, [i]))) for one in left]
            _accumulate(builder, totals, xs, ys)
        for r in range(TILE):
            row = builder.gep(target.row(arguments[2], r), [arguments[5]])
            for c in range(TILE):
                _store(builder, builder.load(totals[r][c]), _ahead(builder, row, c * LANES))
        return context.get_dummy_value()

    return signature, generate


class _Matrix:
    """A float64 array with unit stride along its rows."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        array = context.make_array(kind)(context, builder, value)
        self.builder, self.data = builder, builder.ptrtoint(array.data, _I64)
        self.stride = cgutils.unpack_tuple(builder, array.strides)[0]

    def row(self, first: Any, further: int) -> Any:
        """A pointer to row `first + further`."""
        builder = self.builder
        index = builder.add(first, ir.Constant(_I64, further))
        return builder.inttoptr(builder.add(self.data, builder.mul(index, self.stride)), _F64.as_pointer())


@contextmanager
def steps(builder: Any, stop: Any, step: int) -> Iterator[Any]:
    with cgutils.for_range_slice(builder, ir.Constant(_I64, 0), stop, ir.Constant(_I64, step)) as (index, _):
        yield index


def _totals(builder: Any) -> list[list[Any]]:
    """TILE x TILE vectors of zeros; LLVM keeps them in registers."""
    zero = ir.Constant(_VECTOR, [0.0] * LANES)
    return [[cgutils.alloca_once_value(builder, zero) for _ in range(TILE)] for _ in range(TILE)]


def _accumulate(builder: Any, totals: list[list[Any]], xs: list[Any], ys: list[Any]) -> None:
    for r, x in enumerate(xs):
        for c, y in enumerate(ys):
            builder.store(fused(builder, builder.load(totals[r][c]), x, y), totals[r][c])


def fused(builder: Any, total: Any, x: Any, y: Any) -> Any:
    """total + x y, rounded once where the machine can."""
    return builder.fadd(total, builder.fmul(x, y, flags=_FUSED), flags=_FUSED)


def total(builder: Any, vector: Any) -> Any:
    """Of a vector's lanes: halves are added until one is left."""
    lanes = LANES
    while lanes > 1:
        lanes //= 2
        halves = [ir.Constant(ir.VectorType(_I32, lanes), list(range(start, start + lanes)))
                  for start in (0, lanes)]
        vector = builder.fadd(*(builder.shuffle_vector(vector, vector, half) for half in halves))
    return builder.extract_element(vector, ir.Constant(_I32, 0))


def _ahead(builder: Any, pointer: Any, values: int) -> Any:
    return builder.gep(pointer, [ir.Constant(_I64, values)])


def _vector(builder: Any, pointer: Any) -> Any:
    return builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=8)


def _store(builder: Any, vector: Any, pointer: Any) -> None:
    builder.store(vector, builder.bitcast(pointer, _VECTOR.as_pointer()), align=8)


def spread(builder: Any, value: Any, lanes: int = LANES) -> Any:
    """A vector of one value."""
    one = builder.insert_element(ir.Constant(ir.VectorType(_F64, lanes), ir.Undefined), value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))
