"""Captured content: what was asked and answered, where a policy opted in, scrubbed, bounded and encrypted at rest.

The books keep it as bytes that nobody reads without the keys of the state directory; no log and no receipt has any of it.
"""

from fastroute.capture.content import ANSWER_MAX, PROMPT_MAX, Content, content_of, decode
from fastroute.capture.vault import CaptureError, Vault, installed

__all__ = ["ANSWER_MAX", "PROMPT_MAX", "CaptureError", "Content", "Vault", "content_of", "decode", "installed"]
