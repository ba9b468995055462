"""Shows which kernels a change of the compiler or the scheduler changes, if any.

    python scripts/process_replay.py compare main                   # the test suite, here and there
    python scripts/process_replay.py compare HEAD~3 test/tinyhw/test_nn.py

    python scripts/process_replay.py record before.gz test/tinyhw    # what the tests compile
    python scripts/process_replay.py record after.gz test/tinyhw
    python scripts/process_replay.py diff before.gz after.gz

    python scripts/process_replay.py replay before.gz               # the same graphs, compiled here
    python scripts/process_replay.py replay before.gz --revision main

`record` runs pytest and keeps every kernel's graph and generated source; `compare` does so in this
tree and in another revision's, each with its own tests. `replay` runs no test: it makes the source
of recorded graphs again, so it shows changes of the compiler, not of the schedule.
Kernels of processes that the tests start are not seen.

The exit status is 0 where no kernel differs, 1 where some do, 2 where it could not be found out.
"""

from __future__ import annotations

import argparse
import difflib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import kernel_records
from kernel_records import MalformedRecord, Record

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = "TINYHW_KERNEL_RECORDS"
"""Names the folder for what each process records; set by `record` for the pytest it starts."""

LINES: Final = 40
"""Of one kernel's difference that are printed."""

Records = Mapping[tuple[str, str], Record]


class CannotRun(Exception):
    """Git or the tests do not do what is needed."""


# ---- in the process of the tests: this module is a pytest plugin there ----


class Recorder:
    """Stands in for `compiler.compile.compile_kernel` and keeps what passes."""

    def __init__(self, folder: Path) -> None:
        from compiler import compile as compiler

        self.folder, self.original = folder, compiler.compile_kernel
        self.found: dict[tuple[bytes, Any], Record] = {}
        compiler.compile_kernel = self.compile_kernel

    def compile_kernel(self, ast: Any, target: Any, debug: int = 0) -> Any:
        """Compiles and notes."""
        code = self.original(ast, target, debug)
        key = (ast.digest, target)
        if key not in self.found:
            test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
            self.found[key] = Record.of(ast, target, code.source, test)
        return code

    def pytest_unconfigure(self) -> None:
        """Writes the file of this process."""
        kernel_records.write(self.folder / f"{os.getpid()}.gz", self.found.values())


def pytest_configure(config: Any) -> None:
    """Starts to record."""
    if os.environ.get(FOLDER):
        config.pluginmanager.register(Recorder(Path(os.environ[FOLDER])))


# ---- recording, here or in another tree ----


def record(tree: Path, tests: Sequence[str]) -> Records:
    """The kernels that pytest compiles in a tree."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(tree), str(ROOT / "scripts")]
        environment = {**os.environ, FOLDER: folder, "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "process_replay", *tests]
        status = subprocess.run(command, cwd=tree, env=environment).returncode
        if status > 1:  # failed tests have compiled their kernels, most likely
            raise CannotRun(f"pytest ended with status {status} in {tree}.")
        found: dict[tuple[str, str], Record] = {}
        for path in sorted(Path(folder).glob("*.gz")):
            for key, each in kernel_records.read(path).items():
                if key not in found or each.test < found[key].test:
                    found[key] = each
        if not found:
            raise CannotRun(f"The tests compiled no kernel in {tree}.")
        return found


@contextmanager
def tree_of(revision: str, root: Path = ROOT) -> Iterator[Path]:
    """A work tree of another revision, for a while."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        _git(root, "worktree", "add", "--quiet", "--detach", str(tree), revision)
        try:
            yield tree
        finally:
            _git(root, "worktree", "remove", "--force", str(tree))


def _git(root: Path, *arguments: str) -> None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    except OSError as error:
        raise CannotRun(f"git cannot be started: {error}.") from error
    if done.returncode:
        raise CannotRun(f"git {arguments[0]} failed: {done.stderr.strip()}")


# ---- replaying ----


def rendered(records: Records) -> Records:
    """The same graphs with the source that the compiler on sys.path makes of them."""
    from compiler.build import render
    from compiler.compile import linear_kernel

    found = {}
    for key, each in records.items():
        target = each.target_object()
        try:
            source = render(linear_kernel(each.ast(), target), target)
        except Exception as error:  # whatever it is, this compiler makes no kernel of it
            source = f"{type(error).__name__}: {error}\n"
        found[key] = Record(each.graph, each.target, source, each.test)
    return found


