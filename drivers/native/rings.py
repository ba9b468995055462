"""LLVM IR of submission to a hardware queue: an entry of dwords in its ring, then the doorbell.

Callers hold the queue's lock. Entries have equal length and run lists that lie elsewhere; the
value of the timeline says which of them the hardware has left behind, so its read pointer, which
each generation reports in its own units, is not needed. Both entry points return the point's
value, or a negative number: -1 there is no room or the argument block is still in flight;
-2 - i: the value of patch i is out of its limits. They never wait.
"""

TEXT = """
; The default kick: tells the hardware the write pointer. What the host wrote for the device comes
; before it: the fence orders it, and `flush` (if there is one) empties the bridge's own buffers.
define hidden void @doorbell(ptr %ring) {
  %pointer.at = getelementptr i8, ptr %ring, i64 $Ring.write_pointer
  %pointer = load ptr, ptr %pointer.at
  %value = load atomic i64, ptr %pointer monotonic, align 8
  %flush.at = getelementptr i8, ptr %ring, i64 $Ring.flush
  %flush = load ptr, ptr %flush.at
  fence seq_cst
  %none = icmp eq ptr %flush, null
  br i1 %none, label %strike, label %empty
empty:
  store volatile i32 1, ptr %flush, align 4
  fence seq_cst
  br label %strike
strike:
  %bell.at = getelementptr i8, ptr %ring, i64 $Ring.doorbell
  %bell = load ptr, ptr %bell.at
  %back.at = getelementptr i8, ptr %ring, i64 $Ring.doorbell_back
  %back = load i64, ptr %back.at
  %told = sub i64 %value, %back
  store atomic volatile i64 %told, ptr %bell release, align 8
  ret void
}

; The kick of a GPFIFO: GP_PUT in its USERD, counted modulo its entries of two dwords, then the
; channel's token. Fences order what the host wrote before GP_PUT, and GP_PUT before the token.
define hidden void @gpfifo_doorbell(ptr %ring) {
  %pointer.at = getelementptr i8, ptr %ring, i64 $Ring.write_pointer
  %pointer = load ptr, ptr %pointer.at
  %value = load atomic i64, ptr %pointer monotonic, align 8
  %mask.at = getelementptr i8, ptr %ring, i64 $Ring.mask
  %mask = load i64, ptr %mask.at
  %entries.mask = lshr i64 %mask, 1
  %put = and i64 %value, %entries.mask
  %put.32 = trunc i64 %put to i32
  %put.at = getelementptr i8, ptr %ring, i64 $Ring.put
  %put.place = load ptr, ptr %put.at
  fence seq_cst
  store atomic volatile i32 %put.32, ptr %put.place release, align 4
  fence seq_cst
  %token.at = getelementptr i8, ptr %ring, i64 $Ring.token
  %token = load i64, ptr %token.at
  %token.32 = trunc i64 %token to i32
  %bell.at = getelementptr i8, ptr %ring, i64 $Ring.doorbell
  %bell = load ptr, ptr %bell.at
  store atomic volatile i32 %token.32, ptr %bell release, align 4
  ret void
}

; Whether another entry fits.
define internal i1 @ring_room(ptr %ring) {
  %timeline.at = getelementptr i8, ptr %ring, i64 $Ring.timeline
  %timeline = load ptr, ptr %timeline.at
  %reached = load atomic i64, ptr %timeline acquire, align 8
  %submitted.at = getelementptr i8, ptr %ring, i64 $Ring.submitted
  %submitted = load i64, ptr %submitted.at
  %flying = sub i64 %submitted, %reached
  %capacity.at = getelementptr i8, ptr %ring, i64 $Ring.capacity
  %capacity = load i64, ptr %capacity.at
  %room = icmp slt i64 %flying, %capacity
  ret i1 %room
}

; The place of a dword of the template whose number stands in a field of the ring.
define internal ptr @ring_place(ptr %ring, i64 %field) {
  %number.at = getelementptr i8, ptr %ring, i64 %field
  %number = load i64, ptr %number.at
  %template.at = getelementptr i8, ptr %ring, i64 $Ring.template
  %template = load ptr, ptr %template.at
  %place = getelementptr i32, ptr %template, i64 %number
  ret ptr %place
}

; Writes one entry, moves the write pointer, kicks. There is room.
define internal i64 @ring_push(ptr %ring, ptr %list, i64 %dwords) {
entry:
  %submitted.at = getelementptr i8, ptr %ring, i64 $Ring.submitted
  %submitted = load i64, ptr %submitted.at
  %value = add i64 %submitted, 1
  store i64 %value, ptr %submitted.at
  %address.at = call ptr @ring_place(ptr %ring, i64 $Ring.address_at)
  %factor.at = getelementptr i8, ptr %ring, i64 $Ring.size_factor
  %factor = load i64, ptr %factor.at
  %sized = mul i64 %dwords, %factor
  %list.number = ptrtoint ptr %list to i64
  %address = add i64 %list.number, %sized
  store i64 %address, ptr %address.at, align 4
  %flags.at = getelementptr i8, ptr %ring, i64 $Ring.size_flags
  %flags = load i64, ptr %flags.at
  %size = or i64 %dwords, %flags
  %size.32 = trunc i64 %size to i32
  %size.at = call ptr @ring_place(ptr %ring, i64 $Ring.size_at)
  store i32 %size.32, ptr %size.at
  %head.at = getelementptr i8, ptr %ring, i64 $Ring.head
  %head = load i64, ptr %head.at
  %value.mask.at = getelementptr i8, ptr %ring, i64 $Ring.value_mask
  %value.mask = load i64, ptr %value.mask.at
  %place = and i64 %head, %value.mask
  %value.base.at = getelementptr i8, ptr %ring, i64 $Ring.value_base
  %value.base = load ptr, ptr %value.base.at
  %stride.at = getelementptr i8, ptr %ring, i64 $Ring.tail_stride
  %stride = load i64, ptr %stride.at
  %tail.offset = mul i64 %place, %stride
  %tail = getelementptr i32, ptr %value.base, i64 %tail.offset
  %tail.number = ptrtoint ptr %tail to i64
  %tail.flags.at = getelementptr i8, ptr %ring, i64 $Ring.tail_flags
  %tail.flags = load i64, ptr %tail.flags.at
  %tail.flagged = add i64 %tail.number, %tail.flags
  %tail.at = call ptr @ring_place(ptr %ring, i64 $Ring.tail_at)
  store i64 %tail.flagged, ptr %tail.at, align 4
  %low = trunc i64 %value to i32
  %low.number.at = getelementptr i8, ptr %ring, i64 $Ring.low_at
  %low.number = load i64, ptr %low.number.at
  %low.at = getelementptr i32, ptr %tail, i64 %low.number
  store i32 %low, ptr %low.at
  %shifted = lshr i64 %value, 32
  %high = trunc i64 %shifted to i32
  %high.number.at = getelementptr i8, ptr %ring, i64 $Ring.high_at
  %high.number = load i64, ptr %high.number.at
  %high.at = getelementptr i32, ptr %tail, i64 %high.number
  store i32 %high, ptr %high.at

  %template.at = getelementptr i8, ptr %ring, i64 $Ring.template
  %template = load ptr, ptr %template.at
  %count.at = getelementptr i8, ptr %ring, i64 $Ring.entry_dwords
  %count = load i64, ptr %count.at
  %base.at = getelementptr i8, ptr %ring, i64 $Ring.ring
  %base = load ptr, ptr %base.at
  %mask.at = getelementptr i8, ptr %ring, i64 $Ring.mask
  %mask = load i64, ptr %mask.at
  br label %loop
loop:  ; the first dword last: with it an AQL packet becomes valid
  %left = phi i64 [ %count, %entry ], [ %i, %loop ]
  %i = sub i64 %left, 1
  %from = getelementptr i32, ptr %template, i64 %i
  %dword = load i32, ptr %from
  %position = add i64 %head, %i
  %slot = and i64 %position, %mask
  %to = getelementptr i32, ptr %base, i64 %slot
  store volatile i32 %dword, ptr %to
  %more = icmp ne i64 %i, 0
  br i1 %more, label %loop, label %publish
publish:
  %head.next = add i64 %head, %count
  store i64 %head.next, ptr %head.at
  %units.at = getelementptr i8, ptr %ring, i64 $Ring.entry_units
  %units = load i64, ptr %units.at
  %pointer.at = getelementptr i8, ptr %ring, i64 $Ring.write_pointer
  %pointer = load ptr, ptr %pointer.at
  %pointer.before = load atomic i64, ptr %pointer monotonic, align 8
  %pointer.value = add i64 %pointer.before, %units
  store atomic i64 %pointer.value, ptr %pointer release, align 8  ; after the entry's own stores
  %kick.at = getelementptr i8, ptr %ring, i64 $Ring.kick
  %kick = load ptr, ptr %kick.at
  call void %kick(ptr %ring)
  ret i64 %value
}

; Runs a list of dwords in device memory.
define hidden i64 @ring_submit(ptr %ring, ptr %list, i64 %dwords) {
  %room = call i1 @ring_room(ptr %ring)
  br i1 %room, label %push, label %full
push:
  %value = call i64 @ring_push(ptr %ring, ptr %list, i64 %dwords)
  ret i64 %value
full:
  ret i64 -1
}

; Replays a bound list with the values that stand in bound.values; record_count counts dwords.
define hidden i64 @ring_replay(ptr %bound) {
entry:
  %ring = load ptr, ptr %bound
  %next.at = getelementptr i8, ptr %bound, i64 $Bound.next
  %copy = load i64, ptr %next.at
  %lasts = getelementptr i8, ptr %bound, i64 $Bound.last
  %last.at = getelementptr i64, ptr %lasts, i64 %copy
  %last = load i64, ptr %last.at
  %timeline.at = getelementptr i8, ptr %ring, i64 $Ring.timeline
  %timeline = load ptr, ptr %timeline.at
  ; The block was last read by the replay that signalled `last`: not before that may it change.
  %reached = load atomic i64, ptr %timeline acquire, align 8
  %retired = icmp uge i64 %reached, %last
  %space = call i1 @ring_room(ptr %ring)
  %ready = and i1 %retired, %space
  br i1 %ready, label %patch, label %later
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
  %value = call i64 @ring_push(ptr %ring, ptr %block, i64 %count)
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
