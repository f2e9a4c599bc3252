"""What the Hugging Face client raises when the hub is not reached."""

from __future__ import annotations


def hub_errors() -> tuple[type[Exception], ...]:
    """For `except`: no network, refused, not found, or offline by the environment.

    The client's own errors are its HTTP library's, httpx or httpx2 by its version, and some of those no OSError.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    of_library = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    return (HfHubHTTPError, of_library, LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError, TimeoutError)
