"""LLVM code for what Numba's own language cannot say: order statistics of columns in vector registers.

A column's n values meet in n registers, LANES columns at a time, and go through a sorting network without
touching memory again, so that a median costs what reading its input costs. Each function here is emitted
once for every (n, ranks), with the network unrolled.

Dimension letters: n rows, d parameters.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kuiper.aggregation.kernels.network import network, ranks

LANES = 16
"""Columns at a time: one AVX-512 register of float32, two of AVX2."""
AHEAD = 4
"""How many columns' worth of LANES is fetched ahead."""
MEDIAN, TRIMMED, MEAMED, PHOCAS = range(4)
_BYTES = ir.IntType(8).as_pointer()
_I32, _I64, _F64 = ir.IntType(32), ir.IntType(64), ir.DoubleType()
_WIDE = ir.VectorType(_F64, LANES)


@intrinsic(prefer_literal=True)
def statistic(typing: Any, rows: Any, chosen: Any, column: Any, out: Any, place: Any, n: Any, f: Any, what: Any,
              low: Any, high: Any) -> Any:
    """out[place : place + LANES] = a statistic of rows[chosen, column : column + LANES].

    Args:
        rows: (m, d) float32 or float64, unit stride along d.
        chosen: (n,) int64.
        out: (k,) of the same dtype.
        n, f, what, low, high: constants; `low` and `high` are the ranks whose midpoint is the median.

    Returns:
        0.0, or NaN where a value was not finite (and `out` means nothing).
    """
    signature = types.float64(rows, chosen, column, out, place, n, f, what, low, high)
    constants = [literal.literal_value for literal in (n, f, what, low, high)]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emitter = _Emitter(context, builder, signature.args[0].dtype)
        source = context.make_array(signature.args[0])(context, builder, arguments[0])
        order = context.make_array(signature.args[1])(context, builder, arguments[1])
        target = context.make_array(signature.args[3])(context, builder, arguments[3])
        values, bad = emitter.load(source, order.data, arguments[2], constants[0])
        result = emitter.statistic(values, *constants)
        emitter.store(result, builder.gep(target.data, [arguments[4]]))
        return emitter.total(bad)

    return signature, generate


def prefetch(builder: Any, address: Any) -> None:
    """Into the second cache: rows are more streams than a processor foresees by itself."""
    kind = ir.FunctionType(ir.VoidType(), [_BYTES, _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    constants = [ir.Constant(_I32, value) for value in (0, 2, 1)]
    builder.call(function, [builder.inttoptr(address, _BYTES), *constants])


class _Emitter:
    """Vectors of LANES values of one dtype."""

    def __init__(self, context: Any, builder: Any, dtype: Any) -> None:
        self.builder = builder
        self.scalar = context.get_value_type(dtype)
        self.vector = ir.VectorType(self.scalar, LANES)
        self.bytes = dtype.bitwidth // 8

    def load(self, array: Any, chosen: Any, column: Any, n: int) -> tuple[list[Any], Any]:
        """The vectors of n rows' columns, and 0 x summed over them: NaN where one is not finite."""
        builder, zero = self.builder, ir.Constant(self.vector, [0.0] * LANES)
        stride = cgutils.unpack_tuple(builder, array.strides)[0]
        base = builder.ptrtoint(builder.gep(array.data, [column]), _I64)
        values, bad = [], zero
        for row in range(n):
            index = builder.load(builder.gep(chosen, [ir.Constant(_I64, row)]))
            address = builder.add(base, builder.mul(stride, index))
            value = builder.load(builder.inttoptr(address, self.vector.as_pointer()), align=self.bytes)
            prefetch(builder, builder.add(address, ir.Constant(_I64, AHEAD * LANES * self.bytes)))
            bad = builder.fadd(bad, builder.fmul(value, zero, flags=["contract"]), flags=["contract"])
            values.append(value)
        return values, bad

    def store(self, value: Any, pointer: Any) -> None:
        pointer = self.builder.bitcast(pointer, self.vector.as_pointer())
        self.builder.store(value, pointer, align=self.bytes)

    def total(self, value: Any) -> Any:
        """The sum of a vector's lanes, float64."""
        total = ir.Constant(_F64, 0.0)
        for lane in range(LANES):
            one = self.builder.extract_element(value, ir.Constant(_I32, lane))
            total = self.builder.fadd(total, self._wide(one, _F64))
        return total

    def statistic(self, values: list[Any], n: int, f: int, what: int, low: int, high: int) -> Any:
        values = self.sorted(values, *ranks(n, f, what, low, high))
        if what in (TRIMMED, PHOCAS):
            trimmed = self.mean(values[f : n - f])
        if what == TRIMMED:
            return self.narrow(trimmed)
        if what == MEDIAN and low == high:
            return values[low]
        wide = [self._wide(value) for value in values] if what != MEDIAN else None
        centre = trimmed if what == PHOCAS else self.midpoint(values[low], values[high])
        return self.narrow(centre if wide is None else self.nearest(wide, n - f, centre))

    def sorted(self, values: list[Any], lowest: int, highest: int) -> list[Any]:
        builder, values = self.builder, list(values)
        for i, j in network(len(values), lowest, highest):
            less = builder.fcmp_ordered("<", values[i], values[j])
            values[i], values[j] = (builder.select(less, values[i], values[j]),
                                    builder.select(less, values[j], values[i]))
        return values

    def midpoint(self, low: Any, high: Any) -> Any:
        """Halves before the sum: two large values could overflow."""
        builder, half = self.builder, ir.Constant(_WIDE, [0.5] * LANES)
        return builder.fadd(builder.fmul(self._wide(low), half), builder.fmul(self._wide(high), half))

    def mean(self, values: list[Any]) -> Any:
        """In float64, in the order given."""
        total = ir.Constant(_WIDE, [0.0] * LANES)
        for value in values:
            total = self.builder.fadd(total, self._wide(value))
        return self.builder.fdiv(total, ir.Constant(_WIDE, [float(len(values))] * LANES))

    def nearest(self, values: list[Any], kept: int, centre: Any) -> Any:
        """Mean of the `kept` of the ascending values that are nearest to `centre`.

        They are neighbours: the window starts after as many values as are farther below the centre than
        what would enter is above it. Equally far: the lower value stays.
        """
        builder, zero = self.builder, ir.Constant(_WIDE, [0.0] * LANES)
        start, ones = zero, ir.Constant(_WIDE, [1.0] * LANES)
        for first in range(len(values) - kept):
            above, below = builder.fsub(values[first + kept], centre), builder.fsub(centre, values[first])
            start = builder.fadd(start, builder.select(builder.fcmp_ordered("<", above, below), ones, zero))
        total = zero
        for rank, value in enumerate(values):
            after = builder.fcmp_ordered(">=", ir.Constant(_WIDE, [float(rank)] * LANES), start)
            before = builder.fcmp_ordered("<", ir.Constant(_WIDE, [float(rank - kept)] * LANES), start)
            total = builder.fadd(total, builder.select(builder.and_(after, before), value, zero))
        return builder.fdiv(total, ir.Constant(_WIDE, [float(kept)] * LANES))

    def narrow(self, value: Any) -> Any:
        return value if self.scalar == _F64 else self.builder.fptrunc(value, self.vector)

    def _wide(self, value: Any, kind: Any = _WIDE) -> Any:
        return value if self.scalar == _F64 else self.builder.fpext(value, kind)
