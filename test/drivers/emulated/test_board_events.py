"""Events of the emulated board: interrupts, mailboxes, waits, exceptions."""

from __future__ import annotations

import errno
import threading
import time

import pytest

from autogen import kfd
from test.drivers.emulated.kfd_client import HOST, PATIENCE_S, VISIBLE, Client, F, Queue, until
from test.drivers.emulated.packets import release_mem, write_data

COMPLETE, TIMEOUT, FAIL = (
    kfd.KFD_IOC_WAIT_RESULT_COMPLETE, kfd.KFD_IOC_WAIT_RESULT_TIMEOUT,
    kfd.KFD_IOC_WAIT_RESULT_FAIL)


def test_set_wait_and_auto_reset(client: Client) -> None:
    event = client.create_event(auto_reset=1).event_id
    assert client.wait(event, timeout=0)[0] == TIMEOUT
    client.call("SET_EVENT", event_id=event)
    assert client.wait(event, timeout=0)[0] == COMPLETE
    assert client.wait(event, timeout=10)[0] == TIMEOUT
    manual = client.create_event(auto_reset=0).event_id
    client.call("SET_EVENT", event_id=manual)
    assert [client.wait(manual, timeout=0)[0] for _ in range(2)] == [COMPLETE, COMPLETE]
    client.call("RESET_EVENT", event_id=manual)
    assert client.wait(manual, timeout=0)[0] == TIMEOUT


def test_any_and_all(client: Client) -> None:
    first, second = (client.create_event(auto_reset=0).event_id for _ in range(2))
    client.call("SET_EVENT", event_id=second)
    assert client.wait(first, second, timeout=0)[0] == COMPLETE
    assert client.wait(first, second, timeout=0, wait_all=1)[0] == TIMEOUT
    client.call("SET_EVENT", event_id=first)
    assert client.wait(first, second, timeout=0, wait_all=1)[0] == COMPLETE


def test_ages_tell_of_a_signal_that_came_before_the_wait(client: Client) -> None:
    event = client.create_event().event_id
    _, entries = client.wait(event, timeout=0, ages=[1])
    client.call("SET_EVENT", event_id=event)
    client.wait(event, timeout=0)  # takes the signal
    result, entries = client.wait(event, timeout=0, ages=[1])
    assert result == COMPLETE and entries[0].signal_event_data.last_event_age == 2
    assert client.wait(event, timeout=0, ages=[2])[0] == TIMEOUT


def test_what_the_kernel_refuses(client: Client) -> None:
    for name, values in (
        ("SET_EVENT", {"event_id": 77}), ("RESET_EVENT", {"event_id": 77}),
        ("DESTROY_EVENT", {"event_id": 77}), ("CREATE_EVENT", {"event_type": 9}),
        ("CREATE_EVENT", {"event_page_offset": 0xDEAD << 32 | 5}),
    ):
        with pytest.raises(OSError) as raised:
            client.call(name, **values)
        assert raised.value.errno == errno.EINVAL, name
    with pytest.raises(OSError) as raised:
        client.wait(77)
    assert raised.value.errno == errno.EINVAL
    assert client.last.wait_result == FAIL


def test_the_event_page_is_given_once_and_stays(client: Client) -> None:
    page = client.event_page()
    created = client.create_event(page=page.handle)
    assert created.event_page_offset and created.event_slot_index == created.event_id
    with pytest.raises(OSError):
        client.create_event(page=page.handle)
    with pytest.raises(OSError) as raised:
        page.client.unmap(page.handle, 0)
        client.call("FREE_MEMORY_OF_GPU", handle=page.handle)
    assert raised.value.errno == errno.EBUSY


def test_destroying_an_event_ends_waits_for_it(client: Client) -> None:
    event = client.create_event().event_id
    results = []
    thread = threading.Thread(target=lambda: results.append(client.wait(event)[0]))
    thread.start()
    time.sleep(0.05)
    client.call("DESTROY_EVENT", event_id=event)
    thread.join(PATIENCE_S)
    assert results == [FAIL]


def test_an_interrupt_wakes_a_waiter_if_the_mailbox_was_written(client: Client) -> None:
    page = client.event_page()
    event = client.create_event(page=page.handle).event_id
    queue = Queue(client, 0)
    done = client.alloc(4096, HOST)
    queue.put(release_mem(done.address, 1, interrupt=2, context=event))
    assert client.wait(event, timeout=50)[0] == TIMEOUT, "the mailbox is empty"
    queue.put(release_mem(done.address, 2),
              release_mem(page.address + 8 * event, event, interrupt=2, context=event))
    assert client.wait(event)[0] == COMPLETE
    assert done.u64().value == 2
    assert page.u64(8 * event).value == 2**64 - 1  # the kernel has taken the message
    queue.destroy()


def test_a_page_fault_is_an_event_with_address_and_evicts(client: Client) -> None:
    memory_event = client.create_event(kind=kfd.KFD_IOC_EVENT_MEMORY, auto_reset=1).event_id
    queue, other = Queue(client, 0), Queue(client, 0)
    target = client.alloc(4096, VISIBLE)
    stray = client.reserve(1 << 20) + 0x5678
    queue.put(write_data(target.address, 1), write_data(stray & ~3, 2),
              write_data(target.address, 3))
    result, entries = client.wait(memory_event)
    data = entries[0].memory_exception_data
    assert result == COMPLETE and data.va == stray & ~0xFFF
    assert data.gpu_id == client.gpu_ids[0] and data.failure.NotPresent == 1
    assert data.failure.ReadOnly, "it was a write"
    other.put(write_data(target.address, 9))
    time.sleep(0.02)
    assert target.u32().value == 1, "an evicted queue goes on"
    queue.destroy()
    other.destroy()


def test_a_write_to_read_only_memory_is_a_fault(client: Client) -> None:
    event = client.create_event(kind=kfd.KFD_IOC_EVENT_MEMORY).event_id
    memory = client.alloc(4096, F["GTT"])
    queue = Queue(client, 0)
    queue.put(write_data(memory.address, 1))
    _, entries = client.wait(event)
    failure = entries[0].memory_exception_data.failure
    assert (failure.NotPresent, failure.ReadOnly) == (0, 1)
    assert memory.u32().value == 0
    queue.destroy()


def test_a_bad_packet_is_a_hardware_exception(client: Client) -> None:
    event = client.create_event(kind=kfd.KFD_IOC_EVENT_HW_EXCEPTION).event_id
    queue = Queue(client, 0)
    queue.put([0xC0000000 | 0xEE << 8, 0])
    result, entries = client.wait(event)
    assert result == COMPLETE
    assert entries[0].hw_exception_data.gpu_id == client.gpu_ids[0]
    assert "0xee" in client.system.log()[-1]
    queue.destroy()
    again = Queue(client, 0)
    memory = client.alloc(4096, VISIBLE)
    again.put(write_data(memory.address, 5))
    until(lambda: memory.u32().value == 5)
    again.destroy()
