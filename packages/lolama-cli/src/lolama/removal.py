"""Deleting models: what was fetched, and what was made of it."""

from __future__ import annotations

import lolama_core
from lolama import downloads, kept, names, unfinished
from lolama_core.protocols.errors import UsageError


def remove(name: str) -> int:
    """Delete a fetched model and what was made of it; bytes freed. Of other models the latter alone.

    Raises:
        UsageError: if nothing of the model is here that lolama may delete.
    """
    if name in names.builtin_models():
        freed = kept.remove(lambda one: one.source == name)
        if not freed:
            reason = "is built in, so there is no download to delete"
            raise UsageError(f"model {name!r}", reason, "`lolama models` lists what is downloaded")
        return freed
    repos = {info.alias: info.repo for info in names.known_models()}
    repo = repos.get(name, name).partition("@")[0]
    try:
        freed = lolama_core.installed_source().remove(name)
    except UsageError:
        meant = {repo} if name in repos else {name, kept.path_of(name)}
        freed = kept.remove(lambda one: one.source in meant)
        if not freed:
            raise
        return freed
    here = _revisions()
    return freed + kept.remove(lambda one: one.source == repo and (repo, one.revision) not in here)


def collect_garbage() -> int:
    """Delete interrupted downloads, commits that were replaced, and leftovers; bytes freed."""
    freed = lolama_core.installed_source().collect_garbage() + unfinished.collect_garbage()
    here = _revisions()
    return freed + kept.collect_garbage(lambda repo, revision: (repo, revision) in here)


def _revisions() -> set[tuple[str, str]]:
    """Repositories that are here, and in which commits."""
    return {(model.repo, model.revision) for model in downloads.stored_models() if model.complete}
