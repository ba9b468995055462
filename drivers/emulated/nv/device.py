"""A device and what hangs on it directly: subdevice, usermode region, VA space, debugger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drivers.emulated.memory import PageTable
from drivers.emulated.nv.gpu import Gpu
from drivers.emulated.nv.objects import Resource
from drivers.emulated.nv.status import Status, require

if TYPE_CHECKING:
    from drivers.emulated.nv.uvm import UvmSpace


class Device(Resource):
    """NV01_DEVICE_0: one GPU, to one client."""

    gpu: Gpu

    def construct(self, params: Any) -> None:
        """Names the GPU by its instance. Raises RmError."""
        gpus = self.process.gpus
        require(params is not None, Status.INVALID_ARGUMENT, "a device without parameters")
        require(params.deviceId < 32, Status.INVALID_ARGUMENT, f"device {params.deviceId}")
        require(params.deviceId < len(gpus), Status.INVALID_STATE, f"no device {params.deviceId}")
        self.gpu = gpus[params.deviceId]


class Subdevice(Resource):
    """NV20_SUBDEVICE_0: the GPU itself."""

    @property
    def gpu(self) -> Gpu:
        """The device's."""
        return self.above(Device).gpu

    def construct(self, params: Any) -> None:
        """There is one in a device. Raises RmError."""
        number = params.subDeviceId if params is not None else 0
        require(number == 0, Status.INVALID_ARGUMENT, f"subdevice {number}")


class Debugger(Resource):
    """GT200_DEBUGGER: reads the errors of an object's channel."""

    target: Resource

    def construct(self, params: Any) -> None:
        """Names the object, of any client. Raises RmError."""
        client = self.process.clients.get(params.hAppClient)
        require(client, Status.INVALID_CLIENT, f"no client {params.hAppClient:#x}")
        assert client is not None
        self.target = client.find(params.hClass3dObject, Resource)


class VaSpace(Resource):
    """FERMI_VASPACE_A: addresses of a GPU. One that is externally owned is filled by UVM."""

    table: PageTable
    uvm: UvmSpace | None

    def construct(self, params: Any) -> None:
        """Begins without a mapping."""
        flags = self.process.abi.module
        self.external = bool(params.flags & flags.NV_VASPACE_ALLOCATION_FLAGS_IS_EXTERNALLY_OWNED)
        require(
            params.index == flags.NV_VASPACE_ALLOCATION_INDEX_GPU_NEW, Status.NOT_SUPPORTED,
            f"VA space index {params.index}",
        )
        self.table, self.uvm = PageTable(), None

    @property
    def gpu(self) -> Gpu:
        """The device's."""
        return self.above(Device).gpu

    def destruct(self) -> None:
        """UVM lets go of it."""
        if self.uvm is not None:
            self.uvm.drop_space(self)
