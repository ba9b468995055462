"""From a fused tensor expression to a CodeObject: every step in order, and remembered."""

from __future__ import annotations

from dataclasses import replace

from compiler import cache
from compiler.build import build
from compiler.code_object import CodeObject
from compiler.decompose import decompose
from compiler.ir import Node, Op, find, toposort
from compiler.linear import LinearKernel
from compiler.linearise import linearise
from compiler.lower import ScalarKernel, lower
from compiler.optimise import optimise
from compiler.target import Target

_compiled: dict[tuple[bytes, Target], CodeObject] = {}


def compile_kernel(ast: Node, target: Target, debug: int = 0) -> CodeObject:
    """The machine code of ASSIGN(view of PARAM 0, value) on `target`.

    The launch arguments are the PARAMs by position, then the VARIABLEs by name. Results are kept
    in this process and on disk. `debug` prints the steps: 3 the plan, 4 the source, 5 the scalar
    kernel, 6 the instruction list, 7 the assembly; a kernel that is to be shown is compiled anew.
    Raises CompilerError where the back end does.
    """
    key = (ast.digest, target)
    found = _compiled.get(key)
    if found is not None:
        return found
    name = cache.key(ast.digest, target)
    code = cache.get(name) if debug < 3 else None
    if code is None:
        code = _compile(ast, target, debug)
        cache.put(name, code)
    _compiled[key] = code
    return code


def linear_kernel(ast: Node, target: Target, debug: int = 0) -> LinearKernel:
    """The instructions of ASSIGN(view of PARAM 0, value), as the target's renderer gets them."""
    scalar = lower(ast)
    scalar = ScalarKernel(decompose(scalar.store, target), scalar.ranges)
    plan = optimise(scalar, target)
    if debug >= 3:
        print(plan.describe())
    if debug >= 5:
        _print_nodes("scalar kernel", toposort(plan.store))
    linear = _with_every_buffer(linearise(plan), ast)
    if debug >= 6:
        _print_nodes("instructions", linear.body)
    return linear


def _compile(ast: Node, target: Target, debug: int) -> CodeObject:
    linear = linear_kernel(ast, target, debug)
    code = build(linear, target)
    if debug >= 4:
        print(code.source)
    if debug >= 7:
        print(assembly(linear, target))
    return code


def _with_every_buffer(kernel: LinearKernel, ast: Node) -> LinearKernel:
    """The kernel with every PARAM of `ast` as an argument, also one that folding left unused."""
    buffers = sorted((n for n in find(ast, Op.PARAM)), key=lambda n: int(n.arg[0]))
    variables = (p for p in kernel.params if p.op is Op.VARIABLE)
    written = buffers.index(ast.src[0].base)
    return replace(kernel, params=(*buffers, *variables), written=frozenset({written}))


def assembly(kernel: LinearKernel, target: Target) -> str:
    """The kernel's machine code as text."""
    from compiler.build import disassemble

    return disassemble(kernel, target)


def _print_nodes(title: str, nodes: tuple[Node, ...] | list[Node]) -> None:
    numbers: dict[Node, int] = {}  # an instruction may stand again in a later scope
    print(f"{title}: {len(nodes)} nodes")
    for i, node in enumerate(nodes):
        numbers[node] = i
        src = " ".join(f"%{numbers[s]}" if s in numbers else repr(s) for s in node.src)
        arg = "" if node.arg is None else f" {node.arg!r}"
        print(f"  %{i:<4} {node.op.name:<10} {node.dtype!r:<18}{arg} {src}")
