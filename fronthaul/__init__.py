"""The contract between base stations and cloud: messages, bits, bytes, and their accounting.

Importing this package or any of its modules imports none of zmq, ray and torch, except for `zeromq`, `connect` and
`new_keys` in `transport`.
"""
