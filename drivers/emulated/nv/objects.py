"""RM's objects: each client has a tree of them, and names them by handles (rs_client.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from drivers.emulated.nv.status import RmError, Status, require

if TYPE_CHECKING:
    from drivers.emulated.nv.process import NvProcess

FIRST_HANDLE, HANDLE_COUNT = 0xCAF00000, 0x80000  # those that RM makes up

Kind = TypeVar("Kind", bound="Resource")


class Resource:
    """One object. It goes with its parent, or when it is freed itself."""

    def __init__(self, client: Client, parent: Resource | None, handle: int, number: int) -> None:
        self.client, self.parent, self.handle, self.class_number = client, parent, handle, number
        self.children: list[Resource] = []

    def construct(self, params: Any) -> None:
        """Begins its life, by the parameters that its class has; they may be written.

        Raises RmError: then it was never there.
        """

    def free(self) -> None:
        """Goes, after all that depends on it."""
        while self.children:
            self.children[-1].free()
        self.destruct()
        del self.client.objects[self.handle]
        if self.parent is not None:
            self.parent.children.remove(self)

    def destruct(self) -> None:
        """What is to be given back."""

    @property
    def process(self) -> NvProcess:
        """The program."""
        return self.client.owner

    def above(self, kind: type[Kind]) -> Kind:
        """The nearest object of a kind on the way up. Raises RmError."""
        at: Resource | None = self
        while at is not None and not isinstance(at, kind):
            at = at.parent
        if at is None:
            raise RmError(Status.INVALID_OBJECT_PARENT, f"no {kind.__name__} above")
        return at


class Client(Resource):
    """NV01_ROOT_CLIENT: everything that one descriptor of nvidiactl has allocated under it."""

    def __init__(self, process: NvProcess, handle: int, number: int, file: object) -> None:
        self.owner, self.file = process, file
        self.objects: dict[int, Resource] = {}
        self.next_handle = 0
        super().__init__(self, None, handle, number)
        self.objects[handle] = self
        process.clients[handle] = self

    def destruct(self) -> None:
        """The handle may be used again."""
        del self.owner.clients[self.handle]

    def find(self, handle: int, kind: type[Kind], wrong: Status = Status.INVALID_OBJECT) -> Kind:
        """An object. Raises RmError: OBJECT_NOT_FOUND, or `wrong` if it is of another kind."""
        found = self.objects.get(handle)
        require(found, Status.OBJECT_NOT_FOUND, f"no object {handle:#x}")
        if not isinstance(found, kind):
            raise RmError(wrong, f"{handle:#x} is a {type(found).__name__}, no {kind.__name__}")
        return found

    def name(self, handle: int) -> int:
        """A handle for a new object: the one that was asked for, or a free one for 0."""
        if not handle:
            for _ in range(HANDLE_COUNT):
                handle = FIRST_HANDLE + self.next_handle % HANDLE_COUNT
                self.next_handle += 1
                if handle not in self.objects:
                    return handle
            raise RmError(Status.INSUFFICIENT_RESOURCES, "all handles are taken")
        require(handle != self.handle, Status.INVALID_OBJECT_HANDLE, "that is the client's handle")
        require(
            handle not in self.objects, Status.INSERT_DUPLICATE_NAME, f"{handle:#x} is taken"
        )
        return handle
