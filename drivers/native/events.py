"""LLVM IR of waiting and signalling: the clock, futexes and timelines.

Every sleep follows one scheme. The sleeper counts itself, reads the futex word, looks at the
condition again and sleeps on the word it read. The waker changes the condition, looks at the
count and, if somebody is there, moves the word and wakes. A seq_cst fence on both sides
between the two steps means that at least one of them sees the other: no wake-up is lost.
`$Name.field` are byte offsets from `layout.py`.
"""

TEXT = """
declare i64 @llvm.umin.i64(i64, i64)

define internal i64 @now(ptr %host) noinline {
  %time = alloca [2 x i64]
  %clock.at = getelementptr i8, ptr %host, i64 $Host.clock_gettime
  %clock = load ptr, ptr %clock.at
  %result = call i32 %clock(i32 1, ptr %time)                 ; CLOCK_MONOTONIC
  %seconds = load i64, ptr %time
  %rest.at = getelementptr i8, ptr %time, i64 8
  %rest = load i64, ptr %rest.at
  %whole = mul i64 %seconds, 1000000000
  %ns = add i64 %whole, %rest
  ret i64 %ns
}

; What a spinning thread does between looks: lets others run on its processor, if any want to
; (a spinner may stand in the way of the very thread it waits for), and reads the clock.
define internal i64 @yield_now(ptr %host) noinline {
  %yield.at = getelementptr i8, ptr %host, i64 $Host.sched_yield
  %yield = load ptr, ptr %yield.at
  %result = call i32 %yield()
  %time = call i64 @now(ptr %host)
  ret i64 %time
}

; Sleeps while *word == seen, at most timeout_ns. Nonzero: timed out, a signal, or *word moved.
define internal i64 @futex_wait(ptr %host, ptr %word, i32 %seen, i64 %timeout_ns) noinline {
  %limit = alloca [2 x i64]
  %limit.ns = getelementptr i8, ptr %limit, i64 8
  %seconds = udiv i64 %timeout_ns, 1000000000
  %rest = urem i64 %timeout_ns, 1000000000
  store i64 %seconds, ptr %limit
  store i64 %rest, ptr %limit.ns
  %syscall.at = getelementptr i8, ptr %host, i64 $Host.syscall
  %syscall = load ptr, ptr %syscall.at
  %number.at = getelementptr i8, ptr %host, i64 $Host.futex_number
  %number = load i64, ptr %number.at
  %wide = zext i32 %seen to i64
  ; FUTEX_WAIT | FUTEX_PRIVATE_FLAG
  %result = call i64 (i64, ...) %syscall(i64 %number, ptr %word, i64 128, i64 %wide, ptr %limit,
                                         ptr null, i64 0)
  ret i64 %result
}

; Moves the word and wakes up to `count` of those who sleep on it.
define internal void @futex_wake(ptr %host, ptr %word, i64 %count) noinline {
  %old = atomicrmw add ptr %word, i32 1 seq_cst
  %syscall.at = getelementptr i8, ptr %host, i64 $Host.syscall
  %syscall = load ptr, ptr %syscall.at
  %number.at = getelementptr i8, ptr %host, i64 $Host.futex_number
  %number = load i64, ptr %number.at
  ; FUTEX_WAKE | FUTEX_PRIVATE_FLAG
  %result = call i64 (i64, ...) %syscall(i64 %number, ptr %word, i64 129, i64 %count, ptr null,
                                         ptr null, i64 0)
  ret void
}

; Wakes up to `count` sleepers, if the word after `word` says that there are any.
define internal void @notify(ptr %host, ptr %word, i64 %count) {
  fence seq_cst                                               ; pairs with the sleeper's fence
  %sleepers.at = getelementptr i8, ptr %word, i64 4
  %sleepers = load atomic i32, ptr %sleepers.at monotonic, align 4
  %nobody = icmp eq i32 %sleepers, 0
  br i1 %nobody, label %done, label %wake
wake:
  call void @futex_wake(ptr %host, ptr %word, i64 %count)
  br label %done
done:
  ret void
}

; 1 once the timeline has reached `value`. 0 after timeout_ns, and after a signal to this thread:
; the caller looks at its own deadline and asks again.
define hidden i32 @timeline_wait(ptr %timeline, i64 %value, i64 %timeout_ns) {
entry:
  %first = load atomic i64, ptr %timeline acquire, align 8    ; acquires all before the signal
  %early = icmp uge i64 %first, %value
  br i1 %early, label %reached, label %prepare
prepare:
  %host.at = getelementptr i8, ptr %timeline, i64 $Timeline.host
  %host = load ptr, ptr %host.at
  %word = getelementptr i8, ptr %timeline, i64 $Timeline.sequence
  %sleepers = getelementptr i8, ptr %timeline, i64 $Timeline.sleepers
  %spin.at = getelementptr i8, ptr %host, i64 $Host.spin_ns
  %spin.ns = load i64, ptr %spin.at
  %start = call i64 @now(ptr %host)
  %deadline = add i64 %start, %timeout_ns
  %spin.most = call i64 @llvm.umin.i64(i64 %spin.ns, i64 %timeout_ns)
  %spin.end = add i64 %start, %spin.most
  br label %spin
spin:
  %turn = phi i64 [ 0, %prepare ], [ %turn.next, %again ], [ %turn.next, %clock ]
  $relax
  %seen = load atomic i64, ptr %timeline acquire, align 8
  %now.there = icmp uge i64 %seen, %value
  br i1 %now.there, label %reached, label %again
again:
  %turn.next = add i64 %turn, 1
  %low = and i64 %turn.next, 15
  %look = icmp eq i64 %low, 0
  br i1 %look, label %clock, label %spin
clock:
  %spun = call i64 @yield_now(ptr %host)
  %more = icmp ult i64 %spun, %spin.end
  br i1 %more, label %spin, label %sleep
sleep:
  %counted = atomicrmw add ptr %sleepers, i32 1 seq_cst
  %sequence = load atomic i32, ptr %word acquire, align 4
  fence seq_cst                                               ; pairs with the one in @notify
  %last = load atomic i64, ptr %timeline acquire, align 8
  %in.time = icmp uge i64 %last, %value
  br i1 %in.time, label %awake, label %measure
measure:
  %time = call i64 @now(ptr %host)
  %left = sub i64 %deadline, %time
  %late = icmp sle i64 %left, 0
  br i1 %late, label %awake, label %nap
nap:
  %slept = call i64 @futex_wait(ptr %host, ptr %word, i32 %sequence, i64 %left)
  br label %awake
awake:
  %result = phi i64 [ -1, %sleep ], [ -1, %measure ], [ %slept, %nap ]
  %uncounted = atomicrmw sub ptr %sleepers, i32 1 monotonic
  %after = load atomic i64, ptr %timeline acquire, align 8
  %there = icmp uge i64 %after, %value
  br i1 %there, label %reached, label %missed
missed:
  %woken = icmp eq i64 %result, 0
  br i1 %woken, label %sleep, label %expired
reached:
  ret i32 1
expired:
  ret i32 0
}

; Brings the timeline to `value`, never back, and wakes those who wait for it.
define hidden void @timeline_signal(ptr %timeline, i64 %value) {
  %old = atomicrmw umax ptr %timeline, i64 %value release     ; releases all before it
  %host.at = getelementptr i8, ptr %timeline, i64 $Timeline.host
  %host = load ptr, ptr %host.at
  %word = getelementptr i8, ptr %timeline, i64 $Timeline.sequence
  call void @notify(ptr %host, ptr %word, i64 2147483647)
  ret void
}
"""
