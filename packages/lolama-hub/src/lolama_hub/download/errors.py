"""What goes wrong between here and the Hub, as typed errors that name neither tokens nor signed addresses."""

from __future__ import annotations

import contextlib
import re
import urllib.request
from urllib.parse import urlsplit

import httpx2

from lolama_core.protocols.errors import (
    AuthorisationError,
    LolamaError,
    NetworkError,
)
from lolama_hub.download.addresses import for_people, is_web_address, origin
from lolama_hub.download.hugging_face import endpoint, get_session, get_token
from lolama_hub.download.retries import TransientError

NO_RESPONSE = (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError)
"""What a request raises that got no response; UnicodeError for a host whose name cannot be looked up."""

_BUSY = (408, 425, 429, 500, 502, 503, 504)
NOT_A_HUB = "what answers is not a hub"
NOT_A_HUB_REMEDY = "check HF_ENDPOINT, and whether a login page or proxy stands in between"


def refusal(response: httpx2.Response, repo: str, what: str) -> LolamaError | TransientError:
    """What to make of a response that is not a success.

    Args:
        response: The response of the Hub, or of the file server that it sent us to.
        repo: ``owner/name``.
        what: What was asked for, for messages: a file's name, or the revision.
    """
    status = response.status_code
    subject = f"{repo}: {what}" if what else repo
    server = origin(str(response.url))
    if status in _BUSY:
        reason = f"{server} answers HTTP {status}" + (
            " (too many requests)" if status == 429 else ""
        )
        wait = _asked_to_wait(response)
        if wait is not None:
            reason += f" and asks to wait {wait:g} s"
        return TransientError(NetworkError(subject, reason, "try again later"), wait)
    if server != origin(endpoint()):
        # An address that the Hub signed for a while; it will sign another.
        reason = f"the file server {server} answers HTTP {status}"
        return TransientError(NetworkError(subject, reason, "try again later"))
    return _refused_by_hub(response, repo, what, subject)


def _refused_by_hub(response: httpx2.Response, repo: str, what: str, subject: str) -> LolamaError:
    status = response.status_code
    code = response.headers.get("X-Error-Code", "")
    page = for_people(f"{endpoint()}/{repo}")
    if code == "GatedRepo":
        if status == 401 or get_token() is None:
            remedy = f"accept its license at {page} and set HF_TOKEN to a token of yours"
            return AuthorisationError(
                repo, "is gated: its license has to be accepted first", remedy
            )
        return AuthorisationError(
            repo, "is gated, and your token has no access to it", f"ask for access at {page}"
        )
    if code == "RevisionNotFound":
        return NetworkError(repo, f"has no revision {what!a:.80}", f"see {page} for those it has")
    if code == "EntryNotFound":
        return NetworkError(subject, "is listed but not there", "try again later")
    invalid = "invalid" in response.headers.get("X-Error-Message", "").lower()
    if status == 401 and (invalid or (not code and get_token() is not None)):
        remedy = "set HF_TOKEN to a valid token, or unset it for public models"
        return AuthorisationError(repo, "the Hub does not accept your token", remedy)
    if code == "RepoNotFound" or status == 401:
        remedy = "check the spelling; for a private model set HF_TOKEN"
        return AuthorisationError(repo, "is missing or private on the Hub", remedy)
    if status == 403:
        return AuthorisationError(repo, "the Hub refuses access (HTTP 403)", f"see {page}")
    reason = f"{NOT_A_HUB}: {origin(endpoint())} says HTTP {status}"
    return NetworkError(subject, reason, NOT_A_HUB_REMEDY)


def _asked_to_wait(response: httpx2.Response) -> float | None:
    """Seconds, from ``Retry-After`` or from the Hub's ``RateLimit: ...;t=seconds``."""
    for header, pattern in (("Retry-After", r"(\d{1,6})"), ("RateLimit", r".*\bt=(\d{1,6})\b.*")):
        match = re.fullmatch(pattern, response.headers.get(header, "").strip())
        if match:
            return float(match[1])
    return None


def session() -> httpx2.Client:
    """huggingface_hub's session: it knows proxies and certificates.

    Raises:
        NetworkError: if the environment names a proxy that is none, which is not shown, since it may hold a
            password, or certificates that are none.
    """
    try:
        return get_session()
    except (httpx2.InvalidURL, ValueError, ImportError) as error:
        reason = "name no proxy that could be used"
        if isinstance(error, ImportError):
            reason = "name a SOCKS proxy, which needs the package socksio"
        remedy = "correct or unset HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY"
        raise NetworkError("the proxy settings", reason, remedy) from None
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        raise NetworkError(
            "the certificates", reason, "correct or unset SSL_CERT_FILE and SSL_CERT_DIR"
        ) from None


def failure(error: Exception, repo: str, url: str) -> LolamaError | TransientError:
    """What to make of a request that got no response, or not all of it.

    Args:
        error: One of `NO_RESPONSE`.
        repo: ``owner/name``.
        url: What was asked for; redirects may have led elsewhere.
    """
    server = origin(url)
    with contextlib.suppress(AttributeError, RuntimeError):  # not every error knows its request
        url = str(error.request.url)  # type: ignore[attr-defined] # HTTPError has one
    if _is_bad_redirect(error) or not is_web_address(url):
        reason = f"{NOT_A_HUB}: {server} sends us on to an address that is none"
        return NetworkError(repo, reason, NOT_A_HUB_REMEDY)
    if isinstance(error, httpx2.TooManyRedirects):
        reason = f"{NOT_A_HUB}: {server} redirects without end"
        return NetworkError(repo, reason, NOT_A_HUB_REMEDY)
    server = origin(url)
    proxy = _proxy_for(url)
    if isinstance(error, httpx2.ProxyError | httpx2.ConnectError | httpx2.ConnectTimeout):
        if proxy:
            reason = f"cannot reach {server} through the proxy {origin(proxy)}"
            return TransientError(
                NetworkError(repo, reason, "check the proxy settings (HTTPS_PROXY, HTTP_PROXY)")
            )
        reason = f"cannot reach {server}: {_connect_problem(error)}"
        return TransientError(
            NetworkError(repo, reason, "check the network, or use a model that is here already")
        )
    if isinstance(error, httpx2.TimeoutException):
        return TransientError(
            NetworkError(repo, f"{server} has stopped sending", "try again later")
        )
    reason = f"the connection to {server} broke ({type(error).__name__})"
    return TransientError(NetworkError(repo, reason, "try again; it goes on where it stopped"))


def _is_bad_redirect(error: Exception) -> bool:
    """Whether a request led to no web address. Its own was one, so it was a response that led there."""
    if isinstance(error, httpx2.RemoteProtocolError):
        return "location" in str(error)  # httpx's words for a Location that it cannot parse
    return isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL | UnicodeError)


def _proxy_for(url: str) -> str:
    """The proxy that the environment names for an address, or nothing."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme, "") or proxies.get("all", "")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _connect_problem(error: Exception) -> str:
    text = str(error).lower()
    if "name or service" in text or "nodename" in text or "name resolution" in text:
        return "there is no such host, or no name server answers"
    if "refused" in text:
        return "nobody listens there"
    if "certificate" in text or "ssl" in text:
        return "no secure connection"
    return "no connection"
