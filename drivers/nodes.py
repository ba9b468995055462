"""Device nodes: opening them, and saying what stands in the way."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping, Sequence

from drivers.errors import DeviceNotAvailable, NodeNotAccessible, SystemCallFailed
from drivers.system import System


def open_node(system: System, path: str, device: str, missing_remedy: str) -> int:
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
            raise DeviceNotAvailable(
                missing_node(path), device=device, operation="open", remedy=missing_remedy,
            ) from error
        raise SystemCallFailed.wrap(error, f"open {path}", device) from error


def close_node(system: System, descriptor: int) -> None:
    """Closes a descriptor, which is gone afterwards whatever the system says."""
    with contextlib.suppress(OSError):
        system.close(descriptor)


def loaded_modules() -> list[str]:
    """The graphics modules that the kernel has loaded."""
    known = ("amdgpu", "radeon", "nouveau", "nvidia", "i915", "xe")
    try:
        with open("/proc/modules", encoding="ascii", errors="replace") as file:
            return [name for name in (line.split()[0] for line in file) if name in known]
    except OSError:
        return []


def missing_node(path: str) -> str:
    """The sentence for a node that is not there, with the graphics modules that are loaded."""
    return (
        f"{path} does not exist; loaded graphics modules: {', '.join(loaded_modules()) or 'none'}."
    )


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
