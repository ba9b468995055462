"""Device nodes: opening them, and saying what stands in the way."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Mapping, Sequence

from drivers.errors import DeviceNotAvailable, NodeNotAccessible, SystemCallFailed
from drivers.system import System

_MODULES = (
    "amdgpu", "radeon", "nouveau", "nova_core", "nvidia", "nvidia_uvm", "i915", "xe",
)  # fmt: skip
_READ_BYTES = 64 << 10

Remedy = Callable[[str, Sequence[str]], str]
"""What to do about a node that is not there: from its path and the graphics modules loaded."""


def open_node(system: System, path: str, device: str, remedy_of: Remedy) -> int:
    """Opens a device node; the error says what stands in the way, and what to do."""
    try:
        return system.open(path, os.O_RDWR)
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        if error.errno in (errno.EACCES, errno.EPERM):
            detail, remedy = _no_permission(path, name)
            raise NodeNotAccessible(detail, device=device, operation="open", remedy=remedy) from (
                error
            )
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            sentence, remedy = missing_node(system, path, remedy_of)
            raise DeviceNotAvailable(
                sentence, device=device, operation="open", remedy=remedy
            ) from error
        raise SystemCallFailed.wrap(error, f"open {path}", device) from error


def close_node(system: System, descriptor: int) -> None:
    """Closes a descriptor, which is gone afterwards whatever the system says."""
    with contextlib.suppress(OSError):
        system.close(descriptor)


def loaded_modules(system: System) -> list[str]:
    """The graphics modules that the kernel has loaded."""
    content = b""
    with contextlib.suppress(OSError):
        descriptor = system.open("/proc/modules", os.O_RDONLY)
        try:
            while part := system.read(descriptor, _READ_BYTES):
                content += part
        finally:
            close_node(system, descriptor)
    lines = content.decode(errors="replace").splitlines()
    return [name for name in (line.split(" ")[0] for line in lines) if name in _MODULES]


def missing_node(system: System, path: str, remedy_of: Remedy) -> tuple[str, str]:
    """The sentence for a node that is not there, with the graphics modules, and what to do."""
    modules = loaded_modules(system)
    names = ", ".join(modules) or "none"
    return f"{path} does not exist; loaded graphics modules: {names}.", remedy_of(path, modules)


def _no_permission(path: str, name: str) -> tuple[str, str]:
    """The sentence and remedy for a node that this user may not open."""
    try:
        import grp

        owner = os.stat(path).st_gid
        names = {group.gr_gid: group.gr_name for group in grp.getgrall()}
    except (ImportError, OSError):
        return f"Cannot open {path} ({name}).", "Join the group that the node belongs to."
    return permission_advice(path, name, owner, sorted(os.getgroups()), names)


def permission_advice(
    path: str, name: str, owner: int, mine: Sequence[int], names: Mapping[int, str]
) -> tuple[str, str]:
    """The same from what is known: the node's group, the user's groups, the names of groups."""
    group = f"{names[owner]} ({owner})" if owner in names else f"{owner}, which has no name here"
    joined = ", ".join(names.get(each, str(each)) for each in mine) or "none"
    detail = f"Cannot open {path} ({name}): it belongs to group {group}; your groups are {joined}."
    if owner in mine or name == "EPERM":
        return detail, f"In a container, start it with `--device={path}`."
    if owner not in names:  # a container has the host's numbers, not its names
        return detail, f"Start the container with `--group-add {owner}`."
    return detail, f"Run `sudo usermod -aG {names[owner]} $USER` and log in again."
