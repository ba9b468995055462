"""Where translated code and the runner find things: byte offsets of three structures.

All are written by Python and by native code of one board process; nothing else sees them.
"""

from __future__ import annotations

# A wave's registers, between its calls.
STATE_SCALARS = 0  # 128 × 4 bytes
STATE_SCC = 512  # SCC as a byte
STATE_RESUME = 516  # where it goes on: 0 at its start, n after its n-th barrier, -1 ended
STATE_MEETING = 520  # what it waits for: barrier, a MEETS_ from bit 4, waves (0: all) from bit 8
STATE_VOTES = 524  # at a vote: its lanes that are for it
STATE_VOTERS = 528  # and all that came
STATE_RESULT = 532  # what came of the last vote
STATE_HELD = 536  # 1 while others are waited for
STATE_VECTORS = 1024  # registers × lanes × 4 bytes

# What a wave does at a barrier with a number: the votes are counted, or all or any must be for it.
MEETS, MEETS_ARRIVING, MEETS_COUNTING, MEETS_ALL, MEETS_ANY = range(5)

# A native thread's context.
CONTEXT_BUDGET = 0  # jumps backward that are left; below 0 the wave gives up
CONTEXT_FAULT = 8  # a FAULT_ kind, 0 while all is well
CONTEXT_ACCESS = 12  # an ACCESS_
CONTEXT_ADDRESS = 16
CONTEXT_PC = 24
CONTEXT_WAVE = 32  # workgroup × waves per workgroup + wave, of the wave that runs
CONTEXT_RANGES = 40  # address of (first, end, protection) triples
CONTEXT_RANGE_COUNT = 48
CONTEXT_LDS = 56
CONTEXT_LDS_BYTES = 64
CONTEXT_SCRATCH = 72  # of the wave that runs
CONTEXT_SCRATCH_LANE_BYTES = 80
CONTEXT_ENTRY = 88  # the guest address of the kernel's first instruction
CONTEXT_JOB = 96
CONTEXT_STATES = 104
CONTEXT_FAULT_WAVE = 112
CONTEXT_SCRATCH_OFFSET = 120  # of this thread's waves in the scratch that the program allotted
CONTEXT_ZEROS = 128  # 64 bytes, read where a scalar load may not
CONTEXT_WORK = 192  # waves, or their parts between barriers, and backward jumps of a dispatch
CONTEXT_FUNCTIONS = 256  # addresses of the helpers, 8 bytes each
CONTEXT_SLOTS = 4096  # one for each memory instruction

# A memory instruction's slot: the range that it last touched.
SLOT_FIRST = 0
SLOT_END = 8
SLOT_PC = 16
SLOT_KIND = 24  # a SLOT_
SLOT_BYTES = 32
GLOBAL, LOCAL, SCRATCH = 0, 1, 2

# A dispatch, shared by the threads that carry it out.
JOB_NEXT = 0  # the next workgroup to be taken
JOB_COUNT = 8
JOB_STOP = 16
JOB_GRID_X = 24
JOB_GRID_Y = 32
JOB_FULL = 40  # the translated kernel for waves with all lanes
JOB_TAIL = 48  # and for the last wave, when it lacks some
JOB_WAVES = 56  # in a workgroup
JOB_TAIL_EXEC = 64  # the lanes that it has
JOB_SCALARS = 72  # address of the initial scalar registers
JOB_SCALAR_COUNT = 80  # a multiple of 16
JOB_ID_X = 88  # the scalar register that receives the workgroup's number, −1 for none
JOB_ID_Y = 96
JOB_ID_Z = 104
JOB_THREAD_IDS = 112  # address of the initial vector registers, wave by wave
JOB_VECTOR_BYTES = 120  # of a wave's initial vector registers
JOB_BUDGET = 128
JOB_FLOAT_MODE = 136  # MXCSR
JOB_SCRATCH_WAVE_BYTES = 144
JOB_STATE_STRIDE = 152  # 0 where the waves of a workgroup need not wait for each other
JOB_FULL_EXEC = 160  # EXEC of a wave with all lanes
JOB_SCRATCH_REGISTER = 168  # receives a wave's offset in that scratch, −1 for none
JOB_END_AT = 176  # address of a 32-bit word: no more workgroups are begun once it is not 0
JOB_NUMBERED = 184  # 1 where waves wait at barriers with numbers
JOB_BYTES = 192

FAULT_MEMORY, FAULT_HANG = 1, 2
READ, WRITE, EXECUTE = 1, 2, 4


def state_bytes(vector_registers: int, wave_size: int) -> int:
    """A wave's state."""
    return STATE_VECTORS + vector_registers * wave_size * 4
