"""Fetches the pinned Debian packages whose headers the bindings are made from.

A private apt directory is used, so that neither root nor a change to the system's sources is
needed. The archive's address is the one that this machine's apt is configured with.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")  # of debian-archive-keyring
MINUTES = 60


class AutogenError(Exception):
    """The bindings cannot be generated; the message says why and what to do."""


@dataclass(frozen=True)
class Pin:
    """One package: which file of which suite, and what it must hash to."""

    name: str
    kind: str  # "deb", or "source" for the upstream tarball of a source package
    suite: str
    version: str
    file: str
    sha256: str
    package: str = ""  # as Debian calls it, where one package is pinned in several versions

    @property
    def debian_name(self) -> str:
        """What apt knows it by."""
        return self.package or self.name

    @property
    def title(self) -> str:
        """As the generated files name it."""
        source = " source" if self.kind == "source" else ""
        return f"{self.debian_name} {self.version} (Debian {self.suite}{source})"


def read_pins(manifest: Path) -> dict[str, Pin]:
    """The pins recorded in the manifest, by package name."""
    packages = json.loads(manifest.read_text(encoding="utf-8"))["packages"]
    return {name: Pin(name=name, **fields) for name, fields in packages.items()}


def pins_as_json(pins: Mapping[str, Pin]) -> dict[str, dict[str, str]]:
    """What `read_pins` reads."""
    records = {name: asdict(pin) for name, pin in sorted(pins.items())}
    for record in records.values():
        del record["name"]
        if not record["package"]:
            del record["package"]
    return records


def cache_home() -> Path:
    """Where packages and headers are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tinyhw" / "autogen"


def command(
    arguments: Sequence[str | Path], cwd: Path | None = None, minutes: float = 10
) -> subprocess.CompletedProcess[str]:
    """Runs a program in the C locale and captures its text; does not raise on failure."""
    try:
        return subprocess.run(
            [str(argument) for argument in arguments],
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=minutes * MINUTES,
        )
    except FileNotFoundError as error:
        raise AutogenError(
            f"Generating the bindings needs the program {arguments[0]}, which is not installed."
        ) from error


