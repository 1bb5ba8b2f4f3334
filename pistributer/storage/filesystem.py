"""Is this folder on a disk where kernel locks exclude every other process? On network filesystems they do not.

Two clients of one NFS export can hold the same flock at once, so a queue there would lose rows without a word. Such
folders are refused; `PISTRIBUTER_ALLOW_NETWORK_FILESYSTEM=1` says that all processes run on one host and one mount.
"""

from __future__ import annotations

import functools
import os

from .. import errors

_NETWORK = frozenset(
    "9p afs beegfs ceph cifs fuse.ceph fuse.glusterfs fuse.sshfs gfs2 glusterfs lustre ncpfs nfs nfs4 ocfs2 smb3 smbfs".split()
)
_OVERRIDE = "PISTRIBUTER_ALLOW_NETWORK_FILESYSTEM"
_MOUNTS = "/proc/self/mountinfo"


def require_local(folder: str) -> None:
    """Raise UnsafeFilesystem if `folder` lies on a network filesystem. Unknown filesystems pass."""
    device = os.stat(folder).st_dev
    kind = _filesystem_of_device(device, _MOUNTS)
    if kind in _NETWORK and os.environ.get(_OVERRIDE) != "1":
        raise errors.UnsafeFilesystem(
            f"{folder!r} is on {kind}, a network filesystem: kernel locks there do not exclude other hosts",
            hint=f"use a local disk; if only one host ever mounts it, set {_OVERRIDE}=1",
            path=folder,
            filesystem=kind,
        )


@functools.lru_cache(maxsize=64)
def _filesystem_of_device(device: int, mounts: str) -> str | None:
    """Type of the mounted filesystem with this device number, as the kernel names it; None if it can not be told."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                # proc(5): "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
                fields, _, rest = line.partition(" - ")
                if fields.split()[2] == wanted:
                    return rest.split()[0]
    except OSError:
        return None  # no /proc: macOS, or a sandbox
    return None
