"""What pycdlib reads of an ISO 9660 image's directories. The only file that imports pycdlib.

Invariants of this file:
* It runs in a process of its own (`process`): pycdlib holds the interpreter's lock, takes the square of a
  directory's length where that is in descending order, and may raise anything on a damaged image.
* The image is read through a meter, so directories that lead in circles or claim to be huge are an error.
* No stretch reaches outside of the image.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, BinaryIO, cast

from jigdofs.iso9660 import attributes
from jigdofs.iso9660.tree import Entry, Extent

_MAX_BYTES = 32 << 20
"""Most bytes of directories we read. 30,000 files, as many as Debian's largest image has, with Rock Ridge,
Joliet and names of 50 bytes take 9.9 MB, and pycdlib 1.1 s and 110 MB of memory."""
_BEYOND = 1 << 45  # where no directory record can lead: 2**32 blocks of 4 KiB, and 4 GiB more


class _Overread(Exception):
    """Say that the directory has more to read than we are willing to."""


class _Metered(io.RawIOBase):
    """Let pycdlib read so many bytes and no more.

    Args:
        file: the image.
    """

    mode = "rb"

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._at = file.tell()
        self._left = _MAX_BYTES
        self.endless = False  # claim to have no end

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go somewhere; a file system may not go as far as we claim to reach, so only `read` goes there."""
        if whence == os.SEEK_END:
            offset += _BEYOND if self.endless else self._file.seek(0, os.SEEK_END)
        elif whence == os.SEEK_CUR:
            offset += self._at
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """Read on; at least a sector is charged, so that even empty reads come to an end."""
        size = -1 if size is None else size
        self._left -= max(size, 512)
        if size < 0 or self._left < 0:
            raise _Overread(f"its directory has more than {_MAX_BYTES >> 20} MiB")
        self._file.seek(self._at)
        data = self._file.read(size)
        self._at += len(data)
        return data


def stretches(image: BinaryIO) -> list[Extent]:
    """Return where the files of an image lie, each stretch once, in order; raise whatever pycdlib raises.

    Both trees count: the plain one, and Joliet's, which may show other files.
    """
    iso = _open(image)
    size = image.seek(0, os.SEEK_END)
    found: set[Extent] = set()
    for volume in (iso.pvd, iso.joliet_vd):
        if volume is not None:
            block = volume.logical_block_size()
            for records in _files(volume.root_directory_record()):
                found.update(_joined(_stretch(record, block) for record in _in_order(records)))
    return sorted(extent for extent in found if extent.offset > 0 and _within(extent, size))


def tree(image: BinaryIO) -> Entry:
    """Return all there is in an image, by the names of Rock Ridge, else Joliet, else its own.

    A file that claims to lie outside of the image has one extent that says so (offset 0, and its length):
    it is seen, and cannot be read. Raises whatever pycdlib raises.
    """
    iso = _open(image)
    size = image.seek(0, os.SEEK_END)
    rock_ridge = bool(iso.rock_ridge)
    volume = iso.pvd if rock_ridge or iso.joliet_vd is None else iso.joliet_vd
    reading = _Reading(volume.logical_block_size(), size, rock_ridge, joliet=volume is iso.joliet_vd)
    return reading.directory(volume.root_directory_record())


def _open(image: BinaryIO) -> Any:
    import pycdlib

    metered = _Metered(image)

    class Iso(pycdlib.PyCdlib):
        """Leave the length of a file as it is told where the image ends before it.

        Else pycdlib would cut such a file, and every other one that begins there, to what is left of the
        image, even to less than nothing: the files of an image that was not copied to its end would be
        short without a word.
        """

        def _walk_directories(self, *arguments: Any) -> Any:
            metered.endless = True
            try:
                return super()._walk_directories(*arguments)
            finally:
                metered.endless = False

    iso = Iso()
    iso.open_fp(cast(BinaryIO, metered))  # it needs no more than read, seek and tell
    return iso


def _files(root: Any) -> Iterator[list[Any]]:
    """Yield the records of each file below a directory; pycdlib has read all records by now."""
    seen = {id(root)}
    pending = [root]
    while pending:
        for records in _named(pending.pop()):
            files = [record for record in records if not record.is_dir()]
            if files:
                yield files
            for record in records:
                if record.is_dir() and id(record) not in seen:
                    seen.add(id(record))
                    pending.append(record)


def _named(directory: Any) -> Iterator[list[Any]]:
    """Yield what a directory has under each name: a file of 4 GiB or more has several records."""
    for _, group in groupby(directory.children, key=lambda record: record.file_identifier()):
        records = [record for record in group if not (record.is_dot() or record.is_dotdot())]
        if records:
            yield records


def _stretch(record: Any, block: int) -> Extent:
    return Extent(record.extent_location() * block, record.get_data_length())


