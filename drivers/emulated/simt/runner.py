"""LLVM IR of the loop that carries out a dispatch: workgroups, their waves, their barriers.

Any number of threads may run it on one job; each takes workgroups until none is left. The waves
of a workgroup run one after another on one thread, each up to its next barrier.
"""

from __future__ import annotations

from drivers.emulated.simt import layout

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
_BARRIERS = 16


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


def _each(name: str, end: str, body: str) -> str:
    """A loop of %NAME from 0 up to a value; `body` ends with a jump to NAME.next."""
    return f"""
  br label %{name}.begin
{name}.begin:
  br label %{name}.loop
{name}.loop:
  %{name} = phi i64 [ 0, %{name}.begin ], [ %{name}.more, %{name}.next ]
  %{name}.on = icmp ult i64 %{name}, {end}
  br i1 %{name}.on, label %{name}.body, label %{name}.done
{name}.body:
{body}
{name}.next:
  %{name}.more = add i64 %{name}, 1
  br label %{name}.loop
{name}.done:
"""


def _wave_at(name: str) -> str:
    """The state of wave %NAME, whether it waits, and for what: ends in two labels."""
    fields = {"resume": "RESUME", "meeting": "MEETING", "votes": "VOTES", "voters": "VOTERS"}
    loads = "".join(
        f"  %{name}.{field}.at = getelementptr i8, ptr %{name}.state, i64 "
        f"{getattr(layout, 'STATE_' + constant)}\n"
        f"  %{name}.{field} = load i32, ptr %{name}.{field}.at\n"
        for field, constant in fields.items()
    )
    return f"""
  %{name}.offset = mul i64 %{name}, %stride
  %{name}.state = getelementptr i8, ptr %states, i64 %{name}.offset
{loads}
  %{name}.waits = icmp sgt i32 %{name}.resume, 0
  br i1 %{name}.waits, label %{name}.waiting, label %{name}.next
{name}.waiting:
  %{name}.number = and i32 %{name}.meeting, 15
  %{name}.above = lshr i32 %{name}.meeting, 4
  %{name}.kind = and i32 %{name}.above, 15
  %{name}.wanted = lshr i32 %{name}.meeting, 8
  %{name}.arrives = icmp eq i32 %{name}.kind, {layout.MEETS_ARRIVING}
"""


def _counts(name: str, number: str) -> str:
    """Where a barrier's counts are: waves that came, of these those that went on, lanes' votes for
    and in all, and how many waves are to come."""
    fields = "".join(
        f"  %{name}.{field}.at = getelementptr i32, ptr %{name}.row, i64 {n}\n"
        for n, field in enumerate(("came", "gone", "for", "all", "least"))
    )
    return f"  %{name}.row = getelementptr [5 x i32], ptr %counts, i64 {number}\n{fields}"


def _added(place: str, amount: str, name: str) -> str:
    return (f"  %{name}.old = load i32, ptr {place}\n  %{name}.new = add i32 %{name}.old, {amount}"
            f"\n  store i32 %{name}.new, ptr {place}\n")


def _complete(name: str) -> str:
    """Whether enough waves have come to a barrier: all that live, where it says no number."""
    return f"""
  %{name}.came = load i32, ptr %{name}.came.at
  %{name}.least = load i32, ptr %{name}.least.at
  %{name}.every = icmp eq i32 %{name}.least, 0
  %{name}.enough = select i1 %{name}.every, i32 %alive, i32 %{name}.least
  %{name}.complete = icmp uge i32 %{name}.came, %{name}.enough
"""


