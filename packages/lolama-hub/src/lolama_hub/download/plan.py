"""Fetching a model: what it takes, whether it fits, its files one after the other, and only then its name.

One file after the other, not several at once: a transfer is bound by the line or by hashing, Ctrl-C ends it
at once, and an interruption leaves one file unfinished.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from lolama_core.protocols.errors import (
    FULL_DISK,
    ModelError,
    NetworkError,
    ResourceError,
    UsageError,
)
from lolama_core.protocols.source import DownloadPlan, FilePlan
from lolama_core.protocols.whole_file import write_whole
from lolama_hub.download import api, hf_cache
from lolama_hub.download.api import RemoteFile
from lolama_hub.download.gguf_choice import choices, choose, memory_available
from lolama_hub.download.selection import CONFIG, has_weights, is_weights, needed_files
from lolama_hub.download.transfer import fetch_file, is_content, verify
from lolama_hub.folder.fields import shown
from lolama_hub.gguf.beginning import BEGINNING, check_beginning
from lolama_hub.store.snapshots import DEFAULT_REF, Snapshots

Progress = Callable[[str, int, int], None]


def plan_download(
    repo: str,
    label: str,
    revision: str,
    snapshots: Snapshots,
    check: Callable[[str, bytes, Collection[str]], None],
) -> DownloadPlan:
    """What fetching ``repo`` would transfer; a few short requests, nothing is written.

    Args:
        repo: ``owner/name``.
        label: Which model, of a repository that has several in GGUF; empty for the one that is here in part,
            else the best one.
        revision: What was asked for; empty for the newest.
        snapshots: Where it would go.
        check: Raises for a config.json (what to call it, its content, the files beside it) that cannot be
            used: nobody is asked to agree to a download that would be in vain.

    Raises:
        LolamaError: see `ModelSource.plan`.
    """
    ref = revision or DEFAULT_REF
    commit = api.find_commit(repo, ref)
    name, remote = _choose(repo, label, api.list_files(repo, commit), snapshots)
    # Whether this user may have it, before anyone is asked to agree to a download.
    api.check_access(repo, commit, remote[0])
    if snapshots.find(name, commit) is not None:
        files = [_planned(file, present=True) for file in remote]
        return DownloadPlan(repo=name, revision=commit, files=tuple(files), ref=ref)
    partial = snapshots.partial_sizes(name, commit)
    files = []
    for file in remote:
        here = partial.get(file.path, 0)
        present = here == file.size or _elsewhere(name, _planned(file), snapshots) is not None
        files.append(_planned(file, present=present, partial=0 if here > file.size else here))
    plan = DownloadPlan(repo=name, revision=commit, files=tuple(files), ref=ref)
    if remote[0].path != CONFIG:
        beginning = api.read_beginning(repo, commit, remote[0], BEGINNING)
        check_beginning(f"{repo}/{remote[0].path}", beginning)
        return plan
    files[0] = _with_config(repo, commit, files[0], snapshots)
    content = files[0].content
    assert content is not None
    check(f"{repo}/{CONFIG}", content, {file.name for file in files})
    return replace(plan, files=tuple(files))


def _choose(
    repo: str, label: str, listed: Sequence[RemoteFile], snapshots: Snapshots
) -> tuple[str, Sequence[RemoteFile]]:
    """What the store calls a model, and its files: those in Hugging Face's layout, or one choice in GGUF.

    Raises:
        ModelError: if there is nothing that could be read, or nothing of that label.
    """
    found = choices(listed) if label or not has_weights(listed) else {}
    if not found and not label:
        return repo, needed_files(repo, listed)
    if not found:
        reason = f"holds no model in GGUF, so none called {shown(label)}"
        raise ModelError(repo, reason, f"say {repo} alone")
    here = [name.partition(":")[2] for name in snapshots.labels(repo)]
    begun = next((one for one in here if one in found), "")
    label = choose(repo, found, label or begun, memory_available())
    return f"{repo}:{label}", found[label]


def _hub_id(repo: str) -> str:
    """What the Hub calls it."""
    return repo.partition(":")[0]


def _planned(file: RemoteFile, *, present: bool = False, partial: int = 0) -> FilePlan:
    return FilePlan(
        name=file.path,
        size=file.size,
        present=present,
        partial=0 if present else partial,
        digest=file.digest,
    )


def _with_config(repo: str, commit: str, planned: FilePlan, snapshots: Snapshots) -> FilePlan:
    """The plan of config.json with its content, which `fetch_plan` then need not fetch again."""
    file = RemoteFile(planned.name, planned.size, planned.digest)
    for path in (snapshots.staging(repo, commit) / CONFIG, _elsewhere(repo, planned, snapshots)):
        with suppress(OSError):
            if path is not None and verify(path, file):
                return replace(planned, content=path.read_bytes())
    content = api.read_small_file(repo, commit, file)
    if not is_content(content, file):
        reason = f"{file.path} came with another content than the Hub states"
        raise NetworkError(repo, reason, "try again; if it stays so, a proxy may change files")
    return replace(planned, present=True, partial=0, content=content)


def fetch_plan(
    plan: DownloadPlan,
    snapshots: Snapshots,
    confirm: Callable[[DownloadPlan], bool],
    progress: Progress | None,
    check: Callable[[Path], None],
) -> Path:
    """Carry out a plan.

    Args:
        plan: The result of `plan_download`.
        snapshots: Where it goes.
        confirm: Whether to go ahead.
        progress: Is told how each file grows.
        check: Raises if what is in this directory, all but the weights, cannot be used.

    Raises:
        LolamaError: see `ModelSource.fetch`.
    """
    if plan.bytes_to_fetch and not confirm(plan):
        raise UsageError(
            plan.repo, "was not fetched, as you wished", "use `confirm=True` not to be asked"
        )
    with snapshots.lock(plan.repo):
        directory = snapshots.find(plan.repo, plan.revision)
        staging = snapshots.staging(plan.repo, plan.revision)
        tell = progress or _silent
        try:
            if directory is None:  # or else another process was faster
                for file in plan.files:  # so that whoever draws it knows how much it is in all
                    tell(file.name, file.size if file.present else file.partial, file.size)
                snapshots.begin(plan)
                _check_space(plan, snapshots, staging)
                _provide_all(plan, snapshots, staging, tell, check)
                directory = snapshots.publish(plan)
            if plan.ref:
                snapshots.remember(plan.repo, plan.ref, plan.revision)
        except OSError as error:
            raise _disk_error(error, staging) from error
    return directory


def _provide_all(
    plan: DownloadPlan,
    snapshots: Snapshots,
    staging: Path,
    progress: Progress,
    check: Callable[[Path], None],
) -> None:
    """Bring everything into the staging directory; the weights only if the rest can be used."""
    weights = [file for file in plan.files if is_weights(file.name)]
    for file in plan.files:
        if file not in weights:
            _provide(plan, file, snapshots, staging, progress)
    try:
        check(staging)
    except ModelError as error:
        snapshots.discard(plan)
        subject = error.subject.replace(str(staging), plan.repo)
        raise ModelError(subject, error.reason, error.remedy) from error
    for file in weights:
        _provide(plan, file, snapshots, staging, progress)


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
    if file.content is not None:
        write_whole(target, file.content)
        progress(file.name, file.size, file.size)
        return
    source = _elsewhere(plan.repo, file, snapshots)
    if source is not None:
        if not verify(source, remote):
            reason = "is damaged: its content does not match its hash"
            raise ModelError(str(source), reason, "remove it and run again")
        _link(source.resolve(), target)
        progress(file.name, file.size, file.size)
        return
    api.check_access(_hub_id(plan.repo), plan.revision, remote)
    fetch_file(
        _hub_id(plan.repo),
        plan.revision,
        remote,
        target,
        lambda done: progress(file.name, done, file.size),
    )


def _elsewhere(repo: str, file: FilePlan, snapshots: Snapshots) -> Path | None:
    """Where this file is here already: in an older commit, or in Hugging Face's cache."""
    return snapshots.same_content(repo, file) or hf_cache.find_blob(_hub_id(repo), file)


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
    if error.errno in FULL_DISK:
        free = shutil.disk_usage(staging.parent).free
        reason = f"cannot be written: {error.strerror}, {free / 1e9:,.2f} GB free"
        remedy = "free some space or set LOLAMA_HOME to another disk; what has come is kept"
        return ResourceError(str(staging), reason, remedy)
    reason = f"cannot be written: {error.strerror or error}"
    return ResourceError(str(staging), reason, "set LOLAMA_HOME to a directory you may write to")


def _silent(file: str, done: int, size: int) -> None:
    """Report no progress."""
