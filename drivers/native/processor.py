"""LLVM IR of the command processor: the thread that consumes one queue's ring.

It alone moves `tail`, and only after a record has been carried out, so a record is never
overwritten while it is read. `execute` returns false only when the queue is being stopped.
"""

TEXT = """
define internal i1 @stopping(ptr %queue) {
  %stop.at = getelementptr i8, ptr %queue, i64 $Queue.stop
  %stop = load atomic i32, ptr %stop.at acquire, align 4
  %yes = icmp ne i32 %stop, 0
  ret i1 %yes
}

; Waits for another timeline in slices, so that stop is seen; false when stopped.
define internal i1 @wait_for(ptr %queue, ptr %timeline, i64 %value) noinline {
entry:
  br label %loop
loop:
  %came = call i32 @timeline_wait(ptr %timeline, i64 %value, i64 20000000)
  %yes = icmp ne i32 %came, 0
  br i1 %yes, label %done, label %missed
missed:
  %stop = call i1 @stopping(ptr %queue)
  br i1 %stop, label %stopped, label %loop
done:
  ret i1 true
stopped:
  ret i1 false
}

; Waits for a memory location: spins as long as any wait does, then looks every 50 microseconds.
define internal i1 @poll_for(ptr %queue, ptr %record) noinline {
entry:
  %nowhere = alloca i32
  store i32 0, ptr %nowhere
  %host = load ptr, ptr %queue
  %address.at = getelementptr i8, ptr %record, i64 $POLL.address
  %address = load ptr, ptr %address.at
  %value.at = getelementptr i8, ptr %record, i64 $POLL.value
  %value = load i64, ptr %value.at
  %size.at = getelementptr i8, ptr %record, i64 $POLL.size_bytes
  %size = load i64, ptr %size.at
  %compare.at = getelementptr i8, ptr %record, i64 $POLL.compare
  %compare = load i64, ptr %compare.at
  %short = icmp eq i64 %size, 4
  %equality = icmp eq i64 %compare, $COMPARE_EQUAL
  %spin.at = getelementptr i8, ptr %host, i64 $Host.spin_ns
  %spin.ns = load i64, ptr %spin.at
  %start = call i64 @now(ptr %host)
  %spin.end = add i64 %start, %spin.ns
  br label %look
look:
  br i1 %short, label %look.4, label %look.8
look.4:
  %seen.4 = load atomic i32, ptr %address acquire, align 4
  %wide.4 = zext i32 %seen.4 to i64
  br label %test
look.8:
  %seen.8 = load atomic i64, ptr %address acquire, align 8
  br label %test
test:
  %seen = phi i64 [ %wide.4, %look.4 ], [ %seen.8, %look.8 ]
  %equal = icmp eq i64 %seen, %value
  %reached = icmp uge i64 %seen, %value
  %there = select i1 %equality, i1 %equal, i1 %reached
  br i1 %there, label %done, label %again
again:
  %stop = call i1 @stopping(ptr %queue)
  br i1 %stop, label %stopped, label %pause
pause:
  $relax
  %time = call i64 @yield_now(ptr %host)
  %spinning = icmp ult i64 %time, %spin.end
  br i1 %spinning, label %look, label %nap
nap:
  %slept = call i64 @futex_wait(ptr %host, ptr %nowhere, i32 0, i64 50000)
  br label %look
done:
  ret i1 true
stopped:
  ret i1 false
}

define internal void @write_memory(ptr %record) {
entry:
  %address.at = getelementptr i8, ptr %record, i64 $WRITE.address
  %address = load ptr, ptr %address.at
  %value.at = getelementptr i8, ptr %record, i64 $WRITE.value
  %value = load i64, ptr %value.at
  %size.at = getelementptr i8, ptr %record, i64 $WRITE.size_bytes
  %size = load i64, ptr %size.at
  %short = icmp eq i64 %size, 4
  br i1 %short, label %write.4, label %write.8
write.4:
  %value.4 = trunc i64 %value to i32
  store atomic i32 %value.4, ptr %address release, align 4    ; a poll that sees it acquires
  ret void
write.8:
  store atomic i64 %value, ptr %address release, align 8
  ret void
}

define internal void @copy_memory(ptr %queue, ptr %record) {
  %host = load ptr, ptr %queue
  %move.at = getelementptr i8, ptr %host, i64 $Host.memmove
  %move = load ptr, ptr %move.at
  %destination.at = getelementptr i8, ptr %record, i64 $COPY.destination
  %destination = load ptr, ptr %destination.at
  %source.at = getelementptr i8, ptr %record, i64 $COPY.source
  %source = load ptr, ptr %source.at
  %size.at = getelementptr i8, ptr %record, i64 $COPY.size_bytes
  %size = load i64, ptr %size.at
  %result = call ptr %move(ptr %destination, ptr %source, i64 %size)
  ret void
}

define internal i1 @execute(ptr %queue, ptr %record) noinline {
entry:
  %current.at = getelementptr i8, ptr %queue, i64 $Queue.current
  store atomic ptr %record, ptr %current.at release, align 8
  %opcode = load i32, ptr %record
  switch i32 %opcode, label %done [
    i32 $SIGNAL, label %signal
    i32 $WAIT, label %wait
    i32 $TIMESTAMP, label %timestamp
    i32 $BARRIER, label %barrier
    i32 $EXEC, label %exec
    i32 $COPY, label %copy
    i32 $WRITE, label %write
    i32 $POLL, label %poll
  ]
signal:
  %signal.timeline.at = getelementptr i8, ptr %record, i64 $SIGNAL.timeline
  %signal.timeline = load ptr, ptr %signal.timeline.at
  %signal.value.at = getelementptr i8, ptr %record, i64 $SIGNAL.value
  %signal.value = load i64, ptr %signal.value.at
  call void @timeline_signal(ptr %signal.timeline, i64 %signal.value)
  br label %done
wait:
  %wait.timeline.at = getelementptr i8, ptr %record, i64 $WAIT.timeline
  %wait.timeline = load ptr, ptr %wait.timeline.at
  %wait.value.at = getelementptr i8, ptr %record, i64 $WAIT.value
  %wait.value = load i64, ptr %wait.value.at
  %waited = call i1 @wait_for(ptr %queue, ptr %wait.timeline, i64 %wait.value)
  ret i1 %waited
timestamp:
  %host = load ptr, ptr %queue
  %time = call i64 @now(ptr %host)
  %time.at.at = getelementptr i8, ptr %record, i64 $TIMESTAMP.address
  %time.at = load ptr, ptr %time.at.at
  store atomic i64 %time, ptr %time.at release, align 8
  br label %done
barrier:
  fence seq_cst                  ; records run in order, each to its end: nothing else to do
  br label %done
exec:
  call void @run_kernel(ptr %queue, ptr %record)
  br label %done
copy:
  call void @copy_memory(ptr %queue, ptr %record)
  br label %done
write:
  call void @write_memory(ptr %record)
  br label %done
poll:
  %polled = call i1 @poll_for(ptr %queue, ptr %record)
  ret i1 %polled
done:
  ret i1 true
}

; Runs a list in device memory and brings the queue's own timeline to the record's value.
define internal i1 @execute_list(ptr %queue, ptr %record) {
entry:
  %list.at = getelementptr i8, ptr %record, i64 $INDIRECT.list
  %list = load ptr, ptr %list.at
  %count.at = getelementptr i8, ptr %record, i64 $INDIRECT.count
  %count = load i64, ptr %count.at
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %body, label %done
body:
  %stop = call i1 @stopping(ptr %queue)
  br i1 %stop, label %stopped, label %run
run:
  %offset = mul i64 %i, $Record.SIZE
  %each = getelementptr i8, ptr %list, i64 %offset
  %ran = call i1 @execute(ptr %queue, ptr %each)
  br i1 %ran, label %next, label %stopped
next:
  %i.next = add i64 %i, 1
  br label %loop
done:
  %timeline.at = getelementptr i8, ptr %queue, i64 $Queue.timeline
  %timeline = load ptr, ptr %timeline.at
  %value.at = getelementptr i8, ptr %record, i64 $INDIRECT.value
  %value = load i64, ptr %value.at
  call void @timeline_signal(ptr %timeline, i64 %value)
  ret i1 true
stopped:
  ret i1 false
}

; Sleeps until head has moved past tail or the queue is stopped: first awake, then on the futex.
define internal void @idle(ptr %queue, i64 %tail) noinline {
entry:
  %host = load ptr, ptr %queue
  %current.at = getelementptr i8, ptr %queue, i64 $Queue.current
  store atomic ptr null, ptr %current.at release, align 8
  %head.at = getelementptr i8, ptr %queue, i64 $Queue.head
  %word = getelementptr i8, ptr %queue, i64 $Queue.doorbell
  %sleepers = getelementptr i8, ptr %queue, i64 $Queue.doorbell_sleepers
  %spin.at = getelementptr i8, ptr %host, i64 $Host.spin_ns
  %spin.ns = load i64, ptr %spin.at
  %start = call i64 @now(ptr %host)
  %spin.end = add i64 %start, %spin.ns
  br label %spin
spin:
  %turn = phi i64 [ 0, %entry ], [ %turn.next, %again ], [ %turn.next, %clock ]
  $relax
  %head = load atomic i64, ptr %head.at acquire, align 8
  %work = icmp ne i64 %head, %tail
  br i1 %work, label %done, label %again
again:
  %turn.next = add i64 %turn, 1
  %low = and i64 %turn.next, 15
  %look = icmp eq i64 %low, 0
  br i1 %look, label %clock, label %spin
clock:
  %time = call i64 @yield_now(ptr %host)
  %more = icmp ult i64 %time, %spin.end
  br i1 %more, label %spin, label %sleep
sleep:
  %counted = atomicrmw add ptr %sleepers, i32 1 seq_cst
  %sequence = load atomic i32, ptr %word acquire, align 4
  fence seq_cst                                               ; pairs with the one in @notify
  %head.last = load atomic i64, ptr %head.at acquire, align 8
  %none = icmp eq i64 %head.last, %tail
  %stop = call i1 @stopping(ptr %queue)
  %go = xor i1 %stop, true
  %nap.now = and i1 %none, %go
  br i1 %nap.now, label %nap, label %awake
nap:
  %slept = call i64 @futex_wait(ptr %host, ptr %word, i32 %sequence, i64 1000000000000)
  br label %awake
awake:
  %uncounted = atomicrmw sub ptr %sleepers, i32 1 monotonic
  br label %done
done:
  ret void
}

; The thread: carries out records until the queue is stopped.
define hidden ptr @processor(ptr %queue) {
entry:
  call void @ieee_arithmetic()
  %host = load ptr, ptr %queue
  %head.at = getelementptr i8, ptr %queue, i64 $Queue.head
  %tail.at = getelementptr i8, ptr %queue, i64 $Queue.tail
  %space = getelementptr i8, ptr %queue, i64 $Queue.space
  %first = load i64, ptr %tail.at
  br label %loop
loop:
  %tail = phi i64 [ %first, %entry ], [ %tail, %rest ], [ %tail.next, %advance ]
  %stop = call i1 @stopping(ptr %queue)
  br i1 %stop, label %stopped, label %look
look:
  %head = load atomic i64, ptr %head.at acquire, align 8      ; pairs with @publish's release
  %empty = icmp eq i64 %head, %tail
  br i1 %empty, label %rest, label %work
rest:
  call void @idle(ptr %queue, i64 %tail)
  br label %loop
work:
  %record = call ptr @ring_record(ptr %queue, i64 %tail)
  %opcode = load i32, ptr %record
  %is.list = icmp eq i32 %opcode, $INDIRECT
  br i1 %is.list, label %list, label %single
list:
  %list.done = call i1 @execute_list(ptr %queue, ptr %record)
  br i1 %list.done, label %advance, label %stopped
single:
  %single.done = call i1 @execute(ptr %queue, ptr %record)
  br i1 %single.done, label %advance, label %stopped
advance:
  %tail.next = add i64 %tail, 1
  store atomic i64 %tail.next, ptr %tail.at release, align 8  ; the record may be overwritten
  call void @notify(ptr %host, ptr %space, i64 2147483647)
  br label %loop
stopped:
  %stopped.at = getelementptr i8, ptr %queue, i64 $Queue.stopped
  store atomic i32 1, ptr %stopped.at release, align 4        ; the last touch of the queue
  ret ptr null
}

; Tells the thread to end after its present record.
define hidden void @queue_stop(ptr %queue) {
  %host = load ptr, ptr %queue
  %stop.at = getelementptr i8, ptr %queue, i64 $Queue.stop
  store atomic i32 1, ptr %stop.at release, align 4
  %word = getelementptr i8, ptr %queue, i64 $Queue.doorbell
  call void @futex_wake(ptr %host, ptr %word, i64 2147483647)
  ret void
}
"""
