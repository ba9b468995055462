"""LLVM IR of the loop that carries out a dispatch: workgroups, their waves, their barriers.

Any number of threads may run it on one job; each takes workgroups until none is left. The waves
of a workgroup run one after another on one thread, each up to its next barrier.
"""

from __future__ import annotations

from drivers.emulated.simt import layout, meetings

_FIELDS = """
count JOB_COUNT
grid.x JOB_GRID_X
grid.y JOB_GRID_Y
waves JOB_WAVES
scalar.count JOB_SCALAR_COUNT
id.x JOB_ID_X
id.y JOB_ID_Y
id.z JOB_ID_Z
vector.bytes JOB_VECTOR_BYTES
budget JOB_BUDGET
tail.exec JOB_TAIL_EXEC
full.exec JOB_FULL_EXEC
scratch.bytes JOB_SCRATCH_WAVE_BYTES
stride JOB_STATE_STRIDE
offset.register JOB_SCRATCH_REGISTER
mode JOB_FLOAT_MODE
numbered JOB_NUMBERED
"""


def _field(name: str, structure: str, offset: int, type: str = "i64") -> str:
    return (
        f"  %{name}.at = getelementptr i8, ptr %{structure}, i64 {offset}\n"
        f"  %{name} = load {type}, ptr %{name}.at\n"
    )


def _identity(axis: str) -> str:
    """Writes the workgroup's number along one axis, where the kernel wants it.

    Where z goes to the register of y, it is the upper half.
    """
    value = f"%short.{axis}"
    shared = ""
    if axis == "z":
        value = "%combined.z"
        shared = """
  %above.z = shl i32 %short.z, 16
  %y.now = load i32, ptr %slot.z
  %both.z = or i32 %y.now, %above.z
  %same.z = icmp eq i64 %id.z, %id.y
  %combined.z = select i1 %same.z, i32 %both.z, i32 %short.z
"""
    return f"""
  %wants.{axis} = icmp sge i64 %id.{axis}, 0
  br i1 %wants.{axis}, label %give.{axis}, label %given.{axis}
give.{axis}:
  %slot.{axis} = getelementptr i32, ptr %state, i64 %id.{axis}
  %short.{axis} = trunc i64 %group.{axis} to i32
{shared}  store i32 {value}, ptr %slot.{axis}
  br label %given.{axis}
given.{axis}:
"""


# How an instruction set sets rounding and denormals: declarations, on entry, on leaving.
FLOAT_MODES = {
    "x86_64": (
        "declare void @llvm.x86.sse.ldmxcsr(ptr)\ndeclare void @llvm.x86.sse.stmxcsr(ptr)",
        """
  %mode.before = alloca i32
  %mode.wanted = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %mode.before)
  %mode.short = trunc i64 %mode to i32
  store i32 %mode.short, ptr %mode.wanted
  call void @llvm.x86.sse.ldmxcsr(ptr %mode.wanted)
""",
        "  call void @llvm.x86.sse.ldmxcsr(ptr %mode.before)",
    ),
}


def _step() -> str:
    """@wave_step: a wave until it ends or waits; below 0 if it has gone wrong."""
    return f"""
define internal i32 @wave_step(ptr %context, ptr %job, ptr %state, i64 %wave, i64 %last,
                               i32 %resume, i64 %budget) {{
{_field("tail", "job", layout.JOB_TAIL, "ptr")}{_field("full", "job", layout.JOB_FULL, "ptr")}
{_field("tail.exec", "job", layout.JOB_TAIL_EXEC)}
{_field("full.exec", "job", layout.JOB_FULL_EXEC)}
  %budget.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_BUDGET}
  store i64 %budget, ptr %budget.at
  %is.last = icmp eq i64 %wave, %last
  %partial = icmp ne i64 %tail.exec, %full.exec
  %use.tail = and i1 %is.last, %partial
  %kernel = select i1 %use.tail, ptr %tail, ptr %full
  %result = call i32 %kernel(ptr %state, ptr %context, i32 %resume)
  %left = load i64, ptr %budget.at
  %jumps = sub i64 %budget, %left
  %work.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_WORK}
  %work = load i64, ptr %work.at
  %more = add i64 %work, %jumps
  %work.now = add i64 %more, 1
  store i64 %work.now, ptr %work.at
  %fault.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_FAULT}
  %fault = load i32, ptr %fault.at
  %well = icmp eq i32 %fault, 0
  br i1 %well, label %no.fault, label %stop
no.fault:
  %gave.up = icmp slt i32 %result, 0
  br i1 %gave.up, label %hang, label %fine
hang:
  store i32 {layout.FAULT_HANG}, ptr %fault.at
  %now.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_WAVE}
  %now = load i64, ptr %now.at
  %fault.wave.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_FAULT_WAVE}
  store i64 %now, ptr %fault.wave.at
  br label %stop
stop:
  %stop.at = getelementptr i8, ptr %job, i64 {layout.JOB_STOP}
  store atomic i64 1, ptr %stop.at monotonic, align 8
  ret i32 -1
fine:
  ret i32 %result
}}

"""


