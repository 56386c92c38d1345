"""What can go wrong, and the exit code the command line gives each kind.

    FlorentuneError            exit 2   every error a user can cause or must act on
    ├── InputError             exit 2   a file, field or argument is not what it must be
    │   ├── AnnotationError    exit 2   a data set file
    │   ├── ConfigError        exit 2   a training configuration
    │   ├── ImageError         exit 2   an image
    │   ├── PdfError           exit 2   a PDF
    │   └── CheckpointError    exit 2   a model folder
    ├── MissingExtraError      exit 3   an optional dependency is not installed
    ├── NonFiniteError         exit 4   the loss or a weight is NaN or infinite
    ├── DiskFullError          exit 5   no room for what must be written
    ├── OutOfMemoryError       exit 6   the smallest micro-batch does not fit
    └── GenerationError        exit 7   the model gave nothing that can be decoded

Exit 0 is success, 1 means the command ran and found something wrong (a defect in a data set, a document that
failed), 130 and 143 mean that SIGINT or SIGTERM stopped it after it saved its work.
"""

from __future__ import annotations


class FlorentuneError(Exception):
    """Base of all errors this package raises on purpose; its text is shown as it is, without a traceback."""

    exit_code = 2


class InputError(FlorentuneError):
    """A file, field or argument is not what it must be. The text names file, field and remedy.

    `reason` is a stable code for records of many files ("truncated", "password", ...).
    """

    reason = "bad_input"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class AnnotationError(InputError):
    """A data set file cannot be read as what it claims to be."""


class ConfigError(InputError):
    """A training configuration is wrong; the text lists every problem, not just the first."""


class ImageError(InputError):
    """An image cannot be decoded or is beyond the limits."""


class PdfError(InputError):
    """A PDF cannot be opened or rendered."""


class CheckpointError(InputError):
    """A model folder is incomplete, inconsistent or unsafe to load."""


class MissingExtraError(FlorentuneError):
    """An optional dependency is missing; the text is the pip command that installs it."""

    exit_code = 3

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'florentune[{extra}]'")


class NonFiniteError(FlorentuneError):
    """The loss, a gradient or a weight is NaN or infinite and training cannot go on."""

    exit_code = 4


class DiskFullError(FlorentuneError):
    """There is no room for what must be written; the text names the path and the bytes."""

    exit_code = 5


class OutOfMemoryError(FlorentuneError):
    """Even the smallest micro-batch does not fit into memory."""

    exit_code = 6


class GenerationError(FlorentuneError):
    """The model gave nothing that can be decoded (for example only NaN logits)."""

    exit_code = 7
