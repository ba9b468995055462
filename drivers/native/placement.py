"""LLVM IR of where workers run: each on a processor of its own, never on the queue's.

Left alone, Linux often wakes a worker on the processor of the queue's thread that woke it, and
moves it only milliseconds later: kernels of up to a millisecond then run on one processor while
another is idle. So every worker is bound to one processor, and a queue's thread, which is not
bound, looks before it opens a job whether a worker sits on its own, and if so binds that one
to the processor that has none. This costs a system call only when the queue's thread has moved.
"""

TEXT = """
; Binds a thread to one processor. An error leaves it where it is, which is only slower.
define internal void @bind_thread(ptr %host, i32 %thread, i32 %cpu) noinline {
  %mask = alloca [16 x i64], align 16                         ; of $Pool.CPUS processors
  store [16 x i64] zeroinitializer, ptr %mask
  %word = lshr i32 %cpu, 6
  %low = and i32 %cpu, 63
  %shift = zext i32 %low to i64
  %bit = shl i64 1, %shift
  %word.wide = zext i32 %word to i64
  %word.at = getelementptr i64, ptr %mask, i64 %word.wide
  store i64 %bit, ptr %word.at
  %set.at = getelementptr i8, ptr %host, i64 $Host.sched_setaffinity
  %set = load ptr, ptr %set.at
  %result = call i32 %set(i32 %thread, i64 128, ptr %mask)
  ret void
}

define internal ptr @seat_of(ptr %pool, i32 %cpu) {
  %seats = getelementptr i8, ptr %pool, i64 $Pool.seats
  %wide = zext i32 %cpu to i64
  %seat = getelementptr i32, ptr %seats, i64 %wide
  ret ptr %seat
}

; A worker's first step: takes the next home and goes there.
define internal void @settle(ptr %pool) {
entry:
  %placement.at = getelementptr i8, ptr %pool, i64 $Pool.placement
  %placement = load atomic i32, ptr %placement.at acquire, align 4
  %anywhere = icmp eq i32 %placement, 0
  br i1 %anywhere, label %done, label %choose
choose:
  %host = load ptr, ptr %pool
  %started.at = getelementptr i8, ptr %pool, i64 $Pool.started
  %index = atomicrmw add ptr %started.at, i32 1 monotonic
  %homes = getelementptr i8, ptr %pool, i64 $Pool.homes
  %index.wide = zext i32 %index to i64
  %home.at = getelementptr i32, ptr %homes, i64 %index.wide
  %home = load i32, ptr %home.at
  %gettid.at = getelementptr i8, ptr %host, i64 $Host.gettid
  %gettid = load ptr, ptr %gettid.at
  %thread = call i32 %gettid()
  call void @bind_thread(ptr %host, i32 %thread, i32 %home)
  %seat = call ptr @seat_of(ptr %pool, i32 %home)
  store atomic i32 %thread, ptr %seat release, align 4
  br label %done
done:
  ret void
}

; Called by a queue's thread before it opens a job: makes sure that no worker sits on its own
; processor. Two queues at once: the second leaves it be.
define internal void @make_way(ptr %pool) {
entry:
  %placement.at = getelementptr i8, ptr %pool, i64 $Pool.placement
  %placement = load atomic i32, ptr %placement.at monotonic, align 4
  %anywhere = icmp eq i32 %placement, 0
  br i1 %anywhere, label %done, label %look
look:
  %host = load ptr, ptr %pool
  %getcpu.at = getelementptr i8, ptr %host, i64 $Host.sched_getcpu
  %getcpu = load ptr, ptr %getcpu.at
  %cpu = call i32 %getcpu()
  %known = icmp ult i32 %cpu, $Pool.CPUS
  br i1 %known, label %check, label %done
check:
  %seat = call ptr @seat_of(ptr %pool, i32 %cpu)
  %sitting = load atomic i32, ptr %seat monotonic, align 4
  %free.seat = icmp eq i32 %sitting, 0
  br i1 %free.seat, label %done, label %lock
lock:
  %lock.at = getelementptr i8, ptr %pool, i64 $Pool.placing
  %held = atomicrmw xchg ptr %lock.at, i32 1 acquire
  %taken = icmp ne i32 %held, 0
  br i1 %taken, label %done, label %confirm
confirm:
  %thread = load atomic i32, ptr %seat acquire, align 4
  %gone = icmp eq i32 %thread, 0
  br i1 %gone, label %unlock, label %move
move:
  %free.at = getelementptr i8, ptr %pool, i64 $Pool.free_cpu
  %free = load i32, ptr %free.at
  %new.seat = call ptr @seat_of(ptr %pool, i32 %free)
  store atomic i32 0, ptr %seat monotonic, align 4
  store atomic i32 %thread, ptr %new.seat monotonic, align 4
  store i32 %cpu, ptr %free.at
  call void @bind_thread(ptr %host, i32 %thread, i32 %free)
  br label %unlock
unlock:
  store atomic i32 0, ptr %lock.at release, align 4
  br label %done
done:
  ret void
}
"""
