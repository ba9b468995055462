"""Macros of a C header as Python constants and functions, their values taken from the compiler."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autogen_fetch import AutogenError, command

DEFINE = re.compile(r"#define (\w+)(\(([\w, ]*)\))?(?: (.*))?$")
LINE_MARKER = re.compile(r'# \d+ "(.*?)"')
TOKEN = re.compile(r"\d\w*|\w+|<<|>>|\S")
CAST = re.compile(r"\((?:unsigned|uint32_t|__u64)\)")  # what it cuts, `Function.mask` cuts
NUMBER = re.compile(r"(0[xX][0-9a-fA-F]+|\d+)[uUlL]*$")
OPERATORS = frozenset(["<<", ">>", *"-+*%&|^~(),"])  # the same meaning and precedence in Python
SAMPLES = (1, 2, 3, 5, 7, 9, 12, 16)  # arguments with which C and Python must agree
BITS = re.compile(r"\(?(\d+):(\d+)\)?")
U32, U64 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True)
class Macro:
    """One #define: `parameters` is None unless it is like a function."""

    name: str
    parameters: tuple[str, ...] | None
    body: str


@dataclass(frozen=True)
class Probe:
    """How to compile against a set of headers: what stands before, and the include folders."""

    prologue: str
    folders: tuple[Path, ...]

    def arguments(self) -> list[str]:
        """The compiler's flags."""
        includes = [part for folder in self.folders for part in ("-I", str(folder))]
        return ["-x", "c", "-w", *includes]

    def _compile(self, lines: Sequence[str], folder: Path) -> tuple[int, str]:
        source = folder / "probe"
        source.write_text("\n".join(lines) + "\n", encoding="utf-8")
        flags = ["-ftrack-macro-expansion=0", "-fmax-errors=0", "-o", "probe.out", source.name]
        done = command(["gcc", *self.arguments(), *flags], cwd=folder)
        return done.returncode, done.stderr

    def run(self, statements: Sequence[str]) -> dict[int, str]:
        """What each statement prints, by its index; those that do not compile are left out.

        A statement is one line of C that prints one line.
        """
        includes = "#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n"
        head = [*(self.prologue + includes).splitlines(), "int main(void) {"]
        body = [f'printf("{i} "); {statement}' for i, statement in enumerate(statements)]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            failed, errors = self._compile([*head, *body, "}"], folder)
            if failed:
                at_fault = re.findall(r"^probe:(\d+):\d+: (?:fatal )?error:", errors, re.M)
                wrong = {int(line) - len(head) - 1 for line in at_fault}
                body = ["" if i in wrong else line for i, line in enumerate(body)]
                failed, errors = self._compile([*head, *body, "}"], folder)
            if failed:
                raise AutogenError(f"The probe does not compile:\n{errors[:2000]}")
            output = command([folder / "probe.out"]).stdout
        lines = (line.partition(" ") for line in output.splitlines())
        return {int(index): text for index, _, text in lines}


def compiler_headers() -> Path:
    """The folder of stddef.h and the like, which the libclang wheel lacks."""
    return Path(command(["gcc", "-print-file-name=include"]).stdout.strip())


def macros_of(probe: Probe, headers: Iterable[Path]) -> list[Macro]:
    """The macros that the headers themselves define, in their order, each with its last body."""
    wanted = {str(header) for header in headers}
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "all"
        source.write_text(probe.prologue, encoding="utf-8")
        done = command(["gcc", *probe.arguments(), "-E", "-dD", source])
    if done.returncode:
        raise AutogenError(f"The headers {sorted(wanted)} cannot be read:\n{done.stderr[:2000]}")
    found: dict[str, Macro] = {}
    inside = False
    for line in done.stdout.splitlines():
        if marker := LINE_MARKER.match(line):
            inside = marker[1] in wanted
        elif inside and (define := DEFINE.match(line)):
            names = define[3]
            parameters = tuple(names.replace(" ", "").split(",")) if define[2] else None
            if parameters == ("",):
                parameters = ()
            found[define[1]] = Macro(define[1], parameters, (define[4] or "").strip())
    return list(found.values())


