"""The contract between base stations and cloud: messages, bits, bytes, and the account of them.

Importing this package, or any of its modules but `zeromq`, `connect` and `new_keys` of `transport`, brings in neither
zmq nor ray nor torch.
"""