class Archive:
    """The Debian archive seen through a private apt directory."""

    def __init__(self, suites: Sequence[str]):
        self.home = cache_home()
        self.suites = sorted(suites)

    def _apt(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        apt = self.home / "apt"
        options = {
            "Dir::State::lists": apt / "lists",
            "Dir::Cache": apt,
            "Dir::Etc::sourcelist": apt / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Sandbox::User": "",
        }
        flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        return command([arguments[0], *flags, *arguments[1:]], cwd=cwd)

    @cache  # noqa: B019  (one archive a run)
    def update(self) -> None:
        """Reads the suites' indices, once a run."""
        apt = self.home / "apt"
        for folder in (apt / "lists" / "partial", apt / "archives" / "partial"):
            folder.mkdir(parents=True, exist_ok=True)
        options = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        lines = [
            f"{kind} {options}{archive_address()} {suite} main contrib\n"
            for suite in self.suites
            for kind in ("deb", "deb-src")
        ]
        (apt / "sources.list").write_text("".join(lines), encoding="utf-8")
        done = self._apt("apt-get", "update")
        if done.returncode:
            raise AutogenError(f"apt cannot read the suites {self.suites}:\n{done.stderr}")

    def versions(self, pin: Pin) -> list[str]:
        """The versions of a package in its suite, newest first."""
        self.update()
        wanted = "Sources" if pin.kind == "source" else "Packages"
        found = []
        for line in self._apt("apt-cache", "madison", pin.debian_name).stdout.splitlines():
            name, version, where = (part.strip() for part in line.split("|"))
            _, suite, *_, index = where.split()
            if (name, suite.split("/")[0], index) == (pin.debian_name, pin.suite, wanted):
                found.append(version)
        return found

    def fetch(self, pin: Pin) -> Path:
        """The package file, from the cache or the archive, checked against its digest."""
        path = self.home / "packages" / pin.file
        if not path.exists():
            self._download(pin, path)
        found = file_sha256(path)
        if found != pin.sha256:
            path.unlink()
            raise AutogenError(
                f"{pin.file} has sha256 {found}, but {pin.sha256} is pinned; it was thrown away."
            )
        return path

    def _download(self, pin: Pin, path: Path) -> None:
        offered = self.versions(pin)
        if pin.version not in offered:
            raise AutogenError(
                f"{pin.name} {pin.version} is pinned, but Debian {pin.suite} offers "
                f"{', '.join(offered) or 'none'}. Run `python scripts/autogen_bindings.py "
                "--repin`: it pins the newest, regenerates, and shows what changes."
            )
        fresh = self._into_empty_folder(pin)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(fresh, path)

    def _into_empty_folder(self, pin: Pin) -> Path:
        folder = self.home / "download"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        what = f"{pin.debian_name}={pin.version}"
        if pin.kind == "source":  # the .dsc of some is missing, their tarball never is
            done = self._apt("apt-get", "source", "--download-only", "--tar-only", what, cwd=folder)
        else:
            done = self._apt("apt-get", "download", what, cwd=folder)
        files = sorted(file for file in folder.iterdir() if ".orig-" not in file.name)
        if done.returncode or not files:
            raise AutogenError(f"apt cannot download {what}:\n{done.stderr}")
        return files[0]

    def newest(self, pin: Pin) -> Pin:
        """The same package, pinned to the newest version of its suite."""
        offered = self.versions(pin)
        if not offered:
            raise AutogenError(f"Debian {pin.suite} has no {pin.kind} package {pin.name}.")
        if offered[0] == pin.version:
            return pin
        pin = replace(pin, version=offered[0])
        fresh = self._into_empty_folder(pin)
        pin = replace(pin, file=fresh.name, sha256=file_sha256(fresh))
        kept = self.home / "packages" / pin.file
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(fresh, kept)
        return pin

    def headers(self, pin: Pin, patterns: Sequence[str]) -> Path:
        """A folder with those files of the package whose path matches one of the patterns.

        Source packages and the kernel's source hold one top folder, which paths leave out.
        """
        asked = hashlib.sha256("\n".join((pin.sha256, *sorted(patterns))).encode())
        folder = self.home / "headers" / f"{pin.name}-{asked.hexdigest()[:16]}"
        if not folder.exists():
            package = self.fetch(pin)
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            with open_archive(pin, package) as archive:
                extract(archive, partial, patterns, strip=has_top_folder(pin))
            partial.rename(folder)
        return folder


@cache
def archive_address() -> str:
    """Where this machine's own Debian release comes from, as its apt is configured."""
    release = ""
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        if line.startswith("VERSION_CODENAME="):
            release = line.partition("=")[2].strip('"')
    found = command(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"])
    for line in found.stdout.splitlines():
        address, _, suite = line.partition(" ")
        if release and suite == release:
            return address
    raise AutogenError(
        f"apt on this machine has no source for its own release {release!r}; "
        "the bindings are generated on a Debian."
    )


def has_top_folder(pin: Pin) -> bool:
    """Whether everything in the package lies in one folder that is named for its version."""
    return pin.kind == "source" or pin.name.startswith("linux-source-")


@contextmanager
def open_archive(pin: Pin, package: Path) -> Iterator[tarfile.TarFile]:
    """The files of a package as a stream; the kernel's source is a tarball inside its package."""
    if pin.kind == "source":
        with tarfile.open(package, "r|*") as archive:
            yield archive
        return
    arguments = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with (
        subprocess.Popen(arguments, stdout=subprocess.PIPE) as unpacker,
        tarfile.open(fileobj=unpacker.stdout, mode="r|") as outer,
    ):
        if not has_top_folder(pin):
            yield outer
        else:
            with tarfile.open(fileobj=inner_tarball(outer), mode="r|xz") as inner:
                yield inner
        unpacker.kill()  # what was wanted has been read


def inner_tarball(outer: tarfile.TarFile) -> IO[bytes]:
    """The tarball that a package carries as its content."""
    for member in outer:
        content = outer.extractfile(member) if member.name.endswith(".tar.xz") else None
        if content is not None:
            return content
    raise AutogenError("The package of the kernel's source holds no .tar.xz any more.")


def extract(archive: tarfile.TarFile, folder: Path, patterns: Sequence[str], strip: bool) -> None:
    """Writes the matching regular files below `folder`; raises for a pattern without a file."""
    unmatched = set(patterns)
    for member in archive:
        path = PurePosixPath(member.name)
        if strip:
            path = PurePosixPath(*path.parts[1:])
        hits = {pattern for pattern in patterns if fnmatch.fnmatchcase(str(path), pattern)}
        content = archive.extractfile(member) if hits and member.isreg() else None
        if content is None or ".." in path.parts or path.is_absolute():
            continue
        unmatched -= hits
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.read())
    if unmatched:
        raise AutogenError(f"The package holds no file {', '.join(sorted(unmatched))}.")


def file_sha256(path: Path) -> str:
    """The digest of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
