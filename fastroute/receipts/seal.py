"""Receipts are made here: what is known of a request that is over becomes signed bytes, each chained to the one before.

Pure but for the place in the chain, which the sealer keeps; the bookkeeper, who calls it, makes that durable. All of it
is compiled, in `_paper`.
"""

from __future__ import annotations

from fastroute.receipts._paper import Sealer as Sealer
from fastroute.receipts._paper import Signer as Signer
from fastroute.receipts._paper import receipt_id as receipt_id
from fastroute.receipts.told import GENESIS as GENESIS
from fastroute.receipts.told import Sealed as Sealed
