"""Sums over rows of matrices in vector registers, which LLVM's own vectoriser would keep in memory.

They are written in LLVM's language, as numba lets one. Rows are named by their number in a matrix [rows, units] that
lies in memory without gaps: to hand on an array of a row would cost as much as to add it up.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.core.extending import intrinsic

BYTES = 64 if binding.get_host_cpu_features().get("avx512f") else 32  # of a vector
CHAINS = 8  # vectors that are summed at a time: each sum waits for its last term, and the others fill the time
FUSED = ("contract",)
COUNTER = ir.IntType(64)


@intrinsic
def wide(typing):
    """Let LLVM use the whole of the vector registers in the calling function: on some processors it takes half."""

    def generate(context, builder, signature, arguments):
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')  # not among those that llvmlite knows
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic
def add_rows(typing, table, places, begin, end, result, row):
    """Add to a row of ``result`` the rows of ``table`` whose numbers stand in ``places`` from ``begin`` to ``end``."""

    def generate(context, builder, signature, arguments):
        into, units = _row(context, builder, result, arguments[4], arguments[5])
        numbers = context.make_array(places)(context, builder, arguments[1]).data
        for kind, chains, first, last in _parts(context, builder, table, units, CHAINS):
            with _each(builder, first, last, chains * _lanes(kind)) as unit:
                ends = [_vector(builder, into, unit, kind, n) for n in range(chains)]
                sums = [cgutils.alloca_once_value(builder, _load(builder, end, table)) for end in ends]
                with _each(builder, arguments[2], arguments[3], 1) as index:
                    number = builder.load(builder.gep(numbers, [index]))
                    added, _ = _row(context, builder, table, arguments[0], number)
                    for n, total in enumerate(sums):
                        term = _load(builder, _vector(builder, added, unit, kind, n), table)
                        builder.store(builder.fadd(builder.load(total), term), total)
                for end, total in zip(ends, sums, strict=True):
                    builder.store(builder.load(total), end, align=table.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(table, places, types.int64, types.int64, result, types.int64), generate


def products(count: int) -> Callable:
    """A function for the products of a matrix's row with so many rows of another, whose numbers stand in a list."""

    @intrinsic
    def of_rows(typing, table, row, others, places, begin):
        def generate(context, builder, signature, arguments):
            one, units = _row(context, builder, table, arguments[0], arguments[1])
            numbers = context.make_array(places)(context, builder, arguments[3]).data
            rows = []
            for index in range(count):
                number = builder.load(builder.gep(numbers, [builder.add(arguments[4], COUNTER(index))]))
                rows.append(_row(context, builder, others, arguments[2], number)[0])
            totals = [context.get_constant(table.dtype, 0)] * count
            for kind, chains, first, last in _parts(context, builder, table, units, CHAINS // count):
                zero = ir.Constant(kind, [0.0] * kind.count if _lanes(kind) > 1 else 0.0)
                sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(chains)] for _ in rows]
                with _each(builder, first, last, chains * _lanes(kind)) as unit:
                    for n in range(chains):
                        factor = _load(builder, _vector(builder, one, unit, kind, n), table)
                        for other, of_row in zip(rows, sums, strict=True):
                            term = _load(builder, _vector(builder, other, unit, kind, n), table)
                            term = builder.fmul(factor, term, flags=FUSED)
                            builder.store(builder.fadd(builder.load(of_row[n]), term, flags=FUSED), of_row[n])
                for index, of_row in enumerate(sums):
                    total = builder.load(of_row[0])
                    for more in of_row[1:]:
                        total = builder.fadd(total, builder.load(more))
                    totals[index] = builder.fadd(totals[index], _all_lanes(builder, total))
            return context.make_tuple(builder, signature.return_type, totals)

        taken = table, types.int64, others, places, types.int64
        return types.UniTuple(table.dtype, count)(*taken), generate

    return of_rows


def _row(context, builder, kind: types.Array, matrix, number):
    """Where a row begins, and how many units it has."""
    array = context.make_array(kind)(context, builder, matrix)
    units = cgutils.unpack_tuple(builder, array.shape, 2)[1]
    number = number if number.type == COUNTER else builder.zext(number, COUNTER)
    return builder.gep(array.data, [builder.mul(number, units)]), units


def _parts(context, builder, kind: types.Array, units, chains: int) -> Iterator[tuple]:
    """The parts of a row, as vectors of how many numbers, how many of these together, from where to where.

    Most of it goes by many whole vectors, the next by one, and what then remains number by number.
    """
    number, first = context.get_value_type(kind.dtype), COUNTER(0)
    vector = ir.VectorType(number, 8 * BYTES // kind.dtype.bitwidth)
    for part, together in ((vector, chains), (vector, 1), (number, 1)):
        last = builder.sub(units, builder.urem(units, COUNTER(together * _lanes(part))))
        yield part, together, first, last
        first = last


@contextmanager
def _each(builder, first, last, step: int) -> Iterator:
    with cgutils.for_range_slice(builder, first, last, COUNTER(step), COUNTER) as (index, _):
        yield index


def _lanes(kind: ir.Type) -> int:
    return getattr(kind, "count", 1)


def _vector(builder, begin, unit, kind: ir.Type, n: int):
    place = builder.gep(begin, [builder.add(unit, COUNTER(n * _lanes(kind)))])
    return builder.bitcast(place, kind.as_pointer())


def _load(builder, place, kind: types.Array):
    return builder.load(place, align=kind.dtype.bitwidth // 8)


def _all_lanes(builder, vector):
    """The sum of a vector's numbers."""
    if _lanes(vector.type) == 1:
        return vector
    number, count = vector.type.element, vector.type.count
    name = f"llvm.vector.reduce.fadd.v{count}{'f32' if number == ir.FloatType() else 'f64'}"
    reduce = cgutils.get_or_insert_function(builder.module, ir.FunctionType(number, [number, vector.type]), name)
    return builder.call(reduce, [ir.Constant(number, 0.0), vector], fastmath=("reassoc",))
