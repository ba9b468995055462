"""Plays a recording on an emulated board, and says what differs.

    RECORD=run.rec AMD=1 EMULATE=1 python scripts/train_mnist.py --steps 2
    python scripts/replay.py run.rec                    # on a board of the recorded kind
    python scripts/replay.py run.rec --board gfx1030

The exit status is 0 when all statuses and results were as recorded, 1 when something differed, 2
when the file is no recording or could not be played.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from typing import Final

from drivers.emulated.system import DEFAULT_BOARD, EmulatedSystem
from drivers.errors import HardwareError
from drivers.recording import Start, read_records
from drivers.replayer import TIMEOUT_S, Replay, Replayer

SHOWN: Final = 40


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `arguments` stand in for sys.argv."""
    parser = argparse.ArgumentParser(description="Play a recording on an emulated board.")
    parser.add_argument("recording")
    parser.add_argument("--board", default="", help="gfx1100, gfx1100*2 (default: as recorded)")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="SECONDS",
                        help=f"for each submission (default: {TIMEOUT_S:g})")  # fmt: skip
    return parser.parse_args(arguments)


def play(path: str, board: str, timeout_s: float) -> tuple[Replay, str]:
    """Plays a file on a fresh board; also the board's name. Raises HardwareError, OSError."""
    with open(path, "rb") as file:
        records = read_records(file)
        start = next(records)
        assert isinstance(start, Start)
        name = board or start.board or DEFAULT_BOARD
        system = EmulatedSystem(name)
        try:
            return Replayer(system, timeout_s).play(itertools.chain((start,), records)), name
        finally:
            system.shut_down()


def main(arguments: Sequence[str] | None = None) -> int:
    """Plays and reports."""
    options = parse(arguments)
    try:
        replay, board = play(options.recording, options.board, options.timeout)
    except (HardwareError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    for difference in replay.differences[:SHOWN]:
        print(difference)
    if len(replay.differences) > SHOWN:
        print(f"and {len(replay.differences) - SHOWN} more differences")
    print(
        f"{replay.records} records on an emulated {board}: {replay.submissions} submissions, "
        f"{replay.finished} finished, {replay.result_bytes} bytes of results, "
        f"{len(replay.differences)} differences"
    )
    if replay.stopped:
        print(f"stopped: {replay.stopped}")
    return 0 if replay.same else 1


if __name__ == "__main__":
    sys.exit(main())
