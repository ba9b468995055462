"""The command line: `python -m tinyhw info`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import drivers
from compiler.errors import TinyhwError
from tinyhw.context import check_settings
from tinyhw.device import Device


def info() -> int:
    """Prints every device name, whether it opens here and if not why, what kinds of hardware its
    driver has been run on, and the default.
    """
    default = Device.DEFAULT
    usable = False
    for name in drivers.DEVICE_NAMES:
        works, sentence = _try(name)
        usable |= works
        mark = "*" if name == default else " "
        print(f"{mark} {name:<7} {'yes' if works else 'no ':<4} {sentence}")
        for tested, kinds in _by_value(drivers.generations(name)).items():
            print(f"{'':15}{', '.join(kinds)}: {tested}")
    print(f"Device.DEFAULT = {default!r}")
    return 0 if usable else 1


def _by_value(generations: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, tested in generations.items():
        found.setdefault(tested, []).append(name)
    return found


def _try(name: str) -> tuple[bool, str]:
    """Whether a device really opens, and a sentence about it."""
    works, sentence = drivers.probe(name)
    if not works:
        return False, sentence
    try:
        with drivers.open_device(name) as device:
            target = device.target
            processor = " ".join(dict.fromkeys((target.arch, target.cpu))).strip()
            return True, f"{sentence[:-1]}: {processor}, {target.threads} threads."
    except TinyhwError as error:
        return False, " ".join(str(error).split())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0, 1 where it failed, 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="python -m tinyhw", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("info", help="list the devices, and which of them open here")
    parser.parse_args(arguments)
    try:
        check_settings()
        return info()
    except TinyhwError as error:
        print(f"tinyhw: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
