"""LLVM IR of the producers' side: room in the ring, patches, submit and replay.

Callers hold the queue's lock, so `head`, `submitted` and a bound list's state have one writer.
A record is complete in memory before `head` moves past it (release, paired with the command
processor's acquire). Both entry points return the point's value, or a negative number:
-1 the ring is full or an argument block still in flight, ask again; -2 - i: value of patch i
is out of its limits. With timeout_ns = 0 they never sleep.
"""

TEXT = """
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

; The command processor's doorbell.
define hidden void @kick(ptr %queue) {
  %host = load ptr, ptr %queue
  %word = getelementptr i8, ptr %queue, i64 $Queue.doorbell
  call void @notify(ptr %host, ptr %word, i64 1)
  ret void
}

define internal i64 @free_records(ptr %queue) {
  %head.at = getelementptr i8, ptr %queue, i64 $Queue.head
  %head = load i64, ptr %head.at
  %tail.at = getelementptr i8, ptr %queue, i64 $Queue.tail
  %tail = load atomic i64, ptr %tail.at acquire, align 8      ; records before tail are read
  %mask.at = getelementptr i8, ptr %queue, i64 $Queue.mask
  %mask = load i64, ptr %mask.at
  %size = add i64 %mask, 1
  %used = sub i64 %head, %tail
  %free = sub i64 %size, %used
  ret i64 %free
}

; Whether `need` records are free, waiting for the command processor up to timeout_ns.
define internal i1 @reserve(ptr %queue, i64 %need, i64 %timeout_ns) {
entry:
  %free = call i64 @free_records(ptr %queue)
  %early = icmp uge i64 %free, %need
  br i1 %early, label %room, label %patience
patience:
  %hasty = icmp eq i64 %timeout_ns, 0
  br i1 %hasty, label %full, label %prepare
prepare:
  %host = load ptr, ptr %queue
  %word = getelementptr i8, ptr %queue, i64 $Queue.space
  %sleepers = getelementptr i8, ptr %queue, i64 $Queue.space_sleepers
  %start = call i64 @now(ptr %host)
  %deadline = add i64 %start, %timeout_ns
  br label %sleep
sleep:
  %counted = atomicrmw add ptr %sleepers, i32 1 seq_cst
  %sequence = load atomic i32, ptr %word acquire, align 4
  fence seq_cst                                               ; pairs with the one in @notify
  %free.now = call i64 @free_records(ptr %queue)
  %in.time = icmp uge i64 %free.now, %need
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
  %free.after = call i64 @free_records(ptr %queue)
  %there = icmp uge i64 %free.after, %need
  br i1 %there, label %room, label %missed
missed:
  %woken = icmp eq i64 %result, 0
  br i1 %woken, label %sleep, label %full
room:
  ret i1 true
full:
  ret i1 false
}

define internal ptr @ring_record(ptr %queue, i64 %index) {
  %mask.at = getelementptr i8, ptr %queue, i64 $Queue.mask
  %mask = load i64, ptr %mask.at
  %ring.at = getelementptr i8, ptr %queue, i64 $Queue.ring
  %ring = load ptr, ptr %ring.at
  %slot = and i64 %index, %mask
  %offset = mul i64 %slot, $Record.SIZE
  %record = getelementptr i8, ptr %ring, i64 %offset
  ret ptr %record
}

; Hands out the next value of the queue's timeline.
define internal i64 @next_value(ptr %queue) {
  %submitted.at = getelementptr i8, ptr %queue, i64 $Queue.submitted
  %submitted = load i64, ptr %submitted.at
  %value = add i64 %submitted, 1
  store i64 %value, ptr %submitted.at
  ret i64 %value
}

; Lets the command processor see the records before `head`, and tells it so.
define internal void @publish(ptr %queue, i64 %head) {
  %head.at = getelementptr i8, ptr %queue, i64 $Queue.head
  store atomic i64 %head, ptr %head.at release, align 8       ; after the records' own stores
  %kick.at = getelementptr i8, ptr %queue, i64 $Queue.kick
  %kick = load ptr, ptr %kick.at
  call void %kick(ptr %queue)
  ret void
}

; One record that runs a list in device memory; the caller has reserved room for it.
define internal i64 @push_indirect(ptr %queue, ptr %list, i64 %count) {
  %head.at = getelementptr i8, ptr %queue, i64 $Queue.head
  %head = load i64, ptr %head.at
  %value = call i64 @next_value(ptr %queue)
  %record = call ptr @ring_record(ptr %queue, i64 %head)
  store i64 $INDIRECT, ptr %record
  %list.at = getelementptr i8, ptr %record, i64 $INDIRECT.list
  store ptr %list, ptr %list.at
  %count.at = getelementptr i8, ptr %record, i64 $INDIRECT.count
  store i64 %count, ptr %count.at
  %value.at = getelementptr i8, ptr %record, i64 $INDIRECT.value
  store i64 %value, ptr %value.at
  %next = add i64 %head, 1
  call void @publish(ptr %queue, i64 %next)
  ret i64 %value
}

; Writes values into a block that nobody reads. -1, or the patch whose value is out of limits.
define hidden i64 @apply_patches(ptr %values, ptr %patches, i64 %count, ptr %block) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %body, label %done
body:
  %patch.offset = mul i64 %i, $Patch.SIZE
  %patch = getelementptr i8, ptr %patches, i64 %patch.offset
  %offset = load i32, ptr %patch
  %slot.at = getelementptr i8, ptr %patch, i64 $Patch.slot
  %slot = load i32, ptr %slot.at
  %width.at = getelementptr i8, ptr %patch, i64 $Patch.width
  %width = load i32, ptr %width.at
  %minimum.at = getelementptr i8, ptr %patch, i64 $Patch.minimum
  %minimum = load i64, ptr %minimum.at
  %maximum.at = getelementptr i8, ptr %patch, i64 $Patch.maximum
  %maximum = load i64, ptr %maximum.at
  %slot.wide = zext i32 %slot to i64
  %value.at = getelementptr i64, ptr %values, i64 %slot.wide
  %value = load i64, ptr %value.at
  %not.low = icmp sge i64 %value, %minimum
  %not.high = icmp sle i64 %value, %maximum
  %right = and i1 %not.low, %not.high
  br i1 %right, label %write, label %wrong
write:
  %offset.wide = zext i32 %offset to i64
  %target = getelementptr i8, ptr %block, i64 %offset.wide
  %short = icmp eq i32 %width, 4
  br i1 %short, label %write.4, label %write.8
write.4:
  %value.4 = trunc i64 %value to i32
  store i32 %value.4, ptr %target
  br label %next
write.8:
  store i64 %value, ptr %target, align 4
  br label %next
next:
  %i.next = add i64 %i, 1
  br label %loop
done:
  ret i64 -1
wrong:
  ret i64 %i
}

; Submits `count` records: into the ring if they fit, else as a list where they are.
define hidden i64 @queue_submit(ptr %queue, ptr %records, i64 %count, i64 %timeout_ns) {
entry:
  %mask.at = getelementptr i8, ptr %queue, i64 $Queue.mask
  %mask = load i64, ptr %mask.at
  %fits = icmp ule i64 %count, %mask
  br i1 %fits, label %direct, label %indirect
direct:
  %need = add i64 %count, 1
  %room = call i1 @reserve(ptr %queue, i64 %need, i64 %timeout_ns)
  br i1 %room, label %prepare, label %full
prepare:
  %head.at = getelementptr i8, ptr %queue, i64 $Queue.head
  %head = load i64, ptr %head.at
  br label %loop
loop:
  %i = phi i64 [ 0, %prepare ], [ %i.next, %body ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %body, label %finish
body:
  %position = add i64 %head, %i
  %record = call ptr @ring_record(ptr %queue, i64 %position)
  %offset = mul i64 %i, $Record.SIZE
  %source = getelementptr i8, ptr %records, i64 %offset
  call void @llvm.memcpy.p0.p0.i64(ptr %record, ptr %source, i64 $Record.SIZE, i1 false)
  %i.next = add i64 %i, 1
  br label %loop
finish:
  %value = call i64 @next_value(ptr %queue)
  %end = add i64 %head, %count
  %last = call ptr @ring_record(ptr %queue, i64 %end)
  store i64 $SIGNAL, ptr %last
  %own.at = getelementptr i8, ptr %queue, i64 $Queue.timeline
  %own = load ptr, ptr %own.at
  %timeline.at = getelementptr i8, ptr %last, i64 $SIGNAL.timeline
  store ptr %own, ptr %timeline.at
  %value.at = getelementptr i8, ptr %last, i64 $SIGNAL.value
  store i64 %value, ptr %value.at
  %head.next = add i64 %end, 1
  call void @publish(ptr %queue, i64 %head.next)
  ret i64 %value
indirect:
  %one = call i1 @reserve(ptr %queue, i64 1, i64 %timeout_ns)
  br i1 %one, label %push, label %full
push:
  %point = call i64 @push_indirect(ptr %queue, ptr %records, i64 %count)
  ret i64 %point
full:
  ret i64 -1
}

; Replays a bound list with the values that stand in bound.values.
define hidden i64 @queue_replay(ptr %bound, i64 %timeout_ns) {
entry:
  %queue = load ptr, ptr %bound
  %next.at = getelementptr i8, ptr %bound, i64 $Bound.next
  %copy = load i64, ptr %next.at
  %lasts = getelementptr i8, ptr %bound, i64 $Bound.last
  %last.at = getelementptr i64, ptr %lasts, i64 %copy
  %last = load i64, ptr %last.at
  %timeline.at = getelementptr i8, ptr %queue, i64 $Queue.timeline
  %timeline = load ptr, ptr %timeline.at
  ; The block was last read by the replay that signalled `last`: not before that may it change.
  %reached = load atomic i64, ptr %timeline acquire, align 8
  %retired = icmp uge i64 %reached, %last
  br i1 %retired, label %block.free, label %block.busy
block.busy:
  %hasty = icmp eq i64 %timeout_ns, 0
  br i1 %hasty, label %later, label %block.wait
block.wait:
  %came = call i32 @timeline_wait(ptr %timeline, i64 %last, i64 %timeout_ns)
  %in.time = icmp ne i32 %came, 0
  br i1 %in.time, label %block.free, label %later
block.free:
  %room = call i1 @reserve(ptr %queue, i64 1, i64 %timeout_ns)
  br i1 %room, label %patch, label %later
patch:
  %blocks.at = getelementptr i8, ptr %bound, i64 $Bound.blocks
  %blocks = load ptr, ptr %blocks.at
  %stride.at = getelementptr i8, ptr %bound, i64 $Bound.stride
  %stride = load i64, ptr %stride.at
  %offset = mul i64 %copy, %stride
  %block = getelementptr i8, ptr %blocks, i64 %offset
  %values.at = getelementptr i8, ptr %bound, i64 $Bound.values
  %values = load ptr, ptr %values.at
  %patches.at = getelementptr i8, ptr %bound, i64 $Bound.patches
  %patches = load ptr, ptr %patches.at
  %patch.count.at = getelementptr i8, ptr %bound, i64 $Bound.patch_count
  %patch.count = load i64, ptr %patch.count.at
  %bad = call i64 @apply_patches(ptr %values, ptr %patches, i64 %patch.count, ptr %block)
  %fine = icmp slt i64 %bad, 0
  br i1 %fine, label %push, label %refused
push:
  %count.at = getelementptr i8, ptr %bound, i64 $Bound.record_count
  %count = load i64, ptr %count.at
  %value = call i64 @push_indirect(ptr %queue, ptr %block, i64 %count)
  store i64 %value, ptr %last.at
  %copy.next = add i64 %copy, 1
  %wraps = icmp eq i64 %copy.next, $Bound.COPIES
  %copy.then = select i1 %wraps, i64 0, i64 %copy.next
  store i64 %copy.then, ptr %next.at
  ret i64 %value
later:
  ret i64 -1
refused:
  %code = sub i64 -2, %bad
  ret i64 %code
}
"""
