"""The desk of the house: keys, grants, the budget protocol, idempotent answers, receipts and usage.

It runs beside the book, in the process that keeps the books: each operation is one step, durable before it is answered.
"""
