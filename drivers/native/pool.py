"""LLVM IR of running one kernel: its blocks in one thread, or shared with the pool's workers.

A queue's thread opens its job, works on it like any worker, closes it, and waits until the
last worker has left. A worker joins by a compare-and-swap that needs the OPEN bit, so nobody
reads the job's fields while they change; leaving releases the worker's stores, and the owner
acquires them.
"""

TEXT = """
declare i64 @llvm.umax.i64(i64, i64)

; Blocks first..last - 1 of a grid, x fastest.
define internal void @run_blocks(ptr %entry.point, ptr %kernarg, i32 %grid.x, i32 %grid.y,
                                 i64 %first, i64 %last) {
entry:
  %wide.x = zext i32 %grid.x to i64
  %wide.y = zext i32 %grid.y to i64
  %start.x = urem i64 %first, %wide.x
  %rows = udiv i64 %first, %wide.x
  %start.y = urem i64 %rows, %wide.y
  %start.z = udiv i64 %rows, %wide.y
  %x.0 = trunc i64 %start.x to i32
  %y.0 = trunc i64 %start.y to i32
  %z.0 = trunc i64 %start.z to i32
  br label %loop
loop:
  %i = phi i64 [ %first, %entry ], [ %i.next, %body ]
  %x = phi i32 [ %x.0, %entry ], [ %x.next, %body ]
  %y = phi i32 [ %y.0, %entry ], [ %y.next, %body ]
  %z = phi i32 [ %z.0, %entry ], [ %z.next, %body ]
  %more = icmp ult i64 %i, %last
  br i1 %more, label %body, label %done
body:
  call void %entry.point(ptr %kernarg, i32 %x, i32 %y, i32 %z)
  %i.next = add i64 %i, 1
  %x.plus = add i32 %x, 1
  %x.wraps = icmp eq i32 %x.plus, %grid.x
  %x.next = select i1 %x.wraps, i32 0, i32 %x.plus
  %x.carry = zext i1 %x.wraps to i32
  %y.plus = add i32 %y, %x.carry
  %y.wraps = icmp eq i32 %y.plus, %grid.y
  %y.next = select i1 %y.wraps, i32 0, i32 %y.plus
  %y.carry = zext i1 %y.wraps to i32
  %z.next = add i32 %z, %y.carry
  br label %loop
done:
  ret void
}

; Takes chunks of a job until none is left. The caller owns the job or takes part in it.
define internal void @drain(ptr %job) {
entry:
  %entry.at = getelementptr i8, ptr %job, i64 $Job.entry
  %entry.point = load ptr, ptr %entry.at
  %kernarg.at = getelementptr i8, ptr %job, i64 $Job.kernarg
  %kernarg = load ptr, ptr %kernarg.at
  %grid.x.at = getelementptr i8, ptr %job, i64 $Job.grid_x
  %grid.x = load i32, ptr %grid.x.at
  %grid.y.at = getelementptr i8, ptr %job, i64 $Job.grid_y
  %grid.y = load i32, ptr %grid.y.at
  %total.at = getelementptr i8, ptr %job, i64 $Job.total
  %total = load atomic i64, ptr %total.at monotonic, align 8
  %chunk.at = getelementptr i8, ptr %job, i64 $Job.chunk
  %chunk = load i64, ptr %chunk.at
  %next.at = getelementptr i8, ptr %job, i64 $Job.next
  br label %loop
loop:
  %first = atomicrmw add ptr %next.at, i64 %chunk monotonic   ; only hands out numbers
  %some = icmp ult i64 %first, %total
  br i1 %some, label %run, label %done
run:
  %end = add i64 %first, %chunk
  %last = call i64 @llvm.umin.i64(i64 %end, i64 %total)
  call void @run_blocks(ptr %entry.point, ptr %kernarg, i32 %grid.x, i32 %grid.y,
                        i64 %first, i64 %last)
  br label %loop
done:
  ret void
}

; Waits until no worker takes part in the closed job.
define internal void @await_workers(ptr %host, ptr %job) noinline {
entry:
  %word = getelementptr i8, ptr %job, i64 $Job.sequence
  %sleepers = getelementptr i8, ptr %job, i64 $Job.sleepers
  %spin.at = getelementptr i8, ptr %host, i64 $Host.spin_ns
  %spin.ns = load i64, ptr %spin.at
  %start = call i64 @now(ptr %host)
  %spin.end = add i64 %start, %spin.ns
  br label %spin
spin:
  $relax
  %state = load atomic i32, ptr %job acquire, align 4         ; acquires the workers' stores
  %left = icmp eq i32 %state, 0
  br i1 %left, label %done, label %clock
clock:
  %time = call i64 @yield_now(ptr %host)
  %more = icmp ult i64 %time, %spin.end
  br i1 %more, label %spin, label %sleep
sleep:
  %counted = atomicrmw add ptr %sleepers, i32 1 seq_cst
  %sequence = load atomic i32, ptr %word acquire, align 4
  fence seq_cst                                               ; pairs with the one in @notify
  %state.last = load atomic i32, ptr %job acquire, align 4
  %left.last = icmp eq i32 %state.last, 0
  br i1 %left.last, label %awake, label %nap
nap:
  %slept = call i64 @futex_wait(ptr %host, ptr %word, i32 %sequence, i64 1000000000)
  br label %awake
awake:
  %uncounted = atomicrmw sub ptr %sleepers, i32 1 monotonic
  %state.after = load atomic i32, ptr %job acquire, align 4
  %left.after = icmp eq i32 %state.after, 0
  br i1 %left.after, label %done, label %sleep
done:
  ret void
}

; One EXEC record, to the end of its last block.
define hidden void @run_kernel(ptr %queue, ptr %record) noinline {
entry:
  %host = load ptr, ptr %queue
  %entry.at = getelementptr i8, ptr %record, i64 $EXEC.entry
  %entry.point = load ptr, ptr %entry.at
  %kernarg.at = getelementptr i8, ptr %record, i64 $EXEC.kernarg
  %kernarg = load ptr, ptr %kernarg.at
  %grid.x.at = getelementptr i8, ptr %record, i64 $EXEC.grid_x
  %grid.x = load i32, ptr %grid.x.at
  %grid.y.at = getelementptr i8, ptr %record, i64 $EXEC.grid_y
  %grid.y = load i32, ptr %grid.y.at
  %grid.z.at = getelementptr i8, ptr %record, i64 $EXEC.grid_z
  %grid.z = load i32, ptr %grid.z.at
  %wide.x = zext i32 %grid.x to i64
  %wide.y = zext i32 %grid.y to i64
  %wide.z = zext i32 %grid.z to i64
  %plane = mul i64 %wide.x, %wide.y
  %total = mul i64 %plane, %wide.z
  %nothing = icmp eq i64 %total, 0
  br i1 %nothing, label %done, label %choose
choose:
  %pool.at = getelementptr i8, ptr %queue, i64 $Queue.pool
  %pool = load ptr, ptr %pool.at
  %workers.at = getelementptr i8, ptr %pool, i64 $Pool.workers
  %workers = load i32, ptr %workers.at
  %alone = icmp eq i32 %workers, 0
  %single = icmp eq i64 %total, 1
  %serial = or i1 %alone, %single
  br i1 %serial, label %by.itself, label %shared
by.itself:
  call void @run_blocks(ptr %entry.point, ptr %kernarg, i32 %grid.x, i32 %grid.y,
                        i64 0, i64 %total)
  ret void
shared:
  call void @make_way(ptr %pool)
  %job.at = getelementptr i8, ptr %queue, i64 $Queue.job
  %job = load ptr, ptr %job.at
  %workers.wide = zext i32 %workers to i64
  %threads = add i64 %workers.wide, 1
  %pieces = mul i64 %threads, 8
  %even = udiv i64 %total, %pieces
  %chunk = call i64 @llvm.umax.i64(i64 %even, i64 1)
  %job.entry = getelementptr i8, ptr %job, i64 $Job.entry
  store ptr %entry.point, ptr %job.entry
  %job.kernarg = getelementptr i8, ptr %job, i64 $Job.kernarg
  store ptr %kernarg, ptr %job.kernarg
  %job.x = getelementptr i8, ptr %job, i64 $Job.grid_x
  store i32 %grid.x, ptr %job.x
  %job.y = getelementptr i8, ptr %job, i64 $Job.grid_y
  store i32 %grid.y, ptr %job.y
  %job.total = getelementptr i8, ptr %job, i64 $Job.total
  store atomic i64 %total, ptr %job.total monotonic, align 8
  %job.chunk = getelementptr i8, ptr %job, i64 $Job.chunk
  store i64 %chunk, ptr %job.chunk
  %job.next = getelementptr i8, ptr %job, i64 $Job.next
  store atomic i64 0, ptr %job.next monotonic, align 8
  store atomic i32 $Job.OPEN, ptr %job release, align 4       ; the fields are complete
  %pool.word = getelementptr i8, ptr %pool, i64 $Pool.sequence
  %others = sub i64 %total, 1
  %wanted = call i64 @llvm.umin.i64(i64 %others, i64 %workers.wide)
  call void @notify(ptr %host, ptr %pool.word, i64 %wanted)
  call void @drain(ptr %job)
  %before = atomicrmw xor ptr %job, i32 $Job.OPEN acq_rel     ; nobody joins from here on
  %only.owner = icmp eq i32 %before, $Job.OPEN
  br i1 %only.owner, label %done, label %others.run
others.run:
  call void @await_workers(ptr %host, ptr %job)
  br label %done
done:
  ret void
}

; Helps with one open job that has blocks left; whether there was one.
define internal i1 @help(ptr %pool) {
entry:
  %count.at = getelementptr i8, ptr %pool, i64 $Pool.job_count
  %count = load atomic i32, ptr %count.at acquire, align 4
  %jobs = getelementptr i8, ptr %pool, i64 $Pool.jobs
  br label %loop
loop:
  %i = phi i32 [ 0, %entry ], [ %i.next, %next ]
  %more = icmp ult i32 %i, %count
  br i1 %more, label %look, label %none
look:
  %wide = zext i32 %i to i64
  %offset = mul i64 %wide, $Job.SIZE
  %job = getelementptr i8, ptr %jobs, i64 %offset
  %state = load atomic i32, ptr %job monotonic, align 4
  %bit = and i32 %state, $Job.OPEN
  %open = icmp ne i32 %bit, 0
  br i1 %open, label %blocks, label %next
blocks:
  ; Only a hint, read without taking part: it keeps workers from joining for nothing.
  %next.at = getelementptr i8, ptr %job, i64 $Job.next
  %taken = load atomic i64, ptr %next.at monotonic, align 8
  %total.at = getelementptr i8, ptr %job, i64 $Job.total
  %total = load atomic i64, ptr %total.at monotonic, align 8
  %some = icmp ult i64 %taken, %total
  br i1 %some, label %join, label %next
join:
  %joined = add i32 %state, 1
  %pair = cmpxchg ptr %job, i32 %state, i32 %joined acquire monotonic
  %inside = extractvalue { i32, i1 } %pair, 1
  br i1 %inside, label %take.part, label %next
take.part:
  call void @drain(ptr %job)
  %before = atomicrmw sub ptr %job, i32 1 acq_rel             ; releases this worker's stores
  %closed.last = icmp eq i32 %before, 1
  br i1 %closed.last, label %tell, label %helped
tell:
  %host = load ptr, ptr %pool
  %word = getelementptr i8, ptr %job, i64 $Job.sequence
  call void @notify(ptr %host, ptr %word, i64 1)
  br label %helped
helped:
  ret i1 true
next:
  %i.next = add i32 %i, 1
  br label %loop
none:
  ret i1 false
}

; Whether any job is open and has blocks left, or the pool stops: a reason not to sleep.
define internal i1 @wanted(ptr %pool) {
entry:
  %stop.at = getelementptr i8, ptr %pool, i64 $Pool.stop
  %stop = load atomic i32, ptr %stop.at acquire, align 4
  %stopping = icmp ne i32 %stop, 0
  br i1 %stopping, label %yes, label %prepare
prepare:
  %count.at = getelementptr i8, ptr %pool, i64 $Pool.job_count
  %count = load atomic i32, ptr %count.at acquire, align 4
  %jobs = getelementptr i8, ptr %pool, i64 $Pool.jobs
  br label %loop
loop:
  %i = phi i32 [ 0, %prepare ], [ %i.next, %next ]
  %more = icmp ult i32 %i, %count
  br i1 %more, label %look, label %no
look:
  %wide = zext i32 %i to i64
  %offset = mul i64 %wide, $Job.SIZE
  %job = getelementptr i8, ptr %jobs, i64 %offset
  %state = load atomic i32, ptr %job acquire, align 4
  %bit = and i32 %state, $Job.OPEN
  %open = icmp ne i32 %bit, 0
  %next.at = getelementptr i8, ptr %job, i64 $Job.next
  %taken = load atomic i64, ptr %next.at monotonic, align 8
  %total.at = getelementptr i8, ptr %job, i64 $Job.total
  %total = load atomic i64, ptr %total.at monotonic, align 8
  %some = icmp ult i64 %taken, %total
  %work = and i1 %open, %some
  br i1 %work, label %yes, label %next
next:
  %i.next = add i32 %i, 1
  br label %loop
yes:
  ret i1 true
no:
  ret i1 false
}

; A worker thread: helps with jobs until the pool is stopped.
define hidden ptr @worker(ptr %pool) {
entry:
  call void @ieee_arithmetic()
  call void @settle(ptr %pool)
  %host = load ptr, ptr %pool
  %word = getelementptr i8, ptr %pool, i64 $Pool.sequence
  %sleepers = getelementptr i8, ptr %pool, i64 $Pool.sleepers
  %stop.at = getelementptr i8, ptr %pool, i64 $Pool.stop
  %spin.at = getelementptr i8, ptr %host, i64 $Host.spin_ns
  %spin.ns = load i64, ptr %spin.at
  br label %loop
loop:
  %stop = load atomic i32, ptr %stop.at acquire, align 4
  %stopping = icmp ne i32 %stop, 0
  br i1 %stopping, label %stopped, label %work
work:
  %helped = call i1 @help(ptr %pool)
  br i1 %helped, label %loop, label %rest
rest:
  %start = call i64 @now(ptr %host)
  %spin.end = add i64 %start, %spin.ns
  br label %spin
spin:
  $relax
  %ready = call i1 @wanted(ptr %pool)
  br i1 %ready, label %loop, label %clock
clock:
  %time = call i64 @yield_now(ptr %host)
  %more = icmp ult i64 %time, %spin.end
  br i1 %more, label %spin, label %sleep
sleep:
  %counted = atomicrmw add ptr %sleepers, i32 1 seq_cst
  %sequence = load atomic i32, ptr %word acquire, align 4
  fence seq_cst                                               ; pairs with the one in @notify
  %ready.last = call i1 @wanted(ptr %pool)
  br i1 %ready.last, label %awake, label %nap
nap:
  %slept = call i64 @futex_wait(ptr %host, ptr %word, i32 %sequence, i64 1000000000000)
  br label %awake
awake:
  %uncounted = atomicrmw sub ptr %sleepers, i32 1 monotonic
  br label %loop
stopped:
  %stopped.at = getelementptr i8, ptr %pool, i64 $Pool.stopped
  %ended = atomicrmw add ptr %stopped.at, i32 1 release       ; the last touch of the pool
  ret ptr null
}

; Tells the workers to end.
define hidden void @pool_stop(ptr %pool) {
  %host = load ptr, ptr %pool
  %stop.at = getelementptr i8, ptr %pool, i64 $Pool.stop
  store atomic i32 1, ptr %stop.at release, align 4
  %word = getelementptr i8, ptr %pool, i64 $Pool.sequence
  call void @futex_wake(ptr %host, ptr %word, i64 2147483647)
  ret void
}
"""
