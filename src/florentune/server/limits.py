"""Every bound of the server in one place; what is beyond one is refused before work is done for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds.

    Images are bounded by `images.MAX_PIXELS` and `images.MAX_ASPECT`, PDF pages by `pdf.PdfReader`.
    """

    body: int = 20 * 2**20
    pages: int = 50
    deadline: float = 60.0
    """From the complete upload to the answer, and for a document that the client waits for."""
    job_deadline: float = 600.0
    waiting: int = 4
    """Images that may wait for each model worker, and documents for each document worker."""
    batch: int = 4
    connections: int = 1024
    uploads: int = 256
    """Bodies that are received at the same time; they go to disk, so this bounds the disk they fill."""
    connect_time: float = 10.0
    header_time: float = 5.0
    body_time: float = 30.0
    write_time: float = 30.0
    """How long a client may leave its answer unread."""
    keep: float = 3600.0
    kept_jobs: int = 64
    grace: float = 20.0
    """How long a stopping server finishes what it has accepted; then it gives the rest up."""
