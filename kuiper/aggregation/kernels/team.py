"""Compiled work shared among the threads that torch computes with.

A pool of our own would wake up next to torch's OpenMP threads, which keep their cores busy for milliseconds
after each of torch's operations; so compiled code asks torch's own OpenMP library for its threads.
"""

from __future__ import annotations

import ctypes
from typing import Any

import llvmlite.binding as llvm
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()
_PARALLEL = "kuiper_openmp_parallel"
_parallel = getattr(ctypes.CDLL(torch._C.__file__), "GOMP_parallel", None)
HAS_TEAM = _parallel is not None
"""Whether torch's OpenMP library lends its threads; where not, `share` with 1 thread may run on several."""
llvm.add_symbol(_PARALLEL, ctypes.cast(_parallel, ctypes.c_void_p).value if HAS_TEAM else 1)


@intrinsic(prefer_literal=True)
def share(typing: Any, work: Any, arguments: Any, threads: Any, done: Any, cut: Any) -> Any:
    """work(piece, start, stop, *arguments) for every piece of a range, by whichever of the threads is free.

    Args:
        work: a compiled function that returns nothing.
        arguments: a tuple; all threads see the same arrays.
        done: (2,) int64 zeros; counts the pieces that were begun, and those that failed for want of memory.
        cut: (pieces, start, stop, size), the range's ends and the size of all its pieces but the last.
    """
    signature = types.void(work, arguments, threads, done, cut)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        counter = context.make_array(signature.args[3])(context, builder, values[3]).data
        packed = cgutils.pack_struct(builder, [values[1], counter, values[4]])
        place = builder.bitcast(cgutils.alloca_once_value(builder, packed), _BYTES)
        loop = _loop(context, builder, signature, packed.type)
        with builder.if_else(builder.icmp_signed(">", values[2], ir.Constant(_I64, 1))) as (several, one):
            with several:
                kind = ir.FunctionType(ir.VoidType(), [loop.type, _BYTES, _I32, _I32])
                parallel = cgutils.get_or_insert_function(builder.module, kind, _PARALLEL)
                builder.call(parallel, [loop, place, builder.trunc(values[2], _I32), ir.Constant(_I32, 0)])
            with one:
                builder.call(loop, [place])
        return context.get_dummy_value()

    return signature, generate


def _loop(context: Any, builder: Any, signature: Any, kind: Any) -> Any:
    """What each thread does: void (struct of arguments, counter and cut)."""
    function, arguments = signature.args[0], signature.args[1].types
    call = function.get_call_type(context.typing_context, (types.int64,) * 3 + tuple(arguments), {})
    work = function.dispatcher.get_compile_result(call)
    context.active_code_library.add_linking_library(work.library)
    name = builder.module.get_unique_name("kuiper_share")
    loop = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [_BYTES]), name)
    loop.linkage = "internal"
    inner = ir.IRBuilder(loop.append_basic_block("entry"))
    given, counter, cut = cgutils.unpack_tuple(
        inner, inner.load(inner.bitcast(loop.args[0], kind.as_pointer())), 3)
    pieces, first, last, size = cgutils.unpack_tuple(inner, cut, 4)
    head, body, end = (loop.append_basic_block(block) for block in ("head", "body", "end"))
    inner.branch(head)
    inner.position_at_end(head)
    piece = inner.atomic_rmw("add", counter, ir.Constant(_I64, 1), "monotonic")
    inner.cbranch(inner.icmp_signed("<", piece, pieces), body, end)
    inner.position_at_end(body)
    start = inner.add(first, inner.mul(piece, size))
    stop = inner.add(start, size)
    stop = inner.select(inner.icmp_signed("<", stop, last), stop, last)
    values = [piece, start, stop, *cgutils.unpack_tuple(inner, given, len(arguments))]
    status, _ = context.call_internal_no_propagate(inner, work.fndesc, call, values)
    failures = inner.gep(counter, [ir.Constant(_I64, 1)])
    inner.atomic_rmw("add", failures, inner.zext(status.is_error, _I64), "monotonic")
    inner.branch(head)
    inner.position_at_end(end)
    inner.ret_void()
    return loop
