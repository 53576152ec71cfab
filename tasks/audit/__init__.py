"""The audit log: one entry per fact, each holding the hash of the one before, kept in the ledger for everybody to read.

:mod:`~tasks.audit.entry` says what an entry is, :mod:`~tasks.audit.record` appends what a round has brought,
:mod:`~tasks.audit.verify` checks all of it without trusting the hub.
"""
