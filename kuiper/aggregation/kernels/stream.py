"""LLVM code for rows that are read once: weighted sums of rows, squared distances, differences.

Left to itself LLVM takes vectors of half the width that AVX-512 has, and keeps sums in memory.

Dimension letters: n rows, d parameters, m vectors, w columns.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kuiper.aggregation.kernels.emit import prefetch
from kuiper.aggregation.kernels.multiply import LANES, fused, spread, steps, total

WIDE = 64
"""Columns that `weighted_sum` takes at a time, and of which `squares` takes a multiple."""
AHEAD = 512
"""How many columns ahead rows are fetched where one is read after the other."""
_I64, _F64 = ir.IntType(64), ir.DoubleType()


@intrinsic(prefer_literal=True)
def weighted_sum(typing: Any, rows: Any, column: Any, weights: Any, used: Any, counts: Any, divisors: Any,
                 v: Any, out: Any, columns: Any) -> Any:
    """out[v, column + k] = sum over t < counts[v] of weights[v, i] rows[i, column + k], i = used[v, t], over
    divisors[v]; k < columns, a constant: WIDE or 1. In float64, fused, in the order of t.

    Args:
        rows: (n, d) float32 or float64, unit stride.
        weights, used: (m, n) float64 and int64.
        counts, divisors: (m,) int64 and float64.
        out: (m, d) in the rows' dtype.
    """
    signature = types.void(rows, column, weights, used, counts, divisors, v, out, columns)
    lanes = min(columns.literal_value, LANES)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, factors, order, number, divisor, target = (
            _Array(context, builder, signature.args[place], arguments[place]) for place in (0, 2, 3, 4, 5, 7))
        column, v = arguments[1], arguments[6]
        zero = ir.Constant(ir.VectorType(_F64, lanes), [0.0] * lanes)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(columns.literal_value // lanes)]
        with steps(builder, builder.load(number.at(v)), 1) as turn:
            row = builder.load(order.at(v, turn))
            weight = spread(builder, builder.load(factors.at(v, row)), lanes)
            for part, place in enumerate(sums):
                here = builder.add(column, ir.Constant(_I64, part * lanes))
                value = source.vector(row, here, lanes)
                if part % 2 == 0:
                    prefetch(builder, source.address(row, builder.add(here, ir.Constant(_I64, AHEAD))))
                builder.store(fused(builder, builder.load(place), weight, value), place)
        by = spread(builder, builder.load(divisor.at(v)), lanes)
        for part, place in enumerate(sums):
            here = builder.add(column, ir.Constant(_I64, part * lanes))
            target.store(builder.fdiv(builder.load(place), by), v, here, lanes)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def squares(typing: Any, rows: Any, row: Any, column: Any, width: Any, centre: Any) -> Any:
    """Sum of (rows[row, column + k] - centre[column + k])^2 over k < width, a multiple of WIDE; float64."""
    signature = types.float64(rows, row, column, width, centre)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = _Array(context, builder, signature.args[0], arguments[0])
        about = _Array(context, builder, signature.args[4], arguments[4])
        zero = ir.Constant(ir.VectorType(_F64, LANES), [0.0] * LANES)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(WIDE // LANES)]
        with steps(builder, arguments[3], WIDE) as k:
            for part, place in enumerate(sums):
                here = builder.add(arguments[2], builder.add(k, ir.Constant(_I64, part * LANES)))
                if part % 2 == 0:
                    prefetch(builder, source.address(arguments[1], builder.add(here, ir.Constant(_I64, AHEAD))))
                away = builder.fsub(source.vector(arguments[1], here, LANES), about.vector(None, here, LANES))
                builder.store(fused(builder, builder.load(place), away, away), place)
        whole = [builder.load(place) for place in sums]
        while len(whole) > 1:
            whole = [builder.fadd(*pair) for pair in zip(whole[::2], whole[1::2], strict=True)]
        return total(builder, whole[0])

    return signature, generate


@intrinsic
def differences(typing: Any, rows: Any, row: Any, column: Any, width: Any, centre: Any, offset: Any,
                block: Any) -> Any:
    """block[row, k] = rows[row, column + k] - centre[offset + k] for k < width, a multiple of LANES.

    Args:
        block: (p, w) float64.
    """
    signature = types.void(rows, row, column, width, centre, offset, block)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, about, target = (_Array(context, builder, signature.args[place], arguments[place])
                                 for place in (0, 4, 6))
        row = arguments[1]
        with steps(builder, arguments[3], LANES) as k:
            here = builder.add(arguments[2], k)
            prefetch(builder, source.address(row, builder.add(here, arguments[3])))
            centre = about.vector(None, builder.add(arguments[5], k), LANES)
            target.store(builder.fsub(source.vector(row, here, LANES), centre), row, k, LANES)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def count_signs(typing: Any, rows: Any, row: Any, column: Any, width: Any) -> Any:
    """How many of rows[row, column : column + width] are above 0, and below; width a multiple of WIDE."""
    signature = types.UniTuple(types.int64, 2)(rows, row, column, width)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = _Array(context, builder, signature.args[0], arguments[0])
        mask = ir.IntType(WIDE)
        kind = ir.FunctionType(mask, [mask])
        population = cgutils.get_or_insert_function(builder.module, kind, f"llvm.ctpop.i{WIDE}")
        counts = {sign: cgutils.alloca_once_value(builder, ir.Constant(_I64, 0)) for sign in "><"}
        with steps(builder, arguments[3], WIDE) as k:
            here = builder.add(arguments[2], k)
            prefetch(builder, source.address(arguments[1], builder.add(here, ir.Constant(_I64, AHEAD))))
            values = source.load(arguments[1], here, WIDE)
            zero = ir.Constant(values.type, [0.0] * WIDE)
            for sign, place in counts.items():
                found = builder.bitcast(builder.fcmp_ordered(sign, values, zero), mask)
                count = builder.zext(builder.call(population, [found]), _I64)
                builder.store(builder.add(builder.load(place), count), place)
        return context.make_tuple(builder, signature.return_type, [builder.load(place) for place in counts.values()])

    return signature, generate


class _Array:
    """An array of one or two dimensions with unit stride along the last."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        array = context.make_array(kind)(context, builder, value)
        self.builder, self.data = builder, builder.ptrtoint(array.data, _I64)
        self.strides = cgutils.unpack_tuple(builder, array.strides)
        self.scalar = context.get_value_type(kind.dtype)
        self.bytes = kind.dtype.bitwidth // 8

    def address(self, *indices: Any) -> Any:
        """Of an entry; None for the row of a vector."""
        address = self.data
        for index, stride in zip([one for one in indices if one is not None], self.strides, strict=True):
            address = self.builder.add(address, self.builder.mul(index, stride))
        return address

    def at(self, *indices: Any) -> Any:
        return self.builder.inttoptr(self.address(*indices), self.scalar.as_pointer())

    def load(self, row: Any, column: Any, lanes: int) -> Any:
        """Some entries."""
        kind = ir.VectorType(self.scalar, lanes)
        place = self.builder.inttoptr(self.address(row, column), kind.as_pointer())
        return self.builder.load(place, align=self.bytes)

    def vector(self, row: Any, column: Any, lanes: int) -> Any:
        """Some entries, as float64."""
        value = self.load(row, column, lanes)
        return value if self.scalar == _F64 else self.builder.fpext(value, ir.VectorType(_F64, lanes))

    def store(self, value: Any, row: Any, column: Any, lanes: int) -> None:
        """Some entries, from float64."""
        kind = ir.VectorType(self.scalar, lanes)
        value = value if self.scalar == _F64 else self.builder.fptrunc(value, kind)
        place = self.builder.inttoptr(self.address(row, column), kind.as_pointer())
        self.builder.store(value, place, align=self.bytes)