def _first_turn() -> str:
    """In @run: readies each wave of a workgroup, and runs it until it ends or waits."""
    return f"""start:
  %w = phi i64 [ 0, %begin ], [ %w.next, %started ]
  %waiting = phi i64 [ 0, %begin ], [ %waiting.next, %started ]
  %at = mul i64 %w, %stride
  %state = getelementptr i8, ptr %states, i64 %at
  br label %scalars
; Whole rows: a wave reads addresses, and finds in the store buffer only what was stored whole.
scalars:
  %i = phi i64 [ 0, %start ], [ %i.next, %scalars ]
  %from = getelementptr i32, ptr %scalars.from, i64 %i
  %to = getelementptr i32, ptr %state, i64 %i
  %scalar.row = load <16 x i32>, ptr %from, align 4
  store <16 x i32> %scalar.row, ptr %to, align 4
  %i.next = add i64 %i, 16
  %i.more = icmp ult i64 %i.next, %scalar.count
  br i1 %i.more, label %scalars, label %copied
copied:
{_identity("x")}{_identity("y")}{_identity("z")}
  %own.0 = mul i64 %w, %scratch.bytes
  %wants.offset = icmp sge i64 %offset.register, 0
  br i1 %wants.offset, label %give.offset, label %given.offset
give.offset:
  %offset.slot = getelementptr i32, ptr %state, i64 %offset.register
  %offset.wide = add i64 %scratch.offset, %own.0
  %offset.short = trunc i64 %offset.wide to i32
  store i32 %offset.short, ptr %offset.slot
  br label %given.offset
{_registers()}"""


def _registers() -> str:
    """In @run: a wave's vector registers and lanes, and its first step."""
    return f"""given.offset:
  %threads.offset = mul i64 %w, %vector.bytes
  %ids = getelementptr i8, ptr %threads, i64 %threads.offset
  %vectors = getelementptr i8, ptr %state, i64 {layout.STATE_VECTORS}
  br label %lanes
lanes:
  %j = phi i64 [ 0, %given.offset ], [ %j.next, %lanes ]
  %ids.at = getelementptr i8, ptr %ids, i64 %j
  %id.row = load <16 x i32>, ptr %ids.at, align 4
  %vector.at = getelementptr i8, ptr %vectors, i64 %j
  store <16 x i32> %id.row, ptr %vector.at, align 4
  %j.next = add i64 %j, 64
  %j.more = icmp ult i64 %j.next, %vector.bytes
  br i1 %j.more, label %lanes, label %launch
launch:
  %is.last = icmp eq i64 %w, %last
  %exec = select i1 %is.last, i64 %tail.exec, i64 %full.exec
  %exec.at = getelementptr i32, ptr %state, i64 126
  store i64 %exec, ptr %exec.at
  %number = add i64 %wave.base, %w
  store i64 %number, ptr %wave.at
  %own = add i64 %scratch, %own.0
  store i64 %own, ptr %scratch.at.now
  %votes.at = getelementptr i8, ptr %state, i64 {layout.STATE_VOTES}
  store i64 0, ptr %votes.at, align 4
  %held.at = getelementptr i8, ptr %state, i64 {layout.STATE_HELD}
  store i32 0, ptr %held.at
  %result = call i32 @wave_step(ptr %context, ptr %job, ptr %state, i64 %w,
                             i64 %last, i32 0, i64 %budget)
  %resume.at = getelementptr i8, ptr %state, i64 {layout.STATE_RESUME}
  store i32 %result, ptr %resume.at
  %bad = icmp slt i32 %result, 0
  br i1 %bad, label %done, label %started
started:
  %waits = icmp sgt i32 %result, 0
  %waits.wide = zext i1 %waits to i64
  %waiting.next = add i64 %waiting, %waits.wide
  %w.next = add i64 %w, 1
  %w.more = icmp ult i64 %w.next, %waves
  br i1 %w.more, label %start, label %round
"""


