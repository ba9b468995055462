"""NVIDIA's modules against other descriptions: sizes, class numbers, methods, QMD bits.

The sizes were measured with a C compiler on each driver branch's headers; methods and bits are
retyped from NVIDIA's open-gpu-doc.
"""

from __future__ import annotations

import ctypes
import importlib

import pytest

from autogen import nv_535, nv_555, nv_clc6c0, nv_clc8b5, nv_clc86f, nv_qmd

# name: bytes in 535 and in 555
SIZES = {
    "NVOS00_PARAMETERS": (16, 16), "NVOS02_PARAMETERS": (48, 48), "NVOS21_PARAMETERS": (32, 32),
    "NVOS32_PARAMETERS": (184, 184), "NVOS34_PARAMETERS": (32, 32), "NVOS54_PARAMETERS": (32, 32),
    "NVOS64_PARAMETERS": (48, 48), "NV_CHANNEL_ALLOC_PARAMS": (360, 360),
    "NV_MEMORY_ALLOCATION_PARAMS": (120, 128), "NV_VASPACE_ALLOCATION_PARAMETERS": (48, 48),
    "NVA06C_CTRL_GPFIFO_SCHEDULE_PARAMS": (2, 2), "UVM_FREE_PARAMS": (24, 24),
    "UVM_MAP_EXTERNAL_ALLOCATION_PARAMS": (1200, 9264), "UVM_REGISTER_GPU_PARAMS": (40, 40),
    "UVM_REGISTER_CHANNEL_PARAMS": (56, 56), "UVM_CREATE_EXTERNAL_RANGE_PARAMS": (24, 24),
    "UVM_ENABLE_PEER_ACCESS_PARAMS": (36, 36), "UVM_MM_INITIALIZE_PARAMS": (8, 8),
    "NV0080_CTRL_GPU_GET_CLASSLIST_V2_PARAMS": (644, 404),
    "NV83DE_CTRL_DEBUG_READ_ALL_SM_ERROR_STATES_PARAMS": (4824, 4824),
}  # fmt: skip
OFFSETS = {
    "NV_CHANNEL_ALLOC_PARAMS": {
        "gpFifoOffset": 8, "gpFifoEntries": 16, "flags": 20, "hContextShare": 24, "hVASpace": 28,
        "hUserdMemory": 32, "userdOffset": 64, "engineType": 128, "hObjectEccError": 140,
    },
    "UVM_MAP_EXTERNAL_ALLOCATION_PARAMS": {
        "gpuAttributesCount": 9240, "rmCtrlFd": 9248, "hClient": 9252, "hMemory": 9256,
        "rmStatus": 9260,
    },
    "NVOS54_PARAMETERS": {
        "hClient": 0, "hObject": 4, "cmd": 8, "flags": 12, "params": 16, "paramsSize": 24,
        "status": 28,
    },
}
NUMBERS = {
    "NV_ESC_RM_CONTROL": 0x2A, "NV_ESC_RM_ALLOC": 0x2B, "NV_ESC_RM_MAP_MEMORY": 0x4E,
    "NV_ESC_CARD_INFO": 200, "NV_ESC_REGISTER_FD": 201, "UVM_INITIALIZE": 0x30000001,
    "UVM_REGISTER_GPU": 37, "UVM_MAP_EXTERNAL_ALLOCATION": 33, "UVM_CREATE_EXTERNAL_RANGE": 73,
    "HOPPER_USERMODE_A": 0xC661, "HOPPER_CHANNEL_GPFIFO_A": 0xC86F, "HOPPER_DMA_COPY_A": 0xC8B5,
    "HOPPER_COMPUTE_A": 0xCBC0, "FERMI_VASPACE_A": 0x90F1, "KEPLER_CHANNEL_GROUP_A": 0xA06C,
    "NVC36F_CTRL_CMD_GPFIFO_GET_WORK_SUBMIT_TOKEN": 0xC36F0108,
    "NV2080_CTRL_CMD_GR_GET_INFO": 0x20801201, "NV2080_CTRL_CMD_GPU_GET_GID_INFO": 0x2080014A,
}  # fmt: skip