def _within(extent: Extent, size: int) -> bool:
    return extent.offset >= 0 and 0 < extent.length <= size - extent.offset


def _in_order(records: list[Any]) -> list[Any]:
    """Return the records of a file in the order of its bytes.

    pycdlib 1.12, which Debian 12 and 13 have, puts each later one right behind the first, and takes it for
    what follows that.
    """
    chain = records[:1]
    while len(chain) < len(records) and chain[-1].data_continuation is not None:
        chain.append(chain[-1].data_continuation)
    if {id(record) for record in chain} == {id(record) for record in records}:
        return chain
    if records[0].data_continuation is records[1]:
        return [records[0], *records[:0:-1]]
    return sorted(records, key=lambda record: record.extent_location())


def _joined(pieces: Iterable[Extent]) -> list[Extent]:
    """Put together those stretches that follow each other without a gap."""
    joined: list[Extent] = []
    for piece in pieces:
        if joined and joined[-1].offset + joined[-1].length == piece.offset:
            joined[-1] = Extent(joined[-1].offset, joined[-1].length + piece.length)
        else:
            joined.append(piece)
    return joined


class _Reading:
    """Turn pycdlib's records into entries.

    Args:
        block: bytes of a logical block.
        size: bytes of the image.
        rock_ridge: names, modes and links are in Rock Ridge's entries.
        joliet: names are UTF-16.
    """

    def __init__(self, block: int, size: int, rock_ridge: bool, *, joliet: bool) -> None:  # noqa: FBT001
        self._block = block
        self._size = size
        self._rock_ridge = rock_ridge
        self._joliet = joliet

    def directory(self, root: Any) -> Entry:
        """Return a directory with all that is below it; without recursion, however deep it is."""
        # of the root directory only its own `.` has Rock Ridge's entries
        told = self._entry([next((record for record in root.children if record.is_dot()), root)], b"")
        mode = stat.S_IFDIR | stat.S_IMODE(told.mode)  # whatever it is told to be
        top = Entry(b"", mode, told.mtime_ns, told.atime_ns, told.ctime_ns)
        pending = [(root, top)]
        seen = {id(root)}
        while pending:
            directory, entry = pending.pop()
            children = []
            for named in _named(directory):
                # an associated file is another fork of the file of that name; nobody shows these
                shown = [record for record in named if not record.is_associated_file()]
                records = self._at_home(shown) if shown else []
                if not records:
                    continue
                child = self._entry(records, self._name(shown[0]))
                children.append(child)
                if stat.S_ISDIR(child.mode) and id(records[0]) not in seen:
                    seen.add(id(records[0]))
                    pending.append((records[0], child))
            entry.children = children
        return top

    def _at_home(self, records: list[Any]) -> list[Any]:
        """Return what is shown under a name: a directory that was moved, where it came from (RRIP 4.1.5)."""
        ridge = records[0].rock_ridge if self._rock_ridge else None
        if ridge is None:
            return records
        if ridge.child_link_record_exists():
            return [ridge.cl_to_moved_dr] if ridge.cl_to_moved_dr is not None else []
        return [] if ridge.relocated_record() else records

    def _name(self, record: Any) -> bytes:
        if self._rock_ridge and record.rock_ridge is not None and (name := record.rock_ridge.name()):
            return cast(bytes, name)
        identifier: bytes = record.file_identifier()
        if self._joliet:
            text = identifier.decode("utf-16-be", "replace")
            return _without_version(text).encode("utf-8", "replace")
        # as the kernel shows such names: in lower case, and a dot only before an extension
        return _without_version(identifier.decode("latin-1").lower()).rstrip(".").encode("utf-8")

    def _entry(self, records: list[Any], name: bytes) -> Entry:
        record = records[0]
        ridge = record.rock_ridge if self._rock_ridge else None
        mode = attributes.mode(record, ridge)
        mtime, atime, ctime = attributes.times(record, ridge)
        entry = Entry(name, mode, mtime, atime, ctime)
        if stat.S_ISLNK(mode):
            entry.target = attributes.target(ridge)
        elif stat.S_ISREG(mode):
            entry.extents = self._extents(records)
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            entry.rdev = attributes.device(ridge)
        return entry

    def _extents(self, records: list[Any]) -> tuple[Extent, ...]:
        pieces = [_stretch(record, self._block) for record in _in_order(records)]
        pieces = _joined(piece for piece in pieces if piece.length)
        if all(_within(piece, self._size) for piece in pieces):
            return tuple(pieces)
        return (Extent(0, sum(max(0, piece.length) for piece in pieces)),)


def _without_version(name: str) -> str:
    """Drop the version that ISO 9660 puts behind a file's name."""
    stem, semicolon, version = name.rpartition(";")
    return stem if semicolon and version.isascii() and version.isdigit() else name