def _rounds() -> str:
    """In @run: goes on with waves that waited, until all have ended."""
    return f"""round:
  %pending = phi i64 [ %waiting.next, %started ], [ %pending.next, %stepped ]
  %any = icmp ne i64 %pending, 0
  br i1 %any, label %between, label %take
between:
  br i1 %is.numbered, label %meeting, label %steps
meeting:
  %some = call i1 @meet(ptr %states, i64 %stride, i64 %waves, ptr %counts)
  br i1 %some, label %steps, label %stuck
stuck:
  %fault.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_FAULT}
  store i32 {layout.FAULT_HANG}, ptr %fault.at
  %fault.wave.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_FAULT_WAVE}
  store i64 %wave.base, ptr %fault.wave.at
  store atomic i64 1, ptr %stop.at monotonic, align 8
  br label %done
steps:
  br label %step
step:
  %v = phi i64 [ 0, %steps ], [ %v.next, %skipped ]
  %count.so.far = phi i64 [ 0, %steps ], [ %count.now, %skipped ]
  %v.offset = mul i64 %v, %stride
  %v.state = getelementptr i8, ptr %states, i64 %v.offset
  %v.resume.at = getelementptr i8, ptr %v.state, i64 {layout.STATE_RESUME}
  %v.resume = load i32, ptr %v.resume.at
  %v.waits = icmp sgt i32 %v.resume, 0
  br i1 %v.waits, label %may.go, label %skipped
may.go:
  %v.held.at = getelementptr i8, ptr %v.state, i64 {layout.STATE_HELD}
  %v.held = load i32, ptr %v.held.at
  %v.free = icmp eq i32 %v.held, 0
  br i1 %v.free, label %go.on, label %skipped
go.on:
  %v.number = add i64 %wave.base, %v
  store i64 %v.number, ptr %wave.at
  %v.own.0 = mul i64 %v, %scratch.bytes
  %v.own = add i64 %scratch, %v.own.0
  store i64 %v.own, ptr %scratch.at.now
  %v.result = call i32 @wave_step(ptr %context, ptr %job, ptr %v.state, i64 %v,
                               i64 %last, i32 %v.resume, i64 %budget)
  store i32 %v.result, ptr %v.resume.at
  %v.bad = icmp slt i32 %v.result, 0
  br i1 %v.bad, label %done, label %went
went:
  %v.again = icmp sgt i32 %v.result, 0
  %v.again.wide = zext i1 %v.again to i64
  br label %skipped
skipped:
  %more.waiting = phi i64 [ 0, %step ], [ 1, %may.go ], [ %v.again.wide, %went ]
  %count.now = add i64 %count.so.far, %more.waiting
  %v.next = add i64 %v, 1
  %v.more = icmp ult i64 %v.next, %waves
  br i1 %v.more, label %step, label %stepped
stepped:
  %pending.next = add i64 %count.now, 0
  br label %round
"""


def _run(set_mode: str, reset_mode: str) -> str:
    """@run: workgroups of a job until none is left."""
    fields = "".join(
        _field(name, "job", getattr(layout, constant))
        for name, constant in (line.split() for line in _FIELDS.split("\n") if line)
    )
    return f"""define internal void @run(ptr %context) {{
entry:
{_field("job", "context", layout.CONTEXT_JOB, "ptr")}{fields}
{_field("states", "context", layout.CONTEXT_STATES, "ptr")}
{_field("end.at", "job", layout.JOB_END_AT, "ptr")}
{_field("scratch", "context", layout.CONTEXT_SCRATCH)}
{_field("scratch.offset", "context", layout.CONTEXT_SCRATCH_OFFSET)}
{_field("scalars.from", "job", layout.JOB_SCALARS, "ptr")}
{_field("threads", "job", layout.JOB_THREAD_IDS, "ptr")}
  %next.at = getelementptr i8, ptr %job, i64 {layout.JOB_NEXT}
  %stop.at = getelementptr i8, ptr %job, i64 {layout.JOB_STOP}
  %wave.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_WAVE}
  %scratch.at.now = getelementptr i8, ptr %context, i64 {layout.CONTEXT_SCRATCH}
  %last = sub i64 %waves, 1
  %counts = alloca {meetings.COUNTS}, align 64
  %is.numbered = icmp ne i64 %numbered, 0
{set_mode}
  br label %take
take:
  %group = atomicrmw add ptr %next.at, i64 1 monotonic
  %left = icmp ult i64 %group, %count
  %stopped = load atomic i64, ptr %stop.at monotonic, align 8
  %running = icmp eq i64 %stopped, 0
  %ended = load atomic i32, ptr %end.at monotonic, align 4
  %wanted = icmp eq i32 %ended, 0
  %going = and i1 %running, %wanted
  %go = and i1 %left, %going
  br i1 %go, label %begin, label %done
begin:
  %group.x = urem i64 %group, %grid.x
  %row = udiv i64 %group, %grid.x
  %group.y = urem i64 %row, %grid.y
  %group.z = udiv i64 %row, %grid.y
  %wave.base = mul i64 %group, %waves
  store {meetings.COUNTS} zeroinitializer, ptr %counts
  br label %start
{_first_turn()}{_rounds()}done:
  store i64 %scratch, ptr %scratch.at.now
{reset_mode}
  ret void
}}
"""


_SHARE = """
define internal void @share(ptr %contexts, i32 %number, i32 %y, i32 %z) {
  %wide = zext i32 %number to i64
  %context.at = getelementptr ptr, ptr %contexts, i64 %wide
  %context = load ptr, ptr %context.at
  call void @run(ptr %context)
  ret void
}
"""
"""One thread's share of a dispatch, as a block of the processor's kernels (native/pool.py)."""


def text(arch: str) -> str:
    """The IR of @run for one instruction set; others than x86_64 keep the thread's own mode."""
    declarations, set_mode, reset_mode = FLOAT_MODES.get(arch, ("", "", ""))
    return f"""{declarations}{meetings.text()}{_step()}{_run(set_mode, reset_mode)}{_SHARE}"""