def struct(module: object, name: str) -> type[ctypes.Structure]:
    found: type[ctypes.Structure] = getattr(module, name)
    return found


@pytest.mark.parametrize("name", SIZES)
def test_parameters_have_the_sizes_that_each_branch_insists_on(name: str) -> None:
    sizes = tuple(ctypes.sizeof(struct(module, name)) for module in (nv_535, nv_555))
    assert sizes == SIZES[name]


@pytest.mark.parametrize("name", OFFSETS)
def test_fields_lie_where_the_driver_reads_them(name: str) -> None:
    made = struct(nv_555, name)
    assert {field: getattr(made, field).offset for field in OFFSETS[name]} == OFFSETS[name]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_calls_and_classes(name: str) -> None:
    assert getattr(nv_555, name) == NUMBERS[name]


def test_methods_of_channel_copy_and_compute() -> None:
    assert nv_clc86f.METHODS["SEM_EXECUTE"] == (0x6C,)
    assert nv_clc86f.FIELDS["SEM_EXECUTE"]["PAYLOAD_SIZE"] == (24, 1)
    assert nv_clc86f.VALUES["SEM_EXECUTE.OPERATION"]["ACQ_STRICT_GEQ"] == 2
    assert nv_clc86f.FIELDS["ENTRY"]["GP_ENTRY1_LENGTH"] == (10, 21)
    assert nv_clc8b5.METHODS["LAUNCH_DMA"] == (0x300,)
    assert nv_clc8b5.FIELDS["LAUNCH_DMA"]["SEMAPHORE_TYPE"] == (3, 2)
    assert nv_clc6c0.METHODS["SEND_PCAS_A"] == (0x2B4,)
    assert nv_clc6c0.METHODS["LOAD_INLINE_QMD_DATA"] == (0x320, 4)
    assert nv_clc6c0.METHODS["SET_SHADER_LOCAL_MEMORY_A"] == (0x790,)


@pytest.mark.parametrize(
    ("field", "place"),
    {
        "QMD_MAJOR_VERSION": (580, 4), "QMD_GROUP_ID": (128, 6), "CWD_MEMBAR_TYPE": (368, 2),
        "CTA_RASTER_WIDTH": (384, 32), "CTA_RASTER_HEIGHT": (416, 16),
        "CTA_THREAD_DIMENSION0": (592, 16), "REGISTER_COUNT_V": (648, 9),
        "BARRIER_COUNT": (763, 5), "SHARED_MEMORY_SIZE": (544, 18),
        "SHADER_LOCAL_MEMORY_LOW_SIZE": (736, 24), "PROGRAM_ADDRESS_LOWER": (1536, 32),
        "PROGRAM_ADDRESS_UPPER": (1568, 17), "SASS_VERSION": (1656, 8),
        "CONSTANT_BUFFER_VALID": (640, 1, 1), "CONSTANT_BUFFER_ADDR_LOWER": (1024, 32, 64),
        "CONSTANT_BUFFER_SIZE_SHIFTED4": (1075, 13, 64), "RELEASE0_ENABLE": (823, 1),
        "DEPENDENT_QMD0_ENABLE": (512, 1),
    }.items(),
)  # fmt: skip
def test_qmd_fields_of_ampere(field: str, place: tuple[int, ...]) -> None:
    assert nv_qmd.FIELDS["QMDV03_00"][field] == place


@pytest.mark.parametrize("module", ["nv_clc46f", "nv_clc56f", "nv_clc86f"])
def test_every_field_of_a_method_lies_in_one_word(module: str) -> None:
    for fields in importlib.import_module(f"autogen.{module}").FIELDS.values():
        assert all(shift + width <= 32 and width > 0 for shift, width in fields.values())
