"""LLVM IR of barriers with numbers: who of a workgroup's waves has come where, and may go on."""

from __future__ import annotations

from drivers.emulated.simt import layout

BARRIERS = 16
COUNTS = f"[{5 * BARRIERS} x i32]"
"""The type of what is remembered of them for a workgroup, zeros at its start."""


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


def text() -> str:
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
    remembered = _each("c", str(BARRIERS), f"""{_counts("c", "%c")}{_complete("c")}
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
