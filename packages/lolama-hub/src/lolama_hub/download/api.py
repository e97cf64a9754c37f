"""What the Hub says about a repository: its commit, and its files with sizes and content hashes.

huggingface_hub brings the session (proxies, certificates, connections), the token and the addresses.
Everything that comes back is checked here: it is input like any other.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

import httpx2

from lolama_core.protocols.checks import is_integer
from lolama_core.protocols.errors import AuthorisationError, LolamaError, ModelError, NetworkError
from lolama_core.protocols.types import JSON
from lolama_hub.__about__ import __version__
from lolama_hub.download.addresses import is_web_address, join, origin
from lolama_hub.download.errors import (
    NO_RESPONSE,
    NOT_A_HUB,
    NOT_A_HUB_REMEDY,
    failure,
    refusal,
    session,
)
from lolama_hub.download.hugging_face import constants, endpoint, get_token
from lolama_hub.download.retries import Retries, TransientError
from lolama_hub.folder.fields import shown

T = TypeVar("T")

# Nobody there, or nothing to send: both stay so for a while.
_NOT_TRIED_AGAIN = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.ProxyError,
)

_LARGEST_ANSWER = 32 * 2**20
_SLOWEST_ANSWER = 60.0
_MOST_PAGES = 100
_MOST_REDIRECTS = 10
# Where a mirror may send us to, with the token.
_HUBS = ("https://huggingface.co", "https://hf.co")
_LONGEST_PATH = 255
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="next"')


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository. ``digest`` is ``sha256:`` or ``git-sha1:`` and hexadecimal digits."""

    path: str
    size: int
    digest: str


def offline() -> bool:
    """Whether the environment forbids connections (``HF_HUB_OFFLINE``)."""
    return bool(constants.is_offline_mode())


def find_commit(repo: str, revision: str) -> str:
    """The commit that a branch, tag or commit names.

    Raises:
        AuthorisationError: if the repository is missing, private or gated for this user.
        NetworkError: if there is no such revision, or the Hub cannot be reached.
    """
    url = f"{endpoint()}/api/models/{repo}/revision/{quote(revision, safe='')}"
    answer, _ = _get_json(url, repo, revision)
    sha = answer.get("sha") if isinstance(answer, dict) else None
    if not isinstance(sha, str) or not _COMMIT.fullmatch(sha):
        raise _not_a_hub(repo, "states no commit")
    return sha


def list_files(repo: str, commit: str) -> list[RemoteFile]:
    """Every file of a repository at a commit.

    Raises:
        ModelError: for a path that could mean a place outside a folder.
        NetworkError: for anything that is not such a listing.
    """
    url = f"{endpoint()}/api/models/{repo}/tree/{commit}?recursive=true&expand=false"
    files: list[RemoteFile] = []
    for _ in range(_MOST_PAGES):
        entries, following = _get_json(url, repo, "")
        if not isinstance(entries, list):
            raise _not_a_hub(repo, "lists no files")
        files += [_file(repo, entry) for entry in entries if _is_file(entry)]
        if not following:
            return files
        # The Hub names itself even where a mirror stands in for it.
        url = following.replace(_HUBS[0], endpoint(), 1)
        if not is_web_address(url) or origin(url) != origin(endpoint()):
            raise _not_a_hub(repo, f"continues its list at {origin(url)}")
    raise _not_a_hub(repo, f"lists files on more than {_MOST_PAGES} pages")


def check_access(repo: str, commit: str, file: RemoteFile) -> None:
    """Ask the Hub about one file without fetching it; everything it says must agree with its list.

    Raises:
        AuthorisationError: if this user may not have it.
        NetworkError: if what answers is not a hub, or contradicts itself.
    """
    url = file_url(repo, commit, file)
    headers = retried(lambda: _head(url, repo, file.path), repo, url)
    found_commit = headers.get("X-Repo-Commit")
    etag = headers.get("X-Linked-Etag") or headers.get("ETag")
    if found_commit is None or etag is None:
        raise _not_a_hub(repo, f"states no commit or no ETag for {file.path}")
    if found_commit != commit:
        raise _not_a_hub(repo, f"has {file.path} of another commit")
    etag = etag.removeprefix("W/").strip('"')
    if not (_COMMIT.fullmatch(etag) or _SHA256.fullmatch(etag)):
        raise _not_a_hub(repo, f"has the ETag {shown(etag)} for {file.path}")
    if file.digest.startswith("sha256:") and file.digest != f"sha256:{etag}":
        raise _not_a_hub(repo, f"states two hashes for {file.path}")
    size = headers.get("X-Linked-Size") or headers.get("Content-Length", "")
    if ("Location" not in headers or "X-Linked-Size" in headers) and size != str(file.size):
        raise _not_a_hub(repo, f"states the sizes {file.size} and {shown(size)} for {file.path}")


def read_small_file(repo: str, commit: str, file: RemoteFile) -> bytes:
    """The content of a file, of its size if not checked any further.

    Raises:
        ModelError: if it is too large to be what its name says.
        AuthorisationError: if this user may not have it.
        NetworkError: if it did not come.
    """
    if file.size > _LARGEST_ANSWER:
        reason = f"its {file.path} has {file.size:,} bytes"
        raise ModelError(repo, reason, "choose another repository")
    url = file_url(repo, commit, file)
    body, _ = retried(lambda: _get(url, repo, file.path), repo, url)
    if len(body) != file.size:
        what = "a web page" if _is_web_page(body) else f"{len(body)} bytes"
        raise _not_a_hub(repo, f"sends {what} for {file.path}, which has {file.size} bytes")
    return body


