"""Receipts: the signed, chained account of each request, from placement to settlement, and the proof that it is whole."""

from __future__ import annotations

from fastroute.receipts.canonical import ReceiptError, canonical, parse
from fastroute.receipts.chain import ChainFault, ChainReport, verify_chain
from fastroute.receipts.describe import describe
from fastroute.receipts.keys import Keyring, add_key, load_keys, open_keys
from fastroute.receipts.mirror import Mirror, is_receipt_id
from fastroute.receipts.seal import GENESIS, Sealed, Sealer, receipt_id
from fastroute.receipts.told import AttemptLine, Charge, Particulars
from fastroute.receipts.verify import Proof, verify

__all__ = [
    "GENESIS",
    "AttemptLine",
    "ChainFault",
    "ChainReport",
    "Charge",
    "Keyring",
    "Mirror",
    "Particulars",
    "Proof",
    "ReceiptError",
    "Sealed",
    "Sealer",
    "add_key",
    "canonical",
    "describe",
    "is_receipt_id",
    "load_keys",
    "open_keys",
    "parse",
    "receipt_id",
    "verify",
    "verify_chain",
]
