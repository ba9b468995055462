"""The driver floor: queues, Points and memory of every device, usable without `tinyhw`."""

from __future__ import annotations

from drivers.device import Device, Features
from drivers.errors import HardwareError
from drivers.memory import Buffer, CachePolicy, MemoryStatistics
from drivers.queue import BoundCommands, Commands, Program, Queue, Timestamp
from drivers.registry import DEVICE_NAMES, generations, open_device, probe
from drivers.timeline import Point, Timeline
from drivers.variables import Var

__all__ = [
    "DEVICE_NAMES",
    "BoundCommands",
    "Buffer",
    "CachePolicy",
    "Commands",
    "Device",
    "Features",
    "HardwareError",
    "MemoryStatistics",
    "Point",
    "Program",
    "Queue",
    "Timeline",
    "Timestamp",
    "Var",
    "generations",
    "open_device",
    "probe",
]
