"""A wave's registers while one basic block is translated.

Between blocks registers live in stack slots, which LLVM's SROA turns into values. Within a block
each is loaded at its first use and kept as a value, under every type it was read as. A write
under a partial EXEC is kept as it is, for later instructions under the same EXEC need no more;
it is merged with the old value when EXEC changes or the block ends, and then only if the
register is still wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from drivers.emulated.simt.values import Build, Value

EXEC, SCC = 126, 253


@dataclass(eq=False)
class VectorState:
    """What is known of a vector register: a value, valid in the lanes of `mask`."""

    views: dict[str, Value]
    mask: Value | None = None
    """EXEC at the write; None where all lanes are valid."""
    base: VectorState | None = None
    """What the other lanes hold; None where that is still in the slot."""
    written: bool = True

    @property
    def complete(self) -> bool:
        """Whether it covers all lanes without the register's value before the block."""
        state: VectorState | None = self
        while state is not None and state.mask is not None:
            state = state.base
        return state is not None and state.written


@dataclass
class Registers(Build):
    """The build of one block, with its registers. Slots are `%v0`, `%s0`, `%scc` and so on.

    A mask of lanes is one scalar register in a wave of 32 lanes, a pair in one of 64.
    """

    wave_size: int = 32
    exec_index: int = EXEC
    home: str = "%"
    """What the names of the registers' slots begin with."""
    exec_full: bool = False
    """Whether EXEC is known to have all its bits set."""
    vectors: dict[int, VectorState] = field(default_factory=dict)
    wide: dict[int, Value] = field(default_factory=dict)
    """64-bit values (u64, for each lane) of pairs of vector registers, while both are current."""
    scalars: dict[int, Value] = field(default_factory=dict)
    wide_scalars: dict[int, Value] = field(default_factory=dict)
    masks: dict[int, Value] = field(default_factory=dict)
    """Scalar registers (or pairs, by their first) as one truth value for each lane."""
    deferred: dict[int, Callable[[], list[Value]]] = field(default_factory=dict)
    """Loads of a full wave that are put off until one of their registers is read or written, and
    so need none of the host's: what emits them, by each of their registers."""
    splats: dict[tuple[str, str], Value] = field(default_factory=dict)
    written_scalars: set[int] = field(default_factory=set)
    vector_uses: set[int] = field(default_factory=set)
    scalar_uses: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        Build.__init__(self, self.wave_size)
        self.exec_registers = range(self.exec_index, self.exec_index + self.wave_size // 32)
        self.bits_type = f"u{self.wave_size}"

    # ---- scalar registers ----
    def scalar(self, index: int) -> Value:
        """A scalar register as u32 (SCC as m1)."""
        known = self.scalars.get(index)
        if known is None:
            if self.exec_full and index in self.exec_registers:
                known = self.constant("u32", 0xFFFFFFFF, False)
            else:
                type = "m1" if index == SCC else "u32"
                text = self.emit(f"load {self.spell(type, False)}, ptr {self.home}s{index}")
                known = Value(self, text, type, False)
                self.scalar_uses.add(index)
            self.scalars[index] = known
        return known

    def scalar_pair(self, index: int) -> Value:
        """Two scalar registers as u64."""
        known = self.wide_scalars.get(index)
        if known is None:
            high = self.scalar(index + 1).to("u64") << 32
            known = self.wide_scalars[index] = self.scalar(index).to("u64") | high
        return known

    def set_scalar(self, index: int, value: Value) -> None:
        """Writes a scalar register (u32; SCC m1)."""
        self.scalars[index] = value
        self.written_scalars.add(index)
        self.masks.pop(index, None)
        if self.wave_size == 64:
            self.masks.pop(index - 1, None)
        self.wide_scalars.pop(index, None)
        self.wide_scalars.pop(index - 1, None)

    def set_scalar_pair(self, index: int, value: Value) -> None:
        """Writes two scalar registers from a 64-bit value."""
        value = value.as_type("u64")
        self.set_scalar(index, value.to("u32"))
        self.set_scalar(index + 1, (value >> 32).to("u32"))
        self.wide_scalars[index] = value

    def bits(self, index: int) -> Value:
        """A mask of lanes as an integer of that many bits."""
        return self.scalar(index) if self.wave_size == 32 else self.scalar_pair(index)

    def set_bits(self, index: int, value: Value) -> None:
        """Writes a mask of lanes from such an integer."""
        if self.wave_size == 32:
            self.set_scalar(index, value)
        else:
            self.set_scalar_pair(index, value)

    def mask(self, index: int) -> Value:
        """A mask of lanes as one truth value for each lane."""
        known = self.masks.get(index)
        if known is None:
            bits = self.bits(index)
            text = self.emit(f"bitcast {bits.llvm} {bits.text} to {self.spell('m1')}")
            known = self.masks[index] = Value(self, text, "m1", True)
        return known

    def set_mask(self, index: int, value: Value) -> None:
        """Writes a mask of lanes from truth values; lanes outside EXEC become 0."""
        if not self.exec_full:
            value = value & self.mask(self.exec_index)
        text = self.emit(f"bitcast {value.llvm} {value.text} to i{self.wave_size}")
        self.set_bits(index, Value(self, text, self.bits_type, False))
        self.masks[index] = value

    def splat(self, value: Value) -> Value:
        """A scalar in every lane."""
        key = (value.text, value.type)
        known = self.splats.get(key)
        if known is None:
            vector = self.spell(value.type)
            one = self.emit(f"insertelement {vector} poison, {value.llvm} {value.text}, i64 0")
            text = self.emit(
                f"shufflevector {vector} {one}, {vector} poison, "
                f"{self.spell('u32')} zeroinitializer"
            )
            known = self.splats[key] = Value(self, text, value.type, True)
        return known

    # ---- vector registers ----
    def _execution(self) -> Value | None:
        """EXEC as truth values, None where it is known to be full."""
        return None if self.exec_full else self.mask(self.exec_index)

    def _loaded(self, index: int) -> Value:
        return self.value(f"load {self.spell('u32')}, ptr {self.home}v{index}", "u32", True)

    def defer(self, index: int, count: int, emit: Callable[[], list[Value]]) -> None:
        """Registers from `index` on will be what `emit` gives, in all lanes; it is called later."""
        for register in range(index, index + count):
            self._settle(register)

        def perform() -> list[Value]:
            for register in range(index, index + count):
                del self.deferred[register]
            values = emit()
            for register, value in enumerate(values, index):
                self.set_whole_vector(register, value)
            return values

        for register in range(index, index + count):
            self.vectors.pop(register, None)
            self.wide.pop(register, None)
            self.wide.pop(register - 1, None)
            self.deferred[register] = perform

    def _settle(self, index: int) -> None:
        if index in self.deferred:
            self.deferred[index]()

    def settle(self) -> None:
        """Emits all that was put off: before something that a load must not come behind."""
        while self.deferred:
            next(iter(self.deferred.values()))()

    def _state(self, index: int) -> VectorState:
        self._settle(index)
        known = self.vectors.get(index)
        if known is None:
            value = self._loaded(index)
            known = self.vectors[index] = VectorState({"u32": value}, written=False)
            self.vector_uses.add(index)
        return known

    def vector(self, index: int, type: str = "u32", whole: bool = False) -> Value:
        """A vector register; `whole` where lanes outside EXEC matter too."""
        state = self._state(index)
        if state.mask is not None and (whole or state.mask is not self._execution()):
            self.merge(index)
            state = self.vectors[index]
        found = state.views.get(type)
        if found is None:
            found = state.views[type] = state.views["u32"].as_type(type)
        return found

    def merge(self, index: int) -> None:
        """Makes a register's value valid in all lanes."""
        state = self.vectors[index]
        chain = []
        while state.mask is not None:
            chain.append(state)
            if state.base is None:
                state.base = VectorState({"u32": self._loaded(index)}, written=False)
                self.vector_uses.add(index)
            state = state.base
        value = state.views["u32"]
        for part in reversed(chain):
            assert part.mask is not None
            value = part.mask.select(part.views["u32"], value)
        self.vectors[index] = VectorState({"u32": value})

    def vector_pair(self, index: int, whole: bool = False) -> Value:
        """Two vector registers as u64."""
        known = self.wide.get(index)
        if known is None or whole:
            low = self.vector(index, whole=whole).to("u64")
            high = self.vector(index + 1, whole=whole).to("u64")
            known = low | (high << 32)
            if not whole:
                self.wide[index] = known
        return known

    def set_vector(self, index: int, value: Value) -> None:
        """Writes the lanes of EXEC of a vector register."""
        self._settle(index)
        state = VectorState({"u32": value.as_type("u32")}, self._execution())
        if value.type != "u32":
            state.views[value.type] = value
        if state.mask is not None:
            old = self.vectors.get(index)
            if old is not None and old.mask is state.mask:
                old = old.base
            state.base = old
        self.vectors[index] = state
        self.wide.pop(index, None)
        self.wide.pop(index - 1, None)

    def set_whole_vector(self, index: int, value: Value) -> None:
        """Writes all lanes of a vector register, whatever EXEC says."""
        self._settle(index)
        self.vectors[index] = VectorState({"u32": value.as_type("u32")})
        self.wide.pop(index, None)
        self.wide.pop(index - 1, None)

    def set_vector_pair(self, index: int, value: Value) -> None:
        """Writes two vector registers from 64-bit values."""
        value = value.as_type("u64")
        self.set_vector(index, value.to("u32"))
        self.set_vector(index + 1, (value >> 32).to("u32"))
        self.wide[index] = value

    def exec_changed(self) -> None:
        """To be called when EXEC has been written: pairs read under the old one are stale."""
        self.wide.clear()

    # ---- the end of a block ----
    def store(self, vectors: set[int], scalars: set[int]) -> None:
        """Writes back what this block has changed of the registers that are still wanted."""
        assert not self.deferred, "settle() comes before the end of a block"
        for index in sorted(vectors & self.vectors.keys()):
            if self.vectors[index].mask is not None:
                self.merge(index)
            state = self.vectors[index]
            if state.written:
                value = state.views["u32"]
                self.do(f"store {value.llvm} {value.text}, ptr {self.home}v{index}")
        for index in sorted(scalars & self.written_scalars):
            value = self.scalars[index]
            self.do(f"store {value.llvm} {value.text}, ptr {self.home}s{index}")

    @property
    def written_vectors(self) -> set[int]:
        """Registers that the block may change."""
        return {index for index, state in self.vectors.items() if state.written}

    @property
    def vector_definitions(self) -> set[int]:
        """Registers whose value before the block is gone after it."""
        return {index for index, state in self.vectors.items() if state.complete}
