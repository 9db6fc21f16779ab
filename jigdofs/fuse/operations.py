"""What the kernel asks, answered from images: protocol only.

Invariants of this file:
* Nothing but `FUSEError` leaves a handler: any other exception ends pyfuse3's main loop.
* A read is answered in full or with an error: the kernel would fill a short one with zeros.
* `flush` stays unimplemented (ENOSYS): else each close would ask us, even one by ourselves.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Sequence
from typing import Protocol

import pyfuse3
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FileNameT, FUSEError, InodeT, RequestContext

from jigdofs.config import MountOptions
from jigdofs.errors import JigdofsError
from jigdofs.image.readahead import Readahead
from jigdofs.image.reader import ImageReader

_log = logging.getLogger(__name__)

ATTRIBUTES_VALID_S = 1.0  # sizes never change, but st_blocks grows
BLOCK_BYTES = 512
_STATFS_BYTES = 4096
PID_XATTR = b"user.jigdofs.pid"
_SAME_ERROR_S = 10.0
_ENODATA = errno.ENODATA


class File(Protocol):
    """An image as a file."""

    @property
    def name(self) -> str:
        """Its leaf name."""

    @property
    def reader(self) -> ImageReader:
        """How its bytes are had."""

    @property
    def present_bytes(self) -> int:
        """How many of them are here."""

    @property
    def mtime_ns(self) -> int:
        """When it was last changed."""


class Operations(pyfuse3.Operations):
    """One directory with the images in it, or one image as the root itself.

    Args:
        files: the images.
        options: owner and mode shown.
        single: the mount point is a regular file: the root is the first image.
    """

    supports_dot_lookup = True
    enable_writeback_cache = False

    def __init__(self, files: Sequence[File], options: MountOptions, *, single: bool) -> None:
        super().__init__()
        self._options = options
        self._created_ns = time.time_ns()
        first = pyfuse3.ROOT_INODE if single else pyfuse3.ROOT_INODE + 1
        self._files = {InodeT(first + number): file for number, file in enumerate(files)}
        self._names = {os.fsencode(file.name): inode for inode, file in self._files.items()}
        self._opened: dict[FileHandleT, tuple[ImageReader, Readahead, str]] = {}
        self._next_handle = 1
        self._last_error = ("", 0.0)
        self.reading = 0  # reads that were not answered yet

    # -- attributes ------------------------------------------------------------------------------

    async def getattr(self, inode: InodeT, ctx: RequestContext | None = None) -> EntryAttributes:
        """Describe the directory or an image."""
        return self._attributes(inode)

    async def lookup(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """Find an image by name."""
        if parent_inode != pyfuse3.ROOT_INODE or pyfuse3.ROOT_INODE in self._files:
            raise FUSEError(errno.ENOTDIR)
        if name in (b".", b".."):
            return self._attributes(pyfuse3.ROOT_INODE)
        inode = self._names.get(name)
        if inode is None:
            raise FUSEError(errno.ENOENT)
        return self._attributes(inode)

    def _attributes(self, inode: InodeT) -> EntryAttributes:
        attributes = EntryAttributes()
        file = self._files.get(inode)
        options = self._options
        if file is not None:
            attributes.st_mode = pyfuse3.ModeT(stat.S_IFREG | (0o444 & ~options.umask))
            attributes.st_nlink = 1
            attributes.st_size = file.reader.layout.length
            attributes.st_blocks = -(-file.present_bytes // BLOCK_BYTES)
            changed_ns = file.mtime_ns
        elif inode == pyfuse3.ROOT_INODE:
            attributes.st_mode = pyfuse3.ModeT(stat.S_IFDIR | (0o555 & ~options.umask))
            attributes.st_nlink = 2
            changed_ns = self._created_ns
        else:
            raise FUSEError(errno.ENOENT)
        attributes.st_ino = inode
        attributes.st_blksize = 128 << 10
        attributes.st_uid = os.getuid() if options.uid is None else options.uid
        attributes.st_gid = os.getgid() if options.gid is None else options.gid
        attributes.st_atime_ns = attributes.st_mtime_ns = attributes.st_ctime_ns = changed_ns
        attributes.entry_timeout = 3600
        attributes.attr_timeout = ATTRIBUTES_VALID_S
        return attributes

    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        """Tell the size of all images; there is never room for more."""
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = _STATFS_BYTES
        total = sum(file.reader.layout.length for file in self._files.values())
        data.f_blocks = -(-total // _STATFS_BYTES)
        data.f_bfree = data.f_bavail = 0
        data.f_files = len(self._files)
        data.f_ffree = data.f_favail = 0
        data.f_namemax = 255
        return data

    async def getxattr(
        self,
        inode: InodeT,
        name: bytes,
        ctx: RequestContext,
    ) -> bytes:
        """Tell the daemon's process id, so that `jigdofs umount` can wait for its end."""
        if inode == pyfuse3.ROOT_INODE and name == PID_XATTR:
            return str(os.getpid()).encode()
        raise FUSEError(_ENODATA)

    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[pyfuse3.XAttrNameT]:
        """List none, so that copying tools do not copy ours."""
        return []

    # -- the directory ---------------------------------------------------------------------------

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        """Open the one directory."""
        return FileHandleT(inode)

    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List the images."""
        if fh != pyfuse3.ROOT_INODE:
            raise FUSEError(errno.ENOTDIR)
        for inode, file in list(self._files.items())[start_id:]:
            if not pyfuse3.readdir_reply(
                token, FileNameT(os.fsencode(file.name)), self._attributes(inode), start_id + 1
            ):
                return
            start_id += 1

    async def releasedir(self, fh: FileHandleT) -> None:
        """Have nothing to close."""

    # -- images ----------------------------------------------------------------------------------

    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        """Open an image for reading; its pages stay in the kernel's cache, as they never change."""
        file = self._files.get(inode)
        if file is None:
            raise FUSEError(errno.EISDIR)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise FUSEError(errno.EROFS)
        handle = FileHandleT(self._next_handle)
        self._next_handle += 1
        self._opened[handle] = (file.reader, file.reader.readahead(), file.name)
        return FileInfo(fh=handle, keep_cache=True)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        """Return exactly the bytes asked for, or fail."""
        reader, ahead, name = self._opened[fh]
        self.reading += 1
        try:
            return await reader.read(off, size, ahead)  # type: ignore[return-value]  # any buffer will do
        except JigdofsError as error:
            self._report(f"read of {size} bytes at offset {off} of {name} failed: {error}")
            raise FUSEError(error.errno) from None
        except Exception as error:
            _log.exception("internal error in a read at offset %d of %s", off, name)
            raise FUSEError(errno.EIO) from error
        finally:
            self.reading -= 1

    def _report(self, text: str) -> None:
        """Log a failed read; the kernel asks again at once, page by page, for what failed."""
        reason = text.partition(" failed: ")[2]
        now = time.monotonic()
        if self._last_error[0] == reason and now - self._last_error[1] < _SAME_ERROR_S:
            return
        self._last_error = (reason, now)
        _log.error("%s", text)

    async def release(self, fh: FileHandleT) -> None:
        """Forget who was reading."""
        self._opened.pop(fh, None)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Keep all inodes: they live as long as the mount."""
