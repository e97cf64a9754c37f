"""Fetching a model: what it takes, whether it fits, its files one after the other, and only then its name.

One file after the other, not several at once: a transfer is bound by the line or by hashing, Ctrl-C ends it
at once, and an interruption leaves one file unfinished.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from lolama_core.protocols.errors import ModelError, ResourceError, UsageError
from lolama_core.protocols.types import DownloadPlan, FilePlan
from lolama_hub import hf_cache, hub_api
from lolama_hub.hub_api import RemoteFile
from lolama_hub.selection import needed_files
from lolama_hub.snapshots import DEFAULT_REF, Snapshots
from lolama_hub.transfer import fetch_file, verify

Progress = Callable[[str, int, int], None]

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def plan_download(repo: str, revision: str, snapshots: Snapshots) -> DownloadPlan:
    """What fetching ``repo`` would transfer; three short requests, nothing is written.

    Raises:
        LolamaError: see `ModelSource.plan`.
    """
    ref = revision or DEFAULT_REF
    commit = hub_api.find_commit(repo, ref)
    remote = needed_files(repo, hub_api.list_files(repo, commit))
    # Whether this user may have it, before anyone is asked to agree to a download.
    hub_api.check_access(repo, commit, remote[0])
    whole = snapshots.find(repo, commit) is not None
    partial = {} if whole else snapshots.partial_sizes(repo, commit)
    files = []
    for file in remote:
        planned = FilePlan(name=file.path, size=file.size, present=whole, digest=file.digest)
        here = partial.get(file.path, 0)
        present = whole or here == file.size or _elsewhere(repo, planned, snapshots) is not None
        files.append(
            FilePlan(
                name=file.path,
                size=file.size,
                present=present,
                partial=0 if present or here > file.size else here,
                digest=file.digest,
            )
        )
    return DownloadPlan(repo=repo, revision=commit, files=tuple(files), ref=ref)


def fetch_plan(
    plan: DownloadPlan,
    snapshots: Snapshots,
    confirm: Callable[[DownloadPlan], bool],
    progress: Progress | None,
) -> Path:
    """Carry out a plan.

    Raises:
        LolamaError: see `ModelSource.fetch`.
    """
    if plan.bytes_to_fetch and not confirm(plan):
        raise UsageError(plan.repo, "was not fetched, as you wished", "use --yes not to be asked")
    with snapshots.lock(plan.repo):
        directory = snapshots.find(plan.repo, plan.revision)
        if directory is None:  # or else another process was faster
            staging = snapshots.staging(plan.repo, plan.revision)
            tell = progress or _silent
            for file in plan.files:  # so that whoever draws it knows how much it is in all
                tell(file.name, file.size if file.present else file.partial, file.size)
            try:
                snapshots.begin(plan)
                _check_space(plan, snapshots, staging)
                for file in plan.files:
                    _provide(plan, file, snapshots, staging, tell)
                directory = snapshots.publish(plan)
            except OSError as error:
                raise _disk_error(error, staging) from error
        if plan.ref:
            snapshots.remember(plan.repo, plan.ref, plan.revision)
    return directory


def _provide(
    plan: DownloadPlan, file: FilePlan, snapshots: Snapshots, staging: Path, progress: Progress
) -> None:
    """Bring one file into the staging directory, verified: it is there, or elsewhere here, or fetched."""
    target = staging / file.name
    remote = RemoteFile(file.name, file.size, file.digest)
    if target.exists():
        if verify(target, remote):
            progress(file.name, file.size, file.size)
            return
        target.unlink()
    source = _elsewhere(plan.repo, file, snapshots)
    if source is not None:
        if not verify(source, remote):
            reason = "is damaged: its content does not match its hash"
            raise ModelError(str(source), reason, "remove it and run again")
        _link(source.resolve(), target)
        progress(file.name, file.size, file.size)
        return
    hub_api.check_access(plan.repo, plan.revision, remote)
    fetch_file(
        plan.repo,
        plan.revision,
        remote,
        target,
        lambda done: progress(file.name, done, file.size),
    )


def _elsewhere(repo: str, file: FilePlan, snapshots: Snapshots) -> Path | None:
    """Where this file is here already: in an older commit, or in Hugging Face's cache."""
    return snapshots.same_content(repo, file) or hf_cache.find_blob(repo, file)


def _link(source: Path, target: Path) -> None:
    """A second name for the same content; a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _check_space(plan: DownloadPlan, snapshots: Snapshots, staging: Path) -> None:
    partial = snapshots.partial_sizes(plan.repo, plan.revision)
    needed = sum(
        max(file.size - partial.get(file.name, 0), 0)
        for file in plan.files
        if _elsewhere(plan.repo, file, snapshots) is None
    )
    free = shutil.disk_usage(staging).free
    if needed > free:
        raise ResourceError(
            plan.repo,
            f"needs {needed / 1e9:,.2f} GB, but {staging.parent} has {free / 1e9:,.2f} GB free",
            "free some space or set LOLAMA_HOME to another disk",
        )


def _disk_error(error: OSError, staging: Path) -> ResourceError:
    if error.errno in _FULL_DISK:
        free = shutil.disk_usage(staging.parent).free
        reason = f"cannot be written: {error.strerror}, {free / 1e9:,.2f} GB free"
        remedy = "free some space or set LOLAMA_HOME to another disk; what has come is kept"
        return ResourceError(str(staging), reason, remedy)
    reason = f"cannot be written: {error.strerror or error}"
    return ResourceError(str(staging), reason, "set LOLAMA_HOME to a directory you may write to")


def _silent(file: str, done: int, size: int) -> None:
    """For callers who do not want to know."""
