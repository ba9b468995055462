"""The kernels of a bring-up, written in CUDA C++, one fact of the hardware each."""

from __future__ import annotations

from bringup_high import THREADS
from compiler.code_object import CodeObject, Param
from compiler.dtype import dtypes
from compiler.nvrtc import compile_cuda
from compiler.target import Target


def _kernel(
    name: str, target: Target, body: str, buffers: tuple[str, ...], scalars: tuple[str, ...] = (),
) -> CodeObject:
    """A kernel of blocks of THREADS, whose `body` sees thread, block and item (both)."""
    params = [f"int *{each}" for each in buffers] + [f"long long {each}" for each in scalars]
    text = f"""
extern "C" __global__ void __launch_bounds__({THREADS}) {name}({", ".join(params)}) {{
  const int thread = threadIdx.x, block = blockIdx.x;
  const long long item = (long long)block * {THREADS} + thread;
  {body}
}}
"""
    arguments = [Param("buffer", dtypes.int32, each) for each in buffers]
    arguments += [Param("scalar", dtypes.int64, each) for each in scalars]
    return CodeObject(
        name, target.arch, compile_cuda(text, target.arch), 0, tuple(arguments),
        block=(THREADS, 1, 1), source=text, lane_width=target.lane_width,
    )


def number_items(target: Target) -> CodeObject:
    """out[item] = 3 * item + 7, for int32."""
    return _kernel("number_items", target, "out[item] = 3 * (int)item + 7;", ("out",))


def reverse_blocks(target: Target) -> CodeObject:
    """Reverses each block of `in` through shared memory, with a barrier between."""
    body = f"""__shared__ int values[{THREADS}];
  values[thread] = in[item];
  __syncthreads();
  out[item] = values[{THREADS - 1} - thread];"""
    return _kernel("reverse_blocks", target, body, ("out", "in"))


def through_scratch(target: Target) -> CodeObject:
    """out[item] = item, kept on the way in a private array whose index nobody knows before."""
    body = """volatile long long array[64];
  array[block & 63] = item;
  out[item] = (int)array[block & 63];"""
    return _kernel("through_scratch", target, body, ("out",))


def store_far(target: Target) -> CodeObject:
    """out[distance + item] = 1: faults where nothing is mapped."""
    return _kernel("store_far", target, "out[distance + item] = 1;", ("out",), ("distance",))


def copy_lines(target: Target) -> CodeObject:
    """Copies 16 bytes a thread."""
    return _kernel("copy_lines", target, "((int4 *)out)[item] = ((int4 *)in)[item];", ("out", "in"))


def nothing(target: Target) -> CodeObject:
    """Ends at once."""
    return _kernel("nothing", target, "", ("out",))