def constants(probe: Probe, macros: Iterable[Macro]) -> dict[str, int | str]:
    """The values of the macros that are integers or strings."""
    plain = [macro for macro in macros if macro.parameters is None and macro.body]
    printed = probe.run(
        [
            f'printf("%d %d %lld\\n", (__typeof__({m.name}))-1 < 0, (int)sizeof({m.name}), '
            f"(long long)({m.name}));"
            for m in plain
            if not m.body.startswith('"')
        ]
    )
    values: dict[str, int | str] = {}
    numbers = iter(range(len(plain)))
    for macro in plain:
        if macro.body.startswith('"'):
            values[macro.name] = macro.body.strip('"')
        elif (text := printed.get(next(numbers))) is not None:
            signed, size, value = map(int, text.split())
            values[macro.name] = as_constant(value, bool(signed), size, macro.body)
    return values


def as_constant(value: int, signed: bool, size: int, body: str) -> int:
    """A C value as Python wants it: `1 << 31` is a bit, only what is written with - is negative."""
    if value < 0 and (not signed or "-" not in body):
        return value & (U32 if size <= 4 else U64)
    return value


def bit_ranges(macros: Iterable[Macro]) -> dict[str, tuple[int, int]]:
    """(shift, width) of the macros that say where a field lies, as NVIDIA writes it: `7:4`."""
    found = {}
    for macro in macros:
        if macro.parameters is None and (bits := BITS.fullmatch(macro.body)):
            high, low = int(bits[1]), int(bits[2])
            found[macro.name] = (low, high - low + 1)
    return found


@dataclass(frozen=True)
class Function:
    """A function-like macro in Python: an expression of its parameters, cut to `mask`."""

    name: str
    parameters: tuple[str, ...]
    expression: str
    mask: int

    def source(self) -> str:
        """The definition, as it stands in the generated file."""
        typed = ", ".join(f"{parameter}: int" for parameter in self.parameters)
        digits = f"0x{self.mask:X}"
        expression = self.expression
        if not is_one_group(expression):
            expression = f"({expression})"
        return f"def {self.name}({typed}) -> int:\n    return {expression} & {digits}\n"


def is_one_group(expression: str) -> bool:
    """Whether the first parenthesis is closed by the last character."""
    depth = 0
    for i, character in enumerate(expression):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return i == len(expression) - 1 and expression[0] == "("
    return False


def functions(
    probe: Probe, macros: Iterable[Macro], values: Mapping[str, int | str]
) -> list[Function]:
    """The function-like macros that can be said in Python, each compared with C on samples."""
    known = dict(values)
    candidates: list[Function] = []
    for macro in macros:
        if macro.parameters is None:
            continue
        expression = translate(macro, known)
        if expression is not None:
            candidates.append(Function(macro.name, macro.parameters, expression, U64))
            known[macro.name] = 0
    samples = [sample_calls(function) for function in candidates]
    printed = probe.run([sample_statement(calls) for calls in samples])
    accepted: list[Function] = []
    scope: dict[str, object] = dict(values)
    for i, (function, calls) in enumerate(zip(candidates, samples, strict=True)):
        if i not in printed:
            continue
        size, *expected = printed[i].split()
        mask = U32 if int(size) <= 4 else U64
        function = Function(function.name, function.parameters, function.expression, mask)
        try:
            exec(function.source(), scope)
            found = [eval(call, scope) & mask for call in calls]
        except NameError:  # calls a macro that was left out
            continue
        if found == [int(value, 16) & mask for value in expected]:
            accepted.append(function)
    return accepted


def sample_calls(function: Function) -> list[str]:
    """Calls with small arguments, which have the same meaning in C and in Python."""
    n = len(function.parameters)
    return [
        f"{function.name}({', '.join(str(SAMPLES[(i + j) % len(SAMPLES)]) for j in range(n))})"
        for i in range(len(SAMPLES))
    ]


def sample_statement(calls: Sequence[str]) -> str:
    """Prints the size of a macro's value and its value for each call."""
    values = "".join(f", (unsigned long long)({call})" for call in calls)
    return f'printf("%d{" %llx" * len(calls)}\\n", (int)sizeof({calls[0]}){values});'


def translate(macro: Macro, known: Mapping[str, object]) -> str | None:
    """The macro's body as a Python expression; None if it uses more of C than arithmetic."""
    words = []
    for token in TOKEN.findall(CAST.sub("", macro.body)):
        if number := NUMBER.match(token):
            words.append(number[1])
        elif token in OPERATORS or token in known or token in (macro.parameters or ()):
            words.append(token)
        else:
            return None
    if not words:
        return None
    text = re.sub(r"(\w) \(", r"\1(", " ".join(words))
    text = text.replace("( ", "(").replace(" )", ")").replace("~ ", "~").replace(" ,", ",")
    return re.sub(r"(?<!\w)\((\w+)\)", r"\1", text)  # (x) is x
