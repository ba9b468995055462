"""Atomic operations on 32 or 64 bits, as LLVM has them, or as what is tried until it succeeds."""

from __future__ import annotations

ATOMICS = {
    "swap": "xchg", "add": "add", "sub": "sub", "min_i": "min", "min_u": "umin", "max_i": "max",
    "max_u": "umax", "and": "and", "or": "or", "xor": "xor", "inc": "uinc_wrap",
    "dec": "udec_wrap", "add_f": "fadd", "min_f": "fmin", "max_f": "fmax",
}


def _widened(name: str) -> str:
    """Two bfloat16 as float32."""
    return f"""
  %{name}.h = bitcast {{i}} %{name} to <{{h}} x i16>
  %{name}.w = zext <{{h}} x i16> %{name}.h to <{{h}} x i32>
  %{name}.u = shl <{{h}} x i32> %{name}.w, splat (i32 16)
  %{name}.f = bitcast <{{h}} x i32> %{name}.u to <{{h}} x float>"""


RETRIED = {
    # Those without an operation of the host: %new of %seen, %value and %compare.
    "rsub": "  %new = sub {i} %value, %seen",
    "mskor": """  %kept.0 = xor {i} %value, -1
  %kept = and {i} %seen, %kept.0
  %new = or {i} %kept, %compare""",
    "wrap": """  %reached = icmp uge {i} %seen, %value
  %down = sub {i} %seen, %value
  %up = add {i} %seen, %compare
  %new = select i1 %reached, {i} %down, {i} %up""",
    "csub": """  %enough = icmp uge {i} %seen, %value
  %down = sub {i} %seen, %value
  %new = select i1 %enough, {i} %down, {i} 0""",
    "cond_sub": """  %enough = icmp uge {i} %seen, %value
  %down = sub {i} %seen, %value
  %new = select i1 %enough, {i} %down, {i} %seen""",
    "cmpswap_f": """  %seen.f = bitcast {i} %seen to {f}
  %compare.f = bitcast {i} %compare to {f}
  %same = fcmp oeq {f} %seen.f, %compare.f
  %new = select i1 %same, {i} %value, {i} %seen""",
    "pk_add": """  %seen.h = bitcast {i} %seen to <{h} x half>
  %value.h = bitcast {i} %value to <{h} x half>
  %sum.h = fadd <{h} x half> %seen.h, %value.h
  %new = bitcast <{h} x half> %sum.h to {i}""",
    "pk_add_bf": _widened("seen") + _widened("value") + """
  %sum.f = fadd <{h} x float> %seen.f, %value.f
  %sum.w = bitcast <{h} x float> %sum.f to <{h} x i32>
  %sum.up = lshr <{h} x i32> %sum.w, splat (i32 16)
  %sum.odd = and <{h} x i32> %sum.up, splat (i32 1)
  %sum.half = add <{h} x i32> %sum.odd, splat (i32 32767)
  %sum.near = add <{h} x i32> %sum.w, %sum.half
  %sum.cut = lshr <{h} x i32> %sum.near, splat (i32 16)
  %sum.nan = fcmp uno <{h} x float> %sum.f, %sum.f
  %sum.one = select <{h} x i1> %sum.nan, <{h} x i32> splat (i32 32767), <{h} x i32> %sum.cut
  %sum.h = trunc <{h} x i32> %sum.one to <{h} x i16>
  %new = bitcast <{h} x i16> %sum.h to {i}""",
}
EVERY_ATOMIC = (*ATOMICS, *RETRIED, "cmpswap")
