"""Unpack a snapshot on a host: one file, standard library only, run there as a whole.

    python -c SOURCE ARCHIVE FOLDER KERNELS

The archive goes to FOLDER by a name of its own and a rename; where FOLDER is there already, another submit was
faster, which is as good. KERNELS names the version of the compiled kernels (see `share_kernels`).
"""

import os
import shutil
import sys
import tarfile
import tempfile

KERNELS = os.path.join("kuiper", "aggregation", "kernels")


def share_kernels(folder, version):
    """Keep what Numba compiles of one version of the kernels in one place for all snapshots that have it.

    Its index holds the contents of a kernel's file, but not those of the files that it includes: so the place is
    one for each version of all of them. Without it (no home that can be written to) a snapshot compiles for itself.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    place = os.path.join(cache, "kuiper", "kernels", version)
    try:
        os.makedirs(place, exist_ok=True)
        os.symlink(place, os.path.join(folder, KERNELS, "__pycache__"))
    except OSError:
        pass


def put_in_place(made, folder):
    """Rename a folder that is complete; raises OSError unless there is one under that name afterwards."""
    try:
        os.rename(made, folder)
    except OSError:
        if not os.path.isdir(folder):
            raise


def main():
    archive, folder, version = sys.argv[1:]
    try:
        made = tempfile.mkdtemp(prefix=".", dir=os.path.dirname(folder))
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(made)
            share_kernels(made, version)
            put_in_place(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)  # it is in place, or useless
    except OSError as error:
        sys.exit(str(error))
    finally:
        os.unlink(archive)


if __name__ == "__main__":
    main()