def _meet() -> str:
    """IR of @meet: of the waves that wait at barriers with numbers, which may go on.

    All waves of the workgroup that have not ended wait, each at one barrier. Those that only arrive
    go on and are remembered. Tells whether any goes on; else all wait for ever.
    """
    count = _each("a", "%waves", f"""{_wave_at("a")}
  %a.place = zext i32 %a.number to i64
{_counts("a", "%a.place")}
{_added("%alive.at", "1", "a.1")}{_added("%a.came.at", "1", "a.2")}
{_added("%a.for.at", "%a.votes", "a.3")}{_added("%a.all.at", "%a.voters", "a.4")}
  store i32 %a.wanted, ptr %a.least.at
  %a.gone.more = zext i1 %a.arrives to i32
{_added("%a.gone.at", "%a.gone.more", "a.5")}
  br label %a.next""")
    release = _each("b", "%waves", f"""{_wave_at("b")}
  %b.place = zext i32 %b.number to i64
{_counts("b", "%b.place")}{_complete("b")}
  %b.goes = or i1 %b.complete, %b.arrives
  %b.held = zext i1 %b.goes to i32
  %b.holds = xor i32 %b.held, 1
  %b.held.at = getelementptr i8, ptr %b.state, i64 {layout.STATE_HELD}
  store i32 %b.holds, ptr %b.held.at
{_added("%going.at", "%b.held", "b.1")}
  br i1 %b.goes, label %b.free, label %b.next
b.free:
  store i32 0, ptr %b.votes.at
  store i32 0, ptr %b.voters.at
  br i1 %b.arrives, label %b.next, label %b.told
b.told:
  %b.for = load i32, ptr %b.for.at
  %b.all = load i32, ptr %b.all.at
  %b.same = icmp eq i32 %b.for, %b.all
  %b.some = icmp ne i32 %b.for, 0
  %b.is.all = icmp eq i32 %b.kind, {layout.MEETS_ALL}
  %b.one = select i1 %b.is.all, i1 %b.same, i1 %b.some
  %b.truth = zext i1 %b.one to i32
  %b.counts = icmp eq i32 %b.kind, {layout.MEETS_COUNTING}
  %b.result = select i1 %b.counts, i32 %b.for, i32 %b.truth
  %b.result.at = getelementptr i8, ptr %b.state, i64 {layout.STATE_RESULT}
  store i32 %b.result, ptr %b.result.at
  br label %b.next""")
    remembered = _each("c", str(_BARRIERS), f"""{_counts("c", "%c")}{_complete("c")}
  %c.gone = load i32, ptr %c.gone.at
  %c.left = select i1 %c.complete, i32 0, i32 %c.gone
  store i32 %c.left, ptr %c.gone.at
  store i32 %c.left, ptr %c.came.at
  store i32 0, ptr %c.for.at
  store i32 0, ptr %c.all.at
  br label %c.next""")
    return f"""
define internal i1 @meet(ptr %states, i64 %stride, i64 %waves, ptr %counts) {{
  %alive.at = alloca i32
  %going.at = alloca i32
  store i32 0, ptr %alive.at
  store i32 0, ptr %going.at
{count}
  %alive = load i32, ptr %alive.at
{release}{remembered}
  %going = load i32, ptr %going.at
  %any = icmp ne i32 %going, 0
  ret i1 %any
}}
"""


def text(arch: str) -> str:
    """The IR of @run for one instruction set; others than x86_64 keep the thread's own mode."""
    fields = "".join(
        _field(name, "job", getattr(layout, constant))
        for name, constant in (line.split() for line in _FIELDS.split("\n") if line)
    )
    declarations, set_mode, reset_mode = FLOAT_MODES.get(arch, ("", "", ""))
    return f"""{declarations}{_meet()}
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

define internal void @run(ptr %context) {{
entry:
{_field("job", "context", layout.CONTEXT_JOB, "ptr")}{fields}
{_field("states", "context", layout.CONTEXT_STATES, "ptr")}
{_field("end.at", "job", layout.JOB_END_AT, "ptr")}
{_field("scratch", "context", layout.CONTEXT_SCRATCH)}
{_field("scratch.offset", "context", layout.CONTEXT_SCRATCH_OFFSET)}
{_field("scalars", "job", layout.JOB_SCALARS, "ptr")}
{_field("threads", "job", layout.JOB_THREAD_IDS, "ptr")}
  %next.at = getelementptr i8, ptr %job, i64 {layout.JOB_NEXT}
  %stop.at = getelementptr i8, ptr %job, i64 {layout.JOB_STOP}
  %wave.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_WAVE}
  %scratch.at.now = getelementptr i8, ptr %context, i64 {layout.CONTEXT_SCRATCH}
  %last = sub i64 %waves, 1
  %counts = alloca [{5 * _BARRIERS} x i32], align 64
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
  store [{5 * _BARRIERS} x i32] zeroinitializer, ptr %counts
  br label %start
start:
  %w = phi i64 [ 0, %begin ], [ %w.next, %started ]
  %waiting = phi i64 [ 0, %begin ], [ %waiting.next, %started ]
  %at = mul i64 %w, %stride
  %state = getelementptr i8, ptr %states, i64 %at
  br label %pairs
; Pairs together: a wave reads addresses, and finds in the store buffer only what was stored whole.
pairs:
  %i = phi i64 [ 0, %start ], [ %i.next, %pair ]
  %i.next = add i64 %i, 2
  %i.more = icmp ule i64 %i.next, %scalar.count
  %from = getelementptr i32, ptr %scalars, i64 %i
  %to = getelementptr i32, ptr %state, i64 %i
  br i1 %i.more, label %pair, label %rest
pair:
  %both = load volatile i64, ptr %from, align 4
  store i64 %both, ptr %to, align 4
  br label %pairs
rest:
  %odd = icmp ult i64 %i, %scalar.count
  br i1 %odd, label %single, label %copied
single:
  %value = load volatile i32, ptr %from
  store i32 %value, ptr %to
  br label %copied
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
given.offset:
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
round:
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
done:
  store i64 %scratch, ptr %scratch.at.now
{reset_mode}
  ret void
}}

; One thread's share of a dispatch, as a block of the processor's kernels (native/pool.py).
define internal void @share(ptr %contexts, i32 %number, i32 %y, i32 %z) {{
  %wide = zext i32 %number to i64
  %context.at = getelementptr ptr, ptr %contexts, i64 %wide
  %context = load ptr, ptr %context.at
  call void @run(ptr %context)
  ret void
}}
"""
