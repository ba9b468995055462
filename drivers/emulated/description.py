"""What EMULATE says: boards, and how the machine with them shall be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

GPU_LIMIT = 16
Board = TypeVar("Board")

# What may follow an option's name and '='; None for an option that is a word alone.
Check = Callable[[str], bool] | None
COMMON: dict[str, Check] = {"seed": str.isdecimal, "eager": None}
"""The options of every vendor's boards."""


class Description(NamedTuple, Generic[Board]):
    """A board for each GPU, and the options that were given, with '' for a word alone."""

    boards: list[Board]
    options: dict[str, str]

    @property
    def seed(self) -> int | None:
        """What fixes the order of the engines."""
        return int(self.options["seed"]) if "seed" in self.options else None

    @property
    def eager(self) -> bool:
        """Whether machine code is translated well at once, not only what runs often."""
        return "eager" in self.options


def read(
    description: str, boards: Mapping[str, Board], options: Mapping[str, Check]
) -> Description[Board]:
    """What 'gfx1100', 'gfx1100,gfx1201', 'gfx1100*2' or 'gfx1100,seed=7,strict' says.

    Raises ValueError.
    """
    found: list[Board] = []
    given: dict[str, str] = {}
    for item in map(str.strip, description.split(",")):
        option, equals, value = item.partition("=")
        name, star, count = item.partition("*")
        check = options.get(option)
        if option in options and (check(value) if check else not equals):
            given[option] = value
        elif name in boards and (count.isdecimal() if star else True):
            found += [boards[name]] * (int(count) if star else 1)
        else:
            known = ", ".join(
                (*boards, *(f"{one}=…" if test else one for one, test in options.items()))
            )
            raise ValueError(f"no emulated board {item!r}; there are {known}")
    if not 1 <= len(found) <= GPU_LIMIT:
        raise ValueError(f"{len(found)} boards; a machine has 1 to {GPU_LIMIT}")
    return Description(found, given)