def read_beginning(repo: str, commit: str, file: RemoteFile, count: int) -> bytes:
    """The first ``count`` bytes of a file, or some more. Errors are those of `read_small_file`."""
    url = file_url(repo, commit, file)
    return retried(lambda: _get(url, repo, file.path, count), repo, url)[0]


def file_url(repo: str, commit: str, file: RemoteFile) -> str:
    """Where the Hub has a file, or sends on to where it is."""
    return f"{endpoint()}/{repo}/resolve/{commit}/{quote(file.path)}"


def request_headers() -> dict[str, str]:
    """The headers of every request: who asks, and the user's token if there is one.

    huggingface_hub would build them too, but asks the Hub for a list of its own first, once a day.

    Raises:
        AuthorisationError: for a token that cannot stand in a header. It is not shown.
    """
    # Ranges and sizes are those of the file itself, not of a compressed form.
    headers = {"User-Agent": f"lolama-hub/{__version__}", "Accept-Encoding": "identity"}
    subject, remedy = "the Hugging Face token", "set HF_TOKEN to a valid token"
    try:
        token = get_token()
    except (OSError, ValueError) as error:
        reason = f"its file cannot be read ({type(error).__name__})"
        raise AuthorisationError(subject, reason, remedy) from None
    if not token:
        return headers
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise AuthorisationError(subject, "holds characters that no token has", remedy)
    return {**headers, "Authorization": f"Bearer {token}"}


def _head(url: str, repo: str, path: str) -> httpx2.Headers:
    """What the Hub says about a file: the headers of its last response before it sends us elsewhere."""
    for _ in range(_MOST_REDIRECTS):
        response = session().request(
            "HEAD",
            url,
            headers=request_headers(),
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
            follow_redirects=False,
        )
        if not response.has_redirect_location:
            if response.status_code != 200:
                raise refusal(response, repo, path)
            return response.headers
        target = join(url, response.headers["Location"])
        if origin(target) not in (origin(url), *_HUBS):
            return response.headers
        url = target
    raise _not_a_hub(repo, f"redirects without end for {path}")


def retried(attempt: Callable[[], T], repo: str, url: str) -> T:
    """Run a request until it succeeds, or fails for good. A first connection that fails is not retried.

    Raises:
        LolamaError: what the last failure means.
    """
    retries = Retries()
    while True:
        try:
            return attempt()
        except TransientError as problem:
            found = problem
        except NO_RESPONSE as error:
            failed = failure(error, repo, url)
            if isinstance(failed, LolamaError):
                raise failed from error
            if isinstance(error, _NOT_TRIED_AGAIN):
                raise failed.error from error
            found = failed
        retries.failed(found)


def _get_json(url: str, repo: str, what: str) -> tuple[JSON, str]:
    """The JSON at an address of the Hub, and the address of the next page, if any."""
    body, headers = retried(lambda: _get(url, repo, what), repo, url)
    match = _NEXT.search(headers.get("Link", ""))
    try:
        return json.loads(body), match[1] if match else ""
    except (ValueError, RecursionError):
        found = "answers with a web page" if _is_web_page(body) else "answers no JSON"
        raise _not_a_hub(repo, found) from None


def _get(url: str, repo: str, what: str, enough: int = 1 << 40) -> tuple[bytes, httpx2.Headers]:
    """What is at an address, of a size that fits into memory; ``enough`` of it or all."""
    deadline = time.monotonic() + _SLOWEST_ANSWER
    with session().stream(
        "GET", url, headers=request_headers(), timeout=constants.HF_HUB_ETAG_TIMEOUT
    ) as response:
        if response.status_code != 200:
            raise refusal(response, repo, what)
        body, pieces = bytearray(), response.iter_bytes()
        while len(body) < enough and (piece := next(pieces, b"")):
            body += piece
            if len(body) > _LARGEST_ANSWER or time.monotonic() > deadline:
                raise _not_a_hub(repo, "does not come to an end")
        return bytes(body), response.headers


def _is_web_page(body: bytes) -> bool:
    return body[:512].lstrip().startswith(b"<")


def _is_file(entry: JSON) -> bool:
    return not (isinstance(entry, dict) and entry.get("type") == "directory")


def _file(repo: str, entry: JSON) -> RemoteFile:
    if not isinstance(entry, dict):
        raise _not_a_hub(repo, "lists something that is no file")
    path, size, oid, lfs = (entry.get(key) for key in ("path", "size", "oid", "lfs"))
    digest = ""
    if isinstance(lfs, dict):
        oid, size = lfs.get("oid"), lfs.get("size")
        if isinstance(oid, str) and _SHA256.fullmatch(oid):
            digest = f"sha256:{oid}"
    elif isinstance(oid, str) and _COMMIT.fullmatch(oid):
        digest = f"git-sha1:{oid}"
    if not isinstance(path, str) or not digest:
        raise _not_a_hub(repo, f"states no hash for {shown(path)}")
    if not is_integer(size, 0, 2**50 - 1):
        raise _not_a_hub(repo, f"states the size {shown(size)} for {shown(path)}")
    if not _is_inside(path):
        reason = f"lists a file named {shown(path)}, which is no name inside a folder"
        raise ModelError(repo, reason, "do not use this repository")
    return RemoteFile(path, size, digest)


def _is_inside(path: str) -> bool:
    """Whether a path from a listing can only mean a place below the folder it is put in."""
    parts = path.split("/")
    return (
        path.isprintable()
        and len(path.encode()) <= _LONGEST_PATH
        and not set(path) & set('\\:*?"<>|')
        and not {"", ".", ".."} & set(parts)
    )


def _not_a_hub(repo: str, found: str) -> LolamaError:
    reason = f"{NOT_A_HUB}: {origin(endpoint())} {found}"
    return NetworkError(repo, reason, NOT_A_HUB_REMEDY)