def rendered_in(tree: Path, recording: Path) -> Records:
    """`rendered` by the compiler of another tree, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "rendered.gz")
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        command = [sys.executable, __file__, "render", str(recording), str(result)]
        if subprocess.run(command, cwd=tree, env=environment).returncode:
            raise CannotRun(f"The compiler in {tree} cannot render {recording}.")
        return kernel_records.read(result)


# ---- differences ----


def report(before: Records, after: Records, shown: int) -> bool:
    """Prints what differs; whether nothing does."""
    common = before.keys() & after.keys()
    changed = [key for key in sorted(common) if before[key].source != after[key].source]
    for key in changed[:shown]:
        _print_changed(before[key], after[key])
    if len(changed) > shown:
        print(f"... and {len(changed) - shown} more kernels with another source")
    gone = [before[key] for key in sorted(before.keys() - common)]
    new = [after[key] for key in sorted(after.keys() - common)]
    _print_list("no longer compiled", gone, shown)
    _print_list("compiled only now", new, shown)
    print(
        f"{len(common)} kernels in both, {len(changed)} of them with another source; "
        f"{len(gone)} only before, {len(new)} only after"
    )
    return not (changed or gone or new)


def _print_changed(before: Record, after: Record) -> None:
    print(f"=== {before.test or 'a kernel'}, {_target_name(before)}")
    old, new = (each.source.splitlines(keepends=True) for each in (before, after))
    difference = list(difflib.unified_diff(old, new, "before", "after", n=2))
    sys.stdout.writelines(difference[:LINES])
    if len(difference) > LINES:
        print(f"... {len(difference) - LINES} more lines")


def _print_list(what: str, records: Sequence[Record], shown: int) -> None:
    for test, count in sorted(Counter(each.test for each in records).items())[:shown]:
        print(f"{what}: {count} kernels of {test or 'no test'}")
    for each in records[:1]:
        print(f"the first of them, for {_target_name(each)}:\n{each.source}")


def _target_name(record: Record) -> str:
    target = record.target_object()
    return f"{target.compiler} for {target.arch}"


# ---- the command line ----


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `arguments` stand in for sys.argv."""
    parser = argparse.ArgumentParser(description="Compare the kernels that two revisions make.")
    parser.add_argument("--shown", type=int, default=5, help="kernels to print (default: 5)")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, members in {
        "record": ("recording", "tests"),
        "compare": ("revision", "tests"),
        "diff": ("before", "after"),
        "replay": ("recording",),
        "render": ("recording", "result"),  # a step of `replay --revision`
    }.items():
        command = commands.add_parser(name)
        for member in members:
            if member == "tests":
                command.add_argument("tests", nargs=argparse.REMAINDER, help="pytest's arguments")
            else:
                command.add_argument(member, type=str if member == "revision" else Path)
        if name == "replay":
            command.add_argument("--revision", default="", help="whose compiler (default: this)")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> bool:
    """Carries out one command; whether nothing differs."""
    match options.command:
        case "record":
            records = record(ROOT, options.tests)
            kernel_records.write(options.recording, records.values())
            print(f"{len(records)} kernels in {options.recording}")
            return True
        case "compare":
            with tree_of(options.revision) as tree:
                before = record(tree, options.tests)
            return report(before, record(ROOT, options.tests), options.shown)
        case "diff":
            read = kernel_records.read
            return report(read(options.before), read(options.after), options.shown)
        case "replay" if options.revision:
            with tree_of(options.revision) as tree:
                after = rendered_in(tree, options.recording.resolve())
            return report(kernel_records.read(options.recording), after, options.shown)
        case "replay":
            before = kernel_records.read(options.recording)
            return report(before, rendered(before), options.shown)
        case _:
            records = rendered(kernel_records.read(options.recording))
            kernel_records.write(options.result, records.values())
            return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command."""
    try:
        return 0 if run(parse(arguments)) else 1
    except (CannotRun, MalformedRecord, OSError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
