"""Whatever a program hands to the nodes of an NVIDIA board, the board answers."""

from __future__ import annotations

import ctypes
import os
import random

import pytest

from drivers.emulated.nv.controls import CONTROLS
from test.drivers.emulated.nv_client import Channel, Rm, copy, request

CALLS = 400 if os.environ.get("TINYHW_FULL") != "1" else 20_000
INTERESTING = (0, 1, 2, 3, 9, 0xFFF, 0x1000, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)


def scramble(draw: random.Random, made: ctypes.Structure, known: list[int]) -> None:
    """Puts numbers into a structure: few, some known handles, some of any kind."""
    size = ctypes.sizeof(made)
    raw = (ctypes.c_ubyte * size).from_buffer(made)
    for _ in range(draw.randrange(1, 6)):
        at = draw.randrange(0, max(1, size - 3)) & -4
        value = draw.choice([*known, *INTERESTING, draw.getrandbits(32)])
        content = value.to_bytes(4, "little")[: size - at]
        raw[at : at + len(content)] = content


@pytest.mark.parametrize("seed", [1, 2])
def test_scrambled_calls_are_answered(rm: Rm, seed: int) -> None:
    draw, nv = random.Random(seed), rm.nv
    rm.space()
    channel = Channel(rm)
    channel.schedule()
    uvm = [name.removesuffix("_PARAMS").removeprefix("UVM_") for name in vars(nv)
           if name.startswith("UVM_") and name.endswith("_PARAMS")]
    known = [rm.root, rm.dev, rm.sub, rm.vas, channel.group, channel.handle, rm.control_fd,
             channel.ring.handle, *CONTROLS, nv.NV01_MEMORY_SYSTEM, nv.NV01_MEMORY_LOCAL_USER,
             nv.KEPLER_CHANNEL_GROUP_A, nv.FERMI_VASPACE_A, rm.channel_class, 0x80, 0x2080]
    scratch = ctypes.create_string_buffer(16384)

    def escape() -> None:
        number, name = draw.choice([
            (nv.NV_ESC_RM_ALLOC, "NVOS21_PARAMETERS"), (nv.NV_ESC_RM_ALLOC, "NVOS64_PARAMETERS"),
            (nv.NV_ESC_RM_CONTROL, "NVOS54_PARAMETERS"),
            (nv.NV_ESC_RM_MAP_MEMORY, "nv_ioctl_nvos33_parameters_with_fd"),
            (nv.NV_ESC_RM_UNMAP_MEMORY, "NVOS34_PARAMETERS"),
            (nv.NV_ESC_RM_ALLOC_MEMORY, "nv_ioctl_nvos02_parameters_with_fd"),
            (nv.NV_ESC_CARD_INFO, "nv_ioctl_card_info_t"),
            (nv.NV_ESC_CHECK_VERSION_STR, "nv_ioctl_rm_api_version_t"),
            (nv.NV_ESC_REGISTER_FD, "nv_ioctl_register_fd_t"),
            (nv.NV_ESC_ATTACH_GPUS_TO_FD, "nv_ioctl_register_fd_t"),
        ])
        made = rm.make(name)
        inner = getattr(made, "params", made)
        fields = {field[0] for field in type(made)._fields_}
        if "hRoot" in fields:
            made.hRoot, made.hObjectParent = rm.root, draw.choice(known)
            made.hClass, made.pAllocParms = draw.choice(known), ctypes.addressof(scratch)
        elif "hClient" in fields:
            made.hClient, made.hObject = rm.root, draw.choice(known)
            if "cmd" in fields:
                made.cmd, entry = draw.choice(list(CONTROLS.items()))
                made.params = ctypes.addressof(scratch)
                made.paramsSize = ctypes.sizeof(rm.make(entry.params))
        elif hasattr(inner, "hClient"):
            inner.hClient = rm.root
        for at in range(0, 4096, 4):
            value = draw.choice([0, 0, 0, *INTERESTING, *known])
            scratch[at : at + 4] = value.to_bytes(4, "little")
        if draw.random() < 0.5:
            scramble(draw, made, known)
        size = ctypes.sizeof(made)
        node = draw.choice([rm.control_fd, rm.control_fd, rm.node_fd])
        rm.system.ioctl(node, request(number, size), ctypes.addressof(made))

    def unified() -> None:
        name = draw.choice(uvm)
        made = rm.make(f"UVM_{name}_PARAMS")
        for field in ("gpuUuid", "gpu_uuid"):
            if hasattr(made, field):
                setattr(made, field, rm.uuid_field())
        if hasattr(made, "hClient"):
            made.hClient = rm.root
        scramble(draw, made, known)
        rm.system.ioctl(rm.uvm_fd, getattr(nv, f"UVM_{name}"), ctypes.addressof(made))

    for _ in range(CALLS):
        try:
            draw.choice([escape, unified])()
        except OSError as refused:
            assert refused.errno != 19, refused  # ENODEV: the board has gone
    fresh = Rm(rm.system)  # and the board is as good as before for another client
    fresh.next_gpu_addr += 1 << 38  # addresses are shared by the clients of a program
    try:
        fresh.device()
        fresh.space()
        channel = Channel(fresh)
        channel.schedule()
        one, other = fresh.buffer(65536), fresh.buffer(65536)
        one.write(b"well")
        channel.run(copy(one.gpu_addr, other.gpu_addr, 4))
        assert other.read(4) == b"well"
    finally:
        fresh.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_scrambled_pushbuffers_end_in_a_notifier_or_in_nothing(rm: Rm, seed: int) -> None:
    draw = random.Random(seed)
    rm.space()
    for _ in range(15):
        channel = Channel(rm)
        channel.schedule()
        for _ in range(4):
            words = []
            for _ in range(draw.randrange(1, 12)):
                header = draw.choice([1, 3, 4, 5]) << 29 | draw.randrange(4) << 16
                header |= draw.choice([0, 1, 4]) << 13 | draw.choice([
                    0x5C, 0x6C, 0x300, 0x400, 0x418, 0x1B0, 0x1B4, 0x2B4, 0x2C0, 0x110, 0x1698,
                    0x240, 0x700, draw.randrange(0x2000),
                ]) >> 2
                words += [header, *(draw.choice([*INTERESTING, channel.ring.gpu_addr >> 8])
                                    for _ in range(draw.randrange(4)))]
            channel.submit(words)
        rm.free(channel.group)
    assert not any("Error:" in line for line in rm.system.log()), rm.system.log()[-3:]
